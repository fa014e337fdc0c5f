"""model.onnx: the same logits, the same bytes, nothing of this machine in it; another network is noticed."""

import pytest

from lockforge.errors import OutcomeError
from lockforge.export import onnx as room
from lockforge.export.onnx import NOT_CHECKED, parity_of, to_onnx
from lockforge.recipe import ExportRecipe
from lockforge.records import Checkpoint
from lockforge.runs import Files

RECIPE = ExportRecipe(parity_samples=3)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, files: Files) -> bytes:
    """The fixture's network as ONNX."""
    return to_onnx(checkpoint.architecture, files.get_tensors(checkpoint.weights), RECIPE)


def test_onnx_answers_like_the_weights(exported: bytes, checkpoint: Checkpoint, files: Files) -> None:
    """On seeded inputs, alone and together."""
    tensors = files.get_tensors(checkpoint.weights)
    assert parity_of(checkpoint.architecture, tensors, exported, RECIPE, 0).startswith("same logits")


def test_another_network_is_an_outcome_error(exported: bytes, checkpoint: Checkpoint, files: Files) -> None:
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
    assert parity_of(checkpoint.architecture, files.get_tensors(checkpoint.weights), exported, RECIPE, 0) == NOT_CHECKED
