"""The attacker of non-transferable pruning's own evaluation: pruned weights stay zero, everything
else is trained a little.

arXiv:2410.08015: a new head, Adam at a constant 1e-4, the last weights. It is kept to compare with
published figures: a thief who honours the owner's mask is a weak thief. Differs: its steps are the
audit's budget, where the published one has 30 epochs; starting over is chosen by validation like
every attacker, where the published curve takes its best epoch on the test images.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import starts_of, tune
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    Training,
)
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

RATE = 1e-4


def settings(_recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """The published one."""
    return (Setting("adam", RATE, "source"),)


def mask_of(network: Classifier) -> dict[str, Tensor]:
    """1 where a weight is not exactly zero, of the kernels and matrices before the head that have
    zeros.

    Not of vectors: a batch norm's shifts are zero before anything was pruned.
    """
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if (
            isinstance(module, nn.Conv2d | nn.Linear)
            and module is not network.head
            and bool((module.weight == 0).any())
        ):
            found[f"{name}.weight"] = (module.weight.detach() != 0).to(torch.float32)
    return found


def frozen_mask(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train all weights of a copy that are not zero."""
    mask = mask_of(given.network)

    def masked(training: Training) -> Training:
        return replace(
            training, mask=mask, recipe=training.recipe.model_copy(update={"schedule": "constant"})
        )

    return (
        yield from tune(
            starts_of(given, data, settings, budget, draw), data, budget, draw, ask=masked
        )
    )


FROZEN_MASK = Attacker("frozen-mask", frozen_mask, settings)
