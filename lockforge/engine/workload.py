"""How much there is to train: what a stage is going to ask of this room, counted before anything is
computed. No seconds: see `plan`.

A training is counted as `fit` and `stack` would run it: steps from the same function, validations
as often as they validate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lockforge.engine.fit import line_ends
from lockforge.recipe import FitRecipe

Trained = Literal["network", "head"]
Passed = Literal["network", "probe", "fisher", "restyled"]


@dataclass(frozen=True)
class TrainingCost:
    """Trainings that are alike, and may be stacked.

    Args: trainings: how many. steps: of each. examples: a step. validated: examples that one
        training is validated on, all its validations together. gradients: of a batch of that size,
        a step. together: how many are asked for at once, and may go into one stack. of: a whole
        network, or a linear head on features.
    """

    trainings: int
    steps: int
    examples: int
    validated: int = 0
    gradients: float = 1.0
    together: int = 1
    of: Trained = "network"

    @property
    def all_steps(self) -> int:
        """Optimiser steps of all of them."""
        return self.trainings * self.steps


@dataclass(frozen=True)
class Workload:
    """What a piece of work asks for: trainings, and images that are only passed through a network
    (by which, and how).
    """

    fits: tuple[TrainingCost, ...] = ()
    passes: Mapping[Passed, int] | None = None

    @property
    def trainings(self) -> int:
        """Of whole networks; a head on features is not counted."""
        return sum(one.trainings for one in self.fits if one.of == "network")

    @property
    def steps(self) -> int:
        """Optimiser steps of whole networks."""
        return sum(one.all_steps for one in self.fits if one.of == "network")

    @property
    def passed(self) -> int:
        """Images that are passed through something without training it, validations not counted."""
        return sum((self.passes or {}).values())


def fits_of(
    recipe: FitRecipe, images: int, validation: int, *, trainings: int = 1, gradients: float = 1.0
) -> TrainingCost:
    """Trainings by a recipe on so many images, validated on so many.

    >>> fits_of(FitRecipe(epochs=2, batch_size=8), 20, 5)
    TrainingCost(trainings=1, steps=4, examples=8, validated=10, gradients=1.0, together=1,
    of='network')
    >>> fits_of(FitRecipe(steps=7, batch_size=64, select="last"), 20, 5).validated
    5
    """
    ends = line_ends(recipe, max(1, images // recipe.batch_size))
    lines = len(ends) if recipe.select == "best" or recipe.epochs else 1
    return TrainingCost(
        trainings, ends[-1], min(images, recipe.batch_size), lines * validation, gradients
    )


def added(efforts: Iterable[Workload]) -> Workload:
    """All of them as one; trainings that are alike are put together."""
    fits: dict[TrainingCost, int] = {}
    passes: dict[Passed, int] = {}
    for effort in efforts:
        for one in effort.fits:
            alike = replace(one, trainings=1)
            fits[alike] = fits.get(alike, 0) + one.trainings
        for name, count in (effort.passes or {}).items():
            passes[name] = passes.get(name, 0) + count
    return Workload(tuple(replace(one, trainings=count) for one, count in fits.items()), passes)
