"""What to learn from: tasks made of some classes of a data set, with few images, and cells to
score on them.
"""

from collections.abc import Collection

import numpy as np

from lockforge.data.images import Images
from lockforge.data.roles import store
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.randomness import numpy_generator
from lockforge.records import Cell, ImageSet
from lockforge.spaces import random_cell
from lockforge.spaces.cells import connected

_TRAIN = 0
_MOST_CLASSES = 20


def meta_tasks(images: ImageSet, count: int, limit: int, seed: int, files: Files) -> list[ImageSet]:
    """Tasks made of classes of one set: the first of all of them (at most 20), the others of 2 to
    that many, drawn at random.

    Args: count: tasks. limit: images of each split.
    """
    most = min(len(images.classes), _MOST_CLASSES)
    found = []
    for number in range(count):
        generator = numpy_generator(seed, "metatrain", "subset", images.digest, number)
        size = most if number == 0 else int(generator.integers(2, most + 1))
        classes = tuple(
            sorted(int(at) for at in generator.choice(len(images.classes), size, replace=False))
        )
        found.append(class_subset(images, classes, limit, files, generator))
    return found


def draw_cells(
    space: str, count: int, without: Collection[Cell], generator: np.random.Generator
) -> tuple[Cell, ...]:
    """Different random cells whose output depends on their input, none of them among `without`."""
    found: dict[Cell, None] = {}
    while len(found) < count:
        cell = random_cell(space, generator)
        if connected(cell) and cell not in without:
            found[cell] = None
    return tuple(found)


def class_subset(
    images: ImageSet,
    classes: tuple[int, ...],
    limit: int,
    files: Files,
    generator: np.random.Generator,
) -> ImageSet:
    """A task of its own: the images of some classes, at most `limit` in each split, drawn without
    replacement.

    Args: images: the whole set. classes: indices; their order becomes the new labels. limit:
        images a split.
    Raises: DataError: fewer than two classes, an unknown or repeated one, or no training image of
        one of them.
    """
    if (
        len(set(classes)) != len(classes)
        or len(classes) < 2
        or not set(classes) <= set(range(len(images.classes)))
    ):
        raise DataError(
            f"{classes} are no two or more different classes of {len(images.classes)}",
            hint="give indices into the set's classes",
        )
    arrays = files.get_arrays(images.pixels)
    new_label = np.full(len(images.classes), -1, dtype=np.int64)
    new_label[list(classes)] = np.arange(len(classes))
    labels, split = new_label[arrays["labels"]], arrays["split"]
    rows = []
    for part in (0, 1, 2):
        found = np.flatnonzero((labels >= 0) & (split == part))
        rows.append(np.sort(generator.permutation(found)[:limit]))
    missing = sorted(set(range(len(classes))) - set(labels[rows[_TRAIN]].tolist()))
    if missing:
        lost = ", ".join(images.classes[classes[at]] for at in missing)
        raise DataError(
            f"no training image of {lost} among {limit}",
            hint="raise the limit or take fewer classes",
        )
    kept = np.concatenate(rows)
    names = tuple(images.classes[at] for at in classes)
    return store(
        Images(arrays["images"][kept], labels[kept], arrays["content"][kept], split[kept], names),
        files,
    )
