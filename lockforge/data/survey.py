"""Look at a data set before using it: counts, sizes, balance, repeats, what cannot be read, and
what its owner says of its use.

Shapes: n images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED, VAL
from lockforge.data.builtin import is_builtin
from lockforge.data.images import read_images
from lockforge.data.roles import all_or_none, named
from lockforge.recipe import DataRecipe

_SIDE = 32  # what images are brought to while they are looked at
_LICENCES = ("licen", "copying", "terms")
_WORDS = {TRAIN: "train", VAL: "val", TEST: "test", UNDECIDED: "no split"}


@dataclass(frozen=True)
class Survey:
    """What there is to know of one set. `split` and `classes` count images; `sizes` counts (c, h,
    w) as they came.

    Args: repeated: images that are there already. across_splits: different images that are in
        two splits. two_labels: different images that carry two labels. imbalance: images of the
        largest class over those of the smallest. licences: names of files beside the data that look
        like a licence.
    """

    place: str
    images: int
    split: dict[str, int]
    classes: dict[str, int]
    sizes: dict[str, int]
    repeated: int
    across_splits: int
    two_labels: int
    imbalance: float
    unreadable: tuple[str, ...]
    licences: tuple[str, ...]
    keys: frozenset[bytes]

    @property
    def different(self) -> int:
        """Images, each counted once."""
        return len(self.keys)


def survey(place: str, recipe: DataRecipe) -> Survey:
    """Read all of a set, leaving out what cannot be read.

    Raises: DataError: missing, malformed, or nothing readable in it. ResourceError: no room on
        disk.
    """
    found = read_images(
        place, recipe.model_copy(update={"size": recipe.size or _SIDE, "skip_unreadable": True})
    )
    keys, rows = np.unique(found.keys(), return_inverse=True)
    counts = np.bincount(found.labels, minlength=len(found.classes))
    return Survey(
        place=place,
        images=len(found),
        split={
            _WORDS[int(part)]: int(count)
            for part, count in zip(*np.unique(found.split, return_counts=True), strict=True)
        },
        classes={name: int(count) for name, count in zip(found.classes, counts, strict=True)},
        sizes={f"{c}x{h}x{w}": count for (c, h, w), count in found.sizes},
        repeated=len(found) - len(keys),
        across_splits=_with_several(rows, found.split),
        two_labels=_with_several(rows, found.labels),
        imbalance=float(counts.max() / counts.min()),
        unreadable=found.skipped,
        licences=_licences(place),
        keys=frozenset(keys.tolist()),
    )


def survey_all(places: Sequence[str]) -> tuple[Survey, ...]:
    """Look at several sets, each optionally given as NAME=PLACE.

    Raises: DataError: the faults of all that cannot be used. ResourceError: no room on disk.
    """
    found: list[Survey] = []
    recipe = DataRecipe()
    all_or_none(
        [
            partial(lambda place: found.append(survey(named(place).place, recipe)), place)
            for place in places
        ]
    )
    return tuple(found)


def shared(one: Survey, other: Survey) -> int:
    """Different images that are in both sets."""
    return len(one.keys & other.keys)


def _with_several(rows: np.ndarray, values: np.ndarray) -> int:
    """How many images come with more than one value."""
    pairs = np.unique(np.stack([rows, values.astype(np.int64)]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _licences(place: str) -> tuple[str, ...]:
    path = Path(place).expanduser()
    if is_builtin(place):
        return ()
    folder = path if path.is_dir() else path.parent
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return tuple(name for name in names if any(word in name.lower() for word in _LICENCES))
