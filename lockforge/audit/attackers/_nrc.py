"""NRC: neighbours in feature space should be given the same class, reciprocal neighbours most of
all.

Yang et al. 2021, arXiv:2110.04202. What it shares with other adaptations without labels is in
`audit/_source_free.py`.

Shapes: n images, b images a batch, d features, k classes, m neighbours.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from lockforge.audit._queries import entropy_of_mean
from lockforge.audit._source_free import adaptation, settings, unfit
from lockforge.audit.protocol import Attacker
from lockforge.engine.fit import Loss

NEAREST = 3  # neighbours of an image (the paper's K on small data sets)
BEYOND = 2  # neighbours of a neighbour (M)
OTHERS = 0.1  # affinity of neighbours that are not reciprocal, and of neighbours of neighbours (r)
_ROWS = 1024  # compared at once


@torch.no_grad()
def neighbours(features: Float[Tensor, "n d"], most: int) -> Int64[Tensor, "n m"]:
    """The nearest other images by cosine, nearest first; at most all others."""
    f = functional.normalize(features, dim=1)
    m = min(most, len(f) - 1)
    rows = []
    for start in range(0, len(f), _ROWS):
        near = f[start : start + _ROWS] @ f.mT
        here = torch.arange(len(near), device=f.device)
        near[here, start + here] = -torch.inf
        rows.append(near.topk(m, dim=1).indices)
    return torch.cat(rows)


@torch.no_grad()
def wanted(features: Float[Tensor, "n d"], logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """What the neighbourhood says of each image: all terms of the loss that are linear in the
    prediction, added.

    t_i = p_i + sum_k A_ik p_k + r sum_k sum_m p_m over neighbours k of i and neighbours m of k;
    A_ik is 1 when i is among the `BEYOND` nearest of k, else r (equations 3, 5 and 6; a neighbour's
    neighbour counts as often as it is reached).
    """
    p = functional.softmax(logits, 1)
    near = neighbours(features, NEAREST)
    beyond = near[:, :BEYOND]
    itself = torch.arange(len(p), device=p.device).view(-1, 1, 1)
    reciprocal = (beyond[near] == itself).any(2)
    affinity = torch.where(reciprocal, 1.0, OTHERS)
    return p + (affinity[:, :, None] * p[near]).sum(1) + OTHERS * p[beyond[near]].sum((1, 2))


def agreement(features: Float[Tensor, "n d"], logits: Float[Tensor, "n k"]) -> Loss:
    """- mean of t_i . p_i, less the entropy of the batch's mean (equation 8).

    Differs: features and predictions of all images are taken anew at the beginning of a round; the
        paper's banks follow each batch.
    """
    said = wanted(features, logits)

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        return (
            entropy_of_mean(outputs) - (said[rows] * functional.softmax(outputs, 1)).sum(1).mean()
        )

    return loss


NRC = Attacker("nrc", adaptation(agreement, frozen_head=False), settings, unfit)
