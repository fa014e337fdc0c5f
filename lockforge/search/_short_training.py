"""Measure cells by training them briefly on a data set: the same budget, first weights and order of
batches for all.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lockforge.data.batches import Pool, load_pool
from lockforge.engine.fit import RunContext, fit
from lockforge.errors import OutcomeError
from lockforge.files import write_whole
from lockforge.jobs import Job
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import Architecture, Cell, ImageSet, Record
from lockforge.runs import Work


def architecture_of(cell: Cell, images: ImageSet, network: NetworkRecipe) -> Architecture:
    """The skeleton with this cell, for these images."""
    return Architecture(
        space=network.space,
        cell=cell,
        stem_channels=network.stem_channels,
        cells_per_stage=network.cells_per_stage,
        classes=len(images.classes),
        shape=images.shape,
    )


class Measured(Record):
    """What a short training came to: validation accuracy in [0, 1]; None where it diverged, and the
    error's words then.
    """

    accuracy: float | None
    diverged: str = ""


@dataclass(frozen=True)
class Course:
    """What all short trainings of one set share."""

    images: ImageSet
    network: NetworkRecipe
    recipe: FitRecipe
    train: Pool
    val: Pool


def set_course(
    images: ImageSet, network: NetworkRecipe, recipe: FitRecipe, *, work: Work
) -> Course:
    """Bring the images into memory."""
    train, val = (
        load_pool(images, split, work.files, device=work.device) for split in ("train", "val")
    )
    return Course(images, network, recipe, train, val)


def measure_cell(course: Course, cell: Cell, *, work: Work) -> Measured:
    """Train one cell briefly."""
    net = build(
        architecture_of(cell, course.images, course.network),
        torch_generator(work.seed, "search", "weights"),
    )
    generator = torch_generator(work.seed, "search", "batches")
    context = RunContext(device=work.device, report=work.report)
    try:
        return Measured(
            accuracy=fit(
                net,
                course.train,
                course.recipe,
                generator=generator,
                val=course.val,
                context=context,
            ).val_accuracy
        )
    except OutcomeError as error:
        return Measured(accuracy=None, diverged=error.message)


class ShortTrainings:
    """Validation accuracy of cells after a short training on one set, several at once; each is
    stored as soon as it is known.

    Args: told: called with the number of cells measured so far and what the last one came to. tag:
        of the stored results, where one stage measures with several recipes.
    """

    def __init__(
        self,
        images: ImageSet,
        network: NetworkRecipe,
        recipe: FitRecipe,
        work: Work,
        told: Callable[[int, str], None],
        *,
        tag: str = "",
    ) -> None:
        self.images, self.work, self.told, self.tag = images, work, told, tag
        shared = (images, network, recipe)
        self.spread = Job(measure_cell, set_course, shared, set_course(*shared, work=work))
        self.found: dict[Cell, float | None] = {}

    def measure(self, cells: Sequence[Cell]) -> list[float | None]:
        """Accuracy in [0, 1] of each cell; None where its training diverged."""
        new = [cell for cell in dict.fromkeys(cells) if cell not in self.found]
        wanted = [cell for cell in new if not self._noted(cell).exists()]
        count = len(self.found)

        def tell(value: float | None) -> None:
            nonlocal count
            count += 1
            self.told(count, "diverged" if value is None else f"{value:.3f}")

        def came(place: int, measured: Measured) -> None:
            cell = wanted[place]
            self.work.log(
                cell=str(cell), val_accuracy=measured.accuracy, diverged=measured.diverged
            )
            write_whole(self._noted(cell), json.dumps(measured.accuracy).encode())
            tell(measured.accuracy)

        for cell in new:
            if cell not in wanted:
                tell(self._read(cell))
        self.work.spread(self.spread, [(cell,) for cell in wanted], came)
        self.found |= {cell: self._read(cell) for cell in new}
        return [self.found[cell] for cell in cells]

    def __call__(self, cells: Sequence[Cell]) -> list[float]:
        """The same as plain numbers: what diverged is as bad as can be."""
        return [-1.0 if value is None else value for value in self.measure(cells)]

    def _noted(self, cell: Cell) -> Path:
        """Where a result is stored."""
        return (
            self.work.folder
            / f"measured-{self.tag}{self.images.digest[:8]}-{cell.digest[:16]}.json"
        )

    def _read(self, cell: Cell) -> float | None:
        value = json.loads(self._noted(cell).read_text())
        return None if value is None else float(value)


def elsewhere(sides: Sequence[ShortTrainings], cells: Sequence[Cell], over: str) -> list[float]:
    """How good cells are on several known targets: the mean, or the one on which a cell does best
    (`worst`, for the lock).

    Accuracies are counted from chance (0) to all right (1), so that sets with few and with many
    classes can be put together. Below chance is chance: a training that diverged is no sign of a
    lock.
    """
    chance = np.array([[1 / len(side.images.classes)] for side in sides])
    skill = np.maximum((np.array([side(cells) for side in sides]) - chance) / (1 - chance), 0)
    return [float(value) for value in (skill.mean(axis=0) if over == "mean" else skill.max(axis=0))]
