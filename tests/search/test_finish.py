"""The measured finish with trainings whose outcome is known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lockforge.errors import OutcomeError
from lockforge.files import Files
from lockforge.randomness import numpy_generator
from lockforge.recipe import FitRecipe, NetworkRecipe, SearchRecipe, ShortlistRecipe
from lockforge.records import Cell, ImageSet
from lockforge.runs import Work
from lockforge.search import _finish as room
from lockforge.search._finish import Finish, finish, longer
from lockforge.search._lists import Lists
from lockforge.search.tasks import draw_cells

CELLS = draw_cells("nasbench201", 6, (), numpy_generator(0, "finish"))
NETWORK = NetworkRecipe(space="nasbench201", stem_channels=4, cells_per_stage=1)

Finishing = Callable[..., Finish]


@pytest.fixture
def finishing(
    monkeypatch: pytest.MonkeyPatch, digits: ImageSet, other_digits: ImageSet, tmp_path: Path
) -> Finishing:
    """`ask(outcomes, elsewhere, ...)`: cells 0 to 3 are the lock's list, 2 to 5 the other; what
    every training comes to is given.
    """

    def ask(
        outcomes: Sequence[float | None],
        there: Sequence[float] = (),
        *,
        rounds: int = 1,
        guard: float = 0.02,
        alone: bool = False,
    ) -> Finish:
        class Known:
            def __init__(self, images: ImageSet, *_: Any, **_tag: str) -> None:
                self.images, self.known = (
                    images,
                    dict(zip(CELLS, outcomes if images == digits else there, strict=True)),
                )

            def measure(self, cells: Sequence[Cell]) -> list[float | None]:
                return [self.known[cell] for cell in cells]

            def __call__(self, cells: Sequence[Cell]) -> list[float]:
                return [
                    -1.0 if self.known[cell] is None else float(self.known[cell] or 0)
                    for cell in cells
                ]

        monkeypatch.setattr(room, "ShortTrainings", Known)
        lists = Lists(CELLS[:4], CELLS[:4] if alone else CELLS[2:], {}, 0, 6)
        recipe = SearchRecipe(guard=guard, shortlist=ShortlistRecipe(rounds=rounds))
        work = Work(files=Files(tmp_path), folder=tmp_path, seed=0)
        return finish(
            lists,
            digits,
            (other_digits,) if there else (),
            NETWORK,
            recipe,
            work,
            begun=0.2,
            locks=not alone,
        )

    return ask


def test_the_fittest_that_stays_within_the_guard(finishing: Finishing) -> None:
    """Cell 0 is too far under the best, cell 1 is not; the reference is the best of its own
    list.
    """
    found = finishing([0.85, 0.88, 0.89, 0.7, 0.8, 0.90])
    assert (found.chosen, found.reference) == (CELLS[1], CELLS[5])
    assert (found.kept, found.trainings) == (2, (6, 0))
    assert finishing([0.85, 0.88, 0.89, 0.7, 0.8, 0.90], guard=0.05).chosen == CELLS[0]


def test_outside_the_guard_the_reference_is_the_choice(finishing: Finishing) -> None:
    """A lock that costs more than the guard allows is not taken."""
    found = finishing([0.5, 0.5, 0.5, 0.5, 0.8, 0.90])
    assert found.chosen == found.reference == CELLS[5]
    assert found.kept == 0


def test_without_a_lock_nothing_is_spent_on_one(finishing: Finishing) -> None:
    """S: both lists are one, and the fittest within the guard is not taken for the most
    accurate.
    """
    found = finishing([0.89, 0.88, 0.90, 0.7, 0.8, 0.5], alone=True)
    assert found.chosen == found.reference == CELLS[2]


def test_with_auxiliary_data_the_poorest_there(finishing: Finishing) -> None:
    """Only cells within the guard are measured there; accuracies count from chance."""
    found = finishing([0.89, 0.88, 0.89, 0.7, 0.8, 0.90], [0.6, 0.5, 0.4, 0.1, 0.1, 0.1])
    assert found.chosen == CELLS[2]
    assert found.auxiliary == pytest.approx({CELLS[0]: 0.5, CELLS[1]: 0.375, CELLS[2]: 0.25})
    assert found.trainings == (6, 3)


def test_the_better_half_goes_on(finishing: Finishing) -> None:
    """Half of each list by source accuracy, whatever its fitness; the rest keeps the accuracy of
    its last round.
    """
    found = finishing([0.1, 0.88, 0.2, 0.9, 0.3, 0.4], rounds=2, guard=0.05)
    assert {cell for cell, count in found.rounds.items() if count == 2} == {
        CELLS[1],
        CELLS[3],
        CELLS[5],
    }
    assert (found.chosen, found.reference) == (CELLS[1], CELLS[3])
    assert found.trainings == (9, 0)


def test_a_cell_that_diverged_is_never_the_choice(finishing: Finishing) -> None:
    """It has no accuracy; a list of nothing else is an error."""
    found = finishing([None, 0.88, None, None, 0.8, 0.89])
    assert found.chosen == CELLS[1]
    with pytest.raises(OutcomeError, match="all 4 cells of the short list diverged"):
        finishing([0.9, 0.9, None, None, None, None])


def test_longer_is_the_same_training() -> None:
    """Steps or epochs, nothing else."""
    assert longer(FitRecipe(steps=7), 4) == FitRecipe(steps=28)
    assert longer(FitRecipe(epochs=2), 2) == FitRecipe(epochs=4)
