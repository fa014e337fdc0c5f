"""Short lists by ranking a whole space: the same as Copeland over a panel, several targets, and
what is too large.
"""

from collections.abc import Callable

import numpy as np
import pytest

from lockforge.errors import RecipeError
from lockforge.recipe import SearchRecipe, ShortlistRecipe
from lockforge.search._lists import by_ranking, over_targets
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import standing
from lockforge.spaces.isomorphism import different_networks

CELLS = different_networks("transnas101")
RECIPE = SearchRecipe(panel=12, shortlist=ShortlistRecipe(cells=5))

MakePredictor = Callable[..., Predictor]


def test_fitness_is_over_the_whole_space(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Ranks are places among all different networks, and no cell outside the lock's list is fitter
    than one in it.
    """
    found = by_ranking(toy("transnas101"), vectors[:1], vectors[1:3], "transnas101", RECIPE)
    assert found.among == len(CELLS) == len(found.said)
    assert sorted(source for source, _, _ in found.said.values()) == list(range(len(CELLS)))
    fitness = {cell: said[2] for cell, said in found.said.items()}
    assert all(said[2] == (said[1] or 0) - 2 * said[0] for said in found.said.values())
    assert min(fitness[cell] for cell in found.locked) >= max(
        fitness[cell] for cell in CELLS if cell not in found.locked
    )
    assert [found.said[cell][0] for cell in found.unlocked] == list(range(5))
    assert found.questions == len(CELLS) * 12 * 3


def test_a_prior_stands_in_for_targets(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Target ranks follow what is good in general, and no embedding is asked about."""
    general = np.linspace(0, 1, len(CELLS))
    found = by_ranking(
        toy("transnas101"), vectors[:1], None, "transnas101", RECIPE, general=general
    )
    assert [found.said[cell][1] for cell in CELLS] == list(range(len(CELLS)))[::-1]
    assert (
        by_ranking(toy("transnas101"), vectors[:1], None, "transnas101", RECIPE).said[CELLS[0]][1]
        is None
    )


def test_several_targets_count_by_their_mean_or_by_the_one_on_which_a_cell_does_best(
    toy: MakePredictor, vectors: np.ndarray
) -> None:
    """One target alone is the same either way; with `worst` a cell that is good on one target
    cannot hide behind the others.
    """
    predictor, cells, panel = toy("transnas101"), CELLS[:40], CELLS[:12]
    alone = [over_targets(predictor, cells, panel, vectors[at : at + 1], "mean") for at in range(3)]
    assert np.array_equal(alone[0], over_targets(predictor, cells, panel, vectors[:1], "worst"))
    worst = over_targets(predictor, cells, panel, vectors[:3], "worst")
    best_place = np.min(alone, axis=0)
    assert (np.diff(best_place[np.argsort(worst)]) >= 0).all()
    mean = over_targets(predictor, cells, panel, vectors[:3], "mean")
    wins = standing(predictor, cells, panel, vectors[:3])
    assert (np.diff(wins[np.argsort(mean)]) <= 0).all()
    assert not np.array_equal(mean, worst)


def test_what_is_larger_than_the_space_is_named(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Panel and short list, both at once."""
    recipe = SearchRecipe(panel=99_999, shortlist=ShortlistRecipe(cells=88_888))
    with pytest.raises(RecipeError, match="different networks") as caught:
        by_ranking(toy("transnas101"), vectors[:1], None, "transnas101", recipe)
    assert len(caught.value.faults) == 2
