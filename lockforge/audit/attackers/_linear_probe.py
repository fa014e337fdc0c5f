"""Linear probe: the network stays as it is, a new head is trained on what it sees.

Shapes: n images, d features, k classes. All passes through the network are in eval mode, one for
each image: the features are worked out once for each batch-norm setting and shared by all learning
rates.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.audit._queries import Body
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Attempt,
    BatchNorm,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.engine.copying import copied
from lockforge.engine.evaluate import logits_of, reestimate_batch_norm
from lockforge.engine.fit import TensorFeed
from lockforge.models.classifier import Classifier
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

FLAT = 1e-4  # least spread of a feature, in its own unit, by which it is divided


def settings(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at each rate, with the network's own batch-norm statistics and, where they can be got
    at, with the thief's.
    """
    norms: tuple[BatchNorm, ...] = ("source",) if facts.black_box else ("source", "re-estimated")
    return tuple(
        Setting("adam", rate, norm) for norm in norms for rate in dict.fromkeys(recipe.probe_rates)
    )


def linear_probe(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train a head for each setting on standardised features, then fold the standardisation into
    it.

    With mean m and spread s of the training features, a head (w, b) on (f - m) / s is the head (w /
    s, b - sum w m / s) on f: the same functions can be reached, and one learning rate suits every
    network.
    """
    budget, network = budget.of_head(), given.network
    attempts: list[Attempt] = []
    for norm in dict.fromkeys(setting.batch_norm for setting in settings):
        body = copied(network)
        if norm == "re-estimated":
            reestimate_batch_norm(body, data.train, device=budget.device)
        seen, labels = logits_of(Body(body), data.train, device=budget.device)
        kept, kept_labels = logits_of(Body(body), data.val, device=budget.device)
        centre, spread = seen.mean(0), seen.std(0, correction=0).clamp_min(FLAT)
        train = TensorFeed((seen - centre) / spread, labels)
        val = TensorFeed((kept - centre) / spread, kept_labels)
        passes = len(data.train) * (2 if norm == "re-estimated" else 1)
        tried = [setting for setting in settings if setting.batch_norm == norm]
        done = yield [
            budget.training(network.head, (train, val), setting, draw(setting)) for setting in tried
        ]
        attempts += [
            Attempt(
                setting=setting,
                network=_with_head(body, one.module, centre, spread),
                val_accuracy=one.val_accuracy,
                steps=budget.steps,
                operations=float(
                    flops(network.architecture) * passes
                    + 3 * network.head.weight.numel() * budget.seen(len(train))
                ),
                diverged=one.diverged,
            )
            for setting, one in zip(tried, done, strict=True)
        ]
    return attempts


def _with_head(
    body: Classifier, head: nn.Module, centre: Float[Tensor, " d"], spread: Float[Tensor, " d"]
) -> Classifier:
    """A copy of the network that ends in this head, which was trained on (features - centre) /
    spread.
    """
    probed = copied(body)
    probed.head.load_state_dict(head.state_dict())
    with torch.no_grad():
        probed.head.weight.div_(spread)
        probed.head.bias.sub_(probed.head.weight @ centre)
    return probed


LINEAR_PROBE = Attacker("linear-probe", linear_probe, settings, black_box=True)
