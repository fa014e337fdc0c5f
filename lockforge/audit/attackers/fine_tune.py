"""Full fine-tuning: a new head, batch-norm statistics re-estimated on the thief's images first, then every layer is trained."""

import copy
from collections.abc import Iterator, Sequence

from lockforge.audit.protocol import Attacker, Attempt, Budget, Draw, Loot, Setting, trained
from lockforge.engine.evaluate import reestimate_batch_norm
from lockforge.recipe import AuditRecipe
from lockforge.spaces.counts import flops
from lockforge.spaces.networks import CellNetwork


def settings(recipe: AuditRecipe) -> tuple[Setting, ...]:
    """Each optimiser at its own rates."""
    adam = tuple(Setting("adam", rate, "re-estimated") for rate in dict.fromkeys(recipe.fine_tune_rates))
    return adam + tuple(Setting("sgd", rate, "re-estimated") for rate in dict.fromkeys(recipe.fine_tune_sgd_rates))


def fine_tune(network: CellNetwork, loot: Loot, settings: Sequence[Setting], budget: Budget, draw: Draw) -> Iterator[Attempt]:
    """Train a copy of the network for each setting; nothing of it is frozen, pruned weights neither.

    Operations: 3 for each one of a forward pass (forward, and twice as much backward) and image seen, and 1 for each image whose
    statistics are taken.
    """
    ready = copy.deepcopy(network)
    if any(setting.batch_norm == "re-estimated" for setting in settings):
        reestimate_batch_norm(ready, loot.train, device=budget.device)
    images = len(loot.train)
    for setting in settings:
        renewed = setting.batch_norm == "re-estimated"
        done = trained(ready if renewed else network, (loot.train, loot.val), setting, budget, draw(setting))
        operations = float(flops(network.architecture) * (3 * budget.seen(images) + (images if renewed else 0)))
        yield Attempt(setting, done.module, done.val_accuracy, budget.steps, operations, done.diverged)


FINE_TUNE = Attacker("fine-tune", fine_tune, settings)
