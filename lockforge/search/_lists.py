"""Short lists before anything is trained: cells that should make a lock, and cells that should be
best on the source alone.

Two ways: the paper's ageing evolution, and a ranking of the whole space. Shapes: k cells, t
targets, d entries of an embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64

from lockforge.errors import RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import SearchRecipe
from lockforge.records import Cell
from lockforge.search.evolution import Judgement, evolve, judge_by
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import standing
from lockforge.spaces.isomorphism import different_networks, network_key


@dataclass(frozen=True)
class Lists:
    """Both lists, fittest first; what was said of each cell (source rank, target rank, fitness);
    the questions it took.

    `target` ranks are None in S; ranks are among `among` cells. `accuracy`: what was measured on
    the source already.
    """

    locked: tuple[Cell, ...]
    unlocked: tuple[Cell, ...]
    said: Mapping[Cell, tuple[int, int | None, float]]
    questions: int
    among: int
    accuracy: Mapping[Cell, float | None] = field(default_factory=dict)


def by_evolution(
    predictor: Predictor,
    vectors: Float[np.ndarray, "1 d"],
    targets: Float[np.ndarray, "t d"] | None,
    space: str,
    recipe: SearchRecipe,
    seed: int,
    *,
    tick: Callable[[float], None],
) -> Lists:
    """The paper's: evolve under f = T_rank - lambda S_rank, and once more under S_rank alone for
    the reference.

    Raises: RecipeError: a population larger than the space.
    """
    lock = judge_by(predictor, vectors, targets, recipe.source_weight)
    alone = judge_by(predictor, vectors, None, recipe.source_weight)
    found = []
    for part, judge in enumerate((lock, alone)):
        generator = numpy_generator(seed, "search", "evolve")
        found.append(
            evolve(
                judge,
                space,
                recipe,
                generator,
                tick=lambda step, part=part: tick(  # type: ignore[misc]
                    (part + step / recipe.steps) / 2
                ),
            )
        )
    remembered = tuple(dict.fromkeys(cell for evolved in found for cell in evolved.history))
    judged = lock(remembered)
    locked, unlocked = (
        _different(evolved.history, space, recipe.shortlist.cells) for evolved in found
    )
    questions = sum(evolved.questions for evolved in found) + judged.questions
    return Lists(locked, unlocked, _said(remembered, judged), questions, len(remembered))


def by_ranking(
    predictor: Predictor,
    vectors: Float[np.ndarray, "1 d"],
    targets: Float[np.ndarray, "t d"] | None,
    space: str,
    recipe: SearchRecipe,
    *,
    general: Float[np.ndarray, " k"] | None = None,
) -> Lists:
    """All different networks of a space, ranked by how many cells of a panel each beats; f = T_rank
    - lambda S_rank over the whole space.

    Args: general: how good each of `different_networks(space)` is in general; in place of targets.
    Differs: the paper ranks ten cells at a time, by all pairs.
    Raises: RecipeError: a panel or a short list larger than the space.
    """
    cells = different_networks(space)
    wanted = {"search.panel": recipe.panel, "search.shortlist.cells": recipe.shortlist.cells}
    faults = [f"{name} is {count}" for name, count in wanted.items() if count > len(cells)]
    if faults:
        raise RecipeError(
            f"{space} has {len(cells)} different networks", faults=faults, hint="give fewer"
        )
    panel = [cells[at] for at in np.linspace(0, len(cells) - 1, recipe.panel).round().astype(int)]
    source = _ranks(standing(predictor, cells, panel, vectors))
    beyond = None
    if general is not None:
        beyond = _ranks(general)
    elif targets is not None:
        beyond = over_targets(predictor, cells, panel, targets, recipe.over)
    fitness = (
        -source.astype(np.float64) if beyond is None else beyond - recipe.source_weight * source
    )
    orders = (np.lexsort((source, -fitness)), np.argsort(source, kind="stable"))
    locked, unlocked = (
        tuple(cells[int(at)] for at in order[: recipe.shortlist.cells]) for order in orders
    )
    judged = Judgement(
        source,
        beyond,
        fitness,
        len(cells) * len(panel) * (1 + (0 if targets is None else len(targets))),
    )
    return Lists(locked, unlocked, _said(cells, judged), judged.questions, len(cells))


def over_targets(
    predictor: Predictor,
    cells: Sequence[Cell],
    panel: Sequence[Cell],
    targets: Float[np.ndarray, "t d"],
    over: str,
) -> Int64[np.ndarray, " k"]:
    """Target ranks: the wins of all targets added (`mean`), or each cell by the target on which it
    stands best (`worst`, for the lock).
    """
    if over == "mean":
        return _ranks(standing(predictor, cells, panel, targets))
    each = [_ranks(standing(predictor, cells, panel, target[None])) for target in targets]
    return _ranks(-np.min(each, axis=0).astype(np.float64))


def _ranks(values: Float[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """0 for the highest; of equals the earlier cell."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def _different(history: Sequence[Cell], space: str, count: int) -> tuple[Cell, ...]:
    """The first cells of a history that are different networks: another spelling of the same one
    would be trained for nothing.
    """
    kept: dict[str, Cell] = {}
    for cell in history:
        kept.setdefault(network_key(cell, space), cell)
    return tuple(kept.values())[:count]


def _said(cells: Sequence[Cell], judged: Judgement) -> dict[Cell, tuple[int, int | None, float]]:
    ranks = judged.target_ranks
    return {
        cell: (
            int(judged.source_ranks[i]),
            None if ranks is None else int(ranks[i]),
            float(judged.fitness[i]),
        )
        for i, cell in enumerate(cells)
    }
