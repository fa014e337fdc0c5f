"""Read a folder with one subfolder a class, optionally inside train, val and test.

    photos/cat/1.png                       no split given
    photos/train/cat/1.png, photos/test/cat/9.png     given splits are kept

Every file in a class folder must be a picture (PNG, JPEG, BMP, GIF, WebP, TIFF, PPM); hidden files are passed over. All headers are
read, and their sizes bounded, before anything is decoded. Decoding: upright as the camera says, 8 bits a channel, transparent over white,
first frame.

Shapes: h x w pixels, c channels.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lockforge.data.pictures import (
    MOST_PIXELS,
    TEST,
    TRAIN,
    UNDECIDED,
    VAL,
    Pictures,
    Shape,
    check_memory,
    class_faults,
    content_hashes,
    refuse,
    wanted_shape,
)
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

SPLITS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that starts another program
_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_PASSED_OVER = frozenset({"thumbs.db", "desktop.ini"})
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
_HINT = "every file in a class folder must be a sound picture: repair it or take it out"
_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class _File:
    """One picture on disk."""

    path: Path
    split: int
    label: int


@dataclass(frozen=True)
class _Layout:
    """What a folder holds; every file in the order of split, class and name."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[_File, ...]


def read_folder(root: Path, recipe: DataRecipe, like: Shape | None) -> Pictures:
    """Read a folder of class folders, each picture resized on its own as it is decoded.

    Raises: DataError: every fault of the folder at once. ResourceError: the set does not fit in memory.
    """
    layout = _look(root)
    with _strict_pillow():
        own = _own_shape(layout, _each(layout, _header), recipe, like)
        shape = wanted_shape(own, recipe, like)
        check_memory(len(layout.files), shape)
        decoded = _each(layout, lambda path: _decode(path, shape))
    return Pictures(
        images=np.stack([images for images, _ in decoded]),
        labels=np.array([file.label for file in layout.files], np.int64),
        content=np.concatenate([content for _, content in decoded]),
        split=np.array([file.split for file in layout.files], np.uint8),
        classes=layout.classes,
    )


def _look(root: Path) -> _Layout:
    """Classes and files of a folder.

    Raises: DataError: no class folders, empty ones, folders or pictures where none belong.
    """
    faults: list[str] = []
    below = _folders(root)
    names = {folder.name.lower() for folder in below}
    given = "train" in names and names <= set(SPLITS)
    tops = [(folder, SPLITS[folder.name.lower()]) for folder in below] if given else [(root, UNDECIDED)]
    found: list[tuple[Path, int, str]] = []
    for top, split in tops:
        inside = _folders(top)
        faults += [
            f"{file.relative_to(root)}: a picture outside any class folder" for file in _files(top) if file.suffix.lower() in _ENDINGS
        ]
        if not inside:
            faults.append(f"{top.relative_to(root) if given else root.name}: no class folders in it")
        for folder in inside:
            faults += [f"{inner.relative_to(root)}: a folder inside a class folder" for inner in _folders(folder)]
            files = _files(folder)
            if not files:
                faults.append(f"{folder.relative_to(root)}: no pictures")
            found += [(file, split, folder.name) for file in files]
    classes = tuple(sorted({name for _, _, name in found}))
    if not faults or classes:
        faults += class_faults(classes)
    refuse(str(root), faults, f"a folder holds one subfolder a class, at least two, with pictures in each: {root.name}/CLASS/PICTURE.png")
    files_of = sorted((split, name, str(file)) for file, split, name in found)
    return _Layout(root, classes, tuple(_File(Path(file), split, classes.index(name)) for split, name, file in files_of))


def _folders(top: Path) -> list[Path]:
    return [path for path in _listed(top) if path.is_dir()]


def _files(top: Path) -> list[Path]:
    return [path for path in _listed(top) if not path.is_dir() and path.name.lower() not in _PASSED_OVER]


def _listed(top: Path) -> list[Path]:
    try:
        return sorted(path for path in top.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{top} cannot be read: {error.strerror}", hint="give a folder that you may read") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Decompression bombs are errors; remarks about odd but readable files are not ours to print."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _each(layout: _Layout, work: Callable[[Path], T]) -> list[T]:
    """Do something with every file, and list all those where it fails.

    Raises: DataError: some files cannot be read.
    """
    faults: list[str] = []

    def one(file: _File) -> T | None:
        try:
            if not file.path.is_file():
                raise ValueError("not a file")
            return work(file.path)
        except _UNREADABLE as error:
            faults.append(f"{file.path.relative_to(layout.root)}: {_reason(error)}")
            return None

    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(one, layout.files))
    refuse(str(layout.root), sorted(faults), _HINT)
    return [result for result in results if result is not None]


def _reason(error: BaseException) -> str:
    """What is wrong with a picture, without its path."""
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"a decompression bomb: more than {MOST_PIXELS:,} pixels"
        case UnidentifiedImageError():
            return "not a picture (PNG, JPEG, BMP, GIF, WebP, TIFF or PPM)"
        case OSError() if error.strerror:
            return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _header(path: Path) -> Shape:
    """The (c, h, w) of a picture, upright, without decoding it.

    Raises: ValueError: more pixels than are decoded, or no 8- or 16-bit pixels. Any of `_UNREADABLE`: not a sound file.
    """
    with Image.open(path, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if opened.mode == "F":
            raise ValueError("floating-point pixels: their range is not known")
        if opened.getexif().get(_ORIENTATION, 1) >= _FIRST_SIDEWAYS:
            width, height = height, width
        return (1 if opened.mode in _GREY_MODES else 3), height, width


def _own_shape(layout: _Layout, headers: Sequence[Shape], recipe: DataRecipe, like: Shape | None) -> Shape:
    """The one shape of all pictures: colour where any is.

    Raises: DataError: they differ in size and nothing says what to bring them to.
    """
    sizes = sorted({(height, width) for _, height, width in headers})
    if len(sizes) > 1 and recipe.size is None and like is None:
        (low_h, low_w), (high_h, high_w) = sizes[0], sizes[-1]
        raise DataError(
            f"{layout.root} holds pictures of {len(sizes)} different sizes, from {low_h} x {low_w} to {high_h} x {high_w}",
            hint="say what to bring them to, for instance --set data.size=32",
        )
    return max(channels for channels, _, _ in headers), *sizes[0]


def _decode(path: Path, shape: Shape) -> tuple[UInt8[np.ndarray, "c h w"], UInt8[np.ndarray, "1 16"]]:
    """One picture in the wanted shape, and the hash of what was decoded."""
    with Image.open(path, formats=FORMATS) as opened:
        picture = _plain(ImageOps.exif_transpose(opened))
    content = content_hashes(_array(picture)[None])
    channels, height, width = shape
    small = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    return _array(small).transpose(2, 0, 1), content


def _plain(picture: Image.Image) -> Image.Image:
    """8-bit grey or RGB: transparent pictures over white, 16-bit grey divided by 257.

    Raises: ValueError: pixels of more than 16 bits.
    """
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.int64)
        if wide.min() < 0 or wide.max() >= 2**16:
            raise ValueError(f"pixels from {wide.min()} to {wide.max()}; at most 16 bits are read")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("L" if picture.mode in _GREY_MODES else "RGB")


def _array(picture: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
