"""Four more zero-cost proxies, of the network alone: no image and no label is looked at. Each
oriented higher = better.

    l2_norm   sum over convolutions and linear layers of |W|_2
    params    number of parameters
    synflow   log of the sum over parameters W of |W dR/dW|, R: sum of the outputs for an input of
              ones, all parameters absolute, batch norm
              left out, float64
    zen       log mean_n |f(x) - f(x + 0.01 y)|_1 + sum over batch norms of log sqrt(mean running
              variance); f: the last maps, x and y
              Gaussian, weights Gaussian

Sources: Tanaka et al. 2020, arXiv:2006.05467; Lin et al. 2021, arXiv:2102.01063. Definitions as in
NAS-Bench-Suite-Zero (arXiv:2210.03230).
Differs: synflow is the logarithm, so that it can be held in a number; order is all that counts.

Shapes: n inputs, c channels, h x w pixels.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from lockforge.models.networks import CellNetwork, parameters

DATA_FREE: tuple[str, ...] = ("l2_norm", "params", "synflow", "zen")
_MIXED = 0.01


def score_data_free(
    network: nn.Module, shape: tuple[int, int, int], generator: torch.Generator, *, inputs: int = 16
) -> dict[str, float | None]:
    """All four of one network, which is left as it was.

    Args: shape: (c, h, w) of its input. generator: of zen's weights and inputs, on the network's
        device or the CPU. inputs: of zen.
    Returns: a number each, None where it is missing: no weights, not finite, or (zen) a network
        without `maps`.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    scores = {
        "l2_norm": math.fsum(float(layer.weight.detach().norm()) for layer in layers)
        if layers
        else None,
        "params": float(_parameters(network)),
        "synflow": _synflow(network, shape) if layers else None,
        "zen": _zen(network, (inputs, *shape), generator)
        if layers and hasattr(network, "maps")
        else None,
    }
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in scores.items()
    }


def _parameters(network: nn.Module) -> int:
    """As the tables count a cell's: unreachable edges with them."""
    if isinstance(network, CellNetwork):
        return parameters(network.architecture)
    return sum(parameter.numel() for parameter in network.parameters())


def _pass_by(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    return inputs[0]


def _synflow(network: nn.Module, shape: tuple[int, int, int]) -> float | None:
    positive = copy.deepcopy(network).double().eval()  # no dropout, and no statistics of one input
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_().requires_grad_()
    for module in positive.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(_pass_by)
    device = next(positive.parameters()).device
    with torch.enable_grad():
        flow = positive(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
        weights = [
            module.weight
            for module in positive.modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        slopes = torch.autograd.grad(flow, weights, allow_unused=True)
    total = math.fsum(
        float((weight.detach() * slope).abs().sum())
        for weight, slope in zip(weights, slopes, strict=True)
        if slope is not None
    )
    return math.log(total) if total > 0 else None


def _zen(network: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> float | None:
    gaussian: Any = copy.deepcopy(network).train()
    device = next(gaussian.parameters()).device

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=generator.device).to(device)

    with torch.no_grad():
        for module in gaussian.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.copy_(draw(*module.weight.shape))
                if module.bias is not None:
                    module.bias.zero_()
        x = draw(*shape)
        apart = gaussian.maps(x) - gaussian.maps(x + _MIXED * draw(*shape))
        moved = float(apart.abs().flatten(1).sum(1).mean())
        scales = [
            float(norm.running_var.mean().sqrt())
            for norm in gaussian.modules()
            if isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
        ]
    if moved <= 0 or min(scales, default=1.0) <= 0:
        return None
    return math.log(moved) + math.fsum(map(math.log, scales))
