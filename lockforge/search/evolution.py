"""Ageing evolution over cells, as in ArchLock: rank the population, mutate the fittest of a sample,
drop the oldest, remember the best.

Differs from the authors' code: fitness alone decides, no table is read. A cell whose output does
not depend on its input is drawn again. The history holds a cell once, so that it can end as a short
list.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from lockforge.errors import RecipeError
from lockforge.recipe import SearchRecipe
from lockforge.records import Cell
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import rank
from lockforge.spaces import all_cells, mutate, random_cell
from lockforge.spaces.cells import connected


@dataclass(frozen=True)
class Judgement:
    """Of some cells: rank on the source, rank over the targets (None in S), fitness, and the
    questions asked.
    """

    source_ranks: Int64[np.ndarray, " k"]
    target_ranks: Int64[np.ndarray, " k"] | None
    fitness: Float[np.ndarray, " k"]
    questions: int


Judge = Callable[[Sequence[Cell]], Judgement]
Births = tuple[Callable[[], Cell], Callable[[Cell], Cell]]  # a first cell, and a child of a cell


def judge_by(
    predictor: Predictor,
    source: Float[np.ndarray, "1 d"],
    targets: Float[np.ndarray, "t d"] | None,
    weight: float,
) -> Judge:
    """A judge with fitness f = T_rank - weight S_rank (ArchLock, equation 5): good on the source,
    bad on the targets.

    Args: source: its embedding. targets: embeddings, simulated or real; None is S, where f =
        -S_rank. weight: lambda.
    """

    def judge(cells: Sequence[Cell]) -> Judgement:
        on_source = rank(predictor, cells, source)
        if targets is None:
            return Judgement(
                on_source.ranks, None, -on_source.ranks.astype(np.float64), on_source.questions
            )
        on_targets = rank(predictor, cells, targets)
        fitness = on_targets.ranks - weight * on_source.ranks
        return Judgement(
            on_source.ranks, on_targets.ranks, fitness, on_source.questions + on_targets.questions
        )

    return judge


@dataclass(frozen=True)
class Evolved:
    """The history, fittest first, and the questions it took."""

    history: tuple[Cell, ...]
    questions: int


def evolve(
    judge: Judge,
    space: str,
    recipe: SearchRecipe,
    generator: np.random.Generator,
    *,
    births: Births | None = None,
    tick: Callable[[int], None] | None = None,
) -> Evolved:
    """Ageing evolution with the recipe's population, sample (drawn with replacement), history and
    steps.

    Args: judge: ranks and fitness of a list of cells. space: where cells are drawn. births: how;
        None is uniformly, one edge of the parent changed, and drawn again where the output does not
        depend on the input. tick: told of every step.
    Raises: RecipeError: a population larger than the space.
    """
    size = len(all_cells(space))
    if recipe.population > size:
        raise RecipeError(
            f"search.population is {recipe.population}, but {space} has {size} cells",
            hint="the authors use 10",
        )
    first, child_of = births or _births(space, generator)
    population = deque(first() for _ in range(recipe.population))
    history: tuple[Cell, ...] = ()
    questions = 0
    for cell in population:
        history, asked = _remember(history, cell, judge, recipe.history)
        questions += asked
    for step in range(recipe.steps):
        judged = judge(tuple(population))
        drawn = generator.integers(len(population), size=recipe.sample)
        parent = population[int(drawn[np.argmax(judged.fitness[drawn])])]
        child = child_of(parent)
        population.popleft()
        population.append(child)
        history, asked = _remember(history, child, judge, recipe.history)
        questions += judged.questions + asked
        if tick is not None:
            tick(step + 1)
    judged = judge(history)
    return Evolved(fittest(history, judged), questions + judged.questions)


def fittest(cells: Sequence[Cell], judged: Judgement) -> tuple[Cell, ...]:
    """The cells by fitness, highest first; equal fitness: the better source rank first."""
    order = sorted(range(len(cells)), key=lambda i: (-judged.fitness[i], judged.source_ranks[i]))
    return tuple(cells[i] for i in order)


def _remember(
    history: tuple[Cell, ...], cell: Cell, judge: Judge, size: int
) -> tuple[tuple[Cell, ...], int]:
    """The history with one more cell, cut to the fittest when it is full, and the questions that
    took.
    """
    if cell in history:
        return history, 0
    history = (*history, cell)
    if len(history) <= size:
        return history, 0
    judged = judge(history)
    return fittest(history, judged)[:size], judged.questions


def _births(space: str, generator: np.random.Generator) -> Births:
    return (
        lambda: _connected(lambda: random_cell(space, generator)),
        lambda parent: _connected(lambda: mutate(space, parent, generator)),
    )


def _connected(draw: Callable[[], Cell]) -> Cell:
    """Draw until the cell's output depends on its input: more than half of all cells, and of every
    cell's neighbours some, do.
    """
    while True:
        cell = draw()
        if connected(cell):
            return cell
