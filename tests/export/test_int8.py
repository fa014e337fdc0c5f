"""model.int8.onnx: smaller, nearly as good, the same bytes again, and measured rather than
promised.
"""

from pathlib import Path

import onnx
import pytest
import torch

from lockforge.data.batches import Pool
from lockforge.errors import RecipeError, ResourceError
from lockforge.export import int8 as room
from lockforge.export.int8 import INT8, check_int8, measured, to_int8
from lockforge.models.read_onnx import Runtime
from lockforge.randomness import torch_generator
from lockforge.recipe import read_recipe


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Dark and bright images: the mean decides."""
    generator = torch_generator(0, "int8 pictures")
    labels = torch.arange(64) % 2
    images = (
        torch.rand(64, 1, 8, 8, generator=generator) * 100 + 155 * labels.view(-1, 1, 1, 1)
    ).to(torch.uint8)
    return Pool(images, labels, torch.tensor([0.5]), torch.tensor([0.25]), 2)


@pytest.fixture(scope="module")
def network() -> bytes:
    """A convolution that adds, and a head that compares the mean with zero: right on every image
    of the pool.
    """
    half, one, minus = (
        onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, values)
        for name, shape, values in (
            ("w", [1, 1, 3, 3], [1 / 9] * 9),
            ("head", [1, 2], [-1.0, 1.0]),
            ("bias", [2], [0.0, 0.0]),
        )
    )
    nodes = [
        onnx.helper.make_node("Conv", ["pixels", "w"], ["smooth"]),
        onnx.helper.make_node("GlobalAveragePool", ["smooth"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["batch", 1, 8, 8]),
        onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 2]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [half, one, minus])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    return bytes(model.SerializeToString())


def test_a_quantised_network_answers_nearly_the_same(network: bytes, pool: Pool) -> None:
    """Whole numbers inside, the same decisions outside, within two steps of 256 of the logits'
    range; twice the same bytes, no traces.
    """
    data = to_int8(network, pool, 0)
    assert data == to_int8(network, pool, 0)
    assert b"QuantizeLinear" in data
    assert b"lockforge-int8" not in data
    pixels = pool.pixels().numpy()
    before, after = Runtime(network, "x").run(pixels), Runtime(data, "y").run(pixels)
    assert abs(before - after).max() <= 2 * (before.max() - before.min()) / 255
    assert measured(data, pool, pool).accuracy == 1.0


def test_its_accuracy_is_measured_not_copied(network: bytes, pool: Pool) -> None:
    """With every second label turned round it is right on half; the figures name the file."""
    data = to_int8(network, pool, 0)
    turned = Pool(
        pool.images,
        torch.where(torch.arange(64) < 32, 1 - pool.labels, pool.labels),
        pool.mean,
        pool.std,
        2,
    )
    found = measured(data, pool, turned)
    assert found.accuracy == 0.5
    assert (found.test_samples, found.calibration, found.file.size) == (64, 64, len(data))


def test_what_cannot_be_made_is_said_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No ONNX to make it of, or no onnxruntime to make it with."""
    (tmp_path / "r.yaml").write_text("export: {onnx: false, int8: true}")
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(tmp_path / "r.yaml"))
    assert "needs onnx: true" in str(caught.value)
    monkeypatch.setattr(room, "find_spec", lambda _name: None)
    with pytest.raises(ResourceError, match="needs onnxruntime"):
        check_int8()


def test_the_file_has_one_name() -> None:
    """Export, verify and the attestation mean the same file."""
    from lockforge import verify
    from lockforge.evidence import attestation

    assert verify.INT8 == INT8
    assert INT8 in attestation.SUBJECTS
