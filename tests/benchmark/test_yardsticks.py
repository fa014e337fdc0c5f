"""Floor, matched random and chance, on landscapes whose answers are known."""

import numpy as np
import pytest

from lockforge.benchmark._views import Column, Sealed
from lockforge.benchmark._yardsticks import Run, floor_at, p_value
from lockforge.errors import IntegrityError
from lockforge.spaces import all_cells

SOURCES = np.arange(100.0)


def test_matched_cells_and_floor_are_those_at_least_as_good_on_the_source() -> None:
    """Of the last ten cells the targets are 90 to 81."""
    run = Run(90.0, 85.0, SOURCES, 180 - SOURCES)
    assert sorted(run.matched) == list(range(81, 91))
    assert run.floor == floor_at(SOURCES, 180 - SOURCES, 90) == 81


def test_an_unlocked_cell_gains_over_better_ones_and_not_over_its_like() -> None:
    """Target equal to source: the mean of all above lies ten percentiles higher, that of its
    neighbours nowhere else.
    """
    run = Run(80.0, 80.0, SOURCES, SOURCES)
    assert run.matched.mean() - run.target == 9.5
    assert sorted(run.alike) == [79, 80, 81]


def test_p_is_uniform_for_random_choices_and_small_for_the_floor(rng: np.random.Generator) -> None:
    """Ten runs that choose like chance are not significant, ten at the floor are."""
    targets = rng.permutation(100.0 * np.arange(100) / 100)
    chosen = rng.choice(np.arange(50, 100), 10)
    by_chance = [Run(50.0, float(targets[at]), SOURCES, targets) for at in chosen]
    at_floor = [Run(50.0, float(targets[50:].min()), SOURCES, targets)] * 10
    assert p_value(by_chance, rng) > 0.02
    assert p_value(at_floor, rng) < 0.001
    values = [
        p_value([Run(50.0, float(targets[at]), SOURCES, targets)], rng) for at in range(50, 100)
    ]
    assert np.mean(values) == pytest.approx(0.51, abs=0.01)


def test_a_column_counts_and_stops_at_its_budget() -> None:
    """The third measurement of two is refused."""
    cells = all_cells("transnas101")
    column = Column(cells, np.arange(len(cells), dtype=float), 2)
    assert column([cells[5], cells[1]]) == [5.0, 1.0]
    with pytest.raises(IntegrityError, match="2 are the budget"):
        column([cells[0]])


def test_a_sealed_column_answers_nothing() -> None:
    """Neither measured nor looked into."""
    sealed = Sealed()
    with pytest.raises(IntegrityError):
        sealed([])
    with pytest.raises(IntegrityError):
        _ = sealed.values
