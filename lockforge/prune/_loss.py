"""The loss of non-transferable pruning: keep the source, push the auxiliary tasks away, collapse
their classes in feature space.

L = CE_source - alpha min(CE_auxiliary, bound) + lambda S_b / S_w
(arXiv:2410.08015; `admm.pull` is its last term)

S_b and S_w are the traces of the scatter between and within the auxiliary classes (Fisher's
discriminant). Shapes: n images, k classes, d features, i x j pixels of a feature map.
Cross-entropies are means in nats; scatters are means over images.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-6  # in the denominator of the ratio


def bounded_ce(
    logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], bound: float
) -> Float[Tensor, ""]:
    """min(cross-entropy, bound): what is driven up, until it is high enough.

    Differs: the bound holds the mean over the batch, as published; an image alone may go over it.
    """
    return functional.cross_entropy(logits, labels).clamp_max(bound)


def unit_features(features: Float[Tensor, "n d ..."]) -> Float[Tensor, "n e"]:
    """Each place of each map as a direction: divided by its length over the d channels, then all
    places side by side (e = d i j).
    """
    return functional.normalize(features, dim=1).flatten(1)


@dataclass
class ClassMeans:
    """Means of the features of each class, which go on from batch to batch so that small batches
    are not noise.

    `share` of what a mean was stays when a batch comes in; a class that a batch lacks keeps its
    mean and is skipped there. The gradient passes through the batch's own part.
    """

    classes: int
    share: float = 0.9
    means: Tensor | None = field(default=None, repr=False)
    seen: Tensor | None = field(default=None, repr=False)

    def scatter(
        self, features: Float[Tensor, "n d ..."], labels: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """(S_b, S_w): classes weighted by their images in this batch.

        S_b = sum_c n_c |m_c - m|^2 / n with m the mean of the m_c so weighted; S_w = sum over
        images |f - m_c|^2 / n.
        """
        unit = unit_features(features)
        one_hot = functional.one_hot(labels, self.classes).to(unit.dtype)
        counts = one_hot.sum(0)
        here = counts > 0
        own = (one_hot.T @ unit) / counts.clamp_min(1).unsqueeze(1)
        if self.means is None or self.seen is None:
            self.means, self.seen = (
                torch.zeros_like(own, requires_grad=False),
                torch.zeros_like(here),
            )
        known = (self.seen & here).unsqueeze(1)
        means = torch.where(known, self.share * self.means + (1 - self.share) * own, own)
        with torch.no_grad():
            self.means = torch.where(here.unsqueeze(1), means, self.means)
            self.seen = self.seen | here
        weights = counts / counts.sum()
        centre = (weights.unsqueeze(1) * means).sum(0)
        between = (weights * (means - centre).square().sum(1)).sum()
        within = (unit - means[labels]).square().sum(1).mean()
        return between, within


def fisher_ratio(between: Float[Tensor, ""], within: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The ratio tr S_b / tr S_w. It falls when classes meet, but also when they spread: log
    both.
    """
    return between / (within + EPSILON)


def squared_mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy (Gretton et al. 2012, equation 5: biased, never negative) of
    two samples.

    The kernel is exp(-|x - y|^2 / s) with s the mean squared distance of the pooled sample, whose
    gradient is not followed.
    """
    pooled = torch.cat([a, b])
    distances = (
        pooled.square().sum(1, keepdim=True) + pooled.square().sum(1) - 2 * pooled @ pooled.T
    ).clamp_min(0)
    kernel = torch.exp(-distances / distances.detach().mean().clamp_min(EPSILON))
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
