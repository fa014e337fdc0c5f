"""Black boxes: the same answers as the network they were made from, and every file that is none is
refused before it is run.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lockforge.errors import DataError, ResourceError
from lockforge.models import read_onnx as black_box
from lockforge.models.read_onnx import Runtime, read_black_box

pytest.importorskip("onnxruntime")
WEIGHT = np.arange(24, dtype=np.float32).reshape(3, 8) / 10
Axes = list[int | str]


def linear(
    path: Path,
    *,
    axes: Axes | None = None,
    kind: int = TensorProto.FLOAT,
    outputs: int = 1,
    second_input: bool = False,
    weight: np.ndarray | None = None,  # type: ignore[type-arg]
) -> Path:
    """An ONNX file that flattens images of (2, 2, 2) pixels and multiplies them by a matrix."""
    weight = WEIGHT if weight is None else weight
    axes = ["n", 2, 2, 2] if axes is None else axes
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    given = [helper.make_tensor_value_info("x", kind, axes)]
    taken = [helper.make_tensor_value_info("y", kind, ["n", "k"])]
    if outputs == 2:
        taken.append(helper.make_tensor_value_info("f", kind, ["n", "d"]))
    if second_input:
        given.append(helper.make_tensor_value_info("size", kind, [1]))
    initial = numpy_helper.from_array(weight.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    graph = helper.make_graph(nodes, "g", given, taken, [initial])
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
        ).SerializeToString()
    )
    return path


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_answers_are_the_networks_own(
    batch: int | str, tmp_path: Path, generator: torch.Generator
) -> None:
    """W x for 9 images, whether the file takes any number at once, one, or four."""
    box = read_black_box(linear(tmp_path / "m.onnx", axes=[batch, 2, 2, 2]))
    x = torch.randn(9, 2, 2, 2, generator=generator)
    assert (box.shape, box.classes, box.batch) == (
        (2, 2, 2),
        3,
        batch if isinstance(batch, int) else None,
    )
    torch.testing.assert_close(box.logits(x), x.flatten(1) @ torch.from_numpy(WEIGHT).T)
    assert box.logits(x[:0]).shape == (0, 3)


def test_more_images_than_one_question_holds(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked in pieces, and come back in order."""
    monkeypatch.setattr(black_box, "AT_ONCE", 4)
    x = torch.randn(10, 2, 2, 2, generator=generator)
    torch.testing.assert_close(
        read_black_box(linear(tmp_path / "m")).logits(x), x.flatten(1) @ torch.from_numpy(WEIGHT).T
    )


def test_free_axes_take_the_images_shape(tmp_path: Path) -> None:
    """Height and width that the file leaves free are given; without them the error says which are
    free.
    """
    path = linear(tmp_path / "m", axes=["n", 2, "h", "w"])
    assert read_black_box(path, (2, 2, 2)).shape == (2, 2, 2)
    with pytest.raises(DataError, match="height, width of x"):
        read_black_box(path)
    with pytest.raises(DataError, match="cannot be run"):
        read_black_box(path, (2, 4, 4))


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    """Same bytes, same digest, wherever they lie; other weights, another."""
    one, same, other = (
        read_black_box(linear(tmp_path / name, weight=weight))
        for name, weight in (("a", WEIGHT), ("b", WEIGHT), ("c", WEIGHT + 1))
    )
    assert one.digest == same.digest != other.digest


def test_what_is_no_classifier_is_refused_with_every_fault(tmp_path: Path) -> None:
    """Several inputs or outputs, double precision, no images, channels last, one class."""
    with pytest.raises(DataError) as caught:
        read_black_box(
            linear(tmp_path / "m", kind=TensorProto.DOUBLE, outputs=2, second_input=True)
        )
    text = str(caught.value)
    for part in (
        "2 inputs where one is needed: x, size",
        "2 outputs where one is needed: y, f",
        "x is tensor(double)",
        "export it",
    ):
        assert part in text
    with pytest.raises(DataError, match="x has 2 axes"):
        read_black_box(linear(tmp_path / "m", axes=["n", 8]))
    with pytest.raises(DataError, match="channels last"):
        read_black_box(linear(tmp_path / "m", axes=["n", 8, 8, 3], weight=np.zeros((3, 192))))
    with pytest.raises(DataError, match=r"float32 of shape \(1, 1\)"):
        read_black_box(linear(tmp_path / "m", weight=WEIGHT[:1]))


def test_images_of_another_shape_and_answers_that_are_no_numbers_are_refused(
    tmp_path: Path,
) -> None:
    """Both say how many or which, and what to do."""
    box = read_black_box(linear(tmp_path / "m"))
    with pytest.raises(DataError, match=r"takes images of shape \(2, 2, 2\), not \(1, 2, 2\)"):
        box.logits(torch.zeros(1, 1, 2, 2))
    x = torch.zeros(3, 2, 2, 2)
    x[1] = float("inf")
    with pytest.raises(DataError, match="NaN or infinity for 1 of 3 images"):
        box.logits(x)


def test_numbers_in_other_files_are_not_read(tmp_path: Path) -> None:
    """An initialiser, a constant of a node and a constant inside a branch that lie elsewhere are
    refused before anything runs.
    """
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHT.tobytes())

    def outside(name: str) -> TensorProto:
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=[3, 8], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="secret")
        return tensor

    model = onnx.load_model_from_string(linear(tmp_path / "m").read_bytes())
    model.graph.initializer.append(outside("v"))
    constant = helper.make_node("Constant", [], ["c"], value=outside("c"))
    branch = helper.make_graph(
        [constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3, 8])]
    )
    model.graph.node.append(
        helper.make_node("If", ["q"], ["z"], then_branch=branch, else_branch=branch)
    )
    (tmp_path / "m").write_bytes(model.SerializeToString())
    with pytest.raises(
        DataError,
        match=r"keeps 3 tensor\(s\) in other files, which are not opened: v, c, c|keeps 3",
    ):
        read_black_box(tmp_path / "m")


@pytest.mark.parametrize(
    "data", [b"", b"words " * 20, b"\x08\x09", json.dumps({"a": 1}).encode(), b"\xff" * 64]
)
def test_what_is_no_onnx_is_refused(data: bytes, tmp_path: Path) -> None:
    """Empty, text and other bytes."""
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(DataError, match=r"is no ONNX file|cannot be run"):
        read_black_box(tmp_path / "m")


def test_damaged_files_are_data_errors_or_run(tmp_path: Path, rng: np.random.Generator) -> None:
    """60 files with changed bytes or a cut end: a black box or a DataError, never anything else."""
    whole = linear(tmp_path / "m").read_bytes()
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=2):
            data[place] = rng.integers(256)
        (tmp_path / "m").write_bytes(
            bytes(data[: rng.integers(1, len(data))]) if rng.random() < 0.3 else bytes(data)
        )
        try:
            read_black_box(tmp_path / "m")
        except DataError:
            refused += 1
    assert refused > 20


def test_no_file_too_large_a_file_and_no_onnxruntime_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each before anything is read or run."""
    path = linear(tmp_path / "m")
    with pytest.raises(DataError, match="cannot be read"):
        read_black_box(tmp_path / "none")
    with monkeypatch.context() as patched:
        patched.setattr(black_box, "LARGEST_FILE", 100)
        with pytest.raises(DataError, match="at most 100 bytes"):
            read_black_box(path)
    monkeypatch.setattr(black_box, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match="without onnxruntime"):
        Runtime(path.read_bytes(), "m")
