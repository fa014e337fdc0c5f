"""Linear heads on features that stay as they are.

Shapes: n examples, d features, k classes.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext, fit
from lockforge.recipe import FitRecipe

_LEAST_SPREAD = 1e-4  # a feature that never moves is left as it is


def fit_head(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    recipe: FitRecipe,
    generator: torch.Generator,
) -> nn.Linear:
    """A linear head, trained from zero on the features' device.

    It is trained on standardised features, so that one learning rate serves every network; the
    scaling is then folded into the head.

    Raises: OutcomeError: training diverged.
    """
    mean, spread = features.mean(0), features.std(0, correction=0)
    spread = torch.where(spread > _LEAST_SPREAD * spread.mean(), spread, torch.ones_like(spread))
    with torch.random.fork_rng(devices=[]):  # the layer's own first draws are thrown away
        head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    fit(
        head,
        TensorFeed((features - mean) / spread, labels),
        recipe,
        generator=generator,
        context=RunContext(device=str(features.device)),
    )
    with torch.no_grad():
        head.weight.div_(spread)
        head.bias.sub_(head.weight @ mean)
    return head.eval().requires_grad_(requires_grad=False)
