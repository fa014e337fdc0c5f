"""The last block and a new head are trained, everything before stays as it is, batch-norm
statistics too.

Yosinski et al. 2014, arXiv:1411.1792: first layers are general, last ones specific; with few images
it can pay to leave the first alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import adam_rates, starts_of, tune
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    BatchNorm,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

NORMS: tuple[BatchNorm, ...] = ("re-estimated", "source")


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at each rate, with the network's own batch-norm statistics and with the thief's."""
    return tuple(one for norm in NORMS for one in adam_rates(recipe, norm))


def parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """The parts a network is made of, in order: its children, those of a plain list or sequence,
    and of a `body`, one by one.
    """
    for name, child in module.named_children():
        if type(child) in {nn.Sequential, nn.ModuleList} or name == "body":
            yield from parts_of(child)
        else:
            yield child


def freeze_first(
    network: Classifier, _also: Mapping[str, Any], _generator: torch.Generator
) -> None:
    """Only the last part that has kernels or matrices, what comes after it, and the head are
    trained.

    Of a cell network that is the last stage; of a residual network the last block; of plain
    convolutions the last one.
    """
    parts = [part for part in parts_of(network) if part is not network.head]
    weighty = [
        i
        for i, part in enumerate(parts)
        if any(parameter.dim() > 1 for parameter in part.parameters())
    ]
    network.requires_grad_(False)
    for part in (*parts[max(weighty, default=len(parts)) :], network.head):
        part.requires_grad_()


def last_block(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train the last block and the head of a copy for each setting. Operations are counted as if
    all of it were trained.
    """
    return (
        yield from tune(
            starts_of(given, data, settings, budget, draw, freeze_first), data, budget, draw
        )
    )


LAST_BLOCK = Attacker("last-block", last_block, settings)
