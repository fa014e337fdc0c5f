"""Search by measuring (`search.method: measured`): short trainings on the source, in TK also on the
auxiliary sets; no evolution.

In S the best cell on the source. In TU, where no other data are known, the prior "good in general"
is the packaged meta-bench: short trainings of cells on other data. In TK both sides are measured.
In TU and TK a cell may be so much under the best measured one (`search.guard`), and of those the
poorest elsewhere come first. Both short lists are measured cells and go into the measured finish,
whose first round finds them trained.
"""

from collections.abc import Callable, Sequence

from lockforge.errors import OutcomeError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import NetworkRecipe, SearchRecipe
from lockforge.records import Cell, ImageSet
from lockforge.runs import Work
from lockforge.search._lists import Lists
from lockforge.search._short_training import ShortTrainings, elsewhere
from lockforge.search.measured import find_best, find_between, find_specific, within
from lockforge.search.meta_bench import load_meta_bench
from lockforge.spaces.isomorphism import different_networks


def by_measuring(
    scheme: str,
    source: ImageSet,
    auxiliary: Sequence[ImageSet],
    network: NetworkRecipe,
    recipe: SearchRecipe,
    work: Work,
    *,
    tick: Callable[[float, str], None],
) -> Lists:
    """Both lists from measurements of the source, and in TK of the auxiliary sets; ranks are among
    the measured cells.

    Raises: RecipeError: a budget larger than the space. OutcomeError: every short training
        diverged.
    """
    cells = different_networks(network.space)
    budget, sides = recipe.measurements, 1 + (len(auxiliary) if scheme == "TK" else 0)
    if budget > len(cells):
        raise RecipeError(
            f"search.measurements is {budget}, but {network.space} has {len(cells)} networks",
            hint="give fewer",
        )
    done = [0]

    def told(_count: int, said: str) -> None:
        done[0] += 1
        tick(done[0] / (budget * sides), f"measuring cells: {said}")

    here = ShortTrainings(source, network, recipe.shortlist.fit, work, told)
    there = [
        ShortTrainings(images, network, recipe.shortlist.fit, work, told) for images in auxiliary
    ]
    generator = numpy_generator(work.seed, "search", "measured")
    beyond: dict[Cell, float] = {}
    if scheme == "S":
        found = find_best(cells, here, budget, generator)
    elif scheme == "TK":
        found, other = find_between(
            cells,
            here,
            lambda some: elsewhere(there, some, recipe.over),
            budget,
            generator,
            bar=within(recipe.guard),
        )
        beyond = {cells[at]: value for at, value in zip(other.measured, other.values, strict=True)}
    else:
        prior = load_meta_bench(network.space).good_in_general(cells)
        found = find_specific(cells, here, prior, budget, generator, bar=within(recipe.guard))
        beyond = {cells[at]: float(prior[at]) for at in found.measured}
    if max(found.values) < 0:
        raise OutcomeError(
            f"all {len(found.values)} short trainings diverged",
            hint="lower search.shortlist.fit.learning_rate",
        )
    locked, unlocked = (
        tuple(cells[at] for at in order[: recipe.shortlist.cells])
        for order in (found.fittest, found.best)
    )
    said = _said([cells[at] for at in found.best], beyond, recipe.source_weight)
    return Lists(
        locked, unlocked, said, questions=0, among=len(found.measured), accuracy=here.found
    )


def _said(
    best: Sequence[Cell], beyond: dict[Cell, float], weight: float
) -> dict[Cell, tuple[int, int | None, float]]:
    """Ranks of the measured cells on the source, and elsewhere among those that are known there."""
    known = sorted((cell for cell in best if cell in beyond), key=lambda cell: -beyond[cell])
    ranks = {cell: rank for rank, cell in enumerate(known)}
    return {
        cell: (rank, ranks.get(cell), (ranks.get(cell) or 0) - weight * rank)
        for rank, cell in enumerate(best)
    }
