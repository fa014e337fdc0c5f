"""Sharpness-aware steps are asked for, differ from plain ones, and cost twice."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit._tuning import starts_of, tune
from lockforge.audit.attackers._sharpness import sharpness
from lockforge.audit.protocol import (
    Attempt,
    Budget,
    InitialModel,
    Setting,
    Training,
    in_step,
    train_all,
)
from lockforge.models.networks import CellNetwork, state
from lockforge.randomness import torch_generator
from lockforge.spaces.counts import flops

Run = Callable[..., Sequence[Attempt]]
DRAW = partial(torch_generator, 0, "sharp")
BUDGET = Budget(4, 8)


def test_each_training_has_the_settings_rho(
    small: Callable[..., CellNetwork], data: AttackerData
) -> None:
    """Two settings, two radii; the weights that come back are not those of the same training
    without.
    """
    radii = [Setting("sgd", 0.1, "source", (("rho", rho),)) for rho in (0.5, 2.0)]
    asked: list[Training] = []

    def train(wanted: Sequence[Training]) -> list[object]:
        asked.extend(wanted)
        return train_all(wanted, BUDGET)

    (sharp,) = in_step([sharpness(InitialModel(small()), data, radii, BUDGET, DRAW)], train)  # type: ignore[arg-type]
    assert [one.sharpness for one in asked] == [0.5, 2.0]
    starts = starts_of(InitialModel(small()), data, radii, BUDGET, DRAW)
    (plain,) = in_step([tune(starts, data, BUDGET, DRAW)], train)  # type: ignore[arg-type]
    for with_, without in zip(sharp, plain, strict=True):
        assert not torch.allclose(
            state(with_.network)["stem.0.weight"],
            state(without.network)["stem.0.weight"],
            rtol=1e-2,
        )


def test_a_step_costs_two(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """Closed form: 6 passes x 4 steps x 8 images, and 20 images for the statistics."""
    given = small()
    (one,) = run_attack(
        sharpness, given, data, [Setting("sgd", 0.1, "re-estimated", (("rho", 0.5),))], BUDGET, DRAW
    )
    assert one.operations == flops(given.architecture) * (6 * 4 * 8 + 20)
