"""model.safetensors: the audited tensors, the same bytes each time, damaged files refused."""

import json
import struct
from pathlib import Path

import pytest
from safetensors.numpy import load

from lockforge.errors import DataError, IntegrityError
from lockforge.export.weights import read_model, with_metadata, write_weights
from lockforge.recipe import Recipe
from lockforge.records import Checkpoint, ImageSet
from lockforge.runs import Files


def test_weights_come_back_with_their_architecture(checkpoint: Checkpoint, source: ImageSet, files: Files, tmp_path: Path) -> None:
    """Tensors, architecture and class names survive, read from the file or from its folder."""
    data = write_weights(checkpoint, source, Recipe(), files)
    (tmp_path / "model.safetensors").write_bytes(data)
    stored = files.get_tensors(checkpoint.weights)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        architecture, tensors, metadata = read_model(place)
        assert architecture == checkpoint.architecture
        assert all(bool((tensors[name] == stored[name]).all()) for name in stored)
        assert json.loads(metadata["lockforge.classes"]) == ["no", "yes"]


def test_the_same_weights_give_the_same_bytes(checkpoint: Checkpoint, source: ImageSet, files: Files) -> None:
    """The library alone writes metadata in random order."""
    assert len({write_weights(checkpoint, source, Recipe(), files) for _ in range(20)}) == 1


def test_a_header_can_be_rewritten_without_touching_the_tensors(checkpoint: Checkpoint, files: Files) -> None:
    """What follows the header is the same, and the stock reader reads it."""
    bare = files.get(checkpoint.weights)
    told = with_metadata(bare, {"b": "2", "a": "ü"})
    assert set(load(told)) == set(load(bare))
    assert told.endswith(bare[8 + struct.unpack("<Q", bare[:8])[0] :])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (struct.pack("<Q", 4 << 30) + b"{}", IntegrityError),
        (b"", IntegrityError),
        (struct.pack("<Q", 2) + b"[]", IntegrityError),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, IntegrityError),
        (struct.pack("<Q", 2) + b"{}", DataError),
    ],
)
def test_a_file_that_is_no_model_is_refused(data: bytes, kind: type[Exception], tmp_path: Path) -> None:
    """Huge, empty, malformed and nested headers, and a safetensors file that is not ours."""
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(kind):
        read_model(tmp_path)
