"""Decode images of unknown origin: headers first, sizes bounded, all faults together.

Decoding: upright as the camera says, 8 bits a channel, transparent over white, first frame.

Shapes: h x w pixels, c channels.
"""

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lockforge.data._memory import hold
from lockforge.data._raw_images import (
    MOST_PIXELS,
    Images,
    Shape,
    class_faults,
    content_hashes,
    refuse,
    wanted_shape,
)
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "WEBP",
    "TIFF",
    "PPM",
)  # no format that starts another program
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION, _FIRST_SIDEWAYS = 0x0112, 5
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_THREADS = 4

T = TypeVar("T")
Opener = Callable[[], "Path | BinaryIO"]


@dataclass(frozen=True)
class Item:
    """One image that is still to be read. `name` is for messages; `open` gives a path or a
    stream.
    """

    name: str
    split: int
    label: int
    open: Opener


def read_many(
    place: str,
    items: Sequence[Item],
    classes: tuple[str, ...],
    recipe: DataRecipe,
    like: Shape | None,
) -> Images:
    """Decode every item, each resized on its own as it is decoded.

    With `recipe.skip_unreadable` those that cannot be decoded are left out and named in the
    result's `skipped`; a class may go with them.

    Raises: DataError: every unreadable image at once; different sizes and no word what to bring
        them to. ResourceError: no room on disk.
    """
    hint = "repair or take out what is not a sound image, or leave it out with --skip-unreadable"
    skipped: list[str] = []

    def refuse_or_skip(faults: list[str]) -> None:
        if not recipe.skip_unreadable:
            refuse(place, sorted(faults), hint)
        skipped.extend(faults)

    with _strict_pillow():
        headers, faults = _each(items, _header)
        refuse_or_skip(faults)
        _some_left(place, headers)
        items = [items[at] for at in headers]
        shape = wanted_shape(_own_shape(place, list(headers.values()), recipe, like), recipe, like)
        images = hold((len(items), *shape))

        def fill(item: tuple[int, Item]) -> UInt8[np.ndarray, "1 16"]:
            images[item[0]], content = _decode(item[1].open(), shape)
            return content

        contents, faults = _each(list(enumerate(items)), fill)
        refuse_or_skip(faults)
        _some_left(place, contents)
    rows = np.array(list(contents), np.int64)
    found = Images(
        images=images,
        labels=np.array([item.label for item in items], np.int64),
        content=np.zeros((len(items), 16), np.uint8),
        split=np.array([item.split for item in items], np.uint8),
        classes=classes,
        sizes=tuple(Counter(headers.values()).most_common()),
    )
    found.content[rows] = np.concatenate(list(contents.values()))
    found = found if len(rows) == len(items) else found.take(rows)
    return _without_empty_classes(place, found, tuple(sorted(skipped))) if skipped else found


def _some_left(place: str, found: dict[int, T]) -> None:
    if not found:
        refuse(place, ["no image in it can be read"], "give a folder with sound images")


def _without_empty_classes(place: str, found: Images, skipped: tuple[str, ...]) -> Images:
    """Classes that lost all their images are left out, and there must be two others."""
    left, labels = np.unique(found.labels, return_inverse=True)
    classes = tuple(found.classes[at] for at in left)
    refuse(place, list(class_faults(classes)), "too many images are unreadable: repair them")
    return Images(
        found.images,
        labels.astype(np.int64),
        found.content,
        found.split,
        classes,
        skipped,
        found.sizes,
    )


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Decompression bombs are errors; remarks about odd but readable files are not ours to
    print.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


Numbered = tuple[int, Item]


def _each(
    items: Sequence[Item] | Sequence[Numbered], work: Callable[..., T]
) -> tuple[dict[int, T], list[str]]:
    """Do something with every item. Returns: results by the item's place, and what went wrong
    elsewhere.
    """
    faults: list[str] = []

    def one(item: Item | Numbered) -> T | None:
        name = item.name if isinstance(item, Item) else item[1].name
        try:
            return work(item)
        except _UNREADABLE as error:
            faults.append(f"{name}: {reason(error)}")
            return None

    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(one, items))
    return {at: result for at, result in enumerate(results) if result is not None}, faults


def reason(error: BaseException) -> str:
    """What is wrong with an image, without its path."""
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"a decompression bomb: more than {MOST_PIXELS:,} pixels"
        case UnidentifiedImageError():
            return "not an image (PNG, JPEG, BMP, GIF, WebP, TIFF or PPM)"
        case OSError() if error.strerror:
            return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _header(item: Item) -> Shape:
    """The (c, h, w) of an image, upright, without decoding it.

    Raises: ValueError: more pixels than are decoded, or no 8- or 16-bit pixels. Any of
        `_UNREADABLE`: not a sound file.
    """
    with Image.open(item.open(), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if opened.mode == "F":
            raise ValueError("floating-point pixels: their range is not known")
        if opened.getexif().get(_ORIENTATION, 1) >= _FIRST_SIDEWAYS:
            width, height = height, width
        return (1 if opened.mode in _GREY_MODES else 3), height, width


def _own_shape(
    place: str, headers: Sequence[Shape], recipe: DataRecipe, like: Shape | None
) -> Shape:
    """The one shape of all images: colour where any is.

    Raises: DataError: they differ in size and nothing says what to bring them to.
    """
    sizes = sorted({(height, width) for _, height, width in headers})
    if len(sizes) > 1 and recipe.size is None and like is None:
        (low_h, low_w), (high_h, high_w) = sizes[0], sizes[-1]
        raise DataError(
            f"{place} holds images of {len(sizes)} different sizes, from {low_h} x {low_w} to "
            f"{high_h} x {high_w}",
            hint="say what to bring them to, for instance --set data.size=32",
        )
    return max(channels for channels, _, _ in headers), *sizes[0]


def _decode(
    opened_as: "Path | BinaryIO", shape: Shape
) -> tuple[UInt8[np.ndarray, "c h w"], UInt8[np.ndarray, "1 16"]]:
    """One image in the wanted shape, and the hash of what was decoded."""
    with Image.open(opened_as, formats=FORMATS) as opened:
        image = _plain(ImageOps.exif_transpose(opened))
    content = content_hashes(_array(image)[None])
    channels, height, width = shape
    small = image.convert("L" if channels == 1 else "RGB").resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return _array(small).transpose(2, 0, 1), content


def _plain(image: Image.Image) -> Image.Image:
    """8-bit grey or RGB: transparent images over white, 16-bit grey divided by 257.

    Raises: ValueError: pixels of more than 16 bits.
    """
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() >= 2**16:
            raise ValueError(f"pixels from {wide.min()} to {wide.max()}; at most 16 bits are read")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in _GREY_MODES else "RGB")


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
