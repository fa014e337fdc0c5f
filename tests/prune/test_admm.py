"""The steps of ADMM against closed forms and against each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockforge.prune._admm import dual_step, keep_largest, largest, pull, soft_threshold
from lockforge.randomness import torch_generator

NUMBERS = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12)


@settings(deadline=None)
@given(NUMBERS, st.floats(0.015625, 3, width=32))
def test_a_soft_threshold_is_the_prox_of_the_l1_norm(
    numbers: list[float], threshold: float
) -> None:
    """No point near it has a smaller t |z| + (z - x)^2 / 2."""
    x = torch.tensor(numbers, dtype=torch.float64)

    def cost(z: torch.Tensor) -> torch.Tensor:
        return threshold * z.abs() + (z - x).square() / 2

    best = cost(soft_threshold(x, threshold))
    for step in (-0.1, -1e-3, 1e-3, 0.1):
        assert bool((best <= cost(soft_threshold(x, threshold) + step) + 1e-12).all())


@settings(deadline=None)
@given(NUMBERS, st.integers(0, 12))
def test_keeping_the_largest_is_the_nearest_sparse_point(numbers: list[float], count: int) -> None:
    """Exactly so many entries stay (fewer where there were zeros), and what is given up is the
    least that can be.
    """
    x = torch.tensor(numbers, dtype=torch.float64)
    z = keep_largest(x, count)
    assert int((z != 0).sum()) == min(count, int((x != 0).sum()))
    lost = sorted(x.square().tolist())[: max(0, len(numbers) - count)]
    assert float((x - z).square().sum()) == pytest.approx(sum(lost), abs=1e-9)


def test_of_equal_sizes_the_first_are_kept() -> None:
    """A tie is decided by place, so that a mask can be made again."""
    assert keep_largest(torch.tensor([1.0, -1.0, 1.0]), 2).tolist() == [1.0, -1.0, 0.0]


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(-1, 42))
def test_the_largest_are_those_that_a_stable_sort_puts_first(
    numbers: list[int], count: int
) -> None:
    """Also with many equal sizes, with none and with all of them; the sizes themselves stay as they
    are.
    """
    x = torch.tensor(numbers, dtype=torch.float32)
    first = x.abs().argsort(descending=True, stable=True)[: max(0, count)].sort().values
    assert largest(x, count).nonzero()[:, 0].tolist() == first.tolist()
    assert x.tolist() == numbers


def test_the_pull_keeps_nothing_of_its_own_for_the_gradient() -> None:
    """What waits for the backward pass are the tensors that were given: no copy of the weights."""
    weights, sparse = torch.ones(5, requires_grad=True), torch.zeros(5)
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pull(weights, sparse, None, 0.5).backward()
    assert set(kept) == {weights.data_ptr(), sparse.data_ptr()}
    assert weights.grad is not None
    assert weights.grad.tolist() == [0.5] * 5


def test_the_pull_is_squared() -> None:
    """Its gradient is rho (W - Z + U): it fades as the copies meet, where a norm without the square
    would not.
    """
    weights = torch.tensor([1.0, 2.0], requires_grad=True)
    pull(weights, torch.tensor([0.5, 2.0]), torch.tensor([0.0, 0.25]), 0.5).backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [0.25, 0.125]


def _lasso(steps: int, rho: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ADMM for 1/2 (w - b)' A (w - b) + t |w|_1, with exact W steps; b, A and the answer found."""
    generator = torch_generator(0, "lasso")
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    a = root @ root.T + torch.eye(6, dtype=torch.float64)
    b = torch.randn(6, generator=generator, dtype=torch.float64)
    z, u = torch.zeros_like(b), torch.zeros_like(b)
    for _ in range(steps):
        w = torch.linalg.solve(a + rho * torch.eye(6, dtype=torch.float64), a @ b + rho * (z - u))
        z = soft_threshold(w + u, 2.0 / rho)
        u = dual_step(u, w, z)
    return a, b, z


@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_the_three_steps_solve_a_lasso(rho: float) -> None:
    """At the answer the gradient of the smooth part is t times the sign of each weight, and within
    t where the weight is zero.
    """
    a, b, z = _lasso(4000, rho)
    gradient = a @ (z - b)
    zero = z == 0
    assert bool(zero.any())
    assert not bool(zero.all())
    assert torch.allclose(gradient[~zero], -2.0 * z[~zero].sign(), atol=1e-6)
    assert bool((gradient[zero].abs() <= 2.0 + 1e-6).all())


def test_with_a_diagonal_loss_both_projections_keep_the_same_weights() -> None:
    """For 1/2 |w - b|^2 the largest entries of b survive, whether by a threshold between them or by
    their number.
    """
    b = torch.tensor([3.0, -0.2, 1.5, 0.4, -2.5])
    soft, exact = soft_threshold(b, 1.0), keep_largest(b, 3)
    assert (soft != 0).tolist() == (exact != 0).tolist() == [True, False, True, False, True]
