"""`lockforge plan`: what `protect` would do, before it does."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from lockforge.cli._runtime import Runtime
from lockforge.cli._stages import (
    AsJson,
    Auxiliary,
    Overrides,
    OwnModel,
    OwnWeights,
    Public,
    Skip,
    Targets,
    begin,
    gathered,
    own_model,
    places_of,
)

if TYPE_CHECKING:
    from lockforge.plan.estimate import Line, Plan


def plan(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a YAML file.")
    ],
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="The owner's data; none is the built-in digits."),
    ] = None,
    auxiliary: Auxiliary = None,
    target: Targets = None,
    public: Public = None,
    model: OwnModel = None,
    weights: OwnWeights = None,
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Measure this machine again: about ten seconds.")
    ] = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Say what protect would do with these arguments: trainings, time and memory here (estimates),
    and what is done already.
    """
    from lockforge.cli._console import answer

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    own = own_model(model, weights)
    with terminal:
        roles = gathered(places_of(source, auxiliary, target), settings, do, terminal)
        from lockforge.plan.estimate import as_json, calibrated, make_plan

        again = calibrated(settings, do, again=recalibrate)
        found = make_plan(
            settings, roles, do, tuple(public or ()), own, workers=runtime.workers, calibrate=again
        )
    if json:
        answer(as_json(found))
        return
    asked = [*([source] if source else []), "--recipe", recipe, *runtime.words()]
    named = {
        "--auxiliary": auxiliary,
        "--target": target,
        "--public": public,
        "--set": set_,
        "--model": [model] if model else None,
    }
    asked += [
        word for name, values in named.items() for value in values or () for word in (name, value)
    ]
    asked += [
        *(["--weights", str(weights)] if weights else []),
        *(["--skip-unreadable"] if skip_unreadable else []),
    ]
    _show(found, shlex.join(["lockforge", "protect", *asked]))


def _show(found: "Plan", command: str) -> None:
    """A line a question, then what is left in all, and what to do next: the command that does
    it.
    """
    from lockforge.cli._console import console_of, table_of
    from lockforge.plan.speeds import told

    table = table_of("stage", "on", "trainings", "steps", "images passed", "estimated", "state")
    table.columns[1].justify = "left"
    table.columns[6].justify = "left"
    for line in found.lines:
        one = line.question
        table.add_row(
            one.stage,
            one.on,
            f"{one.effort.trainings:,}" if one.effort.trainings else "-",
            f"{one.effort.steps:,}" if one.effort.steps else "-",
            f"{one.effort.passed:,}" if one.effort.passed else "-",
            "-" if one.state == "done" else told(line.left),
            _state(line),
            style="dim" if one.state == "done" else "",
        )
    console = console_of(120)
    console.print(table)
    console.print()
    if all(line.question.state == "done" for line in found.lines):
        console.print(
            f"everything is done; this only writes the release: {command}",
            markup=False,
            soft_wrap=True,
        )
        return
    console.print(
        f"time       about {told(found.seconds)}, from {told(found.low)} to {told(found.high)}: "
        f"an estimate ({_means(found)})",
        soft_wrap=True,
    )
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in found.memory.items() if size)
    console.print(
        f"memory     about {_bytes(found.peak)} at its peak ({parts}); "
        f"{_bytes(found.free_memory)} are free",
        soft_wrap=True,
    )
    console.print(
        f"           {_bytes(found.mapped)} of images are read from files, and dropped where "
        "memory is short"
    )
    console.print(
        f"disk       about {_bytes(found.disk)} to write; {_bytes(found.free_disk)} are free"
    )
    if found.peak > found.free_memory:
        console.print(
            "[yellow]this may not fit into memory: give a smaller batch, smaller images "
            "(data.size), fewer of them "
            "(data.limit_per_class) or fewer threads (--set threads=1)[/]"
        )
    if found.disk > found.free_disk:
        console.print("[yellow]this will not fit on the disk: give another folder with --runs[/]")
    console.print(f"next       {command}", markup=False, soft_wrap=True)


def _means(found: "Plan") -> str:
    """What the estimate rests on."""
    typical = any(line.question.typical for line in found.lines)
    cell = "; the cell is not chosen yet, so a typical one is taken" if typical else ""
    return f"calibrated here, {found.workers} piece(s) side by side{cell}"


def _state(line: "Line") -> str:
    one = line.question
    if one.state == "done":
        return f"done in {one.spent:.1f} s"
    if one.state == "to do":
        return "to do"
    return f"{one.state}, {one.share:.0%} done"


def _bytes(size: int) -> str:
    """A size in words.

    >>> _bytes(2_000_000), _bytes(1_250_000_000)
    ('2 MB', '1.2 GB')
    """
    return (
        f"{size / 1e9:.1f} GB"
        if size >= 1e9
        else f"{max(1, round(size / 1e6))} MB"
        if size
        else "0 MB"
    )
