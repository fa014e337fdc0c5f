"""What is trained when the last block is, in networks of several shapes."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._last_block import freeze_first, last_block, settings
from lockforge.audit.protocol import Attempt, Budget, Capabilities
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import NamedArchitecture

Run = Callable[..., Sequence[Attempt]]


class Plain(nn.Module):
    """Convolutions in a row, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Conv2d(2, 2, 3),
            nn.BatchNorm2d(2),
            nn.ReLU(),
        )
        self.head = nn.Linear(2, 2)


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)


class Residual(nn.Module):
    """Two layers of blocks; the head is not the last child."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2, 2)
        self.first, self.second = (nn.Sequential(Block(), Block()) for _ in range(2))


class OnlyHead(nn.Module):
    """Nothing before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "trained"),
    [
        (Plain(), ("layers.3.", "layers.4.", "head.")),
        (Residual(), ("second.1.", "head.")),
        (OnlyHead(), ("head.",)),
    ],
    ids=["plain", "residual", "head"],
)
def test_the_last_block_is_found_in_any_network(
    network: nn.Module, trained: tuple[str, ...]
) -> None:
    """The last convolution with its batch norm, the last residual block, or the head alone; nothing
    else.
    """
    freeze_first(network, {}, torch_generator(0))  # type: ignore[arg-type]  # stand-ins
    free = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert free == {name for name, _ in network.named_parameters() if name.startswith(trained)}


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("resnet20-cifar", "body.layer3.2."),
        ("resnet18", "body.layer4.1."),
        ("vgg11_bn", "body.classifier.3."),
        ("mobilenet_v2", "body.features.18."),
        ("vit_tiny-cifar", "body.blocks.11."),
    ],
)
def test_of_a_network_by_name_the_last_block_is_trained_too(name: str, trained: str) -> None:
    """Not its whole body: the last block, a norm behind all blocks, and the head."""
    network = build(NamedArchitecture(name=name, classes=2, shape=(1, 32, 32)), torch_generator(0))
    freeze_first(network, {}, torch_generator(0))
    free = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert free == {
        key
        for key, _ in network.named_parameters()
        if key.startswith((trained, "body.norm.", "head."))
    }


def test_everything_before_the_last_stage_stays(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Of a cell network the last stage, the batch norm behind it and the head move; before it no
    weight, and no source statistic.
    """
    given = small()
    before = state(given)
    draw = partial(torch_generator, 0, "last")
    for attempt in run_attack(
        last_block, given, data, settings(AuditRecipe(rates=(0.01,)), facts), Budget(4, 8), draw
    ):
        moved = {
            name
            for name, tensor in state(attempt.network).items()
            if not torch.equal(tensor, before[name])
        }
        weights = {name for name, _ in given.named_parameters()}
        late = ("stages.2.", "last.", "head.")
        assert moved & weights == {name for name in weights if name.startswith(late)}
        early = {name for name in moved - weights if not name.startswith(late)}
        assert bool(early) == (attempt.setting.batch_norm == "re-estimated")
