"""Batch norm that is quick to differentiate twice, against torch's and against differences;
rectifiers held as they were.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lockforge.randomness import torch_generator
from lockforge.search._curvature import batch_norm, bounds, held

Norm = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def draw(*shape: int) -> Tensor:
    """Gaussian, float64, the same every time."""
    return torch.randn(
        *shape, generator=torch_generator(0, "curvature", shape), dtype=torch.float64
    )


def curved(norm: Norm, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor, ...]:
    """The gradient of |dL/dx|^2 for a loss that bends."""
    x = x.clone().requires_grad_()
    y = norm(x, scale, shift)
    (slope,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    return (
        y.detach(),
        slope.detach(),
        *torch.autograd.grad((slope * slope.detach()).sum(), [x] if scale is None else [x, scale]),
    )


@pytest.mark.parametrize("shape", [(6, 3), (5, 3, 4, 2)], ids=["units", "maps"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_batch_norm_is_torchs_up_to_the_second_gradient(
    shape: tuple[int, ...], *, affine: bool
) -> None:
    """Values, slopes and the derivative of the slopes' length, in x and in the scale, with an
    epsilon that matters.
    """
    scale, shift = (draw(3).requires_grad_(), draw(3) / 2) if affine else (None, None)
    ours = curved(lambda x, a, b: batch_norm(x, a, b, 0.1), draw(*shape), scale, shift)
    torchs = curved(
        lambda x, a, b: functional.batch_norm(x, None, None, a, b, training=True, eps=0.1),
        draw(*shape),
        scale,
        shift,
    )
    for mine, theirs in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_batch_norms_gradients_are_the_limits_of_differences() -> None:
    """First in everything, second in the slope that comes in and in x."""
    x, scale, shift = (t.requires_grad_() for t in (draw(4, 2, 3), draw(2), draw(2) + 1))
    assert torch.autograd.gradcheck(lambda *given: batch_norm(*given, 0.01), (x, scale, shift))

    def slope(x: Tensor, above: Tensor) -> Tensor:
        return torch.autograd.grad(
            batch_norm(x, scale.detach(), None, 0.01), x, above, create_graph=True
        )[0]

    assert torch.autograd.gradcheck(slope, (x, draw(4, 2, 3).flip(0).requires_grad_()))


def test_a_held_rectifier_is_a_line_through_what_it_gave() -> None:
    """At the same input it gives the same; elsewhere its slope is the one it had, for each way to
    write a rectifier.
    """
    x = torch.linspace(-2, 8, 41)[None]
    for way, args, kwargs in (
        (torch.relu, (), {}),
        (functional.relu, (), {"inplace": False}),
        (functional.relu6, (), {}),
        (functional.hardtanh, (), {}),
        (functional.hardtanh, (0.5, 3.0), {}),
        (functional.hardtanh, (), {"min_val": -0.3, "max_val": 6.0}),
    ):
        start = x.clone().requires_grad_()
        before = way(start, *args, **kwargs)
        (slope,) = torch.autograd.grad(before.sum(), start)
        limits = bounds(way, (start, *args), kwargs)
        torch.testing.assert_close(held(x, before.detach(), *limits), before.detach())
        torch.testing.assert_close(
            held(x + 3, before.detach(), *limits), before.detach() + 3 * slope
        )
    assert bounds(torch.relu, (x,), {}) == (0.0, math.inf)
