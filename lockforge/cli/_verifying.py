"""What `lockforge verify` does with what it is given: a release, a bare report, a table of curves;
and with `--rerun`.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from lockforge.errors import IntegrityError, RecipeError
from lockforge.records import Check, Verdict

if TYPE_CHECKING:
    from lockforge.evidence.keyless import Identity


@dataclass(frozen=True)
class Asked:
    """A re-run: how many places, the seed that draws them (None draws one), where the images lie,
    and whether nothing is tolerated.

    `exact` None: nothing where provenance.json tells of the same kind of machine.
    """

    places: int
    seed: int | None
    source: str | None
    targets: tuple[str, ...]
    device: str
    exact: bool | None


def look(
    place: Path,
    key: Path | None,
    *,
    trusted: Path | None = None,
    identity: "Identity | None" = None,
    parity: bool,
) -> tuple[Verdict, dict[str, Any] | None]:
    """Verify a release folder, a report or a table of curves; of curves also what follows from
    them.

    Raises: RecipeError: a key for what nobody signs.
    """
    from lockforge import verify

    if place.is_dir() or place.suffix.lower() not in {".json", ".csv"}:
        return verify.verify_release(
            place, key, trusted=trusted, identity=identity, parity=parity
        ), None
    if key or trusted or identity:
        raise RecipeError(
            f"{place} has no signature to check",
            hint="give the release folder, or drop what says who signed it",
        )
    if place.suffix.lower() == ".json":
        return verify.verify_report(place), None
    return verify.verify_curves(place)


def rerun(folder: Path, verdict: Verdict, asked: Asked) -> Verdict:
    """Fit places again, unless the release is not what it was: nothing is run from such a one.

    Raises: RecipeError: no source or target. DataError: other images than were audited.
    """
    if not folder.is_dir() or asked.source is None or not asked.targets:
        raise RecipeError(
            "--rerun needs a release folder, its source's images and a target's",
            hint="give --source PLACE and --target PLACE with it",
        )
    failed = next((check.name for check in verdict.checks if not check.passed), None)
    if failed:
        value = f"not checked, since the {failed} failed"
        return Verdict(
            checks=(
                *verdict.checks,
                Check(name="rerun", value=value, bound="what was stated", passed=False),
            )
        )
    seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
    return Verdict(checks=(*verdict.checks, *_again(folder, asked, asked.source, seed)))


def _again(folder: Path, asked: Asked, source: str, seed: int) -> tuple[Check, ...]:
    from lockforge import pipeline
    from lockforge.cli._console import Terminal
    from lockforge.evidence.manifest import read_limited
    from lockforge.recipe import Recipe
    from lockforge.records import Report

    report = Report.from_json(read_limited(folder / "report.json"))
    exact = pipeline.same_kind(folder, asked.device) if asked.exact is None else asked.exact
    said = f"{asked.places} place(s) drawn by --seed {seed}; " + (
        "the same kind of machine must give their curves to the last digit (--no-exact: another "
        "kind)"
        if exact
        else "another kind of machine"
    )
    drawn = Check(name="rerun", value=said, bound="a seed", passed=True)
    with TemporaryDirectory(prefix="lockforge-rerun-") as runs:
        terminal = Terminal(f"rerun {folder.name}")
        do = pipeline.open_runs(
            Recipe.model_validate(report.recipe), Path(runs), device=asked.device, reporter=terminal
        )
        places = pipeline.Places(source, (), asked.targets)
        try:
            with terminal:
                return (
                    drawn,
                    *pipeline.rerun(folder, report, places, (asked.places, seed), do, exact=exact),
                )
        except IntegrityError as error:
            value = ": ".join((error.message, *error.faults[:1]))
            return (drawn, Check(name="rerun", value=value, bound="what was stated", passed=False))


def show(verdict: Verdict, curves: dict[str, Any] | None, *, as_json: bool) -> None:
    """A line a check, and what follows from curves; as JSON both."""
    from lockforge.gate import printable

    if as_json:
        from lockforge.cli._console import answer

        rows = [check.model_dump() for check in verdict.checks]
        answer(
            {"passed": verdict.passed, "checks": rows}
            | ({} if curves is None else {"curves": curves})
        )
        return
    for check in verdict.checks:
        typer.echo(
            f"{'ok  ' if check.passed else 'FAIL'}  {check.name:<12} {printable(check.value)}"
        )
    for line in (curves or {}).get("lines", ()):
        typer.echo(f"      {printable(line)}")
