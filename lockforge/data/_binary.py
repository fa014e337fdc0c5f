"""Read the binary layouts of two classic sets: MNIST's IDX files and CIFAR's binary batches.

    mnist/train-images-idx3-ubyte(.gz), train-labels-idx1-ubyte(.gz), t10k-images-...,
    t10k-labels-... cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin,
    batches.meta.txt cifar-100-binary/train.bin, test.bin, fine_label_names.txt

A folder of such files is a place, and so is a single file of images. Every size follows from a
header or a record and is checked against the file before anything is read; a packed file is read as
far as its header says and no further.

Shapes: n images, h x w pixels, c channels.
"""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from jaxtyping import Int64, UInt8

from lockforge.data._memory import CHUNK, hold, join
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

_IDX = re.compile(
    r"(?P<before>.*)(?P<what>images|labels)(?P<mark>[-.])idx(?P<axes>[1-4])[-.]ubyte(?:\.gz)?",
    re.IGNORECASE,
)
_SPLITS = (("train", TRAIN), ("t10k", TEST), ("test", TEST), ("val", VAL))
_UBYTE = 8
_SIDE, _PIXELS = 32, 3 * 32 * 32
_CIFAR = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")
_PICKLED = re.compile(r"data_batch_\d+|test_batch|batches\.meta")
_HUNDRED = {"train.bin", "test.bin"}  # of CIFAR-100: two labels before the pixels, coarse and fine
_UNREADABLE = (OSError, EOFError, zlib.error, struct.error, gzip.BadGzipFile)


def is_idx(path: Path) -> bool:
    """Whether a file is called as IDX images are."""
    match = _IDX.fullmatch(path.name)
    # bool(match) was asked first
    return bool(match) and match["what"].lower() == "images"  # type: ignore[index]


def is_cifar(path: Path) -> bool:
    """Whether a file is called as a CIFAR batch is, in the binary version."""
    return bool(_CIFAR.fullmatch(path.name))


def binary_files(folder: Path) -> tuple[str, list[Path]]:
    """Which of the layouts a folder holds, and its files of images; an empty word where it holds
    neither.

    Raises: DataError: the pickled version of CIFAR.
    """
    names = sorted(path for path in folder.iterdir() if path.is_file())
    if any(_PICKLED.fullmatch(path.name) for path in names) and not any(map(is_cifar, names)):
        refuse(
            str(folder),
            [
                (
                    "this is the python version of CIFAR: its files are pickles, and reading a "
                    "pickle can run code"
                )
            ],
            "get the binary version of CIFAR (cifar-10-binary.tar.gz), or give an .npz file or a "
            "folder of images",
        )
    for word, known in (("idx", is_idx), ("cifar", is_cifar)):
        found = [path for path in names if known(path)]
        if found:
            return word, found
    return "", []


@dataclass(frozen=True)
class _Part:
    """One file of images with its labels."""

    split: int
    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, " n"]


def read_idx(place: Path, files: Sequence[Path]) -> Decoded:
    """Read IDX images, each file with the labels that lie beside it.

    Raises: DataError: every fault of all files at once. ResourceError: no room on disk.
    """
    faults: list[str] = []
    parts: list[_Part] = []
    for path in files:
        labels_at = _labels_of(path)
        if labels_at is None:
            faults.append(f"{path.name}: no labels beside it ({_label_name(path)}, packed or not)")
            continue
        images, labels = _idx(path, (3, 4), faults), _idx(labels_at, (1,), faults)
        if images is None or labels is None:
            continue
        images = images[..., None] if images.ndim == 3 else images
        if images.shape[3] not in {1, 3} or min(images.shape[1:3]) < 1:
            faults.append(
                f"{path.name}: images of shape {images.shape[1:]}; 1 or 3 channels are needed, last"
            )
        elif len(images) != len(labels):
            faults.append(
                f"{path.name} has {len(images)} images, {labels_at.name} has {len(labels)} labels"
            )
        elif len(images):
            split = next((split for word, split in _SPLITS if word in path.name.lower()), UNDECIDED)
            parts.append(_Part(split, images, labels.astype(np.int64)))
    return _together(place, parts, (), faults)


def read_cifar(place: Path, files: Sequence[Path]) -> Decoded:
    """Read CIFAR's binary batches, with the class names where they lie beside them; of CIFAR-100
    the fine labels.

    Raises: DataError: every fault of all files at once. ResourceError: no room on disk.
    """
    faults: list[str] = []
    parts: list[_Part] = []
    for path in files:
        before = 2 if path.name in _HUNDRED else 1
        record = before + _PIXELS
        try:
            size = path.stat().st_size
            if not size or size % record or size > MOST_BYTES:
                faults.append(
                    f"{path.name}: {size} bytes are no whole number of records of {record}"
                )
                continue
            with path.open("rb") as stream:
                rows = _fill(stream, (size // record, record))
        except _UNREADABLE as error:
            faults.append(f"{path.name}: {_words(error)}")
            continue
        images = rows[:, before:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        split = TEST if path.name.startswith("test") else TRAIN
        parts.append(_Part(split, images, rows[:, before - 1].astype(np.int64)))
    hundred = any(path.name in _HUNDRED for path in files)
    names = _names(files[0].with_name("fine_label_names.txt" if hundred else "batches.meta.txt"))
    most = len(names) or (100 if hundred else 10)
    for path, part in zip(files, parts, strict=False):
        if part.labels.max() >= most:
            faults.append(
                f"{path.name}: labels up to {part.labels.max()}, but there are {most} classes"
            )
    return _together(place, parts, names, faults)


def _together(
    place: Path, parts: Sequence[_Part], names: Sequence[str], faults: list[str]
) -> Decoded:
    shapes = {part.images.shape[1:] for part in parts}
    if len(shapes) > 1:
        faults.append(f"images of different shapes: {', '.join(map(str, sorted(shapes)))}")
    if not faults and not any(part.split in {TRAIN, UNDECIDED} for part in parts):
        faults.append("there are no images to train on")
    hint = "files must be whole and belong together; get them again, or see docs/data.md"
    refuse(str(place), faults, hint)
    values, labels = np.unique(np.concatenate([part.labels for part in parts]), return_inverse=True)
    classes = tuple(names[at] if at < len(names) else str(at) for at in values.tolist())
    refuse(str(place), list(class_faults(classes)), hint)
    split = np.concatenate([np.full(len(part.labels), part.split, np.uint8) for part in parts])
    return Decoded(join([part.images for part in parts]), labels.astype(np.int64), split, classes)


def _label_name(path: Path) -> str:
    match = _IDX.fullmatch(path.name)
    assert match  # noqa: S101
    mark = match["mark"]
    return f"{match['before']}{'LABELS' if match['what'].isupper() else 'labels'}{mark}idx1-ubyte"


def _labels_of(path: Path) -> Path | None:
    wanted = _label_name(path).replace(".", "-").lower()
    beside = (other for other in sorted(path.parent.iterdir()) if other.is_file())
    return next(
        (
            other
            for other in beside
            if other.name.lower().removesuffix(".gz").replace(".", "-") == wanted
        ),
        None,
    )


def _idx(path: Path, axes: Sequence[int], faults: list[str]) -> np.ndarray[Any, Any] | None:
    """One IDX file of bytes: 0, 0, kind, number of axes, each axis as a big-endian 32-bit number,
    then the elements.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with _opened(path, packed=packed) as stream:
            zero, kind, count = struct.unpack(">HBB", stream.read(4))
            if zero or kind != _UBYTE or count not in axes:
                faults.append(
                    f"{path.name}: no IDX file of bytes with {' or '.join(map(str, axes))} axes "
                    f"(starts with {zero}, {kind}, {count})"
                )
                return None
            shape = struct.unpack(f">{count}I", stream.read(4 * count))
            size = math.prod(shape)
            if math.prod(shape[1:]) > 3 * MOST_PIXELS or size > MOST_BYTES:
                faults.append(f"{path.name}: the header says {shape}, more than is read")
            elif not packed and path.stat().st_size != size + 4 + 4 * count:
                faults.append(
                    f"{path.name}: the header says {shape}, but "
                    f"{path.stat().st_size - 4 - 4 * count} bytes follow"
                )
            else:
                made = _fill(stream, shape)
                if not stream.read(1):
                    return made
                faults.append(f"{path.name}: more bytes than the {size} of its header")
    except _UNREADABLE as error:
        faults.append(f"{path.name}: {_words(error)}")
    return None


def _opened(path: Path, *, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _fill(stream: IO[bytes], shape: Sequence[int]) -> UInt8[np.ndarray, "..."]:
    """So many bytes of a stream, a piece at a time. Room is taken only as bytes come, up to one
    piece more than there are.

    Raises: EOFError: it ends before.
    """
    size = math.prod(shape)
    first = stream.read(min(CHUNK, size))
    if len(first) < min(CHUNK, size):
        raise EOFError(f"it ends after {len(first)} of {size} bytes")
    made = hold(shape)
    flat = made.reshape(-1)
    flat[: len(first)] = np.frombuffer(first, np.uint8)
    for start in range(len(first), size, CHUNK):
        piece = stream.read(min(CHUNK, size - start))
        flat[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        if len(piece) < min(CHUNK, size - start):
            raise EOFError(f"it ends after {start + len(piece)} of {size} bytes")
    return made


def _names(path: Path) -> tuple[str, ...]:
    """The class names beside CIFAR's batches, or none."""
    if not path.is_file() or path.stat().st_size > 2**16:
        return ()
    return tuple(
        line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()
    )


def _words(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
