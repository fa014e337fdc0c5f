"""Read a .npz file: x and y, or x_train, y_train and optionally x_val, y_val, x_test, y_test;
optionally `classes`.

Images are (n, h, w), (n, h, w, c) or (n, c, h, w), grey or colour, whole numbers in 0..255 or
floating point in [0, 1] or [0, 255]. Labels are indices into `classes`, or any whole numbers or
words where there is no `classes`. Nothing is unpickled: object arrays are refused. Headers are read
and bounded before any array is.

Shapes: n images, h x w pixels, c channels.
"""

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.lib import format as npy

from lockforge.data._memory import CHUNK, hold, join, pieces
from lockforge.data._raw_images import (
    MOST_BYTES,
    MOST_PIXELS,
    TEST,
    TRAIN,
    UNDECIDED,
    VAL,
    Decoded,
    class_faults,
    refuse,
)

_HINT = (
    "give x and y, or x_train, y_train, x_test, y_test (x_val, y_val): images (n, h, w, c) and "
    "one label each; see docs/data.md"
)
_PARTS = (("", UNDECIDED), ("_train", TRAIN), ("_val", VAL), ("_test", TEST))
_NAMES = frozenset({f"{letter}{part}" for letter in "xy" for part, _ in _PARTS} | {"classes"})
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
    zipfile.BadZipFile,
    tokenize.TokenError,
)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_MOST_LABELS = 2**26  # of anything but images: their bytes

_Array = np.ndarray[Any, Any]
_Faults = list[str]


@dataclass(frozen=True)
class _Part:
    """One split as it was stored."""

    split: int
    name: str
    images: _Array
    labels: _Array


def read_arrays(path: Path) -> Decoded:
    """Read a .npz data set.

    Raises: DataError: every fault of the file at once.
    """
    faults: _Faults = []
    arrays = _load(path, faults)
    refuse(str(path), faults, _HINT)
    parts = _parts(arrays, faults)
    refuse(str(path), faults, _HINT)
    images = _images(parts, faults)
    labels, classes = _labels(parts, arrays.get("classes"), faults)
    refuse(str(path), faults, _HINT)
    split = np.concatenate([np.full(len(part.labels), part.split, np.uint8) for part in parts])
    return Decoded(join(images), labels, split, classes)


def _load(path: Path, faults: _Faults) -> dict[str, _Array]:
    """The arrays we know by name, each checked by its header first."""
    arrays: dict[str, _Array] = {}
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Reading `.npy` or `.npz` file required additional header parsing"
            )
            known = {
                member.filename.removesuffix(".npy"): member
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
            known = {name: known[name] for name in sorted(known) if name in _NAMES}
            for name, member in known.items():
                _check_header(archive, name, member, faults)
            total = sum(member.file_size for member in known.values())
            if total > MOST_BYTES:
                faults.append(
                    f"{total / 2**30:.1f} GiB of arrays; at most {MOST_BYTES // 2**30} GiB are read"
                )
            if not faults:
                for name, member in known.items():
                    with archive.open(member) as stream:
                        arrays[name] = _array(stream)
            if not known:
                faults.append(
                    "it holds none of x, y, x_train, y_train, but: "
                    f"{', '.join(archive.namelist()[:10]) or 'nothing'}"
                )
    except _UNREADABLE as error:
        faults.append(
            "not a sound .npz file: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
    return arrays


def _array(stream: IO[bytes]) -> _Array:
    """One array whose header was found sound, read a piece at a time."""
    shape, fortran, kind = _HEADERS[npy.read_magic(stream)](stream)
    made = hold(shape[::-1] if fortran else shape, kind)
    room = made.reshape(-1).view(np.uint8)
    for start in range(0, len(room), CHUNK):
        piece = stream.read(min(CHUNK, len(room) - start))
        room[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        if len(piece) < min(CHUNK, len(room) - start):
            raise EOFError("it ends in the middle of an array")
    return made.T if fortran else made


def _check_header(
    archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo, faults: _Faults
) -> None:
    """An array must say what its file holds: no pickle, no size beyond its bytes, no image beyond
    the bound.
    """
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            faults.append(f"{name}: .npy layout {version} is not read")
            return
        shape, _, kind = _HEADERS[version](stream)
        begins = stream.tell()
    if kind.hasobject:
        faults.append(f"{name}: an object array; it would have to be unpickled, which can run code")
    elif kind.itemsize * math.prod(shape) != member.file_size - begins:
        faults.append(
            f"{name}: the header says {shape} of {kind}, but {member.file_size - begins} bytes "
            "follow"
        )
    elif name.startswith("x") and math.prod(shape[1:]) > 3 * MOST_PIXELS:
        faults.append(
            f"{name}: images of shape {shape[1:]}; at most {MOST_PIXELS:,} pixels are decoded"
        )
    elif not name.startswith("x") and member.file_size > _MOST_LABELS:
        faults.append(f"{name}: {member.file_size:,} bytes of labels")


def _parts(arrays: dict[str, _Array], faults: _Faults) -> list[_Part]:
    """Pair images with labels and check that they fit each other."""
    if "x" in arrays and any(name.startswith("x_") for name in arrays):
        faults.append("x and x_train (x_val, x_test) together: which are the images?")
    parts = []
    for ending, split in _PARTS:
        x, y = arrays.get(f"x{ending}"), arrays.get(f"y{ending}")
        if x is None and y is None:
            continue
        if x is None or y is None:
            faults.append(
                f"x{ending} and y{ending} belong together; only "
                f"{'y' if x is None else 'x'}{ending} is there"
            )
            continue
        images = _channels_last(x)
        labels = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if images is None:
            faults.append(
                f"x{ending}: shape {x.shape} is not (n, h, w), (n, h, w, c) or (n, c, h, w) with "
                "c 1 or 3"
            )
        elif labels.ndim != 1 or labels.dtype.kind not in "iubUS":
            faults.append(
                f"y{ending}: {y.dtype} of shape {y.shape}; labels are whole numbers or words, "
                "one an image"
            )
        elif len(images) != len(labels):
            faults.append(f"x{ending} has {len(images)} images, y{ending} has {len(labels)} labels")
        elif len(images):
            parts.append(
                _Part(
                    split,
                    f"x{ending}",
                    images,
                    labels if labels.dtype.kind in "US" else labels.astype(np.int64),
                )
            )
    if not faults and not any(part.split in {TRAIN, UNDECIDED} for part in parts):
        faults.append("there are no images to train on")
    return parts


def _channels_last(x: _Array) -> _Array | None:
    """(n, h, w, c), or None where it cannot be told."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        return None
    if x.shape[3] not in {1, 3} and x.shape[1] in {1, 3}:
        x = x.transpose(0, 2, 3, 1)
    return x if x.shape[3] in {1, 3} and min(x.shape[1:3]) > 0 else None


def _images(parts: list[_Part], faults: _Faults) -> list[UInt8[np.ndarray, "n h w c"]]:
    """8-bit images; all parts are scaled alike."""
    shapes = {part.images.shape[1:] for part in parts}
    if len(shapes) > 1:
        faults.append(f"images of different shapes: {', '.join(map(str, sorted(shapes)))}")
    scales: dict[str, float] = {}
    for part in parts:
        kind = part.images.dtype
        if kind.kind not in "uibf":
            faults.append(f"{part.name}: {kind} are not pixels")
            continue
        low, high = part.images.min(), part.images.max()
        if kind.kind == "f" and not np.isfinite([low, high]).all():
            sound = [np.isfinite(some).all(axis=(1, 2, 3)) for _, some in pieces(part.images)]
            rows = np.flatnonzero(~np.concatenate(sound))
            faults.append(
                f"{part.name}: {len(rows)} image(s) with NaN or infinite pixels, the first at "
                f"index {rows[0]}"
            )
        elif low < 0 or high > 255:
            faults.append(
                f"{part.name}: pixels from {low:g} to {high:g}; they must be in [0, 1] (floating "
                "point) or [0, 255]"
            )
        else:
            scales[part.name] = (
                255.0 if kind.kind == "b" or (kind.kind == "f" and high <= 1) else 1.0
            )
    floating = {
        scales[part.name] for part in parts if part.images.dtype.kind == "f" and part.name in scales
    }
    if len(floating) > 1:
        faults.append("some images are in [0, 1] and some in [0, 255]")
    return [] if faults else [_eight_bits(part.images, scales[part.name]) for part in parts]


def _eight_bits(images: _Array, scale: float) -> UInt8[np.ndarray, "n h w c"]:
    if images.dtype == np.uint8:
        return images
    out = hold(images.shape)
    for where, part in pieces(images):
        out[where] = np.floor(part.astype(np.float64) * scale + 0.5)
    return out


def _labels(
    parts: list[_Part], named: _Array | None, faults: _Faults
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Labels as indices into the classes that occur; a class without images is left out."""
    kinds = {"words" if part.labels.dtype.kind in "US" else "numbers" for part in parts}
    if len(kinds) > 1:
        faults.append("some labels are words and some are numbers")
        return np.empty(0, np.int64), ()
    values, indices = np.unique(
        np.concatenate([part.labels for part in parts]), return_inverse=True
    )
    names = _words(values)
    if named is not None and kinds == {"numbers"}:
        if named.ndim != 1 or named.dtype.kind not in "USiu":
            faults.append(
                f"classes: {named.dtype} of shape {named.shape}; a list of words is needed"
            )
        elif values[0] < 0 or values[-1] >= len(named):
            faults.append(
                f"labels from {values[0]} to {values[-1]}, but `classes` names {len(named)}: 0 "
                f"to {len(named) - 1}"
            )
        else:
            names = _words(named[values.astype(np.int64)])
    elif kinds == {"numbers"} and values[0] < 0:
        faults.append(f"labels from {values[0]}: a label cannot be negative")
    faults += class_faults(names)
    return indices.astype(np.int64), names


def _words(values: _Array) -> tuple[str, ...]:
    return tuple(
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in values.tolist()
    )
