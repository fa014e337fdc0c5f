"""Ageing evolution under judges whose answer is known."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from lockforge.errors import RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import SearchRecipe
from lockforge.records import Cell, Op
from lockforge.search.evolution import Judgement, evolve, fittest, judge_by
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import rank
from lockforge.spaces import all_cells, random_cell
from lockforge.spaces.cells import connected

MakePredictor = Callable[..., Predictor]


def most_convolutions(cells: Sequence[Cell]) -> Judgement:
    """Fitness is the number of 3x3 convolutions; three questions a call."""
    counts = np.array([cell.ops.count(Op.conv3x3) for cell in cells], dtype=np.float64)
    ranks = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    return Judgement(ranks, None, counts, 3)


def test_evolution_finds_the_best_cell_when_fitness_is_known() -> None:
    """200 steps reach six 3x3 convolutions, 1 of 15,625 cells, which 210 random draws hold with
    probability .013.
    """
    found = evolve(
        most_convolutions, "nasbench201", SearchRecipe(steps=200), numpy_generator(0, "evolve")
    )
    assert found.history[0].ops == (Op.conv3x3,) * 6


def test_the_history_is_the_fittest_cells_once_each() -> None:
    """At most `history`, no cell twice, fittest first, every output depending on the input."""
    found = evolve(
        most_convolutions,
        "transnas101",
        SearchRecipe(steps=40, history=7),
        numpy_generator(0, "evolve"),
    )
    fitness = most_convolutions(found.history).fitness
    assert len(found.history) == len(set(found.history)) == 7
    assert (np.diff(fitness) <= 0).all()
    assert all(connected(cell) for cell in found.history)


def test_the_same_generator_gives_the_same_history() -> None:
    """And another seed another one."""
    runs = [
        evolve(
            most_convolutions, "nasbench201", SearchRecipe(), numpy_generator(seed, "evolve")
        ).history
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_population_keeps_its_size_and_the_oldest_leaves() -> None:
    """Every step ranks `population` cells; after as many steps none of the first is left, whatever
    their fitness.
    """
    seen: list[tuple[Cell, ...]] = []

    def watch(cells: Sequence[Cell]) -> Judgement:
        seen.append(tuple(cells))
        return most_convolutions(cells)

    evolve(
        watch,
        "nasbench201",
        SearchRecipe(population=5, steps=6, history=100),
        numpy_generator(0, "evolve"),
    )
    ranked = seen[:-1]
    assert [len(cells) for cells in ranked] == [5] * 6
    assert all(later[:4] == earlier[1:] for earlier, later in pairwise(ranked))


def test_every_child_is_one_edge_away_from_a_member() -> None:
    """Mutation changes exactly one edge of a cell that was alive."""
    seen: list[tuple[Cell, ...]] = []

    def watch(cells: Sequence[Cell]) -> Judgement:
        seen.append(tuple(cells))
        return most_convolutions(cells)

    evolve(
        watch,
        "nasbench201",
        SearchRecipe(population=5, steps=12, history=100),
        numpy_generator(0, "evolve"),
    )
    for earlier, later in pairwise(seen[:-1]):
        distances = [
            sum(a != b for a, b in zip(cell.ops, later[-1].ops, strict=True)) for cell in earlier
        ]
        assert 1 in distances


def test_questions_are_counted() -> None:
    """Six rankings of the population and one of the history at three questions each; the history
    never overflows here.
    """
    found = evolve(
        most_convolutions,
        "nasbench201",
        SearchRecipe(population=5, steps=6, history=100),
        numpy_generator(0, "evolve"),
    )
    assert found.questions == 3 * 7


def test_fitness_is_the_weighted_rank_gap(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Fitness is T_rank - 2 S_rank with targets, -S_rank without; ranks are those of the
    ranking.
    """
    generator = numpy_generator(0, "cells")
    cells = [random_cell("nasbench201", generator) for _ in range(8)]
    predictor = toy()
    source, targets = rank(predictor, cells, vectors[:1]), rank(predictor, cells, vectors[1:])
    locked = judge_by(predictor, vectors[:1], vectors[1:], 2.0)(cells)
    assert np.array_equal(locked.fitness, targets.ranks - 2 * source.ranks)
    assert locked.questions == 4 * 28
    alone = judge_by(predictor, vectors[:1], None, 2.0)(cells)
    assert alone.target_ranks is None
    assert fittest(cells, alone)[0] == cells[int(np.argmin(source.ranks))]


def test_a_population_larger_than_the_space_is_refused() -> None:
    """4,096 cells cannot be 5,000."""
    with pytest.raises(RecipeError, match="5000, but transnas101 has 4096 cells"):
        evolve(most_convolutions, "transnas101", SearchRecipe(population=5000), numpy_generator(0))


def test_births_decide_which_cells_there_are() -> None:
    """Nothing is drawn but by them: with three cells to be had, the history is among the three."""
    few = all_cells("nasbench201")[7000:7003]
    generator = numpy_generator(0, "few")
    births = (lambda: few[0], lambda _parent: few[int(generator.integers(3))])
    found = evolve(
        most_convolutions,
        "nasbench201",
        SearchRecipe(population=5, steps=30),
        numpy_generator(0, "evolve"),
        births=births,
    )
    assert set(found.history) == set(few)
