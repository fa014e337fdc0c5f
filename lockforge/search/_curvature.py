"""Second derivatives at the price of first ones: batch norm that is cheap to differentiate twice,
and rectifiers that can be held.

Shapes: n images, c channels. `...`: no axis or any pixels' axes.

A network of rectifiers is smooth but for its kinks, and the Hessian of an untrained one is that of
the pattern of units it has now. A finite difference must therefore keep that pattern, or the kinks
it steps over outweigh the curvature.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_RELU = (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_)
IN_PLACE = frozenset({torch.relu_, Tensor.relu_, functional.relu_})
RECTIFIERS = frozenset({*_RELU, functional.relu6, functional.hardtanh})


def bounds(rectifier: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float, float]:
    """Between which outputs a rectifier passes its input through."""
    if rectifier in _RELU:
        return 0.0, math.inf
    if rectifier is functional.relu6:
        return 0.0, 6.0
    least, most = kwargs.get("min_val", -1.0), kwargs.get("max_val", 1.0)
    return float(args[1] if len(args) > 1 else least), float(args[2] if len(args) > 2 else most)


def held(
    x: Float[Tensor, "n c ..."], before: Float[Tensor, "n c ..."], least: float, most: float
) -> Float[Tensor, "n c ..."]:
    """A rectifier as it stood when it gave `before`: units that were on pass x through, the others
    keep their value.

    >>> held(torch.tensor([[-0.1, 0.1, 7.0]]), torch.tensor([[0.5, 0.0, 6.0]]), 0.0, 6.0).tolist()
    [[-0.10000000149011612, 0.0, 6.0]]
    """
    on = before > least
    return torch.where(on if most == math.inf else on & (before < most), x, before)


def batch_norm(
    x: Float[Tensor, "n c ..."],
    scale: Float[Tensor, " c"] | None,
    shift: Float[Tensor, " c"] | None,
    eps: float,
) -> Float[Tensor, "n c ..."]:
    """Batch norm with the minibatch's statistics: torch's values, gradient and second gradient, the
    last in a tenth of torch's time.

    Differs: it can be differentiated twice, not three times, and running statistics are left alone.
    """
    result: Tensor = _BatchNorm.apply(x, scale, shift, eps)  # type: ignore[no-untyped-call]
    return result


class _BatchNorm(torch.autograd.Function):
    """y = scale z + shift, z = (x - mean) / sigma, sigma^2 = variance + eps, over all but the
    channels.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float
    ) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, scale, mean, inverse)
        ctx.eps, ctx.shifted = eps, shift is not None
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, scale, mean, inverse = ctx.saved_tensors
        of_x, of_scale, of_shift = _Slope.apply(slope, x, scale, mean, inverse, ctx.eps)  # type: ignore[no-untyped-call]
        return of_x, None if scale is None else of_scale, of_shift if ctx.shifted else None, None


class _Slope(torch.autograd.Function):
    """dL/dx = scale / sigma (s - mean s - z mean(s z)) for s = dL/dy; its own derivatives use the
    same sums.
    """

    @staticmethod
    def forward(
        ctx: Any,
        slope: Tensor,
        x: Tensor,
        scale: Tensor | None,
        mean: Tensor,
        inverse: Tensor,
        eps: float,
    ) -> Any:
        of_x, of_scale, of_shift = _backward(slope, x, scale, mean, inverse, eps)
        ctx.save_for_backward(slope, x, scale, mean, inverse, of_scale, of_shift)
        ctx.eps = eps
        ctx.mark_non_differentiable(of_scale, of_shift)
        return of_x, of_scale, of_shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, *_unused: Tensor) -> Any:
        """For F = v . dL/dx: dL/dx is linear and self-adjoint in s; x enters by z and by sigma.

        F = scale/sigma Q, Q = s.v - sum(v) sum(s) / N - sum(v z) sum(s z) / N; dF/dz =
        -scale/(sigma N) (v sum(s z) + s sum(v z)); dF/dsigma = -F/sigma and dsigma/dx = z/N.
        """
        slope, x, scale, mean, inverse, s_z, s_sum = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        axes = [0, *range(2, x.dim())]

        def wide(channels: Tensor) -> Tensor:
            return channels.view(1, -1, *[1] * (x.dim() - 2))

        of_slope, v_z, v_sum = _backward(v, x, scale, mean, inverse, ctx.eps)
        q = (slope * v).sum(axes) - (v_sum * s_sum + v_z * s_z) / count
        factor = inverse if scale is None else scale * inverse
        of_z = torch.addcmul(v * wide(-factor * s_z / count), slope, wide(-factor * v_z / count))
        of_x = _backward(of_z, x, None, mean, inverse, ctx.eps)[0]
        pull = factor * inverse.square() * q / count
        of_x = torch.addcmul(of_x, x, wide(pull), value=-1).add_(wide(pull * mean))
        return of_slope, of_x, None if scale is None else q * inverse, None, None, None


def _backward(
    slope: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx, sum(s z) and sum(s), per channel."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        slope, x, scale, None, None, mean, inverse, True, eps, [True, True, True]
    )
    return found
