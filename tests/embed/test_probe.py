"""The packaged probe and what it sees."""

import hashlib
import re
from importlib.resources import files as package_files

import pytest
import torch
from torch import Tensor, nn

from lockforge.embed.probe import BACKBONE_SIDE, PACKAGED, SIDE, Probe, ProbeNetwork, load_probe
from lockforge.errors import IntegrityError, RecipeError
from lockforge.models.backbones import new_backbone
from lockforge.recipe import EmbedRecipe
from lockforge.runs import Work


@pytest.fixture
def packaged(work: Work) -> Probe:
    """The probe that ships."""
    return load_probe(EmbedRecipe(), None, work.files)


def test_the_packaged_probe_is_the_one_on_its_card(packaged: Probe) -> None:
    """Its digest is the SHA-256 of the file's bytes, the card names it, and the file is at most 4
    MB.
    """
    folder = package_files("lockforge.embed")
    data = folder.joinpath(PACKAGED).read_bytes()
    assert packaged.digest == hashlib.sha256(data).hexdigest()
    assert packaged.digest in folder.joinpath("probe.md").read_text()
    assert len(data) <= 4_000_000


def test_a_probe_is_frozen_and_in_eval_mode(packaged: Probe) -> None:
    """No parameter asks for gradients, no batch norm counts, everything is in single precision."""
    assert not any(p.requires_grad for p in packaged.network.parameters())
    assert not any(m.training for m in packaged.network.modules())
    assert {p.dtype for p in packaged.network.parameters()} == {torch.float32}


def test_the_published_size_is_the_real_one(packaged: Probe) -> None:
    """The docstring's weight count and multiply-adds, recounted."""
    weights = sum(p.numel() for p in packaged.network.parameters())
    operations = 0

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        assert isinstance(module, nn.Conv2d)
        operations += output[0].numel() * module.weight[0].numel()

    for module in packaged.network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    packaged.features(torch.zeros((1, 1, 8, 8), dtype=torch.uint8))
    found = re.search(
        r"([\d.]+) million weights and (\d+) million multiply-adds",
        " ".join((ProbeNetwork.__doc__ or "").split()),
    )
    assert found is not None
    assert (float(found[1]), int(found[2])) == (round(weights / 1e6, 1), round(operations / 1e6))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 32, 32), (3, 40, 24)])
def test_any_image_becomes_the_probes_input(packaged: Probe, shape: tuple[int, int, int]) -> None:
    """Any size, grey or colour: 3 x 32 x 32; plain white stays plain, (1 - .5) / .25 = 2, and black
    is -2.
    """
    plain = torch.stack(
        [torch.zeros(shape, dtype=torch.uint8), torch.full(shape, 255, dtype=torch.uint8)]
    )
    seen = packaged.see(plain)
    assert seen.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(seen[0], torch.full((3, SIDE, SIDE), -2.0))
    torch.testing.assert_close(seen[1], torch.full((3, SIDE, SIDE), 2.0))


def test_grey_and_its_colour_copy_look_the_same(packaged: Probe) -> None:
    """A grey image and the same image as equal RGB have the same features."""
    grey = torch.randint(
        256, (3, 1, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert torch.equal(packaged.features(grey), packaged.features(grey.expand(-1, 3, -1, -1)))


def test_building_a_network_leaves_the_global_generator_alone() -> None:
    """The same generator gives the same weights; torch's own state does not move."""
    before = torch.random.get_rng_state()
    one, two = (ProbeNetwork(3, torch.Generator().manual_seed(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_backbone_sees_imagenets_normalisation(work: Work) -> None:
    """A local MobileNetV2 file is loaded under its file's hash and looks through ImageNet's mean
    and deviation.
    """
    generator = torch.Generator().manual_seed(0)
    wanted = new_backbone("mobilenet_v2", 3).state_dict()
    tensors = {
        k: torch.rand(v.shape, generator=generator) * 0.1
        for k, v in wanted.items()
        if v.is_floating_point()
    }
    ref = work.files.put_tensors(tensors)
    probe = load_probe(EmbedRecipe(probe="mobilenet_v2"), ref, work.files)
    seen = probe.see(torch.zeros((1, 1, 8, 8), dtype=torch.uint8))
    assert probe.digest == ref.sha256
    assert seen.shape == (1, 3, BACKBONE_SIDE, BACKBONE_SIDE)
    torch.testing.assert_close(
        seen[0, :, 0, 0], torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    )
    assert probe.features(torch.zeros((2, 1, 8, 8), dtype=torch.uint8)).shape == (2, 1280)


def test_a_probe_and_its_file_belong_together(work: Work) -> None:
    """A backbone without weights, weights without a backbone, or another network's weights: each is
    refused.
    """
    ref = work.files.put_tensors({"a": torch.zeros(1)})
    with pytest.raises(RecipeError, match="no weights file"):
        load_probe(EmbedRecipe(probe="resnet18"), None, work.files)
    with pytest.raises(RecipeError, match="weights file was given"):
        load_probe(EmbedRecipe(), ref, work.files)
    with pytest.raises(IntegrityError, match="no resnet18 weights"):
        load_probe(EmbedRecipe(probe="resnet18"), ref, work.files)
    not_tensors = work.files.put(b"not safetensors at all")
    with pytest.raises(IntegrityError, match="safetensors"):
        load_probe(EmbedRecipe(probe="resnet18"), not_tensors, work.files)
