"""w <- lambda w + sigma * fresh, before the head."""

import math
from collections.abc import Callable

import pytest
import torch

from lockforge.audit.attackers._shrink_perturb import alter
from lockforge.models.networks import CellNetwork
from lockforge.randomness import torch_generator

KERNEL = "stages.2.cells.0.edges.3.conv.weight"


def test_weights_shrink_and_an_empty_network_is_added(small: Callable[..., CellNetwork]) -> None:
    """What is added to lambda w has He's deviation times sigma: the least-squares slope of new on
    old weights is lambda.
    """
    network, before = small(), small().state_dict()
    with torch.no_grad():
        alter(network, {"lambda": 0.7, "sigma": 0.2}, torch_generator(0, "perturbed"))
    added = network.state_dict()[KERNEL] - 0.7 * before[KERNEL]
    fan_in = before[KERNEL][0].numel()
    assert float(added.std()) == pytest.approx(0.2 * math.sqrt(2 / fan_in), rel=0.05)
    assert abs(float((added * before[KERNEL]).sum() / before[KERNEL].square().sum())) < 0.02


def test_without_noise_it_is_exact_and_the_rest_stays(small: Callable[..., CellNetwork]) -> None:
    """Sigma 0: kernels times lambda, bit for bit; vectors, statistics and the head as they were."""
    network, before = small(), small().state_dict()
    with torch.no_grad():
        alter(network, {"lambda": 0.5, "sigma": 0.0}, torch_generator(0))
    for name, tensor in network.state_dict().items():
        shrunk = tensor.dim() > 1 and not name.startswith("head.")
        assert torch.equal(tensor, 0.5 * before[name] if shrunk else before[name])
