"""What a search will train, before it does."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from lockforge.engine.workload import TrainingCost, Workload, added, fits_of
from lockforge.recipe import FitRecipe, SearchRecipe
from lockforge.records import ImageSet
from lockforge.search._finish import longer
from lockforge.search.measured import FIRST, STEP


def workload_of(source: ImageSet, auxiliary: Sequence[ImageSet], recipe: SearchRecipe) -> Workload:
    """The short trainings of a search, at most: cells that are on both short lists are trained
    once, and cells beyond the guard not at all.

    What lists are made from is exact: `measurements` cells on each side, or none.
    """
    scheme = recipe.scheme or ("TK" if auxiliary else "TU")
    known = auxiliary if scheme == "TK" else ()
    measured = recipe.method == "measured"
    lists = 1 if scheme == "S" else 2  # in S both are the same
    listed = (
        min(recipe.shortlist.cells, recipe.measurements) if measured else recipe.shortlist.cells
    )
    efforts = [
        _on(images, recipe.shortlist.fit, recipe.measurements)
        for images in (source, *known)
        if measured
    ]
    fit = recipe.shortlist.fit
    for number in range(recipe.shortlist.rounds):
        fit = longer(recipe.shortlist.fit, 2**number)
        if number or not measured:
            efforts.append(_on(source, fit, lists * listed))
        if number + 1 < recipe.shortlist.rounds:
            listed = (listed + 1) // 2
    efforts += [_on(images, fit, listed) for images in known]
    return added(efforts)


def _on(images: ImageSet, fit: FitRecipe, trainings: int) -> Workload:
    each: TrainingCost = fits_of(fit, images.counts.train, images.counts.val, trainings=trainings)
    return Workload((each,))


def reckonings(auxiliary: Sequence[ImageSet], recipe: SearchRecipe) -> int:
    """How often a search by measuring fits what it believes of all cells, about: between two rounds
    of trainings, and at the end.
    """
    if recipe.method != "measured":
        return 0
    scheme = recipe.scheme or ("TK" if auxiliary else "TU")
    first = min(FIRST, max(2, recipe.measurements // 2))
    rounds = ceil((recipe.measurements - first) / max(STEP, recipe.measurements // 24))
    return (2 if scheme == "TK" else 1) * (rounds + 1)


def trainings_done(folder: Path) -> int:
    """Short trainings whose outcome an interrupted search has stored in its folder."""
    return sum(1 for _ in folder.glob("measured-*.json"))
