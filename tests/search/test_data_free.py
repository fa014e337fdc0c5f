"""The proxies that need no images, against closed forms and laws."""

import math

import pytest
import torch
from torch import Tensor, nn

from lockforge.models.networks import build, parameters, state
from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell
from lockforge.search._data_free import DATA_FREE, score_data_free

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)
ARCHITECTURE = Architecture(
    space="nasbench201",
    cell=Cell.parse(CELL),
    stem_channels=4,
    cells_per_stage=1,
    classes=4,
    shape=(1, 8, 8),
)


def draws() -> torch.Generator:
    """The same draws every time."""
    return torch_generator(0, "data free")


class Chain(nn.Module):
    """conv (no bias) -> batch norm -> mean over pixels -> linear: everything can be said by
    hand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = (
            nn.Conv2d(1, 2, 1, bias=False),
            nn.BatchNorm2d(2),
            nn.Linear(2, 3),
        )
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[[[2.0]]], [[[-3.0]]]]))
            self.last.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0], [-4.0, 0.0]]))
            self.last.bias.zero_()

    def maps(self, x: Tensor) -> Tensor:
        """Maps before the mean."""
        out: Tensor = self.norm(self.conv(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.last(self.maps(x).mean((2, 3)))
        return out


def test_a_chain_has_closed_forms() -> None:
    """R = sum_o sum_i |V_oi| |w_i| is linear in each layer, so each layer's sum |W dR/dW| is R and
    synflow is log 2R; norms by hand.
    """
    scores = score_data_free(Chain(), (1, 5, 5), draws())
    flow = 2 * (1 + 0.5 + 4) + 3 * (1 + 2)
    assert scores["synflow"] == pytest.approx(math.log(2 * flow))
    assert scores["l2_norm"] == pytest.approx(math.sqrt(13) + math.sqrt(1 + 1 + 0.25 + 4 + 16))
    assert scores["params"] == 2 + 4 + 6 + 3


def test_zen_of_a_chain_is_what_its_definition_says() -> None:
    """The same draws in the same order, worked out without the engine."""
    found = score_data_free(Chain(), (1, 5, 5), draws(), inputs=6)["zen"]
    generator = draws()
    weight = torch.randn(2, 1, 1, 1, generator=generator)
    torch.randn(3, 2, generator=generator)
    x, y = (
        torch.randn(6, 1, 5, 5, generator=generator),
        torch.randn(6, 1, 5, 5, generator=generator),
    )

    running = torch.ones(2)
    maps = []
    for given in (x, x + 0.01 * y):
        raw = given * weight.view(1, 2, 1, 1)
        mean, variance = (
            raw.mean((0, 2, 3), keepdim=True),
            raw.var((0, 2, 3), keepdim=True, correction=0),
        )
        maps.append((raw - mean) / (variance + 1e-5).sqrt())
        running = 0.9 * running + 0.1 * raw.var((0, 2, 3), correction=1)
    wanted = math.log(float((maps[0] - maps[1]).abs().flatten(1).sum(1).mean())) + 0.5 * math.log(
        float(running.mean())
    )
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_cell_has_all_four_and_is_left_as_it_was() -> None:
    """Numbers for each, parameters as the tables count them, the same answer twice."""
    network = build(ARCHITECTURE, torch_generator(0, "weights"))
    before = {name: tensor.clone() for name, tensor in state(network).items()}
    scores = score_data_free(network, ARCHITECTURE.shape, draws())
    assert set(scores) == set(DATA_FREE)
    assert None not in scores.values()
    assert scores["params"] == parameters(ARCHITECTURE)
    assert score_data_free(network, ARCHITECTURE.shape, draws()) == scores
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(network).items())
    assert not any(module._forward_hooks for module in network.modules())


def test_what_cannot_be_said_is_missing() -> None:
    """A network that gives the same for every input has no flow; without `maps` there is no zen;
    without weights only their number.
    """
    dead = Chain()
    nn.init.zeros_(dead.last.weight)
    assert score_data_free(dead, (1, 5, 5), draws())["synflow"] is None
    assert (
        score_data_free(nn.Sequential(nn.Flatten(), nn.Linear(25, 2)), (1, 5, 5), draws())["zen"]
        is None
    )
    empty = nn.Sequential(nn.Flatten(), nn.PReLU())
    assert score_data_free(empty, (1, 5, 5), draws()) == {
        "l2_norm": None,
        "params": 1.0,
        "synflow": None,
        "zen": None,
    }
