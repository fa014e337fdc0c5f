"""What the tables of the report say, worked out from an audit's points and measures; no figure of
its own making.

Only points with a test accuracy are read, which are those that validation chose, and of them only
those of one budget: a point with a larger one belongs to no curve.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lockforge.evidence.curves import areas
from lockforge.evidence.statistics import t_interval
from lockforge.records import AttackPoint, Estimate, LearningCurve, TransferAudit

ROWS = {
    "release": "release",
    "twin": "twin (no weight lock)",
    "reference": "reference (no lock)",
    "scratch": "scratch (empty network)",
    "outside": "public weights or scratch",
}


@dataclass(frozen=True)
class AttackerRow:
    """One attacker from one start: the setting that validation chose most often, and what he
    reached.

    `times` of `places` grid points and seeds chose the setting, out of `settings` tried; `last` is
    the accuracy with all images, `over` the mean accuracy above scratch on the released
    architecture (SLC-AUC, normalised), None for a start that is not held against scratch.
    """

    start: str
    attacker: str
    setting: str
    times: int
    places: int
    settings: int
    last: Estimate
    over: Estimate | None
    curve: LearningCurve


@dataclass(frozen=True)
class Standing:
    """What a thief gets who may use a start or start over: with all images, and the mean over the
    grid (area over ln x, normalised).
    """

    last: Estimate
    over_grid: Estimate


def attacker_rows(audit: TransferAudit) -> dict[str, tuple[AttackerRow, ...]]:
    """Every attacker by start, strongest first: by his mean above scratch where there is one, else
    by what he reaches in the end.
    """
    chosen: dict[tuple[str, str], dict[tuple[int, int], AttackPoint]] = defaultdict(dict)
    tried: dict[tuple[str, str], set[str]] = defaultdict(set)
    for point in audit.points:
        if point.budget == 1:
            tried[point.start, point.attacker].add(point.setting)
            if point.test_accuracy is not None:
                chosen[point.start, point.attacker][point.samples, point.seed] = point
    over = {(row.start, row.attacker): row.normalised for row in audit.measures.slc}
    found: dict[str, list[AttackerRow]] = defaultdict(list)
    for (start, attacker), places in chosen.items():
        setting, times = min(
            Counter(point.setting for point in places.values()).items(),
            key=lambda item: (-item[1], item[0]),
        )
        curve = _curve(audit, places)
        row = AttackerRow(
            start=start,
            attacker=attacker,
            setting=setting,
            times=times,
            places=len(places),
            settings=len(tried[start, attacker]),
            last=t_interval(curve.accuracy[-1]),
            over=over.get((start, attacker)),
            curve=curve,
        )
        found[start].append(row)
    return {start: tuple(sorted(rows, key=_strength)) for start, rows in found.items()}


def _curve(audit: TransferAudit, places: dict[tuple[int, int], AttackPoint]) -> LearningCurve:
    rows = tuple(
        tuple(places[samples, seed].test_accuracy or 0.0 for seed in audit.seeds)
        for samples in audit.samples
    )
    return LearningCurve(samples=audit.samples, accuracy=rows)


def _strength(row: AttackerRow) -> tuple[float, float, str]:
    over = -math.inf if row.over is None or row.over.mean is None else row.over.mean
    return -over, -(row.last.mean or 0.0), row.attacker


def standings(audit: TransferAudit) -> dict[str, Standing]:
    """Each envelope's figures by name; `outside` only where there are public weights."""
    found = {}
    for envelope in audit.measures.envelopes:
        curve = envelope.curve
        span = math.log(curve.samples[-1] / curve.samples[0])
        over_grid = t_interval([area / span for area in areas(curve)])
        found[envelope.name] = Standing(last=t_interval(curve.accuracy[-1]), over_grid=over_grid)
    return found


def worst_area(audit: TransferAudit) -> Estimate:
    """The largest SLC-AUC among the attackers that start from the release."""
    found = [
        row.area
        for row in audit.measures.slc
        if row.start == "release" and row.area.mean is not None
    ]
    return max(
        found,
        key=lambda area: area.mean or 0.0,
        default=Estimate(mean=None, reason="no attacker started from the release"),
    )


def starts_of(audit: TransferAudit, wanted: Sequence[str]) -> tuple[str, ...]:
    """The starts of `wanted` that have points of their own."""
    there = {point.start for point in audit.points}
    return tuple(start for start in wanted if start in there)
