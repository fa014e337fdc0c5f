"""Who trains, who validates, who tests: decided by content, so that file order, names and
repetition decide nothing.

Within a class, images are put in the order of their content hashes, which is as good as a shuffle
and the same everywhere. Given splits are kept; what is missing is carved out of the training
images. Equal images always land together.

Shapes: n images, k different ones.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED, VAL, Images, refuse
from lockforge.recipe import DataRecipe


@dataclass(frozen=True)
class Decided:
    """Images in the order of split and content. `repeated`: how many were left out because a
    later split holds them too.
    """

    images: Images
    repeated: int


def share(count: int, part: float) -> int:
    """How many of `count` images a part is: rounded, at least one, and one is left; none of a
    single image.

    >>> [share(count, 0.2) for count in (0, 1, 2, 3, 10, 13)]
    [0, 0, 1, 1, 2, 3]
    """
    return min(max(1, int(count * part + 0.5)), count - 1) if count > 1 else 0


def decide(images: Images, recipe: DataRecipe, name: str) -> Decided:
    """Give every image a split, apply the limit per class, and put the images in an order that
    depends on content only.

    An image that came with two splits stays in the later of train, val and test: what was trained
    on must not be tested on.

    Raises: DataError: a class has too few images to train and to test.
    """
    unique, content = np.unique(images.keys(), return_inverse=True)
    came_with = _as_given(images, content, len(unique))
    home = np.full(len(unique), len(images.classes), np.int64)
    np.minimum.at(home, content, images.labels)
    split_of = _carve(came_with, home, recipe)

    given = np.where(images.split == UNDECIDED, -1, images.split.astype(np.int64))
    kept = np.flatnonzero(given == came_with[content])
    split = split_of[content[kept]]
    order = np.lexsort((images.labels[kept], content[kept], split))
    kept, split = kept[order], split[order]
    if recipe.limit_per_class:
        within = (
            _rank_in_group(split * len(images.classes) + images.labels[kept])
            < recipe.limit_per_class
        )
        kept, split = kept[within], split[within]
    chosen = images.take(kept)
    decided = Images(
        chosen.images, chosen.labels, chosen.content, split.astype(np.uint8), chosen.classes
    )
    _check(decided, name, test_given=bool((came_with == TEST).any()))
    return Decided(decided, repeated=len(images) - int((given == came_with[content]).sum()))


def _as_given(
    images: Images, content: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " k"]:
    """The last split each different image came with; -1 where it came with none."""
    came_with = np.full(count, -1, np.int64)
    np.maximum.at(
        came_with,
        content,
        np.where(images.split == UNDECIDED, -1, images.split.astype(np.int64)),
    )
    return came_with


def _carve(
    came_with: Int64[np.ndarray, " k"], home: Int64[np.ndarray, " k"], recipe: DataRecipe
) -> Int64[np.ndarray, " k"]:
    """A split for every different image, in the order of their hashes; each belongs to the first
    class that holds it.
    """
    split = np.where(came_with < 0, TRAIN, came_with)
    no_test, no_val = not (came_with == TEST).any(), not (came_with == VAL).any()
    by_class = np.argsort(home, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(home[by_class])) + 1):
        free = members[split[members] == TRAIN]
        for part, missing, target in (
            (recipe.test_share, no_test, TEST),
            (recipe.val_share, no_val, VAL),
        ):
            if missing:
                taken = share(len(free), part)
                split[free[:taken]] = target
                free = free[taken:]
    return split


def _rank_in_group(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """How many earlier rows are of the same group.

    >>> _rank_in_group(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(group, kind="stable")
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(begins, np.diff(begins, append=len(group)))
    return rank


def _check(images: Images, name: str, *, test_given: bool) -> None:
    faults = []
    count = {
        part: np.bincount(images.labels[images.split == part], minlength=len(images.classes))
        for part in (TRAIN, VAL, TEST)
    }
    for label, word in enumerate(images.classes):
        train, test = int(count[TRAIN][label]), int(count[TEST][label])
        if not train:
            faults.append(f"class {word!r} has no image to train on ({test} to test on)")
        elif not test and not test_given:
            faults.append(
                f"class {word!r} has {train} different image(s): one to train on and one to "
                "test on are needed"
            )
    if not faults and not count[VAL].any():
        faults.append(
            "no class has enough different images for a validation split: three are needed in "
            "one of them"
        )
    refuse(name, faults, "give each class at least three different images, or take it out")
