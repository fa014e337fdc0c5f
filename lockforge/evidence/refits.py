"""Some of an audit's points, fitted again: which, and are they what was stated?

Recomputing trusts the raw points; this does not. A *place* is one attacker from one start at one
grid value with one seed. Everything that a fit draws follows from the recipe's seed, so on the same
kind of machine the same number comes out, to the last digit. Elsewhere rounding differs and
training carries it on: two fits of one place are then as far apart as fits that draw anew can be,
at most.

Symbols: y, stated and y', refitted test accuracy of the setting that validation chose, in [0, 1];
n, test images; s, seeds.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import choose
from lockforge.evidence.statistics import covariance, mean, student_t_quantile
from lockforge.randomness import numpy_generator
from lockforge.records import AttackPoint, Check, Start, TransferAudit

FROM_RELEASE: tuple[Start, ...] = (
    "release",
    "scratch_release",
    "scratch_reference",
)  # a release has what these need
FALSE_ALARM = (
    0.01  # how often an honest audit fails, over all places that are fitted again together, at most
)
BOUND = "what was stated, within the tolerance of docs/verify.md"


class Place(NamedTuple):
    """One attacker from one start at one grid value with one seed."""

    start: Start
    attacker: str
    samples: int
    seed: int

    def __str__(self) -> str:
        """In words."""
        return f"{self.start}:{self.attacker} at {self.samples} images, seed {self.seed}"


def place_of(point: AttackPoint) -> Place:
    """Where a point was fitted."""
    return Place(point.start, point.attacker, point.samples, point.seed)


def draw_places(audits: Sequence[TransferAudit], count: int, seed: int) -> list[list[Place]]:
    """Places to fit again, drawn without replacement from those that a release has the weights for,
    over all audits together.

    Args: count: how many; all where there are fewer. seed: of the draw, which must not be known to
        whoever made the audit.
    Returns: those of each audit, in order.
    Raises: IntegrityError: there are none.
    """
    there = [
        (at, place)
        for at, audit in enumerate(audits)
        for place in sorted(
            {
                place_of(point)
                for point in audit.points
                if point.start in FROM_RELEASE and point.budget == 1
            }
        )
    ]
    if not there:
        raise IntegrityError(
            "there is nothing to fit again: no points start from the release or from nothing"
        )
    drawn = sorted(
        numpy_generator(seed, "rerun")
        .choice(len(there), min(count, len(there)), replace=False)
        .tolist()
    )
    return [
        [place for at, place in (there[i] for i in drawn) if at == wanted]
        for wanted in range(len(audits))
    ]


def spread(audit: TransferAudit, samples: int) -> tuple[float, int]:
    """Deviation of test accuracy over seeds at a grid value, pooled over starts and attackers but
    the dummy, and its degrees of freedom.

    The dummy's points only check the audit itself, and so could be spread at no cost by whoever
    makes them up.

    Raises: IntegrityError: one seed has no spread.
    """
    rows: dict[tuple[Start, str], list[float]] = defaultdict(list)
    for point in choose(audit.points):
        if (
            (point.samples, point.budget) == (samples, 1)
            and point.start != "dummy"
            and point.test_accuracy is not None
        ):
            rows[point.start, point.attacker].append(point.test_accuracy)
    several = [row for row in rows.values() if len(row) > 1]
    if not several:
        raise IntegrityError(f"at {samples} images there is one seed, which has no spread")
    freedom = sum(len(row) - 1 for row in several)
    return math.sqrt(
        math.fsum(covariance(row, row) * (len(row) - 1) for row in several) / freedom
    ), freedom


def deviation(audit: TransferAudit, place: Place, stated: float, again: float) -> float:
    """Standard deviation of y' - y, were both drawn anew: sqrt(2 (spread^2 + m (1 - m) / n)), m =
    (y + y') / 2.

    The spread is over seeds, which redraw images, validation split and first weights; the second
    part is what a finite test split adds. A fit of the same draws on the same test images is
    closer.
    """
    middle = (stated + again) / 2
    return math.sqrt(
        2 * (spread(audit, place.samples)[0] ** 2 + middle * (1 - middle) / audit.test_samples)
    )


def compare_refits(
    names: Sequence[str],
    audits: Sequence[TransferAudit],
    again: Sequence[Sequence[AttackPoint]],
    *,
    exact: bool = False,
) -> tuple[Check, ...]:
    """A check for each place that was fitted again, and one for all together, which a small lie at
    every place cannot pass.

    A place passes when |y' - y| <= t deviation, t Student's two-sided quantile at `FALSE_ALARM`
    shared out over the places; together they pass when the mean of y' - y is within t of 0 in the
    deviation of such a mean. Settings and steps must be the same everywhere.

    Args: names: the targets'. again: the refitted points for each audit. exact: tolerate nothing,
        every point must be the same.
    """
    number = sum(len({place_of(point) for point in points}) for points in again)
    checks: list[Check] = []
    apart: list[tuple[float, float, int]] = []
    for name, audit, points in zip(names, audits, again, strict=True):
        for place in sorted({place_of(point) for point in points}):
            new = [point for point in points if place_of(point) == place]
            old = [
                point for point in audit.points if place_of(point) == place and point.budget == 1
            ]
            said, passed = _other_work(old, new), False
            if not said:
                stated, found = _tested(old), _tested(new)
                wide, freedom = (
                    deviation(audit, place, stated, found),
                    spread(audit, place.samples)[1],
                )
                allowed = student_t_quantile(1 - FALSE_ALARM / (2 * number), freedom) * wide
                apart.append((found - stated, wide, freedom))
                same = sorted(map(str, old)) == sorted(map(str, new))
                passed = same or (not exact and abs(found - stated) <= allowed)
                said = f"{stated:.4f} stated, {found:.4f} again, "
                said += (
                    "every point to the last digit"
                    if same
                    else f"{0 if exact else allowed:.4f} apart allowed"
                )
            checks.append(
                Check(name="rerun", value=f"{name}: {place}: {said}", bound=BOUND, passed=passed)
            )
    return (*checks, _together(apart))


def _other_work(old: Sequence[AttackPoint], new: Sequence[AttackPoint]) -> str:
    """What was said to have been tried, if it is not what the suite tries: settings and their
    steps; empty if it is.
    """
    said, found = (
        sorted((point.setting.removesuffix(" (diverged)"), point.steps) for point in points)
        for points in (old, new)
    )
    if said == found:
        return ""
    steps = [sum(each for _, each in one) for one in (said, found)]
    return (
        f"{len(said)} settings with {steps[0]} steps stated, the suite has {len(found)} with "
        f"{steps[1]}"
    )


def _tested(points: Sequence[AttackPoint]) -> float:
    (chosen,) = choose(points)
    if chosen.test_accuracy is None:
        raise IntegrityError(
            f"{place_of(chosen)} was chosen by validation but has no test accuracy"
        )
    return chosen.test_accuracy


def _together(apart: Sequence[tuple[float, float, int]]) -> Check:
    if not apart:
        return Check(
            name="rerun", value="together: nothing was fitted again", bound=BOUND, passed=False
        )
    average = mean([difference for difference, _, _ in apart])
    wide = math.sqrt(math.fsum(one**2 for _, one, _ in apart)) / len(apart)
    allowed = (
        student_t_quantile(1 - FALSE_ALARM / 2, min(freedom for _, _, freedom in apart)) * wide
    )
    said = (
        f"together: {average:+.4f} apart on average over {len(apart)} place(s), {allowed:.4f} "
        "allowed"
    )
    return Check(name="rerun", value=said, bound=BOUND, passed=abs(average) <= allowed)
