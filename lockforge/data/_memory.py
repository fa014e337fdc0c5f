"""Room for images: in memory while they are few, in an unnamed file on disk where they are many.

Arrays from here are used like any other; the system reads the pages that are asked for and drops
them when memory is short. The file has no name, so nothing is left behind, however the process
ends. It lies in the folder for temporary files (TMPDIR).
"""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from lockforge.errors import ResourceError
from lockforge.files import writing

IN_MEMORY = 2**28  # bytes of one array
CHUNK = 2**24  # bytes that are moved at a time

_Array = np.ndarray[Any, Any]


def hold(shape: Sequence[int], kind: Any = np.uint8) -> _Array:
    """An array to be filled, C-ordered.

    Raises: ResourceError: the disk has no room for it.
    """
    needed = math.prod(shape) * np.dtype(kind).itemsize
    if needed <= IN_MEMORY:
        return np.empty(tuple(shape), kind)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{needed / 2**30:.1f} GiB of pixels do not fit: {free / 2**30:.1f} GiB are free for "
            "temporary files",
            hint="give a smaller data.size, a part of the data, or a TMPDIR with more room",
        )
    with writing("temporary images", Path(folder)), tempfile.TemporaryFile() as file:
        return np.asarray(np.memmap(file, kind, "w+", shape=tuple(shape)))


def pieces(
    array: _Array, rows: Int64[np.ndarray, " k"] | None = None
) -> Iterator[tuple[slice, _Array]]:
    """Some rows, or all, a bounded number of bytes at a time, each with where it belongs."""
    count = len(array) if rows is None else len(rows)
    step = max(1, CHUNK // max(1, math.prod(array.shape[1:]) * array.itemsize))
    for start in range(0, count, step):
        where = slice(start, min(start + step, count))
        yield where, array[where] if rows is None else array[rows[where]]


def gather(array: _Array, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " n"]) -> _Array:
    """Some rows in a given order, as `array[rows]`, without holding both in memory."""
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    if len(index) == len(array) and (index == np.arange(len(array))).all():
        return array
    made = hold((len(index), *array.shape[1:]), array.dtype)
    for where, part in pieces(array, index):
        made[where] = part
    return made


def join(arrays: Sequence[_Array]) -> _Array:
    """One after the other, as `np.concatenate`."""
    if len(arrays) == 1:
        return arrays[0]
    made = hold((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        for where, part in pieces(array):
            made[start + where.start : start + where.stop] = part
        start += len(array)
    return made
