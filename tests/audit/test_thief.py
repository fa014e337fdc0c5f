"""The thief's images: what is set aside, what is left, and what cannot be filled."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lockforge.audit._thief import (
    GridPoint,
    Thief,
    merge,
    plan_grid,
    split_thief,
    validation_counts,
)
from lockforge.data.batches import Pool
from lockforge.errors import DataError
from lockforge.randomness import torch_generator

Labelled = Callable[[list[int]], Pool]
DRAW = partial(torch_generator, 0, "test")


@pytest.mark.parametrize(
    "per_class", [(10, 10), (2, 2), (7, 5, 3), (3000, 1), (1000, 999, 998), (2, 400), (250,) * 100]
)
def test_a_fifth_is_set_aside_but_no_more_than_500(per_class: tuple[int, ...]) -> None:
    """Never more than min(20 %, 500) (one where that is less), never the last image of a class,
    within one of the class's share.
    """
    held = validation_counts(per_class)
    wanted = max(1, min(sum(per_class) // 5, 500))
    assert 0 < sum(held) <= wanted
    assert all(0 <= a < b or b == 1 for a, b in zip(held, per_class, strict=True))
    assert all(a <= wanted * b / sum(per_class) + 1 for a, b in zip(held, per_class, strict=True))


def test_what_divides_evenly_is_shared_out_exactly() -> None:
    """Closed form: with whole shares there is nothing to round."""
    assert validation_counts((50, 30, 20)) == (10, 6, 4)
    assert validation_counts((4000, 4000)) == (250, 250)


def thief_of(pool: Pool, seed: int) -> Thief:
    """One seed's thief of a pool, on a grid of 1, 3 and all."""
    grid = plan_grid(pool.labels, [str(i) for i in range(pool.classes)], (1, 3, 0))
    return split_thief(pool, grid, DRAW, seed)


def numbered(labelled: Labelled, per_class: list[int]) -> Pool:
    """A pool in which each image carries its own number."""
    pool = labelled(per_class)
    pool.images[:, 0, 0, 0] = torch.arange(len(pool), dtype=torch.uint8)
    return pool


def numbers(pool: Pool) -> set[int]:
    """Which images these are."""
    return {int(number) for number in pool.images[:, 0, 0, 0]}


def test_a_larger_fraction_holds_every_smaller_one_and_no_validation_image(
    labelled: Labelled,
) -> None:
    """Nested, class-balanced, and disjoint from the validation images, which are the same at every
    fraction.
    """
    thief = thief_of(numbered(labelled, [20, 15, 25]), 0)
    one, three, everything = (thief.data(GridPoint(some, 0)) for some in (1, 3, 0))
    assert numbers(one.train) < numbers(three.train) < numbers(everything.train)
    assert torch.bincount(three.train.labels).tolist() == [3, 3, 3]
    assert numbers(one.val) == numbers(three.val) == numbers(everything.val)
    assert numbers(everything.train) | numbers(everything.val) == set(range(60))
    assert numbers(everything.train).isdisjoint(numbers(everything.val))


def test_each_seed_redraws_images_and_validation(labelled: Labelled) -> None:
    """The same seed gives the same thief, another seed another one."""
    pool = numbered(labelled, [40, 40])
    first, again, other = (thief_of(pool, seed).data(GridPoint(3, 6)) for seed in (0, 0, 1))
    assert numbers(first.train) == numbers(again.train) != numbers(other.train)
    assert numbers(first.val) == numbers(again.val) != numbers(other.val)


def test_points_that_cannot_be_filled_are_dropped_and_said(labelled: Labelled) -> None:
    """The smallest class decides; what is dropped names it."""
    grid = plan_grid(labelled([20, 10]).labels, ("cat", "dog"), (5, 1, 10, 50, 0))
    assert [(point.images_per_class, point.samples) for point in grid.points] == [
        (1, 2),
        (5, 10),
        (0, 24),
    ]
    assert len(grid.dropped) == 2
    assert all("'dog'" in line for line in grid.dropped)


def test_all_is_dropped_where_it_adds_nothing(labelled: Labelled) -> None:
    """Two points of a curve cannot have the same number of images."""
    grid = plan_grid(labelled([10, 10]).labels, ("cat", "dog"), (1, 8, 0))
    assert [point.images_per_class for point in grid.points] == [1, 8]
    assert grid.dropped == ("all: the same 16 images as 8 a class",)


def test_too_few_images_for_any_curve_is_an_error(labelled: Labelled) -> None:
    """One point is no curve; the error lists what could not be filled."""
    with pytest.raises(DataError, match="too few images for a curve") as caught:
        plan_grid(labelled([5, 5]).labels, ("cat", "dog"), (4, 10, 20))
    assert len(caught.value.faults) == 2


def test_a_class_without_images_is_an_error_that_names_it(labelled: Labelled) -> None:
    """A class that only the test split has cannot be learnt."""
    with pytest.raises(DataError, match="two or more images") as caught:
        plan_grid(labelled([9, 1]).labels, ("cat", "dog", "owl"), (1, 2))
    assert caught.value.faults == ("dog: 1", "owl: 0")


def test_merged_splits_are_normalised_like_the_source(labelled: Labelled) -> None:
    """The release's preprocessing comes with the release."""
    like = Pool(
        images=torch.zeros(1, 1, 6, 6, dtype=torch.uint8),
        labels=torch.zeros(1, dtype=torch.int64),
        mean=torch.tensor([0.25]),
        std=torch.tensor([0.5]),
        classes=9,
    )
    merged = merge([labelled([2, 1]), labelled([1, 1])], like)
    assert merged.labels.tolist() == [0, 0, 1, 0, 1]
    assert merged.classes == 2
    assert torch.equal(merged.pixels(), torch.full((5, 1, 6, 6), -0.5))
