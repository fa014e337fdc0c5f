"""How far a refit may lie from what was stated: worked out by hand on points with a known
spread.
"""

import math
from collections import Counter

import pytest

from lockforge.errors import IntegrityError
from lockforge.evidence.refits import (
    FALSE_ALARM,
    FROM_RELEASE,
    Place,
    compare_refits,
    deviation,
    draw_places,
    place_of,
    spread,
)
from lockforge.evidence.statistics import student_t_quantile
from lockforge.records import AttackPoint, Check, TransferAudit
from tests.small_release import IMAGES, audit, images

AUDIT = audit(
    images(2), "quick"
)  # at every place: an image less than the level, the level, and one more; a deviation of .01
PLACE = Place("release", "fine-tune", 2, 1)


def points(found: TransferAudit, *places: Place) -> list[AttackPoint]:
    """The points of some places, as stated."""
    return [point for point in found.points if place_of(point) in places]


def shifted(point: AttackPoint, by: float) -> AttackPoint:
    """A point with another test accuracy."""
    return point.model_copy(update={"test_accuracy": (point.test_accuracy or 0) + by})


def compared(again: list[AttackPoint], *, exact: bool = False) -> tuple[Check, ...]:
    """Held against the audit."""
    return compare_refits(("target-1",), (AUDIT,), (again,), exact=exact)


def test_the_spread_is_that_over_seeds_pooled_over_rows_but_the_dummys() -> None:
    """Six rows (two attackers on release and reference, one on each empty network) of three seeds:
    12 degrees of freedom.
    """
    wide, freedom = spread(AUDIT, 2)
    assert wide == pytest.approx(0.01)
    assert freedom == 2 * (2 + 2 + 1 + 1)
    made_up = AUDIT.model_copy(
        update={
            "points": tuple(
                shifted(p, 0.1 * p.seed) if p.start == "dummy" else p for p in AUDIT.points
            )
        }
    )
    assert spread(made_up, 2) == spread(AUDIT, 2)
    with pytest.raises(IntegrityError, match="no spread"):
        spread(
            AUDIT.model_copy(update={"points": tuple(p for p in AUDIT.points if p.seed == 0)}), 2
        )


def test_the_deviation_adds_a_finite_test_split() -> None:
    """sqrt(2 (spread^2 + m (1 - m) / n)), m half-way between both accuracies."""
    assert deviation(AUDIT, PLACE, 0.4, 0.6) == pytest.approx(
        math.sqrt(2 * (0.01**2 + 0.25 / IMAGES))
    )


def test_a_place_passes_up_to_its_tolerance_and_not_beyond() -> None:
    """The bound is Student's quantile times the deviation, on both sides."""
    (stated,) = points(AUDIT, PLACE)
    t = student_t_quantile(1 - FALSE_ALARM / 2, 12)
    for sign in (-1, 1):
        inside = sign * 0.2
        while abs(inside) <= t * deviation(AUDIT, PLACE, 0.4, 0.4 + inside):
            inside += sign * 0.001
        place, together = compared([shifted(stated, inside)])
        assert not place.passed
        assert not together.passed
        place, together = compared([shifted(stated, inside - sign * 0.002)])
        assert place.passed
        assert together.passed


def test_exact_tolerates_nothing() -> None:
    """Half an image is too much, and the same to the last digit is not."""
    (stated,) = points(AUDIT, PLACE)
    assert all(check.passed for check in compared([stated], exact=True))
    assert not compared([shifted(stated, 0.005)], exact=True)[0].passed
    assert not compared([stated.model_copy(update={"val_accuracy": 0.0})], exact=True)[0].passed


def test_a_small_lie_at_every_place_is_caught_together() -> None:
    """Each within its own tolerance, all on one side."""
    places = sorted({place_of(point) for point in AUDIT.points if point.start in FROM_RELEASE})
    again = [shifted(point, 0.09) for point in points(AUDIT, *places)]
    *each, together = compared(again)
    assert all(check.passed for check in each)
    assert not together.passed
    to_and_fro = [
        shifted(point, 0.09 * (-1) ** at) for at, point in enumerate(points(AUDIT, *places))
    ]
    assert all(check.passed for check in compared(to_and_fro))


@pytest.mark.parametrize("change", [{"steps": 11}, {"setting": "two"}])
def test_other_settings_or_steps_fail_whatever_the_accuracy(change: dict[str, object]) -> None:
    """What a suite tries is no matter of chance."""
    (stated,) = points(AUDIT, PLACE)
    assert not compared([stated.model_copy(update=change)])[0].passed
    diverged = stated.model_copy(update={"setting": f"{stated.setting} (diverged)"})
    assert compared([diverged])[0].passed


def test_nothing_fitted_again_is_no_pass() -> None:
    """An empty answer says nothing."""
    assert [check.passed for check in compared([])] == [False]


def test_places_are_drawn_evenly_without_repeats_and_only_where_a_release_has_the_weights() -> None:
    """Over many seeds every place is drawn about equally often; a larger number than there are
    draws all.
    """
    other = audit(images(3), "quick")
    drawn = Counter(
        (at, place)
        for seed in range(400)
        for at, places in enumerate(draw_places((AUDIT, other), 8, seed))
        for place in places
    )
    assert {place.start for _, place in drawn} == set(FROM_RELEASE)
    assert len(drawn) == 2 * (2 + 1 + 1) * 6
    expected = 400 * 8 / len(drawn)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in drawn.values())
    everything = draw_places((AUDIT, other), 999, 0)
    assert [len(places) for places in everything] == [24, 24]
    assert len(set(everything[0])) == 24
    with pytest.raises(IntegrityError, match="nothing to fit again"):
        draw_places((AUDIT.model_copy(update={"points": ()}),), 1, 0)
