"""The digest that weights have without their metadata, read from the file a piece at a time: no
arrays are made and numpy is not needed.
"""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

# Bytes of a number of each kind, in the order in which safetensors writes tensors: by kind, then by
# name.
SIZES = {
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "F32": 4,
    "U32": 4,
    "I32": 4,
    "F16": 2,
    "U16": 2,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
LARGEST_HEADER = 2**25  # bytes; a larger one is left to safetensors, which knows how much it reads
_METADATA = "__metadata__"
_PIECE = 2**20


def bare_digest(path: Path) -> tuple[str, int] | None:
    """SHA-256 of a safetensors file as it would be without its metadata, and how many tensors it
    holds.

    Only a file that says what it holds exactly as safetensors writes it has one here: kinds, order,
    places without gaps or overlaps, and the spelling of the header to the last byte. Of any other
    file (None) only safetensors itself can say what it holds.
    """
    try:
        with path.open("rb") as file:
            header = _header(file, path.stat().st_size)
            if header is None:
                return None
            tensors = {name: entry for name, entry in header.items() if name != _METADATA}
            digest = hashlib.sha256(_spelt(tensors))
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest(), len(tensors)


def _header(file: BinaryIO, size: int) -> dict[str, Any] | None:
    """The header, if it is exactly as safetensors writes it for a file of so many bytes."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
    if length > LARGEST_HEADER:
        return None
    text = file.read(length)
    try:
        header = json.loads(text)
        as_written = isinstance(header, dict) and start + text == _spelt(header)
    except (ValueError, RecursionError):
        return None
    return header if as_written and _is_whole(header, size - 8 - length) else None


def _spelt(header: dict[str, Any]) -> bytes:
    """Length and text of a header: no spaces but those that make its length a multiple of 8."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _is_whole(header: dict[str, Any], size: int) -> bool:
    """Whether the tensors are in order and fill so many bytes, each with as many as its shape
    needs, and the metadata come first.
    """
    end, last = 0, (-1, "")
    kinds = list(SIZES)
    for at, (name, entry) in enumerate(header.items()):
        if name == _METADATA and at == 0:
            continue
        if (
            not isinstance(entry, dict)
            or list(entry) != ["dtype", "shape", "data_offsets"]
            or entry["dtype"] not in kinds
        ):
            return False
        shape, kind = entry["shape"], entry["dtype"]
        if not isinstance(shape, list) or not all(
            type(side) is int and side >= 0 for side in shape
        ):
            return False
        begin, end = end, end + SIZES[kind] * math.prod(shape)
        if entry["data_offsets"] != [begin, end] or not last < (kinds.index(kind), name):
            return False
        last = (kinds.index(kind), name)
    return end == size
