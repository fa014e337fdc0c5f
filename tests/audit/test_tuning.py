"""What settings share before they are trained, and what that costs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit._tuning import adam_rates, every_rate, starts_of
from lockforge.audit.protocol import Budget, InitialModel, Setting
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.counts import flops

DRAW = partial(torch_generator, 0, "tuning")
CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))


def network() -> CellNetwork:
    """A random network for four classes."""
    architecture = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 6, 6),
    )
    return build(architecture, torch_generator(0, "altered"))


def test_settings_share_what_they_can(data: AttackerData) -> None:
    """Two rates share a network, two batch norms an alteration, and another alteration draws
    anew.
    """

    def shake(given: CellNetwork, also: Mapping[str, Any], generator: torch.Generator) -> None:
        given.head.weight.add_(
            also["by"] * torch.randn(given.head.weight.shape, generator=generator)
        )

    settings = [
        Setting("adam", 0.1, "source", (("by", 1.0),)),
        Setting("sgd", 0.2, "source", (("by", 1.0),)),
        Setting("adam", 0.1, "re-estimated", (("by", 1.0),)),
        Setting("adam", 0.1, "source", (("by", 2.0),)),
    ]
    given = network()
    a, b, c, d = starts_of(InitialModel(given), data, settings, Budget(1, 8), DRAW, shake).values()
    assert a.network is b.network
    assert torch.equal(a.network.head.weight, c.network.head.weight)
    change = [one.network.head.weight - given.head.weight for one in (a, d)]
    assert not torch.allclose(2 * change[0], change[1])
    assert torch.equal(state(a.network)["last.running_mean"], state(given)["last.running_mean"])
    assert not torch.equal(state(c.network)["last.running_mean"], state(given)["last.running_mean"])
    assert [one.operations for one in (a, b, c, d)] == [0, 0, flops(given.architecture) * 20, 0]


def test_statistics_are_taken_after_the_change(data: AttackerData) -> None:
    """A stem whose kernels were multiplied by ten makes maps ten times as large: the statistics say
    so.
    """

    def louder(given: CellNetwork, _also: Mapping[str, Any], _generator: torch.Generator) -> None:
        given.stem[0].weight.mul_(10)  # type: ignore[operator,union-attr]

    setting = Setting("adam", 0.1, "re-estimated")
    name = "stem.1.running_var"
    (plain,), (loud,) = (
        starts_of(InitialModel(network()), data, [setting], Budget(1, 8), DRAW, alter).values()
        for alter in (None, louder)
    )
    torch.testing.assert_close(state(loud.network)[name], 100 * state(plain.network)[name])


def test_rates_are_those_of_the_recipe() -> None:
    """Each once, Adam's first."""
    recipe = AuditRecipe(rates=(0.01, 0.02, 0.01), sgd_rates=(0.3,))
    assert [(one.optimizer, one.rate) for one in every_rate(recipe, "own")] == [
        ("adam", 0.01),
        ("adam", 0.02),
        ("sgd", 0.3),
    ]
    assert [one.rate for one in adam_rates(recipe, "own")] == [0.01, 0.02]
