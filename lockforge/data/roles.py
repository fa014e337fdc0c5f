"""Who may see what, enforced by content: source, auxiliary (what the lock may learn from) and
targets (what only the audit may see).
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from lockforge.data._memory import pieces
from lockforge.data._raw_images import TEST, TRAIN, VAL, Images, Shape
from lockforge.data._split import decide
from lockforge.data.builtin import is_builtin
from lockforge.data.images import check_place, read_images
from lockforge.errors import DataError, RecipeError
from lockforge.files import Files
from lockforge.recipe import DataRecipe
from lockforge.records import ImageSet, Roles, Splits

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_LEAST_STD = 1e-3
Tell = Callable[[str], None]


def nobody(_line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Given:
    """One data set of a command line: its role, the name it has in reports, and where it lies."""

    role: str
    name: str
    place: str


@dataclass(frozen=True)
class _Seen:
    """It, once read."""

    given: Given
    images: Images


def read_roles(
    source: str,
    auxiliary: Sequence[str],
    targets: Sequence[str],
    recipe: DataRecipe,
    files: Files,
    *,
    tell: Tell = nobody,
) -> Roles:
    """Read every set, bring it to the source's shape, and hold the roles apart.

    Args: source, auxiliary, targets: places, each optionally as NAME=PLACE. `dropped` of the result
        counts, by name, the images that were left out because another role, or a later split of
        the same set, holds them too; `unreadable` counts those that could not be read, where the
        recipe allows that. tell: is given a line for each of them.
    Raises: RecipeError: a name is given twice. DataError: unreadable or malformed sets, or the same
        images in two roles.
    """
    given = [named(source, "source", "source")]
    given += [named(place, "auxiliary", f"auxiliary-{i}") for i, place in enumerate(auxiliary, 1)]
    given += [named(place, "target", f"target-{i}") for i, place in enumerate(targets, 1)]
    _check_names(given)
    all_or_none([partial(check_place, one.place) for one in given])

    seen = _read_all(given, recipe)
    for read in seen:
        for line in read.images.skipped:
            tell(f"{read.given.name}: {line}")
    kept = _hold_apart(seen, drop=recipe.overlap == "drop")
    dropped = {
        one.given.name: len(one.images) - len(images)
        for one, images in zip(seen, kept, strict=True)
    }
    sets = []
    for one, images in zip(given, kept, strict=True):
        decided = decide(images, recipe, f"{one.role} {one.name!r}")
        dropped[one.name] += decided.repeated
        sets.append(store(decided.images, files))
    last = 1 + len(auxiliary)
    return Roles(
        source=sets[0],
        auxiliary=tuple(sets[1:last]),
        targets=tuple(sets[last:]),
        names=tuple(one.name for one in given),
        dropped={name: count for name, count in dropped.items() if count},
        unreadable={one.given.name: len(one.images.skipped) for one in seen if one.images.skipped},
    )


def read_set(
    place: str, recipe: DataRecipe, files: Files, *, like: Shape | None = None, tell: Tell = nobody
) -> ImageSet:
    """Read one set for itself, without a role.

    Raises: DataError: unreadable or malformed.
    """
    given = named(place)
    images = read_images(given.place, recipe, like=like)
    for line in images.skipped:
        tell(f"{given.place}: {line}")
    return store(decide(images, recipe, given.place).images, files)


def store(images: Images, files: Files) -> ImageSet:
    """Write decided images to the runs folder and describe them; mean and std are of the training
    split.
    """
    rows = np.flatnonzero(images.split == TRAIN)
    moments = [_mean_and_std(counts) for counts in _histograms(images.images, rows)]
    arrays = {
        "images": images.images,
        "labels": images.labels,
        "content": images.content,
        "split": images.split,
    }
    channels, height, width = images.images.shape[1:]
    train_count, val_count, test_count = (
        int((images.split == part).sum()) for part in (TRAIN, VAL, TEST)
    )
    return ImageSet(
        classes=images.classes,
        shape=(channels, height, width),
        mean=tuple(mean for mean, _ in moments),
        std=tuple(std for _, std in moments),
        counts=Splits(train=train_count, val=val_count, test=test_count),
        pixels=files.put_arrays(arrays),
    )


def _histograms(
    images: UInt8[np.ndarray, "n c h w"], rows: Int64[np.ndarray, " k"]
) -> list[Int64[np.ndarray, "256"]]:
    """How often each level occurs in each channel."""
    counts = [np.zeros(256, np.int64) for _ in range(images.shape[1])]
    for _, part in pieces(images, rows):
        for channel in range(len(counts)):
            counts[channel] += np.bincount(part[:, channel].ravel(), minlength=256)
    return counts


def _mean_and_std(levels: Int64[np.ndarray, "256"]) -> tuple[float, float]:
    """Of pixels scaled to [0, 1], from whole numbers, so that they are the same to the last bit
    everywhere; std is at least 0.001.

    >>> _mean_and_std(np.bincount([0, 255], minlength=256))
    (0.5, 0.5)
    """
    counts = [int(count) for count in levels]
    total = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level**2 * count for level, count in enumerate(counts))
    return first / (255 * total), max(
        _LEAST_STD, math.sqrt((total * second - first**2) / (255 * total) ** 2)
    )


def named(place: str, role: str = "set", default: str = "set") -> Given:
    """NAME=PLACE, unless there is a file or folder that is called just so."""
    match = _NAMED.fullmatch(place)
    try:
        there = Path(place).exists()
    except (OSError, ValueError):
        there = False
    if match and not there:
        return Given(role, match[1], match[2])
    return Given(role, place if is_builtin(place) else default, place)


def _check_names(given: Sequence[Given]) -> None:
    names = [one.name for one in given]
    faults = [
        f"{name!r} is the name of {names.count(name)} data sets"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if faults:
        raise RecipeError(
            "every data set needs a name of its own",
            faults=faults,
            hint="name them, for instance --target mine=photos/",
        )


def all_or_none(steps: Sequence[Callable[[], None]], what: str = "data sets") -> None:
    """Take every step, then report the faults of all. `what` they read, in words.

    Raises: DataError: of the only failing step, or one that lists them all.
    """
    errors: list[DataError] = []
    for step in steps:
        try:
            step()
        except DataError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        faults = [
            line
            for error in errors
            for line in (error.message, *(f"  {fault}" for fault in error.faults))
        ]
        raise DataError(f"{len(errors)} {what} cannot be used", faults=faults, hint=errors[0].hint)


def _read_all(given: Sequence[Given], recipe: DataRecipe) -> list[_Seen]:
    """The source first: it decides the shape of the others."""
    seen: list[_Seen] = []

    def read(one: Given) -> None:
        like: Shape | None = seen[0].images.images.shape[1:] if seen else None
        seen.append(_Seen(one, read_images(one.place, recipe, like=like)))

    all_or_none([partial(read, one) for one in given])
    return seen


def _hold_apart(seen: Sequence[_Seen], *, drop: bool) -> list[Images]:
    """The images each role keeps: a target keeps all, the source what no target has, an auxiliary
    set what neither has.

    Raises: DataError: two roles share images and they are not to be dropped, or two roles hold
        the very same set.
    """
    roles = ("source", "auxiliary", "target")
    before = {"source": ("target",), "auxiliary": ("source", "target"), "target": ()}
    keys = [np.unique(one.images.keys()) for one in seen]
    faults, same = [], []
    for i, one in enumerate(seen):
        for j, other in enumerate(seen):
            if roles.index(one.given.role) < roles.index(other.given.role):
                both = int(np.isin(keys[i], keys[j], assume_unique=True).sum())
                line = (
                    f"{one.given.name} and {other.given.name}: {both} different image(s) in "
                    f"both, of {len(keys[i])} and {len(keys[j])}"
                )
                faults += [line] if both else []
                same += [line] if both == len(keys[i]) == len(keys[j]) else []
    if same:
        raise DataError(
            "the same data set has two roles",
            faults=same,
            hint="a target must be unseen: give it other images",
        )
    if faults and not drop:
        raise DataError(
            f"the same images are in two roles ({len(faults)} pair(s) of data sets)",
            faults=faults,
            hint="take them out, or drop them from source and auxiliary with --set "
            "data.overlap=drop",
        )
    kept = []
    for one in seen:
        others = [
            keys[j] for j, other in enumerate(seen) if other.given.role in before[one.given.role]
        ]
        foreign = np.concatenate(others) if others else np.empty(0, "S16")
        kept.append(one.images.take(~np.isin(one.images.keys(), foreign)))
    return kept
