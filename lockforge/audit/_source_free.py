"""Source-free adaptation in rounds: what attackers without labels share. They differ in the loss
that a round follows.

Only where the target's classes are the source's. The labels of the thief's training images are not
read; those of his validation images choose among settings, as for every attacker.

Shapes: n images, d features, k classes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.audit._queries import Body, numbered
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Asking,
    Attack,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    Training,
)
from lockforge.data.batches import Pool
from lockforge.engine.evaluate import logits_of, reestimate_batch_norm
from lockforge.engine.fit import Loss
from lockforge.models.classifier import Classifier
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

ROUNDS = 4  # what is taken for true is worked out anew at the beginning of each

Follow = Callable[[Float[Tensor, "n d"], Float[Tensor, "n k"]], Loss]
"""From features and logits of all images to the loss of a round, of (outputs, rows)."""


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at the first rate of fine-tuning and at a tenth of it, with the thief's batch-norm
    statistics and with the source's.
    """
    rate = recipe.fine_tune_rates[0]
    return tuple(
        Setting("adam", float(f"{one:.3g}"), norm)
        for norm in ("re-estimated", "source")
        for one in (rate, rate / 10)
    )


def unfit(facts: Capabilities) -> str:
    """Without labels there must be a head that knows the classes."""
    return (
        ""
        if facts.same_classes
        else "the target's classes are not the source's, and no label is read from which to "
        "learn them"
    )


def hypothesis(given: InitialModel, images: Pool, setting: Setting, device: str) -> Classifier:
    """A copy of the network with the head that came with it (its own where none came), statistics
    as the setting says.
    """
    network = copy.deepcopy(given.network)
    if given.old_head is not None:
        network.head.load_state_dict(dict(given.old_head))
    if setting.batch_norm == "re-estimated":
        reestimate_batch_norm(network, images, device=device)
    return network


@dataclass(frozen=True)
class Rounds:
    """A budget in at most `ROUNDS` parts. Their rates fall along one cosine; the optimiser starts
    afresh in each.

    >>> Rounds(Budget(6, 64)).steps, Rounds(Budget(3, 64)).steps
    ((2, 2, 1, 1), (1, 1, 1))
    """

    budget: Budget

    @property
    def steps(self) -> tuple[int, ...]:
        """Of each round, all of the budget's together; rounds without steps are left out."""
        whole, rest = divmod(self.budget.steps, ROUNDS)
        return tuple(
            steps for steps in (whole + (index < rest) for index in range(ROUNDS)) if steps
        )

    def training(self, index: int, wanted: Training) -> Training:
        """The training of a round, given that of the whole budget."""
        rate = wanted.recipe.learning_rate * (1 + math.cos(math.pi * index / len(self.steps))) / 2
        recipe = wanted.recipe.model_copy(
            update={"steps": self.steps[index], "learning_rate": rate, "schedule": "constant"}
        )
        return replace(wanted, recipe=recipe)


def both_of(
    network: Classifier, images: Pool, device: str
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """Features and logits of every image."""
    features, _ = logits_of(Body(network), images, device=device)
    with torch.no_grad():
        return features, network.head(features)


def _adapt(
    follow: Follow,
    frozen_head: bool,
    given: InitialModel,
    data: AttackerData,
    settings: Sequence[Setting],
    budget: Budget,
    draw: Draw,
) -> Asking:
    images, rounds = numbered(data.train), Rounds(budget)
    networks: list[nn.Module] = []
    for setting in settings:
        network = hypothesis(given, images, setting, budget.device)
        network.head.requires_grad_(not frozen_head)
        networks.append(network)
    asked: list[Training] = []
    wild: set[int] = set()
    values = [0.0] * len(settings)
    for index in range(len(rounds.steps)):
        asked = [
            replace(
                rounds.training(
                    index,
                    budget.training(network, (images, data.val), setting, draw(setting, index)),
                ),
                # trainings give back what they get
                loss=follow(*both_of(network, images, budget.device)),  # type: ignore[arg-type]
            )
            for network, setting in zip(networks, settings, strict=True)
        ]
        done = yield asked
        networks, values = [one.module for one in done], [one.val_accuracy for one in done]
        wild |= {at for at, one in enumerate(done) if one.diverged}
    pass_of_one, count = flops(given.network.architecture), len(images)
    return [
        Attempt(
            setting,
            networks[at],
            values[at],
            budget.steps,
            float(
                pass_of_one
                * (
                    3 * budget.seen(count)
                    + count * (len(rounds.steps) + (setting.batch_norm == "re-estimated"))
                )
            ),
            at in wild,
        )
        for at, setting in enumerate(settings)
    ]


def adaptation(follow: Follow, *, frozen_head: bool) -> Attack:
    """The attack that adapts a copy for each setting in rounds, each along the loss that `follow`
    makes of what the network now says.

    Operations: 3 passes for each image seen, 1 for each image and round, 1 for each image whose
    statistics are taken.
    """
    return partial(_adapt, follow, frozen_head)
