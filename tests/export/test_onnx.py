"""model.onnx: the same logits, the same bytes, nothing of this machine in it; another network is
noticed.
"""

from pathlib import Path

import pytest
import torch

from lockforge.errors import OutcomeError
from lockforge.export import onnx as room
from lockforge.export.onnx import NOT_CHECKED, parity_of, to_onnx
from lockforge.files import Files
from lockforge.models.networks import build, parameters, state
from lockforge.models.read_onnx import read_black_box
from lockforge.models.structured import choose_filters, remove_filters
from lockforge.randomness import torch_generator
from lockforge.recipe import ExportRecipe
from lockforge.records import Checkpoint, NamedArchitecture

RECIPE = ExportRecipe(parity_samples=3)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, files: Files) -> bytes:
    """The fixture's network as ONNX."""
    return to_onnx(checkpoint.architecture, files.get_tensors(checkpoint.weights), RECIPE)


def test_onnx_answers_like_the_weights(
    exported: bytes, checkpoint: Checkpoint, files: Files
) -> None:
    """On seeded inputs, alone and together."""
    tensors = files.get_tensors(checkpoint.weights)
    assert parity_of(checkpoint.architecture, tensors, exported, RECIPE, 0).startswith(
        "same logits"
    )


def test_another_network_is_an_outcome_error(
    exported: bytes, checkpoint: Checkpoint, files: Files
) -> None:
    """One changed bias is enough."""
    tensors = files.get_tensors(checkpoint.weights)
    tensors["head.bias"] = tensors["head.bias"] + 0.001
    with pytest.raises(OutcomeError, match="OTHER LOGITS"):
        parity_of(checkpoint.architecture, tensors, exported, RECIPE, 0)


def test_no_trace_of_the_machine_is_left(exported: bytes) -> None:
    """The exporter's stack traces name files; they are cleared."""
    assert b".py" not in exported
    assert b"site-packages" not in exported


def test_without_onnxruntime_nothing_is_claimed(
    exported: bytes, checkpoint: Checkpoint, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core works without the extra, and says that it did not look."""
    monkeypatch.setattr(room, "find_spec", lambda _name: None)
    assert (
        parity_of(
            checkpoint.architecture, files.get_tensors(checkpoint.weights), exported, RECIPE, 0
        )
        == NOT_CHECKED
    )


def test_a_network_without_half_its_filters_is_a_smaller_file() -> None:
    """Half of the inner channels of ResNet-20 are about half of its weights; the file has those
    that are left, and answers like them.
    """
    architecture = NamedArchitecture(name="resnet20-cifar", classes=4, shape=(3, 8, 8))
    network = build(architecture, torch_generator(0, "narrow"))
    small = remove_filters(network, choose_filters(network, 0.5))
    data = to_onnx(small.architecture, state(small), RECIPE)
    assert parity_of(small.architecture, state(small), data, RECIPE, 0).startswith("same logits")
    assert 4 * parameters(small.architecture) < len(data) < 0.65 * 4 * parameters(architecture)
    with pytest.raises(OutcomeError, match="OTHER LOGITS"):
        parity_of(architecture, state(network), data, RECIPE, 0)


@pytest.mark.slow
def test_a_named_network_is_a_black_box_once_it_is_exported(tmp_path: Path) -> None:
    """A small transformer, its batch axis free: parity holds, and what a black-box attacker is told
    are the network's logits.
    """
    architecture = NamedArchitecture(name="vit_tiny-cifar", classes=4, shape=(1, 8, 8))
    network = build(architecture, torch_generator(0, "black box")).eval()
    data = to_onnx(architecture, state(network), RECIPE)
    assert parity_of(architecture, state(network), data, RECIPE, 0).startswith("same logits")
    (tmp_path / "m.onnx").write_bytes(data)
    box = read_black_box(tmp_path / "m.onnx")
    x = torch.randn(5, 1, 8, 8, generator=torch_generator(0, "pictures"))
    assert (box.shape, box.classes, box.batch) == ((1, 8, 8), 4, None)
    with torch.no_grad():
        torch.testing.assert_close(box.logits(x), network(x), rtol=1e-5, atol=1e-5)
