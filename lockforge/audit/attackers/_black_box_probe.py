"""A linear head on what the network says, for models that can only be asked.

Shapes: n images, k outputs. Each image is asked about once; all learning rates share the answers.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lockforge.audit._closed_form import standardised
from lockforge.audit._queries import Oracle, fresh_head, oracle_of
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
from lockforge.engine.evaluate import logits_of
from lockforge.engine.fit import TensorFeed
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

MOST = 4  # settings


class Answered(nn.Module):
    """A network that is asked, then a head on its standardised answers."""

    def __init__(
        self,
        oracle: Oracle,
        centre: Float[Tensor, "1 k"],
        spread: Float[Tensor, "1 k"],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.oracle, self.head = oracle, head
        self.centre, self.spread = nn.Buffer(centre), nn.Buffer(spread)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2"]:
        """Logits for the thief's classes."""
        logits: Tensor = self.head((self.oracle(x) - self.centre) / self.spread)
        return logits


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at the probe's rates, four at most; the statistics cannot be touched from outside."""
    return tuple(
        Setting("adam", rate, "source") for rate in tuple(dict.fromkeys(recipe.probe_rates))[:MOST]
    )


def black_box_probe(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Ask about each image once, train a head on the answers.

    Operations: one pass for each image asked about, and 3 multiply-adds a weight of the head and
    image seen.
    """
    budget = budget.of_head()
    oracle, outputs = oracle_of(given)
    said, labels = logits_of(oracle, data.train, device=budget.device)
    kept, kept_labels = logits_of(oracle, data.val, device=budget.device)
    z, centre, spread = (part.float() for part in standardised(said))
    feeds = TensorFeed(z, labels), TensorFeed((kept - centre) / spread, kept_labels)
    head = fresh_head(outputs, data.train.classes, draw("head")).to(budget.device)
    done = yield [budget.training(head, feeds, setting, draw(setting)) for setting in settings]
    passes = flops(given.network.architecture) * len(data.train)
    return [
        Attempt(
            setting,
            Answered(oracle, centre, spread, one.module),
            one.val_accuracy,
            budget.steps,
            float(passes + 3 * head.weight.numel() * budget.seen(len(data.train))),
            one.diverged,
        )
        for setting, one in zip(settings, done, strict=True)
    ]


BLACK_BOX_PROBE = Attacker("black-box-probe", black_box_probe, settings, black_box=True)
