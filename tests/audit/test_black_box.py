"""The audit of a black box: what can be asked is asked, what needs weights is skipped from every
start and said.
"""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lockforge.audit._starts import starting_points
from lockforge.audit.stage import audit_transfer
from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.errors import DataError
from lockforge.evidence.faults import faults_of, start_faults
from lockforge.files import Files
from lockforge.models.black_box import OpaqueNetwork
from lockforge.models.networks import flops
from lockforge.models.read_onnx import read_black_box
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import BLACK_BOX, Checkpoint, FileRef, ImageSet, NamedArchitecture, Subjects
from lockforge.runs import Work
from lockforge.train.stage import adopt_model

pytest.importorskip("onnxruntime")
SIDE = 6
QUICK = AuditRecipe(
    images_per_class=(2, 0), seeds=3, steps=6, probe_steps=6, batch_size=16, fine_tune_sgd_rates=()
)
OPAQUE = NamedArchitecture(name=BLACK_BOX, classes=5, shape=(1, SIDE, SIDE))
WEIGHT = numpy_generator(0, "black box").normal(size=(5, SIDE * SIDE)).astype(np.float32)


def linear(weight: np.ndarray) -> bytes:  # type: ignore[type-arg]
    """An ONNX file that multiplies images by a matrix."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])]
    taken = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])]
    graph = helper.make_graph(nodes, "g", given, taken, [numpy_helper.from_array(weight, "w")])
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    return bytes(model.SerializeToString())


@pytest.fixture
def adopted(files: Files, source: ImageSet, tmp_path: Path) -> Checkpoint:
    """The file's checkpoint."""
    return adopt_model(
        OPAQUE, files.put(linear(WEIGHT)), source, work=Work(files=files, folder=tmp_path, seed=0)
    )


def test_its_accuracy_is_that_of_its_answers(
    adopted: Checkpoint, files: Files, source: ImageSet
) -> None:
    """W x for every test image, by hand; the weights of the checkpoint are the file."""
    test = load_pool(source, "test", files)
    (pixels, labels), *_ = list(test.batches(len(test), None))
    assert adopted.test_accuracy == accuracy(pixels.flatten(1) @ torch.from_numpy(WEIGHT).T, labels)
    assert files.get(adopted.weights) == linear(WEIGHT)


def test_it_is_a_classifier_with_a_head_of_the_thiefs(files: Files) -> None:
    """Features are W x without gradient, logits head(features); a copy shares the black box and no
    head; no operations are known.
    """
    box = read_black_box(files.path(files.put(linear(WEIGHT))))
    network = OpaqueNetwork(box, 3, torch_generator(0))
    x = torch.randn(4, 1, SIDE, SIDE, generator=torch_generator(1), requires_grad=True)
    torch.testing.assert_close(
        network.features(x), (x.flatten(1) @ torch.from_numpy(WEIGHT).T).detach()
    )
    torch.testing.assert_close(network(x), network.head(network.features(x)))
    assert not network.features(x).requires_grad
    assert network.maps(x).shape == (4, 5, 1, 1)
    other = copy.deepcopy(network)
    assert other.box is network.box
    assert other.head.weight is not network.head.weight
    torch.testing.assert_close(other(x), network(x))
    assert flops(network.architecture) == 0
    assert [name for name, _ in network.named_parameters()] == ["head.weight", "head.bias"]


def test_attackers_that_need_weights_are_skipped_from_every_start(
    adopted: Checkpoint,
    files: Files,
    source: ImageSet,
    target: ImageSet,
    emptied: Subjects,
    tmp_path: Path,
) -> None:
    """Beside a reference with weights: both meet the probe alone, so nobody is favoured; an empty
    network is the stand-in's.
    """
    plain = emptied.reference
    subjects = Subjects(release=adopted, twin=adopted, reference=plain, stand_in=plain.architecture)
    audit = audit_transfer(
        subjects, source, target, QUICK, work=Work(files=files, folder=tmp_path, seed=0)
    )
    assert audit.skipped == (
        "fine-tune: it needs the weights, and of a black box only the answers are known",
    )
    assert {(p.start, p.attacker) for p in audit.points} == {
        ("release", "linear-probe"),
        ("reference", "linear-probe"),
        ("dummy", "linear-probe"),
        ("scratch_release", "from-scratch"),
    }
    assert audit.same_as == {"twin": "release", "scratch_reference": "scratch_release"}
    assert (*faults_of(audit), *start_faults(audit, subjects)) == ()
    assert "protects" not in audit.verdict.word
    assert not any(
        "re-estimated" in point.setting for point in audit.points if point.start == "release"
    )


def test_a_black_box_needs_a_stand_in(adopted: Checkpoint) -> None:
    """Its architecture is not known, so what a thief starts over with has to be said."""
    with pytest.raises(ValueError, match="stand-in"):
        Subjects(release=adopted, twin=adopted, reference=adopted)


def test_its_old_head_hands_the_answers_on(
    adopted: Checkpoint, files: Files, source: ImageSet, target: ImageSet, emptied: Subjects
) -> None:
    """For as many classes as it has, its answers are a head that came with it; for four of its five
    there is none.
    """
    subjects = Subjects(
        release=adopted, twin=adopted, reference=adopted, stand_in=emptied.release.architecture
    )
    (same, *_), _ = starting_points(subjects, source, files)
    given = same.given(torch_generator(0))
    assert given.old_head is not None
    network = copy.deepcopy(given.network)
    network.head.load_state_dict(given.old_head)
    test = load_pool(source, "test", files)
    assert accuracy(*logits_of(network, test)) == adopted.test_accuracy
    (other, *_), _ = starting_points(subjects, target, files)
    assert other.given(torch_generator(0)).old_head is None


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.full((5, 36), np.nan), "NaN or infinity"),
        (np.zeros((5, 36)), "one and the same answer for all 100 images"),
    ],
)
def test_a_file_without_an_answer_is_refused(
    weight: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
    words: str,
    files: Files,
    source: ImageSet,
    tmp_path: Path,
) -> None:
    """NaN, or the same logits whatever the image: there is nothing to audit."""
    with pytest.raises(DataError, match=words):
        adopt_model(
            OPAQUE,
            files.put(linear(weight.astype(np.float32))),
            source,
            work=Work(files=files, folder=tmp_path, seed=0),
        )


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "NaN or infinity"), (0.0, "one and the same answer")]
)
def test_weights_without_an_answer_are_refused(
    value: float, words: str, emptied: Subjects, files: Files, source: ImageSet, tmp_path: Path
) -> None:
    """The same for a network whose head is all NaN, or all 0."""
    tensors = files.get_tensors(emptied.release.weights)
    spoilt: FileRef = files.put_tensors(
        {k: torch.full_like(t, value) if k == "head.weight" else t for k, t in tensors.items()}
    )
    with pytest.raises(DataError, match=words):
        adopt_model(
            emptied.release.architecture,
            spoilt,
            source,
            work=Work(files=files, folder=tmp_path, seed=0),
        )
