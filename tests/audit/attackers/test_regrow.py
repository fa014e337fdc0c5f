"""What is initialised again, at which size, and that all of it is trained."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._regrow import alter, regrow, regrown
from lockforge.audit.protocol import Attempt, Budget, Setting
from lockforge.models.networks import CellNetwork
from lockforge.randomness import torch_generator

Run = Callable[..., Sequence[Attempt]]
Prune = Callable[[CellNetwork, float], CellNetwork]


def test_zeros_come_back_at_the_size_of_their_layer() -> None:
    """Half of a large layer of deviation 3 is zero: those are drawn with that deviation times the
    scale, the others keep their bits.
    """
    generator = torch_generator(0, "layer")
    weight = 3 * torch.randn(50, 100, generator=generator)
    weight[:, ::2] = 0
    for scale in (0.1, 1.0):
        found = regrown(weight, 0.0, scale, generator)
        assert torch.equal(found[:, 1::2], weight[:, 1::2])
        assert bool((found[:, ::2] != 0).all())
        assert float(found[:, ::2].std()) == pytest.approx(3 * scale, rel=0.05)


def test_a_layer_of_zeros_comes_back_as_an_empty_one() -> None:
    """He's deviation for its fan-in: sqrt(2 / 200)."""
    assert float(
        regrown(torch.zeros(100, 200), 0.0, 1.0, torch_generator(0)).std()
    ) == pytest.approx(math.sqrt(2 / 200), rel=0.05)


def test_without_zeros_the_weakest_filters_are_renewed() -> None:
    """Of eight filters with norms 8, 1, 7, 2, ... a share of 0.3 renews the two of norms 1 and 2,
    and nothing else.
    """
    weight = torch.tensor([8.0, 1, 7, 2, 6, 3, 5, 4]).view(8, 1, 1, 1).expand(8, 4, 3, 3) / 6
    found = regrown(weight, 0.3, 1.0, torch_generator(0))
    changed = (found != weight).flatten(1)
    assert [i for i in range(8) if changed[i].any()] == [1, 3]
    assert bool(changed[[1, 3]].all())
    assert torch.equal(regrown(weight, 0.0, 1.0, torch_generator(0)), weight)


def test_a_channel_whose_scale_was_zeroed_passes_again(small: Callable[..., CellNetwork]) -> None:
    """A batch norm's scale of zero is one again, other scales stay; the head is left alone."""
    network = small()
    norm = network.stem[1]
    head = network.head.weight.detach().clone()
    with torch.no_grad():
        norm.weight[:2] = torch.tensor([0.0, 0.5])  # type: ignore[operator,index,union-attr]
        network.head.weight[0] = 0
        alter(network, {"share": 0.5, "scale": 1.0}, torch_generator(0))
    assert norm.weight[:3].tolist() == [1.0, 0.5, 1.0]  # type: ignore[operator,index,union-attr]
    assert not bool(network.head.weight[0].any())
    assert torch.equal(network.head.weight[1:], head[1:])


def test_nothing_is_held_afterwards(
    small: Callable[..., CellNetwork], prune: Prune, data: AttackerData, run_attack: Run
) -> None:
    """Every kernel of a network that was pruned by nine tenths is dense after the attack."""
    setting = Setting("adam", 0.01, "re-estimated", (("share", 0.0), ("scale", 1.0)))
    (one,) = run_attack(
        regrow,
        prune(small(), 0.9),
        data,
        [setting],
        Budget(3, 8),
        partial(torch_generator, 0, "dense"),
    )
    assert all(
        bool((part.weight != 0).all())
        for part in one.network.modules()
        if isinstance(part, nn.Conv2d)
    )
