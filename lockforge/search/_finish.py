"""The measured finish: short lists are trained briefly, the better half of each goes on with twice
the training, then one is chosen.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) on the source's validation
accuracy. The lock's cell has to stay within a guard of the best cell measured; of those that do,
the fittest is chosen, in TK the one that is poorest on the auxiliary data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lockforge.errors import OutcomeError
from lockforge.recipe import FitRecipe, NetworkRecipe, SearchRecipe
from lockforge.records import Cell, ImageSet
from lockforge.runs import Work
from lockforge.search._lists import Lists
from lockforge.search._short_training import ShortTrainings, elsewhere


@dataclass(frozen=True)
class Finish:
    """The choice and the reference; of every cell that was trained its last accuracy (None:
    diverged) and in how many rounds it was.

    `auxiliary`: in TK, how good the last cells are on the auxiliary data, from chance (0) to 1.
    `kept`: cells of the lock's list that stayed within the guard; where there is none, the
    reference itself is the choice. `trainings`: on the source, and on auxiliary data, with those
    that the lists were made from.
    """

    chosen: Cell
    reference: Cell
    accuracy: dict[Cell, float | None]
    rounds: dict[Cell, int]
    auxiliary: dict[Cell, float]
    kept: int
    trainings: tuple[int, int]


def finish(
    lists: Lists,
    source: ImageSet,
    auxiliary: Sequence[ImageSet],
    network: NetworkRecipe,
    recipe: SearchRecipe,
    work: Work,
    *,
    begun: float,
    locks: bool = True,
) -> Finish:
    """Train, halve, choose.

    Args: auxiliary: what the lock may learn from, in TK. begun: share of the progress that is over.
        locks: whether there is a lock (not in S); without one nothing may be spent on it, and the
        choice is the reference.
    Raises: OutcomeError: every training of a list diverged.
    """
    locked, unlocked = list(lists.locked), list(lists.unlocked)
    first = list(dict.fromkeys((*locked, *unlocked)))
    total = (
        len(first) * recipe.shortlist.rounds
    )  # about: every round has half as many, twice as long
    accuracy: dict[Cell, float | None] = {}
    rounds: dict[Cell, int] = {}
    done = 0

    def told(_count: int, said: str) -> None:
        nonlocal done
        done += 1
        work.report(
            min(1.0, begun + (1 - begun) * done / total), 1, f"short list, training {done}: {said}"
        )

    for number in range(recipe.shortlist.rounds):
        fit, tag = longer(recipe.shortlist.fit, 2**number), f"round{number}-" if number else ""
        alive = list(dict.fromkeys((*locked, *unlocked)))
        found = dict(
            zip(
                alive,
                ShortTrainings(source, network, fit, work, told, tag=tag).measure(alive),
                strict=True,
            )
        )
        accuracy |= found
        rounds |= dict.fromkeys(alive, number + 1)
        if number + 1 < recipe.shortlist.rounds:
            locked, unlocked = (_better_half(cells, found) for cells in (locked, unlocked))
    reference = _best(unlocked, accuracy)
    last = {
        cell: value
        for cell in dict.fromkeys((*locked, *unlocked))
        if (value := accuracy[cell]) is not None
    }
    guard = recipe.guard if locks else 0.0
    within = [cell for cell in locked if last.get(cell, -1.0) >= max(last.values()) - guard]
    beyond: dict[Cell, float] = {}
    if auxiliary and within:
        sides = [ShortTrainings(images, network, fit, work, told, tag=tag) for images in auxiliary]
        beyond = dict(zip(within, elsewhere(sides, within, recipe.over), strict=True))
    chosen = reference if not within else min(within, key=lambda cell: beyond.get(cell, 0.0))
    more = sum(count - (cell in lists.accuracy) for cell, count in rounds.items())
    return Finish(
        chosen,
        reference,
        accuracy,
        rounds,
        beyond,
        len(within),
        (len(lists.accuracy) + more, len(beyond) * len(auxiliary)),
    )


def longer(recipe: FitRecipe, times: int) -> FitRecipe:
    """The same training, so many times as long.

    >>> longer(FitRecipe(epochs=2), 4).epochs
    8
    """
    if recipe.epochs is None:
        return recipe.model_copy(update={"steps": (recipe.steps or 1) * times})
    return recipe.model_copy(update={"epochs": recipe.epochs * times})


def _better_half(cells: Sequence[Cell], accuracy: dict[Cell, float | None]) -> list[Cell]:
    """The more accurate half, rounded up, in the order given."""
    value = {cell: -1.0 if (found := accuracy[cell]) is None else found for cell in cells}
    kept = set(sorted(cells, key=lambda cell: -value[cell])[: (len(cells) + 1) // 2])
    return [cell for cell in cells if cell in kept]


def _best(cells: Sequence[Cell], accuracy: dict[Cell, float | None]) -> Cell:
    """The cell with the highest measured accuracy; of equals the fitter one, which comes first."""
    measured = {cell: value for cell in cells if (value := accuracy[cell]) is not None}
    if not measured:
        raise OutcomeError(
            f"all {len(cells)} cells of the short list diverged in the short training",
            hint="lower search.shortlist.fit.learning_rate",
        )
    return max(measured, key=lambda cell: measured[cell])
