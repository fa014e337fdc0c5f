"""Backbones: published networks by their published parameter names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lockforge.errors import IntegrityError
from lockforge.models.backbones import HEADS, load_backbone, new_backbone

WEIGHTS = (
    Path(__file__).resolve().parents[3] / "shared/data/weights/mobilenet_v2_imagenet.safetensors"
)
SAMPLES = Path(__file__).resolve().parents[3] / "shared/data/images/imagenet_samples"
PUBLISHED = {
    "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}


def drawn(name: str, classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random tensors with a backbone's names and shapes."""
    wanted = new_backbone(name, classes).state_dict()
    return {
        key: torch.rand(value.shape, generator=generator) * 0.1
        if value.is_floating_point()
        else torch.zeros((), dtype=torch.long)
        for key, value in wanted.items()
    }


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_a_backbone_has_the_published_number_of_weights(name: str, count: int) -> None:
    """Parameters with 1,000 classes equal torchvision's published counts."""
    assert sum(p.numel() for p in new_backbone(name, 1000).parameters()) == count


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("resnet18", "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        ("resnet34", "layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("resnet50", "layer4.0.conv2.weight", (512, 512, 3, 3)),
        ("resnet50", "layer1.0.downsample.1.running_var", (256,)),
        ("mobilenet_v2", "features.1.conv.1.weight", (16, 32, 1, 1)),
        ("mobilenet_v2", "features.17.conv.2.weight", (320, 960, 1, 1)),
        ("mobilenet_v2", "features.18.0.weight", (1280, 320, 1, 1)),
    ],
)
def test_a_backbone_uses_torchvisions_names(name: str, key: str, shape: tuple[int, ...]) -> None:
    """Spot checks of names and shapes as published weight files have them."""
    assert tuple(new_backbone(name, 10).state_dict()[key].shape) == shape


def test_task2vecs_layers_of_resnet50_have_26560_filters() -> None:
    """All convolutions of ResNet-50 together have as many filters as Task2Vec's published embedding
    of it is long.
    """
    assert (
        sum(
            m.out_channels
            for m in new_backbone("resnet50", 10).modules()
            if isinstance(m, nn.Conv2d)
        )
        == 26_560
    )


@pytest.mark.parametrize("name", HEADS)
def test_loaded_weights_are_the_given_ones(name: str) -> None:
    """Half-precision tensors without batch counters come back in single precision, classes read off
    the head, in eval mode.
    """
    tensors = drawn(name, 7, torch.Generator().manual_seed(0))
    given = {
        key: value.half()
        for key, value in tensors.items()
        if not key.endswith("num_batches_tracked")
    }
    network = load_backbone(name, given)
    state = network.state_dict()
    assert all(torch.equal(state[key], value.float()) for key, value in given.items())
    assert not network.training
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors["layer1.0.conv1.weight"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["layer9.conv.weight"] = torch.zeros(1)


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["conv1.weight"] = torch.zeros(64, 1, 7, 7)


def _spoil(tensors: dict[str, Tensor]) -> None:
    tensors["bn1.weight"] = torch.full((64,), float("nan"))


def _behead(tensors: dict[str, Tensor]) -> None:
    del tensors["fc.weight"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_drop, "layer1.0.conv1.weight: missing"),
        (_add, "layer9.conv.weight: unknown"),
        (_reshape, r"conv1.weight: shape \(64, 1, 7, 7\)"),
        (_spoil, "bn1.weight: not all finite"),
        (_behead, "fc.weight is missing"),
    ],
)
def test_wrong_weights_are_refused_by_name(
    spoil: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    """A missing, unknown, misshapen or NaN tensor is an IntegrityError that names it."""
    tensors = drawn("resnet18", 5, torch.Generator().manual_seed(0))
    spoil(tensors)
    with pytest.raises(IntegrityError, match=named):
        load_backbone("resnet18", tensors)


@pytest.mark.skipif(
    not WEIGHTS.is_file() or not SAMPLES.is_dir(),
    reason="the shared weights and ImageNet samples are not here",
)
def test_published_mobilenet_v2_knows_imagenet() -> None:
    """Its stated accuracy is .858 over 1,000 images; 30 of them must give at least .7 (chance
    .001; .7 is 2.5 deviations below).
    """
    import numpy as np
    from PIL import Image

    network = load_backbone("mobilenet_v2", load_file(WEIGHTS))
    paths = sorted(SAMPLES.glob("*.jpg"))[:240:8]
    pixels = np.stack(
        [
            np.asarray(Image.open(path).convert("RGB").crop((16, 16, 240, 240)), dtype=np.float32)
            for path in paths
        ]
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        guessed = network((images - mean) / std).argmax(1)
    truth = torch.tensor([int(path.name[:4]) for path in paths])
    assert float((guessed == truth).double().mean()) >= 0.7
