"""Sharpness-aware fine-tuning: each step's gradient is taken where the loss nearby is worst, to
leave the valley a lock has dug.

Foret et al. 2021, arXiv:2010.01412, in its adaptive form (Kwon et al. 2021, arXiv:2102.11600): see
`engine._sharpness`.
"""

from collections.abc import Sequence
from dataclasses import replace

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import every_rate, starts_of, tune
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    Training,
)
from lockforge.recipe import AuditRecipe

RHO = 0.5  # of the source, for small colour images


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Each optimiser at its rates."""
    return every_rate(recipe, "re-estimated", (("rho", RHO),))


def sharp(training: Training) -> Training:
    """The same training with sharpness-aware steps."""
    return replace(training, sharpness=float(dict(training.setting.also)["rho"]))


def sharpness(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train every layer of a copy for each setting. A step has two gradients, and its operations
    count twice.
    """
    return (
        yield from tune(
            starts_of(given, data, settings, budget, draw), data, budget, draw, passes=6, ask=sharp
        )
    )


SHARPNESS = Attacker("sharpness", sharpness, settings)
