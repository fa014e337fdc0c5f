"""Who trains, who validates, who tests: decided by content, so that file order, names and repetition decide nothing.

Within a class, pictures are put in the order of their content hashes, which is as good as a shuffle and the same everywhere. Given splits
are kept; what is missing is carved out of the training pictures. Equal pictures always land together.

Shapes: n pictures, k different ones.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lockforge.data.pictures import TEST, TRAIN, UNDECIDED, VAL, Pictures, refuse
from lockforge.recipe import DataRecipe


@dataclass(frozen=True)
class Decided:
    """Pictures in the order of split and content. `repeated`: how many were left out because a later split holds them too."""

    pictures: Pictures
    repeated: int


def share(count: int, part: float) -> int:
    """How many of `count` pictures a part is: rounded, at least one, and one is left; none of a single picture.

    >>> [share(count, 0.2) for count in (0, 1, 2, 3, 10, 13)]
    [0, 0, 1, 1, 2, 3]
    """
    return min(max(1, int(count * part + 0.5)), count - 1) if count > 1 else 0


def decide(pictures: Pictures, recipe: DataRecipe, name: str) -> Decided:
    """Give every picture a split, apply the limit per class, and put the pictures in an order that depends on content only.

    A picture that came with two splits stays in the later of train, val and test: what was trained on must not be tested on.

    Raises: DataError: a class has too few pictures to train and to test.
    """
    unique, content = np.unique(pictures.keys(), return_inverse=True)
    came_with = _as_given(pictures, content, len(unique))
    home = np.full(len(unique), len(pictures.classes), np.int64)
    np.minimum.at(home, content, pictures.labels)
    split_of = _carve(came_with, home, recipe)

    given = np.where(pictures.split == UNDECIDED, -1, pictures.split.astype(np.int64))
    kept = np.flatnonzero(given == came_with[content])
    split = split_of[content[kept]]
    order = np.lexsort((pictures.labels[kept], content[kept], split))
    kept, split = kept[order], split[order]
    if recipe.limit_per_class:
        within = _rank_in_group(split * len(pictures.classes) + pictures.labels[kept]) < recipe.limit_per_class
        kept, split = kept[within], split[within]
    chosen = pictures.take(kept)
    decided = Pictures(chosen.images, chosen.labels, chosen.content, split.astype(np.uint8), chosen.classes)
    _check(decided, name, test_given=bool((came_with == TEST).any()))
    return Decided(decided, repeated=len(pictures) - int((given == came_with[content]).sum()))


def _as_given(pictures: Pictures, content: Int64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " k"]:
    """The last split each different picture came with; -1 where it came with none."""
    came_with = np.full(count, -1, np.int64)
    np.maximum.at(came_with, content, np.where(pictures.split == UNDECIDED, -1, pictures.split.astype(np.int64)))
    return came_with


def _carve(came_with: Int64[np.ndarray, " k"], home: Int64[np.ndarray, " k"], recipe: DataRecipe) -> Int64[np.ndarray, " k"]:
    """A split for every different picture, in the order of their hashes; each belongs to the first class that holds it."""
    split = np.where(came_with < 0, TRAIN, came_with)
    no_test, no_val = not (came_with == TEST).any(), not (came_with == VAL).any()
    by_class = np.argsort(home, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(home[by_class])) + 1):
        free = members[split[members] == TRAIN]
        for part, missing, target in ((recipe.test_share, no_test, TEST), (recipe.val_share, no_val, VAL)):
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


def _check(pictures: Pictures, name: str, *, test_given: bool) -> None:
    faults = []
    count = {part: np.bincount(pictures.labels[pictures.split == part], minlength=len(pictures.classes)) for part in (TRAIN, VAL, TEST)}
    for label, word in enumerate(pictures.classes):
        train, test = int(count[TRAIN][label]), int(count[TEST][label])
        if not train:
            faults.append(f"class {word!r} has no picture to train on ({test} to test on)")
        elif not test and not test_given:
            faults.append(f"class {word!r} has {train} different picture(s): one to train on and one to test on are needed")
    if not faults and not count[VAL].any():
        faults.append("no class has enough different pictures for a validation split: three are needed in one of them")
    refuse(name, faults, "give each class at least three different pictures, or take it out")
