"""Drawn images: reproducible, and classes are rules."""

import torch
from torch import Tensor

from lockforge.randomness import torch_generator
from tools.drawings import CLASSES, FAMILIES, PROTOTYPES, SIDE, draw_family, draw_images


def test_images_are_what_they_say() -> None:
    """8-bit colour images that use the whole range, as many of each family, labels inside their
    family.
    """
    images, labels = draw_images(256, 0, "train")
    assert images.shape == (256, 3, SIDE, SIDE)
    assert images.dtype == torch.uint8
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert torch.equal(labels // PROTOTYPES, torch.arange(len(FAMILIES)).repeat_interleave(64))
    assert int(labels.max()) < CLASSES == PROTOTYPES * len(FAMILIES)


def test_the_same_seed_draws_the_same_images_and_nothing_else_is_touched() -> None:
    """Byte for byte by seed and part; other seeds and parts differ; the global generator stays
    where it was.
    """
    before = torch.random.get_rng_state()
    first, again, part, seed = (
        draw_images(64, s, p)[0] for s, p in ((0, "a"), (0, "a"), (0, "b"), (1, "a"))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, part)
    assert not torch.equal(first, seed)
    assert torch.equal(torch.random.get_rng_state(), before)


def spectra(seed: int, part: str) -> Tensor:
    """Mean log spectrum of the first six texture classes, centred over classes: (6,
    frequencies).
    """
    labels = torch.arange(6).repeat_interleave(100)
    images = draw_family("textures", labels, seed, torch_generator(9, part)).float().mean(1)
    table = (
        torch.log(torch.fft.rfft2(images).abs() + 1)
        .flatten(1)[:, 1:]
        .unflatten(0, (6, 100))
        .mean(1)
    )
    return table - table.mean(0)


def test_a_class_is_one_rule_whatever_the_draw() -> None:
    """Textures of one class share a spectrum between draws (correlation above .8 for each), not
    between seeds (below .5 on average).
    """
    first, second, other = spectra(0, "a"), spectra(0, "b"), spectra(1, "a")
    assert float(torch.cosine_similarity(first, second, dim=1).min()) > 0.8
    assert float(torch.cosine_similarity(first, other, dim=1).mean()) < 0.5
