"""Operations and budgets: small cases that can be worked out by hand."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pytest

from lockforge.errors import IntegrityError
from lockforge.evidence._costs import check_budgets, operations_to_reach
from lockforge.evidence.curves import choose, measure
from lockforge.records import AttackPoint, Start

measured = partial(measure, test_samples=1000)
Simulate = Callable[..., tuple[AttackPoint, ...]]
Truth = Mapping[Start, Sequence[float]]


def test_the_cheapest_place_that_is_good_enough_counts() -> None:
    """The mean accuracy of a place decides, the mean of its operations is its price; who never gets
    there has none.
    """
    places = [((0.9, 0.7), (6.0, 2.0)), ((0.9, 0.9), (5.0, 5.0)), ((0.1, 0.9), (1.0, 1.0))]
    assert operations_to_reach(places, 0.8) == 4.0
    assert operations_to_reach(places, 0.85) == 5.0
    assert operations_to_reach(places, 0.95) is None
    assert operations_to_reach([], 0.0) is None


def test_operations_to_90_are_those_of_all_settings_of_one_attacker(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """The release rises to .75 with most images: 90 % of .8 is reached there alone, by the probe
    for less than by fine-tuning.

    A thief tries all his settings before he knows which is best: two of 3e6 operations a seed for
    the probe. Means are over seeds.
    """
    points = simulate({**flat, "release": (0.5, 0.6, 0.75)}, rng)
    cheap = [
        p.model_copy(update={"flops": (1.0 + p.seed) * p.samples * 150.0})
        if p.attacker == "linear_probe"
        else p
        for p in points
    ]
    found = measured(cheap).flops_to_90
    assert found == {"release": 6e6, "reference": 6e3, "twin": None, "scratch": None, "dummy": None}
    assert measured(cheap[::-1]).flops_to_90 == found


def more(
    points: Sequence[AttackPoint], samples: int = 100, seeds: Sequence[int] = (0, 1, 2)
) -> list[AttackPoint]:
    """The points at one grid value with some seeds."""
    return [p for p in points if p.samples == samples and p.seed in seeds]


def test_more_budget_is_held_against_the_same_seeds(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Four budgets reach .75 with seed 2 alone, where one reached .6: a share of .8, whatever other
    seeds and grid values did.
    """
    once = [
        p if p.seed == 2 or p.test_accuracy is None else p.model_copy(update={"test_accuracy": 0.1})
        for p in simulate(flat, rng)
    ]
    longer = more(
        simulate({"release": (0.75,) * 3}, rng, budget=4, attackers=("fine_tune",)), seeds=(2,)
    )
    (check,) = check_budgets(choose([*once, *longer]))
    assert (check.start, check.attacker, check.samples, check.factor) == (
        "release",
        "fine_tune",
        100,
        4,
    )
    assert (check.reached, check.with_more, check.share) == pytest.approx((0.6, 0.75, 0.8))


def test_validation_chooses_within_a_budget(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Points of two budgets do not compete: each has its own chosen setting."""
    once, longer = simulate(flat, rng), simulate({"release": (0.75,) * 3}, rng, budget=4)
    both = choose([*longer, *once])
    assert tuple(p for p in both if p.budget == 1) == choose(once)
    assert tuple(p for p in both if p.budget == 4) == choose(longer)


def test_points_with_more_budget_belong_to_no_curve(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """However good they are, they change nothing but the checks; they have no share in the
    operations either.
    """
    once = simulate(flat, rng)
    both = (*once, *more(simulate({"release": (0.99,) * 3}, rng, budget=4)))
    found = measured(both)
    assert len(found.budget_checks) == 2
    assert found.model_copy(update={"budget_checks": ()}) == measured(once)
    assert measured(both[::-1]) == found


def test_more_budget_that_reaches_nothing_lacks_nothing(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """0 of 0 is a share of 1, not an error."""
    nothing: Truth = dict.fromkeys(flat, (0.0,) * 3)
    checks = check_budgets(
        choose([*simulate(nothing, rng), *more(simulate({"release": (0.0,) * 3}, rng, budget=2))])
    )
    assert [check.share for check in checks] == [1.0, 1.0]


def test_more_budget_beside_nothing_is_refused(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """A larger budget without the single one beside it, or without its test accuracy, shows
    nothing.
    """
    longer = more(simulate({"release": (0.75,) * 3}, rng, budget=4))
    with pytest.raises(
        IntegrityError, match=r"with 4 budgets test accuracy 0\.75, with one no test accuracy"
    ):
        check_budgets(choose(longer))
    untested = [p.model_copy(update={"test_accuracy": None}) for p in longer]
    with pytest.raises(
        IntegrityError, match=r"with 4 budgets no test accuracy, with one test accuracy 0\.6"
    ):
        measured((*simulate(flat, rng), *untested))
