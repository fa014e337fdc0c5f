"""Encoders without a head: found under the names that training leaves, nothing taken for a head
that is none.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lockforge.errors import DataError
from lockforge.models._named import to_published
from lockforge.models._read_encoder import read_owned
from lockforge.models.networks import build, state
from lockforge.records import NamedArchitecture

Tensors = dict[str, Tensor]
NAME = "resnet20-cifar"
ARCHITECTURE = NamedArchitecture(name=NAME, classes=3, shape=(1, 16, 16))


@pytest.fixture
def whole() -> Tensors:
    """A ResNet-20 with its head, under its published names."""
    return to_published(NAME, state(build(ARCHITECTURE, torch.Generator().manual_seed(0))))


@pytest.fixture
def body(whole: Tensors) -> Tensors:
    """The same without its head."""
    return {key: tensor for key, tensor in whole.items() if not key.startswith("linear.")}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under other names."""
    return {prefix + key: tensor for key, tensor in tensors.items()}


def beside(kind: str, body: Tensors) -> Tensors:
    """A file as this kind of training leaves it."""
    projection = {"linear.weight": torch.zeros(128, 64), "linear.bias": torch.zeros(128)}
    match kind:
        case "bare":
            return body
        case "moco":
            queue = {"module.queue": torch.zeros(128, 9), "module.queue_ptr": torch.zeros(1)}
            return (
                prefixed("module.encoder_q.", body | projection)
                | prefixed("module.encoder_k.", body | projection)
                | queue
            )
        case "moco v2":
            return prefixed(
                "encoder_q.",
                body
                | {"linear.0.weight": torch.zeros(64, 64), "linear.2.weight": torch.zeros(128, 64)},
            )
        case "simclr":
            return prefixed("encoder.", body) | {"projector.0.weight": torch.zeros(64, 64)}
    return prefixed("backbone.", body) | {"projection_head.layers.0.weight": torch.zeros(64, 64)}


@pytest.mark.parametrize("kind", ["bare", "moco", "moco v2", "simclr", "backbone"])
def test_the_body_is_found_whatever_lies_beside_it(
    kind: str, body: Tensors, tmp_path: Path
) -> None:
    """MoCo's pair and queue, SimCLR's projector and a bare body: the same tensors, the source's
    classes, no head.
    """
    torch.save({"state_dict": beside(kind, body), "epoch": 3}, tmp_path / "w.pt")
    found = read_owned(tmp_path / "w.pt", NAME, (16, 16), classes=5)
    assert found.headless
    assert found.architecture == ARCHITECTURE.model_copy(update={"classes": 5})
    assert found.tensors.keys() == {f"body.{key}" for key in body}
    assert all(torch.equal(found.tensors[f"body.{key}"], tensor) for key, tensor in body.items())


@pytest.mark.parametrize("prefix", ["", "model.", "backbone."])
def test_a_head_that_is_there_is_kept(prefix: str, whole: Tensors, tmp_path: Path) -> None:
    """A classifier under a wrapper's prefix is a classifier."""
    save_file(prefixed(prefix, whole), tmp_path / "w")
    found = read_owned(tmp_path / "w", NAME, (16, 16), classes=3)
    assert not found.headless
    assert torch.equal(found.tensors["head.weight"], whole["linear.weight"])
    with pytest.raises(DataError, match="3 classes where the source has 5"):
        read_owned(tmp_path / "w", NAME, (16, 16), classes=5)


def test_tensors_that_nobody_knows_are_named(body: Tensors, whole: Tensors, tmp_path: Path) -> None:
    """Under the prefix and beside it, with a head and without."""
    save_file(
        prefixed("encoder.", body | {"stranger.weight": torch.zeros(1)})
        | {"other": torch.zeros(1)},
        tmp_path / "w",
    )
    with pytest.raises(DataError, match="belong to no part we know") as caught:
        read_owned(tmp_path / "w", NAME, (16, 16), classes=3)
    assert caught.value.faults == ("encoder.stranger.weight: unknown", "other: unknown")
    save_file(prefixed("encoder.", whole) | {"other": torch.zeros(1)}, tmp_path / "w")
    with pytest.raises(DataError, match="other: unknown"):
        read_owned(tmp_path / "w", NAME, (16, 16), classes=3)


def test_another_networks_body_is_no_encoder(body: Tensors, tmp_path: Path) -> None:
    """One layer of another shape or gone: the strict reader says what is missing."""
    del body["layer1.0.conv1.weight"]
    save_file(body, tmp_path / "w")
    with pytest.raises(DataError, match="holds no resnet20-cifar"):
        read_owned(tmp_path / "w", NAME, (16, 16), classes=3)


def test_numbers_are_finite_and_single(body: Tensors, tmp_path: Path) -> None:
    """Half precision becomes single; NaN is refused by name."""
    save_file(
        {
            key: value.half()
            for key, value in body.items()
            if not key.endswith("num_batches_tracked")
        },
        tmp_path / "w",
    )
    assert (
        read_owned(tmp_path / "w", NAME, (16, 16), classes=3).tensors["body.conv1.weight"].dtype
        == torch.float32
    )
    save_file(
        prefixed("encoder.", body | {"bn1.bias": torch.full((16,), float("nan"))}), tmp_path / "w"
    )
    with pytest.raises(DataError, match=r"encoder\.bn1\.bias: not all finite"):
        read_owned(tmp_path / "w", NAME, (16, 16), classes=3)
