"""Full fine-tuning, every way it is usually done: the head that came or a new one, either
optimiser, all rates, either batch norm.

Source: the fine-tuning baselines of the locks themselves (non-transferable learning, Wang et al.
2022, arXiv:2106.06916, and non-transferable pruning, arXiv:2410.08015). Differs: they try one
configuration; here validation chooses among all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import every_rate, starts_of, tune
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


def settings(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
    """Head, batch norm, optimiser, rate. The head is kept only where it has as many classes."""
    heads = ("new", "kept") if facts.head_fits else ("new",)
    return tuple(
        one
        for head in heads
        for norm in NORMS
        for one in every_rate(recipe, norm, (("head", head),))
    )


def full(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train every layer of a copy for each setting. A network that came without a head of its own
    keeps the one it has.
    """

    def alter(network: Classifier, also: Mapping[str, Any], _generator: torch.Generator) -> None:
        if also["head"] == "kept" and given.old_head is not None:
            network.head.load_state_dict(given.old_head)

    return (
        yield from tune(starts_of(given, data, settings, budget, draw, alter), data, budget, draw)
    )


FULL = Attacker("full", full, settings)
