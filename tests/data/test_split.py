"""Splits: by content, stratified, disjoint, the same whatever the order."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED, VAL, Images
from lockforge.data._split import decide
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

Make = Callable[..., Images]
RECIPE = DataRecipe(val_share=0.2, test_share=0.25)


def counts(images: Images) -> list[list[int]]:
    """Images of each class (rows) in train, val and test (columns)."""
    return [
        [int(((images.labels == label) & (images.split == part)).sum()) for part in (0, 1, 2)]
        for label in range(len(images.classes))
    ]


def same(one: Images, other: Images) -> bool:
    """Equal in everything."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("images", "labels", "content", "split")
    )


def test_shares_are_exact_in_each_class(images: Make) -> None:
    """40 and 20 images: a quarter to test on; of the rest, a fifth to validate on."""
    assert counts(decide(images([0] * 40 + [1] * 20), RECIPE, "it").images) == [
        [24, 6, 10],
        [12, 3, 5],
    ]


def test_the_order_of_the_images_decides_nothing(images: Make, rng: np.random.Generator) -> None:
    """Shuffled input gives the same output, row for row, also with repetitions and a limit."""
    some = images([0] * 30 + [1] * 30)
    some = some.take(rng.integers(60, size=90))
    recipe = RECIPE.model_copy(update={"limit_per_class": 9})
    assert same(
        decide(some, recipe, "it").images,
        decide(some.take(rng.permutation(90)), recipe, "it").images,
    )


@given(
    st.lists(st.integers(3, 12), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
)
def test_three_images_are_enough_and_splits_are_disjoint_by_content(
    sizes: list[int], seed: int, val: float, test: float
) -> None:
    """Any class with three different images is in every split; equal images are in one split;
    nothing is lost.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    content = rng.integers(256, size=(len(labels), 16), dtype=np.uint8)
    rows = np.concatenate([np.arange(len(labels)), rng.integers(len(labels), size=5)])
    images = np.zeros((len(rows), 1, 4, 4), np.uint8)
    given_ = Images(
        images,
        labels[rows],
        content[rows],
        np.full(len(rows), UNDECIDED, np.uint8),
        tuple("abcdef"[: len(sizes)]),
    )
    decided = decide(given_, DataRecipe(val_share=val, test_share=test), "it")
    assert np.array(counts(decided.images)).min() >= 1
    assert len(decided.images) == len(rows)
    assert decided.repeated == 0
    splits: dict[bytes, set[int]] = {}
    for key, part in zip(
        decided.images.keys().tolist(), decided.images.split.tolist(), strict=True
    ):
        splits.setdefault(key, set()).add(part)
    assert all(len(parts) == 1 for parts in splits.values())


def test_given_splits_are_kept_and_validation_is_carved_out_of_train(images: Make) -> None:
    """The test split is as it came; a fifth of the training images become validation."""
    given_ = images([0, 1] * 20, split=[TRAIN] * 30 + [TEST] * 10)
    decided = decide(given_, RECIPE, "it").images
    assert counts(decided) == [[12, 3, 5]] * 2
    assert set(decided.keys()[decided.split == TEST]) == set(given_.keys()[30:])


def test_a_given_validation_split_is_kept(images: Make) -> None:
    """Train and val came, test did not: it is carved out of train."""
    given_ = images([0, 1] * 20, split=[TRAIN] * 32 + [VAL] * 8)
    decided = decide(given_, RECIPE, "it").images
    assert counts(decided) == [[12, 4, 4]] * 2
    assert set(decided.keys()[decided.split == VAL]) == set(given_.keys()[32:])


def test_what_the_test_split_holds_is_not_trained_on(images: Make) -> None:
    """Three training images that came again in test are left out of train, and counted."""
    given_ = images([0, 1] * 20, split=[TRAIN] * 30 + [TEST] * 10)
    again = np.r_[np.arange(40), 37, 38, 39]
    split = np.r_[given_.split, [TRAIN] * 3].astype(np.uint8)
    repeated = Images(
        given_.images[again], given_.labels[again], given_.content[again], split, given_.classes
    )
    decided = decide(repeated, RECIPE, "it")
    assert decided.repeated == 3
    assert same(decided.images, decide(given_, RECIPE, "it").images)


def test_one_image_under_two_labels_is_in_one_split(images: Make) -> None:
    """A contradiction in the labels must not become a leak."""
    some = images([0] * 10 + [1] * 10)
    twice = some.take(np.r_[np.arange(20), np.arange(10)])
    twice.labels[20:] = 1
    decided = decide(twice, RECIPE, "it").images
    for key in set(decided.keys()):
        assert len(set(decided.split[decided.keys() == key])) == 1


def test_the_limit_holds_in_each_class_and_split(images: Make) -> None:
    """At most three, fewer where there are fewer; what is kept was in the same split without the
    limit.
    """
    some = images([0] * 40 + [1] * 8)
    limited = decide(some, RECIPE.model_copy(update={"limit_per_class": 3}), "it").images
    assert counts(limited) == [[3, 3, 3], [3, 1, 2]]
    whole = decide(some, RECIPE, "it").images
    where = dict(zip(whole.keys().tolist(), whole.split.tolist(), strict=True))
    assert [where[key] for key in limited.keys().tolist()] == limited.split.tolist()


@pytest.mark.parametrize(
    ("labels", "split", "message"),
    [
        ([0] * 9 + [1], None, "class 'b' has 1 different image"),
        ([0, 0, 1, 1], None, "no class has enough different images for a validation split"),
        ([0] * 6 + [1] * 3, [TRAIN] * 6 + [TEST] * 3, "class 'b' has no image to train on"),
    ],
)
def test_a_class_with_too_few_images_is_named(
    labels: list[int], split: list[int] | None, message: str, images: Make
) -> None:
    """It cannot be trained and tested."""
    with pytest.raises(DataError, match=message):
        decide(images(labels, split), RECIPE, "it")


def test_all_that_is_missing_is_listed_at_once(images: Make) -> None:
    """Two classes of one image: two faults."""
    with pytest.raises(DataError) as caught:
        decide(images([0] * 5 + [1] + [2]), RECIPE, "source 'x'")
    assert len(caught.value.faults) == 2
