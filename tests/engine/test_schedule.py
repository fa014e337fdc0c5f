"""The learning rate."""

import pytest

from lockforge.engine.schedule import learning_rate
from lockforge.recipe import FitRecipe


def test_a_cosine_starts_at_the_rate_passes_half_of_it_in_the_middle_and_ends_near_zero() -> None:
    """Closed form: 1, 1/2 and (1 + cos(99 pi / 100)) / 2 of the rate at steps 0, 50 and 99 of
    100.
    """
    recipe = FitRecipe(steps=100, learning_rate=0.2)
    assert [learning_rate(step, 100, recipe) for step in (0, 50, 99)] == pytest.approx(
        [0.2, 0.1, 0.2 * 0.000246720], rel=1e-4
    )


def test_warm_up_rises_in_equal_parts_to_the_full_rate() -> None:
    """With a fifth of ten steps: half the rate, the whole rate, then a constant stays there."""
    recipe = FitRecipe(steps=10, learning_rate=0.4, warmup=0.2, schedule="constant")
    assert [learning_rate(step, 10, recipe) for step in range(10)] == pytest.approx(
        [0.2] + [0.4] * 9
    )


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 2, 3, 100])
def test_no_step_has_a_rate_of_zero_or_above_the_highest(warmup: float, total: int) -> None:
    """Bounds, for runs of any length."""
    recipe = FitRecipe(steps=total, learning_rate=0.3, warmup=warmup)
    assert all(0 < learning_rate(step, total, recipe) <= 0.3 for step in range(total))
