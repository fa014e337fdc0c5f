"""Anybody's sample-wise learning curves, as a table: are they possible, and what follows from them?

A CSV file with a header and one row for each fitted setting. Columns: `start` (as in an audit:
release, reference, scratch_release, ...), `attacker`, `setting` (may be left out where each
attacker has one), `seed`, `val_accuracy`, `test_accuracy` (empty where validation did not choose
the setting), and `samples` (training images) or `images_per_class`, or both. A column `area` may
state the area under the curve of a row's start, attacker and seed. Other columns are not looked at.
"""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import (
    SCRATCH,
    advantage,
    areas,
    choose,
    envelope_of,
    in_words,
    name_of,
    removed,
)
from lockforge.evidence.faults import TOLERANCE
from lockforge.evidence.manifest import read_limited
from lockforge.evidence.statistics import t_interval
from lockforge.records import AttackPoint, Start

NEEDED = ("start", "attacker", "seed", "val_accuracy", "test_accuracy")
STATED = 1e-6  # how far a stated area may lie from the points' own: tables are rounded
_MOST_FAULTS = 100
_START: TypeAdapter[str] = TypeAdapter(Start)

Curve = tuple[Start, str, int]  # start, attacker, seed


@dataclass(frozen=True)
class Table:
    """What a table holds, and what is wrong with it: with its form, with its points, with the areas
    it states. A line a fault.
    """

    points: tuple[AttackPoint, ...] = ()
    unreadable: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Read and check a table; a fault of one kind hides those of the kinds after it."""
    try:
        rows, columns = _rows(path)
    except IntegrityError as error:
        return Table(unreadable=(error.message,))
    missing = [name for name in NEEDED if name not in columns]
    if not {"samples", "images_per_class"} & columns:
        missing.append("samples or images_per_class")
    if missing or not rows:
        return Table(
            unreadable=(
                f"columns are missing: {', '.join(missing)}" if missing else "there are no rows",
            )
        )
    points: list[AttackPoint] = []
    stated: list[tuple[Curve, str]] = []
    unreadable: list[str] = []
    impossible: list[str] = []
    for line, row in rows:
        try:
            points.append(_point(row, f"line {line}", impossible))
        except IntegrityError as error:
            unreadable.append(f"line {line}: {error.message}")
            continue
        if row.get("area"):
            stated.append(((points[-1].start, points[-1].attacker, points[-1].seed), row["area"]))
    if unreadable or impossible:
        return Table(
            unreadable=tuple(unreadable[:_MOST_FAULTS]), impossible=tuple(impossible[:_MOST_FAULTS])
        )
    found = tuple(points)
    faults = _impossible(found)
    return Table(found, impossible=faults, unlike=() if faults else tuple(_unlike(found, stated)))


def _rows(path: Path) -> tuple[list[tuple[int, Mapping[str, str]]], set[str]]:
    """Every row with its line, and the names of the columns.

    Raises: IntegrityError: no CSV.
    """
    try:
        reader = csv.DictReader(
            io.StringIO(read_limited(path).decode("utf-8-sig"), newline=""), strict=True
        )
        rows: list[tuple[int, Mapping[str, str]]] = [
            (
                reader.line_num,
                {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
            )
            for row in reader
        ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path.name} is no table: {error}") from error
    return rows, {name for name in reader.fieldnames or () if name}


def _point(row: Mapping[str, str], where: str, impossible: list[str]) -> AttackPoint:
    """A row as a point; accuracies outside [0, 1] are said to be impossible, and stand as 0.

    Raises: IntegrityError: something is not what its column holds.
    """

    def accuracy(name: str) -> float:
        value = _number(row[name], name)
        if not 0 <= value <= 1:
            impossible.append(f"{where}: {name} {value:g} is not in [0, 1]")
            return 0.0
        return value

    try:
        start = _START.validate_python(row["start"])
    except ValidationError:
        raise IntegrityError(
            f"start {row['start']!r} is none that an audit has: see docs/audit.md"
        ) from None
    per_class = _count(row.get("images_per_class", ""), "images_per_class", 0)
    samples = _count(row.get("samples", ""), "samples", per_class)
    if samples < 1:
        raise IntegrityError("samples must be given where images_per_class is 0 (all) or empty")
    return AttackPoint(
        start=start,
        attacker=row["attacker"],
        setting=row.get("setting", ""),
        images_per_class=per_class,
        samples=samples,
        seed=_count(row["seed"], "seed", None),
        steps=0,
        flops=0.0,
        val_accuracy=accuracy("val_accuracy"),
        test_accuracy=accuracy("test_accuracy") if row["test_accuracy"] else None,
    )


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise IntegrityError(f"{name} {text!r} is no number")
    return value


def _count(text: str, name: str, absent: int | None) -> int:
    if not text and absent is not None:
        return absent
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise IntegrityError(f"{name} {text!r} is no count")
    return int(text)


def _impossible(points: Sequence[AttackPoint]) -> tuple[str, ...]:
    """Points given twice, choices made on test, curves on different grids or seeds."""
    names = Counter(name_of(point) for point in points)
    faults = [f"{name} is there {count} times" for name, count in names.items() if count > 1]
    chosen = set(choose(points))
    for point in points:
        if point.test_accuracy is not None and point not in chosen:
            faults.append(
                f"{name_of(point)} was tested although validation did not choose it: a selection "
                "made on test"
            )
        elif point.test_accuracy is None and point in chosen:
            faults.append(f"{name_of(point)} was chosen by validation but has no test accuracy")
    if not faults:
        try:
            envelope_of(points, tuple({point.start for point in points}))
        except IntegrityError as error:
            faults.append(error.message)
    return tuple(faults[:_MOST_FAULTS])


def _unlike(points: Sequence[AttackPoint], stated: Sequence[tuple[Curve, str]]) -> list[str]:
    """Stated areas that no curve on this grid can have, and those that are not this curve's."""
    grid = sorted({point.samples for point in points})
    most = math.log(grid[-1] / grid[0])
    own: dict[Curve, float] = {}
    for start, attacker in sorted({(point.start, point.attacker) for point in points}):
        mine = [point for point in points if (point.start, point.attacker) == (start, attacker)]
        seeds = sorted({point.seed for point in mine})
        own |= {
            (start, attacker, seed): area
            for seed, area in zip(seeds, areas(envelope_of(mine, (start,))), strict=True)
        }
    faults: dict[str, None] = {}
    for curve, text in stated:
        name = f"area of {curve[0]}:{curve[1]}, seed {curve[2]}"
        try:
            value = _number(text, name)
        except IntegrityError as error:
            faults[error.message] = None
            continue
        if not -TOLERANCE <= value <= most + STATED:
            faults[f"{name}: {value:g} is beyond {most:.6g}, the most that this grid allows"] = None
        elif abs(value - own[curve]) > STATED:
            faults[f"{name}: {value:g} stated, its points give {own[curve]:.6g}"] = None
    return list(faults)[:_MOST_FAULTS]


def figures_of(points: Sequence[AttackPoint]) -> dict[str, Any]:
    """What follows: areas of every curve, SLC-AUC where somebody starts over, R where there is an
    unlocked model too; and each in words.

    `normalised` is an area over ln(x_max / x_min), a mean accuracy. Intervals are over seeds.
    """
    starts = {point.start for point in points}
    by_row: dict[tuple[Start, str], list[AttackPoint]] = defaultdict(list)
    for point in points:
        by_row[point.start, point.attacker].append(point)
    empty = envelope_of(points, ("scratch_release",)) if "scratch_release" in starts else None
    rows, lines = [], []
    for (start, attacker), mine in sorted(by_row.items()):
        curve = envelope_of(mine, (start,))
        span = math.log(curve.samples[-1] / curve.samples[0])
        own = areas(curve)
        row = {"area": t_interval(own), "normalised": t_interval([one / span for one in own])}
        lines.append(f"{start}:{attacker}: area {in_words(row['area'])}, at most {span:.3f}")
        if empty and start not in SCRATCH:
            row["slc_auc"] = t_interval(
                [one - other for one, other in zip(own, areas(empty), strict=True)]
            )
            lines.append(f"{start}:{attacker}: SLC-AUC {in_words(row['slc_auc'])}")
        rows.append(
            {
                "start": start,
                "attacker": attacker,
                **{name: figure.model_dump() for name, figure in row.items()},
            }
        )
    found: dict[str, Any] = {"curves": rows, "removed_vs_reference": None, "worth": None}
    over = tuple(start for start in SCRATCH if start in starts)
    if over and {"release", "reference"} <= starts:
        locked, unlocked, scratch = (
            envelope_of(points, (*mine, *over)) for mine in (("release",), ("reference",), ())
        )
        worth, share = advantage(unlocked, scratch), removed(locked, unlocked, scratch)
        found |= {"removed_vs_reference": share.model_dump(), "worth": worth.model_dump()}
        lines += [
            f"worth of the unlocked model {in_words(worth)}",
            f"advantage removed against the reference {in_words(share)}",
        ]
    return found | {"lines": lines}
