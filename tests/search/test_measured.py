"""The surrogate and the searches that measure, on landscapes with a known best cell."""

from collections.abc import Sequence

import numpy as np
import pytest

from lockforge.randomness import numpy_generator
from lockforge.records import Cell
from lockforge.search.measured import beats, believe, find_best, find_between, find_specific, within
from lockforge.search.predictor import load_predictor
from lockforge.search.ranking import rank, standing
from lockforge.search.surrogate import Surrogate, normal_scores
from lockforge.search.tasks import draw_cells
from lockforge.spaces import all_cells, ops_of

CELLS = all_cells("transnas101")


@pytest.fixture
def codes() -> np.ndarray:
    """Operations as numbers."""
    names = list(ops_of("transnas101"))
    return np.array([[names.index(op) for op in cell.ops] for cell in CELLS])


def test_the_surrogate_knows_what_it_measured_and_is_unsure_elsewhere(
    codes: np.ndarray, rng: np.random.Generator
) -> None:
    """Near a measured cell the mean follows it and the deviation is small; it orders unseen cells
    of a landscape of edges.
    """
    values = (codes @ rng.normal(size=6)).astype(float)
    measured = rng.choice(len(CELLS), 80, replace=False)
    belief = Surrogate(CELLS).fit(measured, values[measured])
    assert np.corrcoef(belief.mean[measured], normal_scores(values[measured]))[0, 1] > 0.95
    assert belief.deviation[measured].max() < np.median(belief.deviation)
    unseen = np.setdiff1d(np.arange(len(CELLS)), measured)
    assert np.corrcoef(belief.mean[unseen], values[unseen])[0, 1] > 0.8


def test_scores_do_not_feel_units(rng: np.random.Generator) -> None:
    """Percent, losses and logarithms of them give the same; all equal gives zeros."""
    values = rng.uniform(1, 9, 30)
    assert np.allclose(normal_scores(values), normal_scores(np.log(values) * 1e6 - 5))
    assert np.allclose(normal_scores(np.ones(5)), 0)


def test_the_best_cell_is_found_with_few_measurements(
    codes: np.ndarray, rng: np.random.Generator
) -> None:
    """Sixty of 4,096, no cell twice, the same choice from the same generator."""
    weights = rng.normal(size=(6, 4))
    values = sum(weights[edge, codes[:, edge]] for edge in range(6))
    place = {cell: at for at, cell in enumerate(CELLS)}

    def measure(cells: list[Cell]) -> list[float]:
        return [float(values[place[cell]]) for cell in cells]

    # a list is given
    found = find_best(CELLS, measure, 60, numpy_generator(1, "find"))  # type: ignore[arg-type]
    assert (values < values[place[found.chosen]]).mean() > 0.995
    assert len(set(found.measured)) == len(found.measured) == 60
    assert find_best(CELLS, measure, 60, numpy_generator(1, "find")) == found  # type: ignore[arg-type]


def test_a_specific_cell_is_good_here_and_poor_elsewhere(codes: np.ndarray) -> None:
    """The first edges decide here, the last ones elsewhere: the best specific cell has the first
    high and the last low.
    """
    here, elsewhere = codes[:, :3].sum(1).astype(float), codes[:, 3:].sum(1) / 9
    place = {cell: at for at, cell in enumerate(CELLS)}

    def measure(cells: Sequence[Cell]) -> list[float]:
        return [float(here[place[cell]]) for cell in cells]

    for bar in (beats(0.9, len(CELLS), numpy_generator(0, "luck")), within(2.0)):
        found = find_specific(
            CELLS, measure, elsewhere, 60, numpy_generator(0, "specific"), bar=bar
        )
        at = place[found.chosen]
        assert here[at] >= np.quantile(here, 0.9)
        assert elsewhere[at] <= 1 / 9


def test_measuring_both_sides_comes_near_the_floor(codes: np.ndarray) -> None:
    """With exact measurements of both: within the guard on the source, and the poorest on the other
    by what was measured.
    """
    rng = numpy_generator(0, "between")
    here, there = (codes @ rng.normal(size=6) + rng.normal(size=len(CELLS)) for _ in range(2))
    place = {cell: at for at, cell in enumerate(CELLS)}
    sides = [
        lambda cells, side=side: [float(side[place[cell]]) for cell in cells]
        for side in (here, there)
    ]
    found, other = find_between(
        CELLS, *sides, 80, numpy_generator(1, "between"), bar=within(2.0), trust=1.0
    )
    at = place[found.chosen]
    assert found.chosen == other.chosen
    assert len(found.measured) == len(other.measured) == 80
    assert here[at] >= max(found.values) - 2.0
    assert (there[here >= max(found.values) - 2.0] < there[at]).mean() < 0.1
    good = [
        place
        for place in set(found.measured) & set(other.measured)
        if here[place] >= max(found.values) - 2.0
    ]
    assert there[at] == min(there[good])


def test_trust_says_how_far_a_measurement_counts(rng: np.random.Generator) -> None:
    """With none the surrogate's own word, with all of it the measurement's; an unmeasured cell may
    be as much its own.
    """
    values = rng.normal(size=40)
    measured = rng.choice(len(CELLS), 40, replace=False)
    surrogate = Surrogate(CELLS)
    none, half, whole = (
        believe(surrogate, measured.tolist(), values.tolist(), trust) for trust in (0.0, 0.5, 1.0)
    )
    assert np.allclose(whole.mean[measured], normal_scores(values))
    assert np.allclose(half.mean, (none.mean + whole.mean) / 2)
    unseen = np.setdiff1d(np.arange(len(CELLS)), measured)
    assert np.array_equal(none.mean[unseen], whole.mean[unseen])
    assert (whole.deviation[measured] < none.deviation[measured]).all()
    assert np.allclose(whole.deviation[unseen] ** 2, none.deviation[unseen] ** 2 + whole.own**2)


def test_a_whole_space_is_ranked_against_a_panel() -> None:
    """Where the panel is the list itself, standing is Copeland's count; a cell beside itself is
    half a win.
    """
    predictor = load_predictor("nasbench201")
    cells = draw_cells("nasbench201", 25, (), numpy_generator(0, "standing"))
    vectors = predictor.tasks[:3]
    shares = standing(predictor, cells, cells, vectors)
    assert np.allclose(shares * 75, rank(predictor, cells, vectors).wins + 1.5)
    typical = predictor.ask_typical(cells)
    assert np.allclose(standing(predictor, cells, cells, None) * 25, (typical > 0).sum(1) + 0.5)
