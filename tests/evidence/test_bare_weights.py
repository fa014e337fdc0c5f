"""The digest without metadata is the one that safetensors gives, or there is none."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from lockforge.evidence.bare_weights import SIZES, bare_digest
from lockforge.tensors import KINDS


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One or two of every kind, of 0 to 3 axes, some of them empty, under names that JSON escapes
    or not.
    """
    names = [f"{prefix}{kind}" for kind in KINDS for prefix in ("b.", 'a"\\\n', "é")]
    kept = [name for name in names if rng.random() < 0.6]
    made = {}
    for name in kept:
        kind = KINDS[
            next(kind for kind in sorted(KINDS, key=len, reverse=True) if name.endswith(kind))
        ]
        shape = tuple(int(side) for side in rng.integers(0, 4, size=rng.integers(0, 4)))
        made[name] = rng.integers(0, 2, size=shape).astype(kind)
    return made


def test_the_digest_is_that_of_the_file_that_safetensors_writes_without_metadata(
    tmp_path: Path,
) -> None:
    """For tensors of every kind, with metadata and without; the kinds are those that `tensors`
    writes, in its order.
    """
    assert list(SIZES) == list(KINDS)
    assert all(SIZES[name] == np.dtype(kind).itemsize for name, kind in KINDS.items())
    rng = np.random.default_rng(0)
    for _ in range(30):
        tensors = arrays(rng)
        for metadata in (None, {"labels": "a,é", "x": '"'}):
            (tmp_path / "x").write_bytes(save(tensors, metadata=metadata))
            assert bare_digest(tmp_path / "x") == (sha256(save(tensors)), len(tensors))


def file_of(header: object, data: bytes = bytes(8), spaces: int = 0) -> bytes:
    """A file with any header, spelt as safetensors spells it; more `spaces` behind it than it
    needs.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + spaces)
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, **changes: object) -> dict[str, object]:
    """A tensor of float32 at a place."""
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} | changes


SOUND = {"a": entry(0, 4), "b": entry(4, 8)}
DOUBLED = struct.pack("<Q", 112) + (
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'.ljust(
        112
    )
    + bytes(8)
)
ODD: dict[str, bytes] = {
    "nothing": b"",
    "cut short": file_of(SOUND)[:-1],
    "more behind it": file_of(SOUND) + b"x",
    "a name twice": DOUBLED,
    "a gap": file_of({"a": entry(0, 4), "b": entry(4, 8)}, bytes(12)),
    "an overlap": file_of({"a": entry(0, 4), "b": entry(0, 8)}),
    "another order": file_of({"b": entry(0, 4), "a": entry(4, 8)}),
    "metadata behind": file_of(SOUND | {"__metadata__": {}}),
    "an unknown kind": file_of({"a": entry(0, 8, dtype="F31")}),
    "a size that does not fit": file_of({"a": entry(0, 8, shape=[3])}),
    "a side below 0": file_of({"a": entry(0, 8, shape=[-1, -2])}),
    "spaces": file_of(SOUND, spaces=8),
    "more in it": file_of({"a": entry(0, 8) | {"more": 1}}),
    "no table": file_of([]),
    "no JSON": struct.pack("<Q", 8) + b"{" * 8,
    "a header of 4 GB": struct.pack("<Q", 1 << 32) + b"{}",
    "a side that is true": file_of({"a": entry(0, 4, shape=[True])}, bytes(4)),
    "a lone surrogate": file_of({"\ud800": entry(0, 8)}),
    "deep": struct.pack("<Q", 80000) + b"[" * 80000,
}


def test_the_sound_file_of_the_cases_below_has_a_digest(tmp_path: Path) -> None:
    """So that each of them is refused for the one thing that is wrong with it."""
    (tmp_path / "x").write_bytes(file_of(SOUND))
    assert bare_digest(tmp_path / "x") == (sha256(file_of(SOUND)), 2)
    assert bare_digest(tmp_path / "none") is None


@pytest.mark.parametrize("case", ODD)
def test_a_file_that_is_laid_out_in_another_way_has_none(case: str, tmp_path: Path) -> None:
    """What two readers could read in two ways is left to safetensors."""
    (tmp_path / "x").write_bytes(ODD[case])
    assert bare_digest(tmp_path / "x") is None
