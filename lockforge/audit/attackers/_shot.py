"""SHOT: information maximisation and pseudo-labels by class centres, the hypothesis (the head)
frozen.

Liang, Hu & Feng 2020, arXiv:2002.08546. What it shares with other adaptations without labels is in
`audit/_source_free.py`.

Shapes: n images, b images a batch, d features, k classes.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from lockforge.audit._queries import entropy_of_mean
from lockforge.audit._source_free import adaptation, settings, unfit
from lockforge.audit.protocol import Attacker
from lockforge.engine.fit import Loss

TRUST = 0.3  # weight of the pseudo-labels (the paper's beta)


@torch.no_grad()
def pseudo_labels(
    features: Float[Tensor, "n d"], logits: Float[Tensor, "n k"]
) -> Int64[Tensor, " n"]:
    """The nearest class centre by cosine; centres weighted by probability first, then once more by
    the labels so found (equations 4-6).

    A 1 is appended to the features before they are normalised, as in the authors' code; a class
    that no image is nearest to keeps its first centre.
    """
    f = functional.normalize(functional.pad(features, (0, 1), value=1.0), dim=1)
    share = functional.softmax(logits, 1)
    centres = share.mT @ f
    labels = (f @ functional.normalize(centres, dim=1).mT).argmax(1)
    chosen = functional.one_hot(labels, logits.shape[1]).to(f.dtype)
    centres = torch.where(chosen.any(0)[:, None], chosen.mT @ f, centres)
    return (f @ functional.normalize(centres, dim=1).mT).argmax(1)


def information(features: Float[Tensor, "n d"], logits: Float[Tensor, "n k"]) -> Loss:
    """Mean entropy, less the entropy of the batch's mean, plus `TRUST` times the cross-entropy with
    the pseudo-labels (equations 3 and 7).

    Differs: the source model was trained by its owner, without the paper's label smoothing and
        weight normalisation.
    """
    labels = pseudo_labels(features, logits)

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        log = functional.log_softmax(outputs, 1)
        unsure = -(log.exp() * log).sum(1).mean()
        return unsure + entropy_of_mean(outputs) + TRUST * functional.nll_loss(log, labels[rows])

    return loss


SHOT = Attacker("shot", adaptation(information, frozen_head=True), settings, unfit)
