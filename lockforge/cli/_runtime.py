"""The options of the commands that compute: where results are kept and where the work runs. None of
them changes a result.
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
    """Where results are kept and where the work runs; see `executors.make_executor`."""

    runs: RunsFolder = Path("runs")
    device: Device = "auto"
    executor: Annotated[
        Kind,
        typer.Option(
            "--executor",
            metavar="here|threads|processes|ray",
            help="Where independent tasks run.",
        ),
    ] = "here"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Tasks at once; default: one for each thread of the recipe.",
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="For ray: a running cluster; default: start one on this machine.",
        ),
    ] = None
    gpus: Annotated[
        float,
        typer.Option(
            "--gpus",
            metavar="SHARE",
            help="For ray: GPUs for each task; 0.25 lets four tasks share one.",
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
        """Make the executor that these options describe.

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
        """The options as typed on a command line: the runs folder, the device and whatever differs
        from its default.
        """
        defaults = {
            name: field.default for name, field in inspect.signature(Runtime).parameters.items()
        }
        typed = {
            name: value
            for name, value in vars(self).items()
            if name in {"runs", "device"} or value != defaults[name]
        }
        return [word for name, value in typed.items() for word in (f"--{name}", str(value))]


def with_runtime(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `Runtime` to a command, which receives them as its parameter `runtime`."""
    fields = inspect.signature(Runtime).parameters
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "runtime"
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        runtime = Runtime(**{name: values.pop(name) for name in fields})
        command(**values, runtime=runtime)

    hints = get_type_hints(command, include_extras=True) | get_type_hints(
        Runtime, include_extras=True
    )
    # --help lists options in the order of the signature, and --json stands last everywhere.
    last = [own.pop()] if own[-1].name == "json" else []
    parameters = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in (*own, *fields.values(), *last)
    ]
    # typer reads both the signature and the annotations of the function it registers.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
