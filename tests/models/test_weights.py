"""model.safetensors: the audited tensors, the same bytes each time, damaged files refused."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load as load_arrays

from lockforge.errors import DataError, IntegrityError
from lockforge.files import Files
from lockforge.models.networks import build, load, state
from lockforge.models.structured import choose_filters, remove_filters
from lockforge.models.weights import read_model, with_metadata, write_weights
from lockforge.randomness import torch_generator
from lockforge.recipe import Recipe
from lockforge.records import Checkpoint, ImageSet, NamedArchitecture


def test_weights_come_back_with_their_architecture(
    checkpoint: Checkpoint, source: ImageSet, files: Files, tmp_path: Path
) -> None:
    """Tensors, architecture and class names survive, read from the file or from its folder."""
    data = write_weights(checkpoint, source, Recipe(), files)
    (tmp_path / "model.safetensors").write_bytes(data)
    stored = files.get_tensors(checkpoint.weights)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        architecture, tensors, metadata = read_model(place)
        assert architecture == checkpoint.architecture
        assert all(bool((tensors[name] == stored[name]).all()) for name in stored)
        assert json.loads(metadata["lockforge.classes"]) == ["no", "yes"]


def test_a_narrowed_network_is_built_from_its_file(
    checkpoint: Checkpoint, source: ImageSet, files: Files, tmp_path: Path
) -> None:
    """The header says which layers are narrower, so that nothing else is needed to use the
    weights.
    """
    network = build(
        NamedArchitecture(name="resnet20-cifar", classes=2, shape=(1, 8, 8)),
        torch_generator(0, "narrow"),
    )
    small = remove_filters(network, choose_filters(network, 0.75)).eval()
    stored = checkpoint.model_copy(
        update={"architecture": small.architecture, "weights": files.put_tensors(state(small))}
    )
    (tmp_path / "model.safetensors").write_bytes(write_weights(stored, source, Recipe(), files))
    architecture, tensors, _ = read_model(tmp_path)
    x = torch.randn(3, 1, 8, 8, generator=torch_generator(0, "pictures"))
    with torch.no_grad():
        assert torch.equal(load(architecture, tensors).eval()(x), small(x))


def test_the_same_weights_give_the_same_bytes(
    checkpoint: Checkpoint, source: ImageSet, files: Files
) -> None:
    """The library alone writes metadata in random order."""
    assert len({write_weights(checkpoint, source, Recipe(), files) for _ in range(20)}) == 1


def test_a_header_can_be_rewritten_without_touching_the_tensors(
    checkpoint: Checkpoint, files: Files
) -> None:
    """What follows the header is the same, and the stock reader reads it."""
    bare = files.get(checkpoint.weights)
    told = with_metadata(bare, {"b": "2", "a": "ü"})
    assert set(load_arrays(told)) == set(load_arrays(bare))
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
def test_a_file_that_is_no_model_is_refused(
    data: bytes, kind: type[Exception], tmp_path: Path
) -> None:
    """Huge, empty, malformed and nested headers, and a safetensors file that is not ours."""
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(kind):
        read_model(tmp_path)
