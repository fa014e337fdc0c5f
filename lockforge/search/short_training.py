"""Measure cells by training them briefly on a data set: the same budget, first weights and order of batches for all."""

import json
from collections.abc import Callable, Sequence

import numpy as np

from lockforge.data.batches import load_pool
from lockforge.engine.fit import Bench, fit
from lockforge.errors import OutcomeError
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import Architecture, Cell, ImageSet
from lockforge.runs import Work, write_whole
from lockforge.spaces.networks import build


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


class ShortTrainings:
    """Validation accuracy of cells after a short training on one set; each result is stored as soon as it is known.

    Args: told: called with the number of cells measured so far and what the last one came to. tag: of the stored results, where one stage
        measures with several recipes.
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
        self.images, self.network, self.recipe, self.work, self.told, self.tag = images, network, recipe, work, told, tag
        self.train, self.val = (load_pool(images, split, work.files, device=work.device) for split in ("train", "val"))
        self.found: dict[Cell, float | None] = {}

    def measure(self, cells: Sequence[Cell]) -> list[float | None]:
        """Accuracy in [0, 1] of each cell; None where its training diverged."""
        for cell in cells:
            if cell not in self.found:
                self.found[cell] = self._one(cell)
                value = self.found[cell]
                self.told(len(self.found), "diverged" if value is None else f"{value:.3f}")
        return [self.found[cell] for cell in cells]

    def __call__(self, cells: Sequence[Cell]) -> list[float]:
        """The same as plain numbers: what diverged is as bad as can be."""
        return [-1.0 if value is None else value for value in self.measure(cells)]

    def _one(self, cell: Cell) -> float | None:
        noted = self.work.folder / f"measured-{self.tag}{self.images.digest[:8]}-{cell.digest[:16]}.json"
        if not noted.exists():
            net = build(architecture_of(cell, self.images, self.network), torch_generator(self.work.seed, "search", "weights"))
            generator = torch_generator(self.work.seed, "search", "batches")
            try:
                fitted = fit(net, self.train, self.recipe, generator=generator, val=self.val, bench=Bench(device=self.work.device))
                value = fitted.val_accuracy
            except OutcomeError as error:
                self.work.log(cell=str(cell), diverged=error.message)
                value = None
            self.work.log(cell=str(cell), val_accuracy=value)
            write_whole(noted, json.dumps(value).encode())
        value = json.loads(noted.read_text())
        return None if value is None else float(value)


def elsewhere(sides: Sequence[ShortTrainings], cells: Sequence[Cell], over: str) -> list[float]:
    """How good cells are on several known targets: the mean, or the one on which a cell does best (`worst`, for the lock).

    Accuracies are counted from chance (0) to all right (1), so that sets with few and with many classes can be put together. Below chance
    is chance: a training that diverged is no sign of a lock.
    """
    chance = np.array([[1 / len(side.images.classes)] for side in sides])
    skill = np.maximum((np.array([side(cells) for side in sides]) - chance) / (1 - chance), 0)
    return [float(value) for value in (skill.mean(axis=0) if over == "mean" else skill.max(axis=0))]
