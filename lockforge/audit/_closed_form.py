"""Linear maps to classes in closed form: ridge regression with its exact leave-one-out error.

Shapes: n images, d features, k classes, p sets of features of the same images. Targets are one-hot
rows less their mean. Everything is computed in float64.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # in units of a feature's variance
FLAT = 1e-4  # least spread of a feature, in its own unit, by which it is divided


def standardised(
    features: Float[Tensor, "*p n d"],
) -> tuple[Float[Tensor, "*p n d"], Float[Tensor, "*p 1 d"], Float[Tensor, "*p 1 d"]]:
    """The features with mean 0 and spread 1, in float64; their means and spreads."""
    wide = features.double()
    centre, spread = (
        wide.mean(-2, keepdim=True),
        wide.std(-2, correction=0, keepdim=True).clamp_min(FLAT),
    )
    return (wide - centre) / spread, centre, spread


def targets_of(
    labels: Int64[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "n k"], Float[Tensor, " k"]]:
    """One-hot rows less their mean, and that mean."""
    rows = functional.one_hot(labels, classes).double()
    return rows - rows.mean(0), rows.mean(0)


def left_out_error(
    z: Float[Tensor, "p n d"], y: Float[Tensor, "n k"], penalty: float
) -> Float[Tensor, " p"]:
    """Mean squared error on each image of the ridge regression of y on z that was fitted without
    it.

    Exact without refitting (Allen 1974, PRESS): residual_i / (1 - h_ii) with h = 1/n + z (z'z + n
    penalty I)^-1 z'. Both z and y have mean 0 over the n images; what is left in is their mean with
    the image.
    """
    n = z.shape[-2]
    values, vectors = torch.linalg.eigh(z.mT @ z / n)
    turned, shrunk = z @ vectors, 1 / (values.clamp_min(0) + penalty)
    fitted = turned @ (shrunk[..., None] * (turned.mT @ y)) / n
    leverage = 1 / n + (turned.square() * shrunk[..., None, :]).sum(-1) / n
    error: Tensor = ((y - fitted) / (1 - leverage)[..., None]).square().mean((-2, -1))
    return error


def ridge(features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], classes: int) -> nn.Linear:
    """The linear map from features to one-hot labels; of `PENALTIES` that with the least
    leave-one-out error, the larger of equals.

    W = (z'z/n + penalty I)^-1 z'y/n on standardised features z; the standardisation is folded in.
    """
    z, centre, spread = standardised(features)
    y, mean = targets_of(labels, classes)
    errors = {
        penalty: float(left_out_error(z[None], y, penalty)) for penalty in reversed(PENALTIES)
    }
    penalty = min(errors, key=lambda one: errors[one])
    gram = z.mT @ z / len(z) + penalty * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    weight = torch.linalg.solve(gram, z.mT @ y / len(z)).mT / spread
    head = nn.Linear(z.shape[1], classes, device=features.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(mean - weight @ centre[0])
    return head
