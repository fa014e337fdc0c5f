"""What most attackers do: alter a copy of the network, then train it with each optimiser and rate,
by halving.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lockforge.audit._halving import halving
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Asking,
    Attempt,
    BatchNorm,
    Budget,
    InitialModel,
    Setting,
    Training,
)
from lockforge.engine.copying import copied
from lockforge.engine.evaluate import reestimate_batch_norm
from lockforge.models.classifier import Classifier
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

Also = tuple[tuple[str, str | float], ...]
Alter = Callable[[Classifier, Mapping[str, Any], torch.Generator], None]
Ask = Callable[[Training], Training]


@dataclass(frozen=True)
class Prepared:
    """What a setting trains, and what that has cost so far."""

    network: Classifier
    operations: float
    steps: int = 0


def every_rate(recipe: AuditRecipe, norm: BatchNorm, also: Also = ()) -> tuple[Setting, ...]:
    """Adam, then SGD, each at its own rates."""
    adam = tuple(Setting("adam", rate, norm, also) for rate in dict.fromkeys(recipe.rates))
    return adam + tuple(
        Setting("sgd", rate, norm, also) for rate in dict.fromkeys(recipe.sgd_rates)
    )


def adam_rates(recipe: AuditRecipe, norm: BatchNorm, also: Also = ()) -> tuple[Setting, ...]:
    """Adam at its rates."""
    return tuple(one for one in every_rate(recipe, norm, also) if one.optimizer == "adam")


def size_of_fresh(like: Float[Tensor, "d ..."]) -> float:
    """Deviation of the weights of an untrained layer: sqrt(2 / fan-in) (He et al. 2015,
    arXiv:1502.01852, equation 10).
    """
    return math.sqrt(2 / like[0].numel())


def fresh(like: Float[Tensor, "d ..."], generator: torch.Generator) -> Float[Tensor, "d ..."]:
    """What an untrained layer of this shape would hold."""
    return torch.randn(like.shape, generator=generator).to(like.device, like.dtype) * size_of_fresh(
        like
    )


def starts_of(
    given: InitialModel,
    data: AttackerData,
    settings: Sequence[Setting],
    budget: Budget,
    draw: Draw,
    alter: Alter | None = None,
) -> dict[Setting, Prepared]:
    """What each setting trains: a copy of the network, altered, then with batch norms re-estimated
    where the setting says so.

    It costs one operation for each one of a forward pass and image whose statistics are taken.
    Settings that differ in optimiser and rate alone share one network, those that differ in batch
    norm besides one alteration.

    Args: alter: changes a network in place, given what the setting has `also`.
    """
    made: dict[tuple[BatchNorm, Also], Prepared] = {}
    for setting in settings:
        key = (setting.batch_norm, setting.also)
        if key in made:
            continue
        network, operations = copied(given.network), 0
        if alter is not None:
            with torch.no_grad():
                alter(network, dict(setting.also), draw("altered", setting.also))
        if setting.batch_norm == "re-estimated":
            reestimate_batch_norm(network, data.train, device=budget.device)
            operations = flops(network.architecture) * len(data.train)
        made[key] = Prepared(network, float(operations))
    return {setting: made[setting.batch_norm, setting.also] for setting in settings}


def tune(
    starts: Mapping[Setting, Prepared],
    data: AttackerData,
    budget: Budget,
    draw: Draw,
    *,
    passes: int = 3,
    ask: Ask | None = None,
) -> Asking:
    """Train each setting's network by halving. What comes back is an ordinary network: nothing in
    it is frozen.

    Operations: `passes` for each one of a forward pass and image seen, and what the start has cost.

    Args: passes: 3 is forward, and twice as much backward; where layers are frozen that is more
        than is spent. ask: what to ask for instead of the plain training.
    """
    images = len(data.train)

    def run(settings: Sequence[Setting], budget: Budget) -> Asking:
        plain = [
            budget.training(starts[setting].network, (data.train, data.val), setting, draw(setting))
            for setting in settings
        ]
        done = yield plain if ask is None else [ask(one) for one in plain]
        return [
            Attempt(
                setting,
                one.module.requires_grad_(),
                one.val_accuracy,
                budget.steps,
                float(passes * flops(starts[setting].network.architecture) * budget.seen(images)),
                one.diverged,
            )
            for setting, one in zip(settings, done, strict=True)
        ]

    tuned = yield from halving(run, tuple(starts), budget)
    return [
        replace(
            one,
            steps=one.steps + starts[one.setting].steps,
            operations=one.operations + starts[one.setting].operations,
        )
        for one in tuned
    ]
