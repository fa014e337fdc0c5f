"""safetensors files of numpy arrays, written and read a piece at a time (format: 8 bytes header
length, JSON header, bytes).

The same bytes as `safetensors.numpy.save` writes for arrays of these kinds.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
    "F32": np.float32,
    "U32": np.uint32,
    "I32": np.int32,
    "F16": np.float16,
    "U16": np.uint16,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}
_PIECE = 2**24

_Array = np.ndarray[Any, Any]


def chunks_of_file(
    arrays: Mapping[str, _Array], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """The bytes of a safetensors file: in the order of `KINDS`, then by name, as safetensors has
    them.
    """
    order = sorted(arrays, key=lambda name: (list(KINDS).index(_NAMES[arrays[name].dtype]), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        array = arrays[name]
        rows = array.reshape(1) if array.ndim == 0 else array
        step = max(1, _PIECE // max(1, rows[:1].nbytes))
        for start in range(0, len(rows), step):
            yield np.ascontiguousarray(rows[start : start + step]).tobytes()


def map_file(path: Path) -> dict[str, _Array]:
    """The arrays of a file that was found sound; each is a private mapping."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    found: dict[str, _Array] = {}
    for name, entry in header.items():
        kind, shape, begin = (
            np.dtype(KINDS[entry["dtype"]]),
            tuple(entry["shape"]),
            entry["data_offsets"][0],
        )
        empty = 0 in shape
        found[name] = (
            np.empty(shape, kind)
            if empty
            else np.asarray(np.memmap(path, kind, "c", offset=8 + length + begin, shape=shape))
        )
    return found
