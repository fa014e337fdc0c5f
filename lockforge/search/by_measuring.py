"""Search by measuring alone (`search.method: measured`): short trainings on the source, in TK also on the auxiliary sets, and no evolution.

In S the best cell on the source. In TU, where no other data are known, the prior "good in general" is the packaged predictor's ranking on
its mean task, which is weak. In TK both sides are measured. The reference is the best cell on the source by the same measurements.
"""

from collections.abc import Sequence

import numpy as np

from lockforge.errors import OutcomeError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import NetworkRecipe, SearchRecipe
from lockforge.records import Candidate, Cell, ImageSet, SearchResult
from lockforge.runs import Work
from lockforge.search.measured import Found, find_best, find_between, find_specific
from lockforge.search.predictor import Predictor
from lockforge.search.ranking import standing
from lockforge.search.short_training import ShortTrainings, architecture_of
from lockforge.search.surrogate import Surrogate
from lockforge.spaces import all_cells
from lockforge.spaces.cells import connected
from lockforge.spaces.isomorphism import network_key

_PANEL = 256


def search_by_measuring(
    scheme: str,
    source: ImageSet,
    auxiliary: Sequence[ImageSet],
    predictor: Predictor,
    network: NetworkRecipe,
    recipe: SearchRecipe,
    work: Work,
) -> SearchResult:
    """Choose a cell and a reference from measurements of the source, and in TK of the auxiliary sets.

    Raises: RecipeError: a budget larger than the space. OutcomeError: every short training diverged.
    """
    cells = different_networks(network.space)
    budget, total = recipe.measurements, recipe.measurements * (1 + (len(auxiliary) if scheme == "TK" else 0))
    if budget > len(cells):
        raise RecipeError(f"search.measurements is {budget}, but {network.space} has {len(cells)} networks", hint="give fewer")
    done = [0]

    def told(_count: int, said: str) -> None:
        done[0] += 1
        work.report(done[0], total, f"short training: {said}")

    here = ShortTrainings(source, network, recipe.shortlist.fit, work, told)
    there = [ShortTrainings(images, network, recipe.shortlist.fit, work, told) for images in auxiliary]
    generator = numpy_generator(work.seed, "search", "measured")
    if scheme == "S":
        found = find_best(cells, here, budget, generator)
    elif scheme == "TK":
        budgets = (budget, budget)
        found, _ = find_between(cells, here, lambda some: _mean(there, some), budgets, generator, good_enough=recipe.good_enough)
    else:
        panel = [cells[at] for at in np.linspace(0, len(cells) - 1, _PANEL).round().astype(int)]
        prior = standing(predictor, cells, panel, None)
        found = find_specific(cells, here, prior, budget, generator, good_enough=recipe.good_enough)
    if max(found.values) < 0:
        raise OutcomeError(f"all {len(found.values)} short trainings diverged", hint="lower search.shortlist.fit.learning_rate")
    reference = _most_likely_best(cells, found)
    return SearchResult(
        scheme=scheme,  # type: ignore[arg-type]  # one of the three
        chosen=architecture_of(found.chosen, source, network),
        reference=architecture_of(reference, source, network),
        candidates=_candidates(here, there, recipe.source_weight),
        questions=0,
        predictor=predictor.digest,
        source_cosines=(),
        used=_used(scheme, len(here.found), [len(side.found) for side in there]),
    )


def different_networks(space: str) -> tuple[Cell, ...]:
    """The cells whose output depends on their input, one spelling of each network."""
    kept: dict[str, Cell] = {}
    for cell in all_cells(space):
        if connected(cell):
            kept.setdefault(network_key(cell, space), cell)
    return tuple(kept.values())


def _mean(sides: Sequence[ShortTrainings], cells: Sequence[Cell]) -> list[float]:
    return [float(value) for value in np.mean([side(cells) for side in sides], axis=0)]


def _most_likely_best(cells: Sequence[Cell], found: Found) -> Cell:
    belief = Surrogate(cells).fit(np.array(found.measured), np.array(found.values))
    return cells[max(found.measured, key=lambda at: belief.mean[at])]


def _candidates(here: ShortTrainings, there: Sequence[ShortTrainings], weight: float) -> tuple[Candidate, ...]:
    """Every cell that was measured on the source, best first; ranks are among those measured."""
    values = {cell: -1.0 if value is None else value for cell, value in here.found.items()}
    ordered = sorted(values, key=lambda cell: (-values[cell], str(cell)))
    others = {
        cell: float(np.mean([side([cell]) for side in there])) for cell in ordered if there and all(cell in side.found for side in there)
    }
    beyond = sorted(others, key=lambda cell: (-others[cell], str(cell)))
    return tuple(
        Candidate(
            cell=cell,
            source_rank=rank,
            target_rank=beyond.index(cell) if cell in others else None,
            rank_gap=(beyond.index(cell) if cell in others else 0.0) - weight * rank,
            judged_by=("short training", *(["short training on the auxiliary data"] if cell in others else [])),
            source_accuracy=here.found[cell],
            auxiliary_accuracy=max(0.0, others[cell]) if cell in others else None,
        )
        for rank, cell in enumerate(ordered)
    )


def _used(scheme: str, measured: int, elsewhere: Sequence[int]) -> tuple[str, ...]:
    known = {
        "S": (),
        "TU": ("the packaged predictor's ranking on its mean task (a prior from zero-cost proxies of other tasks)",),
        "TK": (f"the auxiliary sets' train and validation pictures ({sum(elsewhere)} short trainings)",),
    }
    return (f"the source's train and validation pictures ({measured} short trainings)", *known[scheme])
