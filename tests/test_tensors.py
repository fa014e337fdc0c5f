"""Our piecewise safetensors files beside the library's."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

from lockforge import tensors
from lockforge.files import Files


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Every kind, an empty array and one without dimensions."""
    made = {
        f"{name}-{columns}": (rng.random((7, columns)) * 100).astype(kind)
        for name, kind in tensors.KINDS.items()
        for columns in (1, 5)
    }
    return made | {"empty": np.empty((0, 3), np.float32), "one": np.array(3.5)}


def test_the_bytes_are_the_librarys(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every kind of element, in pieces of a row; what is not contiguous is stored as it
    reads.
    """
    monkeypatch.setattr(tensors, "_PIECE", 1)
    assert b"".join(tensors.chunks_of_file(arrays)) == save(arrays)
    turned = {"a": np.arange(12).reshape(3, 4).T}
    assert np.array_equal(load(b"".join(tensors.chunks_of_file(turned)))["a"], turned["a"])


def test_metadata_is_the_librarys_too(tmp_path: Path) -> None:
    """What safetensors reads is what was given, beside the arrays."""
    path = tmp_path / "told.safetensors"
    path.write_bytes(b"".join(tensors.chunks_of_file({"a": np.arange(3)}, {"of": "images"})))
    with safe_open(path, "np") as file:
        assert file.metadata() == {"of": "images"}
        assert file.get_tensor("a").tolist() == [0, 1, 2]


def test_mapped_arrays_are_the_stored_ones_and_protect_the_file(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Writing into a mapping changes nothing on disk."""
    files = Files(tmp_path)
    ref = files.put_arrays(arrays)
    mapped = files.map_arrays(ref)
    assert mapped.keys() == arrays.keys()
    for name, array in arrays.items():
        assert mapped[name].dtype == array.dtype
        assert np.array_equal(mapped[name], array)
        mapped[name][...] = 0
    assert all(np.array_equal(array, arrays[name]) for name, array in files.map_arrays(ref).items())
    assert [path.name for path in tmp_path.iterdir()] == [f"sha256-{ref.sha256}"]
