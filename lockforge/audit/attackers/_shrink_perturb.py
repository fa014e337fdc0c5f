"""Shrink and perturb: weights are drawn towards zero and a little of an empty network is added,
then everything is trained.

Ash and Adams 2020, arXiv:1910.08475, section 4: w <- lambda w + sigma * fresh. Differs: kernels and
matrices before the head alone (batch norms undo any scale); what is added is drawn as an empty
network is, so that sigma is in units of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import adam_rates, fresh, starts_of, tune
from lockforge.audit.protocol import Asking, Attacker, Budget, Capabilities, InitialModel, Setting
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

FACTORS = ((0.8, 0.1), (0.4, 0.4))  # lambda, sigma: most of the network is kept, or half of it


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at each rate, for each pair of factors; batch-norm statistics are taken after the
    change.
    """
    pairs = [(("lambda", kept), ("sigma", added)) for kept, added in FACTORS]
    return tuple(one for also in pairs for one in adam_rates(recipe, "re-estimated", also))


def alter(network: Classifier, also: Mapping[str, Any], generator: torch.Generator) -> None:
    """Shrink and perturb every convolution and linear layer before the head."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.head:
            module.weight.mul_(also["lambda"]).add_(
                fresh(module.weight, generator), alpha=also["sigma"]
            )


def shrink_perturb(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Shrink and perturb a copy for each setting and train all of it."""
    return (
        yield from tune(starts_of(given, data, settings, budget, draw, alter), data, budget, draw)
    )


SHRINK_PERTURB = Attacker("shrink-perturb", shrink_perturb, settings)
