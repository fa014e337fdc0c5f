"""Low-rank adapters: every kernel W becomes W + B A, only B, A and a new head are trained; then
they are multiplied out.

Hu et al. 2022, arXiv:2106.09685, section 4.1. Shapes: weights of d outputs and m inputs (channels
times pixels of the kernel), rank r.
Differs: convolutions too, as d x m matrices; no factor alpha / r (the learning rate is searched); A
    is normal with variance 1 / m.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import adam_rates, starts_of, tune
from lockforge.audit.protocol import Asking, Attacker, Budget, Capabilities, InitialModel, Setting
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

RANKS = (2, 8)


class Adapted(nn.Module):
    """A frozen layer whose weight is W + B A. It starts as the layer: B is zero."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        d, m = len(layer.weight), layer.weight[0].numel()
        r = min(rank, d, m)
        self.b = nn.Parameter(layer.weight.new_zeros(d, r))
        self.a = nn.Parameter(
            (torch.randn(r, m, generator=generator) / math.sqrt(m)).to(layer.weight)
        )

    def weight(self) -> Float[Tensor, "d ..."]:
        """W + B A."""
        return self.layer.weight + (self.b @ self.a).view(self.layer.weight.shape)

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The layer with the adapted weight."""
        result: Tensor = functional_call(self.layer, {"weight": self.weight()}, (x,))
        return result


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at each rate, for each rank; batch-norm statistics of the thief's images, as nothing
    else adapts them.
    """
    return tuple(
        one for rank in RANKS for one in adam_rates(recipe, "re-estimated", (("rank", rank),))
    )


def adapt(network: Classifier, also: Mapping[str, Any], generator: torch.Generator) -> None:
    """Freeze everything but the head, and put an adapter on every convolution and linear layer
    before it.
    """
    network.requires_grad_(False)
    network.head.requires_grad_()
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not network.head:
                setattr(parent, name, Adapted(layer, int(also["rank"]), generator))


def merge(network: nn.Module) -> nn.Module:
    """Multiply the adapters out, in place: the same function with plain weights."""
    for parent in list(network.modules()):
        for name, adapted in list(parent.named_children()):
            if isinstance(adapted, Adapted):
                with torch.no_grad():
                    adapted.layer.weight.copy_(adapted.weight())
                setattr(parent, name, adapted.layer)
    return network.requires_grad_()


def product_operations(network: nn.Module) -> int:
    """Multiply-adds of all B A."""
    return sum(len(one.b) * one.a.numel() for one in network.modules() if isinstance(one, Adapted))


def low_rank(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train adapters and a head for each setting. Operations: as if all were trained, and 3 for
    each one of B A and step.
    """
    starts = starts_of(given, data, settings, budget, draw, adapt)
    tuned = yield from tune(starts, data, budget, draw)
    products = {setting: product_operations(start.network) for setting, start in starts.items()}
    return [
        replace(
            one,
            network=merge(one.network),
            operations=one.operations + 3.0 * products[one.setting] * one.steps,
        )
        for one in tuned
    ]


LOW_RANK = Attacker("low-rank", low_rank, settings)
