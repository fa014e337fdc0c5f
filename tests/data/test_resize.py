"""The resize of arrays is Pillow's, bit for bit, and does what a resize must."""

import numpy as np
import pytest
from PIL import Image

from lockforge.data._resize import bring_to, resize, taps, to_grey


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((28, 28), (32, 32)),
        ((32, 32), (8, 8)),
        ((9, 17), (16, 5)),
        ((64, 64), (7, 7)),
        ((5, 5), (5, 9)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_equals_pillow_bit_for_bit(
    before: tuple[int, int], after: tuple[int, int], channels: int, rng: np.random.Generator
) -> None:
    """An independent implementation agrees on random images, so a .npz file and a folder of the
    same images give the same pixels.
    """
    images = rng.integers(256, size=(4, *before, channels), dtype=np.uint8)
    ours = resize(images, *after)
    for image, made in zip(images, ours, strict=True):
        theirs = Image.fromarray(image.squeeze()).resize(
            (after[1], after[0]), Image.Resampling.BILINEAR
        )
        assert np.array_equal(made.squeeze(), np.asarray(theirs))


def test_grey_equals_pillow_bit_for_bit(rng: np.random.Generator) -> None:
    """Luma is rounded as Pillow rounds it."""
    images = rng.integers(256, size=(8, 32, 32, 3), dtype=np.uint8)
    for image, grey in zip(images, to_grey(images), strict=True):
        assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(image).convert("L")))


def test_a_plain_image_stays_plain() -> None:
    """Weights sum to one at every border and scale: each grey level comes out as itself."""
    levels = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(levels, (256, 6, 6, 1))
    for size in (4, 6, 11, 24):
        assert (resize(images, size, size) == levels).all()


@pytest.mark.parametrize(("before", "after"), [(28, 32), (32, 8), (5, 512), (512, 4)])
def test_weights_are_symmetric_and_sum_to_one(before: int, after: int) -> None:
    """Reading from the left or from the right makes no difference."""
    where, weight = taps(before, after)
    dense = np.zeros((after, before))
    np.add.at(dense, (np.arange(after)[:, None], where), weight / 2**22)
    assert np.allclose(dense.sum(1), 1, atol=1e-5)
    assert np.allclose(dense, dense[::-1, ::-1], atol=1e-6)


def test_bringing_to_a_shape_converts_channels_both_ways(rng: np.random.Generator) -> None:
    """Grey becomes three equal channels, colour becomes luma, and the own shape is a mere
    transpose; chunks leave no seams.
    """
    colour = rng.integers(256, size=(3000, 8, 8, 3), dtype=np.uint8)
    grey = to_grey(colour)
    assert np.array_equal(bring_to(colour, (1, 8, 8))[:, 0], grey[..., 0])
    assert np.array_equal(bring_to(grey, (3, 8, 8)), grey.transpose(0, 3, 1, 2).repeat(3, axis=1))
    assert np.array_equal(bring_to(colour, (3, 8, 8)), colour.transpose(0, 3, 1, 2))
    assert np.array_equal(
        bring_to(colour, (3, 64, 64))[2999], bring_to(colour[2999:], (3, 64, 64))[0]
    )
