"""The alternating direction method of multipliers (ADMM), one pure function a step.

To minimise L(W) + g(W), a copy Z of the weights takes the part g, and a scaled dual U pulls them together (Boyd et al. 2011, Distributed
Optimization and Statistical Learning via ADMM, section 3.1.1):

    W <- argmin L(W) + rho/2 |W - Z + U|^2        Z <- prox of g/rho at W + U        U <- U + W - Z

Shapes: any, the same for all arguments of a call. Weights have no unit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Float[Tensor, "..."]


def pull(weights: Weights, sparse: Weights, dual: Weights, rho: float) -> Float[Tensor, ""]:
    """rho/2 |W - Z + U|^2, the term of the W step.

    Differs: the published code takes the norm without the square, whose gradient does not fade as the copies meet.

    >>> float(pull(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([0.0]), 0.5))
    1.0
    """
    return rho / 2 * (weights - sparse + dual).square().sum()


def soft_threshold(x: Weights, threshold: float) -> Weights:
    """The prox of threshold * |Z|_1: every entry nearer to zero by the threshold, and zero where it would pass it.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0).tolist()
    [-2.0, 0.0, 1.0]
    """
    return x.sign() * (x.abs() - threshold).clamp_min(0)


def keep_largest(x: Weights, count: int) -> Weights:
    """The nearest point with at most `count` entries that are not zero; of equal sizes the first are kept.

    >>> keep_largest(torch.tensor([1.0, -3.0, 2.0]), 2).tolist()
    [0.0, -3.0, 2.0]
    """
    return torch.where(largest(x, count), x, 0.0)


def largest(x: Weights, count: int) -> Tensor:
    """Where the `count` largest sizes are, of equal ones the first; bool, the shape of x."""
    order = x.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    kept[order[:count]] = True
    return kept.view(x.shape)


def dual_step(dual: Weights, weights: Weights, sparse: Weights) -> Weights:
    """U + W - Z."""
    return dual + weights - sparse
