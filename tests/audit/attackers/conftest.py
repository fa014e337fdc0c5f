"""Small networks to attack, whole and pruned."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lockforge.models.networks import CellNetwork, build
from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell, Op

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))


@pytest.fixture
def small() -> Callable[[str], CellNetwork]:
    """`small(name)`: a random network for four classes whose batch norms have seen other images."""

    def make(name: str = "attacked") -> CellNetwork:
        architecture = Architecture(
            space="nasbench201",
            cell=CELL,
            stem_channels=4,
            cells_per_stage=1,
            classes=4,
            shape=(1, 6, 6),
        )
        network = build(architecture, torch_generator(0, name))
        network.train()
        with torch.no_grad():
            network(3 + 2 * torch.randn(16, 1, 6, 6, generator=torch_generator(0, name, "seen")))
        return network.eval()

    return make


@pytest.fixture
def prune() -> Callable[[CellNetwork, float], CellNetwork]:
    """`prune(network, share)`: zero so many of the *largest* weights of each convolution, in
    place.
    """

    def cut(network: CellNetwork, share: float) -> CellNetwork:
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    order = module.weight.abs().flatten().argsort(descending=True)
                    kept = torch.ones(len(order))
                    kept[order[: int(share * len(order))]] = 0
                    module.weight.mul_(kept.view(module.weight.shape))
        return network

    return cut
