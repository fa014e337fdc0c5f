"""Full fine-tuning: a new head, batch-norm statistics re-estimated on the thief's images first,
then every layer is trained.
"""

from collections.abc import Sequence

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.engine.copying import copied
from lockforge.engine.evaluate import reestimate_batch_norm
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Each optimiser at its own rates."""
    adam = tuple(
        Setting("adam", rate, "re-estimated") for rate in dict.fromkeys(recipe.fine_tune_rates)
    )
    return adam + tuple(
        Setting("sgd", rate, "re-estimated") for rate in dict.fromkeys(recipe.fine_tune_sgd_rates)
    )


def fine_tune(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train a copy of the network for each setting; nothing of it is frozen, pruned weights
    neither.

    Operations: 3 for each one of a forward pass (forward, and twice as much backward) and image
    seen, and 1 for each image whose statistics are taken.
    """
    network, ready = given.network, copied(given.network)
    if any(setting.batch_norm == "re-estimated" for setting in settings):
        reestimate_batch_norm(ready, data.train, device=budget.device)
    renewed = [setting.batch_norm == "re-estimated" for setting in settings]
    done = yield [
        budget.training(ready if anew else network, (data.train, data.val), setting, draw(setting))
        for setting, anew in zip(settings, renewed, strict=True)
    ]
    images, pass_of_one = len(data.train), flops(network.architecture)
    return [
        Attempt(
            setting,
            one.module,
            one.val_accuracy,
            budget.steps,
            float(pass_of_one * (3 * budget.seen(images) + (images if anew else 0))),
            one.diverged,
        )
        for setting, anew, one in zip(settings, renewed, done, strict=True)
    ]


FINE_TUNE = Attacker("fine-tune", fine_tune, settings)
