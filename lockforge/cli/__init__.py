"""Arguments in, one call, one answer out. Importing this opens neither torch nor scipy.

The answer goes to standard output (as JSON with --json), everything else to standard error, so that
a pipe gets the answer alone.
"""

import sys
import traceback
from types import TracebackType
from typing import NoReturn, cast

import typer
from typer.main import get_command

from lockforge.cli import _admin as house
from lockforge.cli import _plans as plans
from lockforge.cli import _stages as stages
from lockforge.cli._runtime import with_runtime
from lockforge.errors import BUG, InterruptedRunError, LockForgeError, RecipeError, memory_ran_out

USAGE_FAULT = cast(
    "type[Exception]", typer.BadParameter.__base__
)  # typer brings its own click or uses the installed one, by version

app = typer.Typer(
    name="lockforge",
    help="Lock an image model to its own task, then prove what a thief would still get out of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
stages.add_to(app)
app.command()(with_runtime(plans.plan))
house.add_to(app)


def main() -> NoReturn:
    """The command `lockforge`: the one place where errors become messages and exit codes."""
    sys.excepthook = _bug
    try:
        code = get_command(app)(
            standalone_mode=False
        )  # not app(): that would put its own hook in place of ours
        if code == InterruptedRunError.exit_code:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except USAGE_FAULT as error:
        code = _tell(RecipeError(str(error), hint="`lockforge --help` lists commands and options"))
    except LockForgeError as error:
        code = _tell(error)
    except (MemoryError, RuntimeError) as error:
        told = memory_ran_out(error)
        if told is None:
            raise
        code = _tell(told)
    except (KeyboardInterrupt, typer.Abort):
        code = _tell(
            InterruptedRunError(
                "stopped; finished stages are kept",
                hint="run the same command again: it goes on where it stopped",
            )
        )
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: LockForgeError) -> int:
    typer.echo(f"error: {error}", err=True)
    return error.exit_code


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    traceback.print_exception(kind, error, trace)
    typer.echo("this is a bug in LockForge: please report it with the lines above", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    import os

    os._exit(BUG)
