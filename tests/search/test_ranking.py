"""Copeland ranking: best first, independent of order, the same at once and one by one."""

from collections.abc import Callable

import numpy as np

from lockforge.randomness import numpy_generator
from lockforge.records import Cell
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import from_logits, rank
from lockforge.spaces import random_cell
from tests.benchmarks.rank import ask_one_by_one

MakePredictor = Callable[..., Predictor]


def cells_of(count: int) -> list[Cell]:
    """Different random cells."""
    generator = numpy_generator(0, "cells")
    found: dict[Cell, None] = {}
    while len(found) < count:
        found[random_cell("nasbench201", generator)] = None
    return list(found)


def test_scores_are_ranked_by_sorting_them() -> None:
    """Where every answer is a difference of scores, Copeland is a sort, highest score first."""
    scores = np.array([0.2, 0.9, -1.0, 0.5])
    ranking = from_logits(cells_of(4), (scores[:, None] - scores[None])[None])
    assert ranking.ranks.tolist() == [2, 0, 3, 1]
    assert ranking.wins.tolist() == [1, 3, 0, 2]
    assert ranking.questions == 6


def test_all_at_once_is_one_by_one(toy: MakePredictor, vectors: np.ndarray) -> None:
    """The same answers wherever |logit| > 1e-5, hence the same ranks."""
    predictor, cells = toy(), cells_of(9)
    batched, single = predictor.ask_all(cells, vectors), ask_one_by_one(predictor, cells, vectors)
    clear = np.abs(single) > 1e-5
    assert clear.sum() > 0.9 * 4 * 72
    assert np.array_equal(batched[clear] > 0, single[clear] > 0)
    assert np.array_equal(rank(predictor, cells, vectors).ranks, from_logits(cells, single).ranks)


def test_the_order_of_the_list_does_not_matter(toy: MakePredictor, vectors: np.ndarray) -> None:
    """A cell keeps its rank when the list is shuffled, ties included."""
    predictor, cells = toy(), cells_of(12)
    order = numpy_generator(0, "order").permutation(12)
    ranks = rank(predictor, cells, vectors).ranks
    assert np.array_equal(rank(predictor, [cells[at] for at in order], vectors).ranks, ranks[order])


def test_wins_of_several_tasks_are_added(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Wins over two tasks are the sum of the wins over each; questions too."""
    predictor, cells = toy(), cells_of(8)
    one, other, both = (
        rank(predictor, cells, some) for some in (vectors[:1], vectors[1:2], vectors[:2])
    )
    assert np.array_equal(one.wins + other.wins, both.wins)
    assert both.questions == one.questions + other.questions == 2 * 28


def test_ranks_are_a_permutation_and_equal_cells_stand_together(
    toy: MakePredictor, vectors: np.ndarray
) -> None:
    """A cell beside itself wins nothing; both copies get neighbouring ranks."""
    cells = cells_of(6)
    ranking = rank(toy(), [*cells, cells[2]], vectors)
    assert sorted(ranking.ranks.tolist()) == list(range(7))
    assert ranking.wins[2] == ranking.wins[6]
    assert ranking.ranks[6] == ranking.ranks[2] + 1


def test_one_cell_is_first_without_a_question(toy: MakePredictor, vectors: np.ndarray) -> None:
    """The smallest case."""
    ranking = rank(toy(), cells_of(1), vectors)
    assert (ranking.ranks.tolist(), ranking.questions) == ([0], 0)
