"""The alternating direction method of multipliers (ADMM), one pure function a step.

To minimise L(W) + g(W), a copy Z of the weights takes the part g, and a scaled dual U pulls them
together (Boyd et al. 2011, Distributed Optimization and Statistical Learning via ADMM, section
3.1.1):

    W <- argmin L(W) + rho/2 |W - Z + U|^2        Z <- prox of g/rho at W + U        U <- U + W - Z

Shapes: any, the same for all arguments of a call. Weights have no unit.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Weights = Float[Tensor, "..."]


def pull(weights: Weights, sparse: Weights, dual: Weights | None, rho: float) -> Float[Tensor, ""]:
    """rho/2 |W - Z + U|^2, the term of the W step; a dual of None is zero. The gradient, rho (W - Z
    + U), is the weights' alone.

    Differs: the published code takes the norm without the square, whose gradient does not fade as
        the copies meet.

    >>> float(pull(torch.tensor([3.0]), torch.tensor([1.0]), None, 0.5))
    1.0
    """
    value: Tensor = _Pull.apply(weights, sparse, dual, rho)  # type: ignore[no-untyped-call]
    return value


class _Pull(torch.autograd.Function):
    """`pull`, which works out W - Z + U again for its gradient: kept until then, it would be one
    more copy of all weights.
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, sparse: Tensor, dual: Tensor | None, rho: float
    ) -> Tensor:
        ctx.rho = rho
        ctx.save_for_backward(weights, sparse, dual)
        return rho / 2 * _between(weights, sparse, dual).square_().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _between(*ctx.saved_tensors).mul_(gradients[0] * ctx.rho), None, None, None


def _between(weights: Tensor, sparse: Tensor, dual: Tensor | None) -> Tensor:
    """W - Z + U."""
    difference = weights.detach() - sparse
    return difference if dual is None else difference.add_(dual)


def soft_threshold(x: Weights, threshold: float) -> Weights:
    """The prox of threshold * |Z|_1: every entry nearer to zero by the threshold, and zero where it
    would pass it.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0).tolist()
    [-2.0, 0.0, 1.0]
    """
    return x.sign() * (x.abs() - threshold).clamp_min(0)


def keep_largest(x: Weights, count: int) -> Weights:
    """The nearest point with at most `count` entries that are not zero; of equal sizes the first
    are kept.

    >>> keep_largest(torch.tensor([1.0, -3.0, 2.0]), 2).tolist()
    [0.0, -3.0, 2.0]
    """
    return torch.where(largest(x, count), x, 0.0)


def largest(x: Weights, count: int) -> Bool[Tensor, "..."]:
    """Where the `count` largest sizes are, of equal ones the first.

    Without sorting, which for places takes five times the memory of x: all beyond the least size
    that is kept, and the first of that size.
    """
    if not 0 < count < x.numel():
        return torch.full(x.shape, count > 0, device=x.device)
    sizes = x.detach().abs().flatten()
    order = sizes.cpu().numpy()
    order = order.copy() if sizes.device.type == "cpu" else order
    order.partition(len(order) - count)
    least = float(order[len(order) - count])
    kept = sizes > least
    of_least = (sizes == least).nonzero()[:, 0]
    kept[of_least[: count - int(kept.sum())]] = True
    return kept.view(x.shape)


def dual_step(dual: Weights, weights: Weights, sparse: Weights) -> Weights:
    """U + W - Z."""
    return dual + weights - sparse
