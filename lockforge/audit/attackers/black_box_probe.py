"""A linear head on what the network says, for models that can only be asked.

Shapes: n images, k outputs. Each image is asked about once; all learning rates share the answers.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lockforge.audit.closed_form import standardised
from lockforge.audit.protocol import Asking, Attacker, Attempt, Budget, Facts, Given, Setting
from lockforge.audit.queries import Oracle, fresh_head, oracle_of
from lockforge.audit.thief import Draw, Loot
from lockforge.engine.evaluate import logits_of
from lockforge.engine.fit import TensorFeed
from lockforge.recipe import AuditRecipe
from lockforge.spaces.networks import flops

MOST = 4  # settings


class Answered(nn.Module):
    """A network that is asked, then a head on its standardised answers."""

    def __init__(self, oracle: Oracle, centre: Float[Tensor, "1 k"], spread: Float[Tensor, "1 k"], head: nn.Module) -> None:
        super().__init__()
        self.oracle, self.head = oracle, head
        self.centre, self.spread = nn.Buffer(centre), nn.Buffer(spread)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2"]:
        """Logits for the thief's classes."""
        logits: Tensor = self.head((self.oracle(x) - self.centre) / self.spread)
        return logits


def settings(recipe: AuditRecipe, _facts: Facts) -> tuple[Setting, ...]:
    """Adam at the probe's rates, four at most; the statistics cannot be touched from outside."""
    return tuple(Setting("adam", rate, "source") for rate in tuple(dict.fromkeys(recipe.probe_rates))[:MOST])


def black_box_probe(given: Given, loot: Loot, settings: Sequence[Setting], budget: Budget, draw: Draw) -> Asking:
    """Ask about each image once, train a head on the answers.

    Operations: one pass for each image asked about, and 3 multiply-adds a weight of the head and image seen.
    """
    budget = budget.of_head()
    oracle, outputs = oracle_of(given)
    said, labels = logits_of(oracle, loot.train, device=budget.device)
    kept, kept_labels = logits_of(oracle, loot.val, device=budget.device)
    z, centre, spread = (part.float() for part in standardised(said))
    feeds = TensorFeed(z, labels), TensorFeed((kept - centre) / spread, kept_labels)
    head = fresh_head(outputs, loot.train.classes, draw("head")).to(budget.device)
    done = yield [budget.training(head, feeds, setting, draw(setting)) for setting in settings]
    passes = flops(given.network.architecture) * len(loot.train)
    return [
        Attempt(
            setting,
            Answered(oracle, centre, spread, one.module),
            one.val_accuracy,
            budget.steps,
            float(passes + 3 * head.weight.numel() * budget.seen(len(loot.train))),
            one.diverged,
        )
        for setting, one in zip(settings, done, strict=True)
    ]


BLACK_BOX_PROBE = Attacker("black-box-probe", black_box_probe, settings, black_box=True)
