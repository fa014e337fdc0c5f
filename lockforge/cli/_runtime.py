"""The options of the commands that work: where answers are kept and where the work is done. None of
them decides the outcome.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lockforge.executors import Kind, make_executor
from lockforge.jobs import Executor

RunsFolder = Annotated[
    Path,
    typer.Option("--runs", metavar="DIR", help="Where finished stages are kept and found again."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Where tensors live; auto takes a GPU if there is one.",
    ),
]


@dataclass(frozen=True)
class Runtime:
    """What was said about the runtime; see `executors.make_executor`."""

    runs: RunsFolder = Path("runs")
    device: Device = "auto"
    executor: Annotated[
        Kind,
        typer.Option(
            "--executor",
            metavar="here|threads|processes|ray",
            help="Where independent pieces of the work are done.",
        ),
    ] = "here"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Pieces at once; none: one a thread of the recipe."
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="For ray: a cluster that is running; none starts one here.",
        ),
    ] = None
    gpus: Annotated[
        float,
        typer.Option(
            "--gpus",
            metavar="SHARE",
            help="For ray: GPUs for each piece, 0.25 where four share one.",
        ),
    ] = 0.0
    share: Annotated[
        str | None,
        typer.Option(
            "--share",
            metavar="URL",
            help="For ray: where files travel, if workers do not see --runs (fsspec).",
        ),
    ] = None

    def make_executor(self) -> Executor:
        """The executor.

        Raises: RecipeError: options that do not belong together. ResourceError: its extra is not
            installed.
        """
        return make_executor(
            self.executor,
            workers=self.workers,
            address=self.address,
            gpus=self.gpus,
            share=self.share,
        )

    def words(self) -> list[str]:
        """The options as they are typed: the folder and the device, and what is not as it is by
        default.
        """
        usual = {
            name: field.default for name, field in inspect.signature(Runtime).parameters.items()
        }
        said = {
            name: value
            for name, value in vars(self).items()
            if name in {"runs", "device"} or value != usual[name]
        }
        return [word for name, value in said.items() for word in (f"--{name}", str(value))]


def with_runtime(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `Runtime` before its last parameter; it gets them as
    `runtime`.
    """
    fields = inspect.signature(Runtime).parameters
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "runtime"]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        runtime = Runtime(**{name: given.pop(name) for name in fields})
        command(**given, runtime=runtime)

    hints = get_type_hints(command, include_extras=True) | get_type_hints(
        Runtime, include_extras=True
    )
    last = [own.pop()] if own[-1].name == "json" else []
    together = [*own, *fields.values(), *last]
    parameters = [one.replace(annotation=hints[one.name]) for one in together]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: hints[one.name] for one in together}
    return run
