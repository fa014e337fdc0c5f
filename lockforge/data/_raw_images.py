"""What readers give: decoded images, their labels, their content hashes, and the split they came
with.

Shapes: n images, h x w pixels, c channels (1 grey, 3 colour); pixels are 8-bit, 0 black, 255
    white.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from lockforge.data._memory import gather
from lockforge.data._resize import bring_to
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

TRAIN, VAL, TEST, UNDECIDED = 0, 1, 2, 255
MOST_PIXELS = 50_000_000  # of one image, checked before it is decoded
MOST_BYTES = 64 * 2**30  # of one file's arrays, checked before they are read
SMALLEST, LARGEST = 4, 512  # side in pixels of what networks are given
_SHOWN = 20

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Images:
    """A data set in one shape. `content` is of the image before resizing; `split` is 0 train, 1
    val, 2 test, 255 undecided.

    `skipped` says, a line each, which images could not be read and were left out: for the owner's
    eyes only. `sizes` counts the (c, h, w) that came, before anything was brought to one shape; the
    commonest first.
    """

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]
    content: UInt8[np.ndarray, "n 16"]
    split: UInt8[np.ndarray, " n"]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    sizes: tuple[tuple[Shape, int], ...] = ()

    def __len__(self) -> int:
        """Images in all splits."""
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " n"]) -> "Images":
        """Some rows, by index or by mask."""
        return Images(
            gather(self.images, rows),
            self.labels[rows],
            self.content[rows],
            self.split[rows],
            self.classes,
            self.skipped,
            self.sizes,
        )

    def keys(self) -> np.ndarray:
        """The content hashes as one sortable 16-byte value each."""
        return np.ascontiguousarray(self.content).view("S16").ravel()


@dataclass(frozen=True)
class Decoded:
    """A data set as it was stored, all images in one shape, before any resizing."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, " n"]
    split: UInt8[np.ndarray, " n"]
    classes: tuple[str, ...]


def content_hashes(images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n 16"]:
    """BLAKE2b-128 of each image's size and pixels; a colour image whose channels are all equal
    counts as the grey image it shows.

    >>> grey = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    >>> bool((content_hashes(grey) == content_hashes(grey.repeat(3, axis=3))).all())
    True
    """
    n, height, width, _ = images.shape
    hashes = np.empty((n, 16), np.uint8)
    for row, image in enumerate(images):
        kept = image[..., :1] if (image == image[..., :1]).all() else image
        made = hashlib.blake2b(f"{height}x{width}x{kept.shape[-1]}:".encode(), digest_size=16)
        made.update(kept.tobytes())
        hashes[row] = np.frombuffer(made.digest(), np.uint8)
    return hashes


def wanted_shape(own: Shape, recipe: DataRecipe, like: Shape | None) -> Shape:
    """The (c, h, w) a set is brought to: `like`, or what the recipe says, or its own.

    Raises: DataError: its own size is not one that networks are given.
    """
    if like is not None:
        return like
    channels, height, width = own
    if recipe.size is not None:
        height = width = recipe.size
    if not (min(height, width) >= SMALLEST and max(height, width) <= LARGEST):
        raise DataError(
            f"images of {height} x {width} pixels (height x width) are outside {SMALLEST} to "
            f"{LARGEST}",
            hint="give data.size, for instance --set data.size=32",
        )
    return recipe.channels or channels, height, width


def finish(decoded: Decoded, recipe: DataRecipe, like: Shape | None) -> Images:
    """Hash the images as stored, then bring them to the wanted shape.

    Raises: DataError: see `wanted_shape`. ResourceError: the disk has no room for them.
    """
    n, height, width, channels = decoded.images.shape
    shape = wanted_shape((channels, height, width), recipe, like)
    images, content = bring_to(decoded.images, shape), content_hashes(decoded.images)
    return Images(
        images,
        decoded.labels,
        content,
        decoded.split,
        decoded.classes,
        sizes=(((channels, height, width), n),),
    )


def class_faults(classes: Sequence[str]) -> Iterable[str]:
    """What is wrong with a set's class names."""
    if len(classes) < 2:
        yield (
            f"{len(classes)} class(es) with images ({', '.join(map(repr, classes)) or 'none'}); "
            "at least 2 are needed"
        )
    for name in sorted({name for name in classes if classes.count(name) > 1}):
        yield f"the class name {name!r} is given twice"
    for name in classes:
        if not name or not name.isprintable():
            yield f"{name!r} is not a class name: it must be printable text"


def refuse(place: str, faults: Sequence[str], hint: str) -> None:
    """Raise all faults of one data set together, the first twenty in words.

    Raises: DataError: there are faults.
    """
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(
            f"{place} cannot be used: {len(faults)} fault(s)",
            faults=[*faults[:_SHOWN], *more],
            hint=hint,
        )
