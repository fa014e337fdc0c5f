"""Batches: every image once, normalised, augmented by a generator one can point at."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lockforge.data.batches import Pool, few, load_pool, random_crop, random_flip
from lockforge.data.roles import read_set
from lockforge.errors import IntegrityError
from lockforge.files import Files
from lockforge.recipe import DataRecipe
from lockforge.records import Splits


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pool() -> Pool:
    """Ten 2 x 4 x 4 images; image i is full of 20 i, its label is i modulo 3."""
    levels = torch.arange(10, dtype=torch.uint8) * 20
    images = levels.view(-1, 1, 1, 1).expand(10, 2, 4, 4).clone()
    return Pool(
        images, torch.arange(10) % 3, torch.tensor([0.5, 0.25]), torch.tensor([0.5, 0.1]), 3
    )


def test_pixels_are_normalised_by_channel(pool: Pool) -> None:
    """(pixel / 255 - mean) / std, for all or for some."""
    expected = (pool.images.double() / 255 - pool.mean.view(-1, 1, 1)) / pool.std.view(-1, 1, 1)
    assert torch.allclose(pool.pixels().double(), expected, atol=1e-5)
    some = torch.tensor([3, 1])
    assert torch.equal(pool.pixels(some), pool.pixels()[some])
    assert torch.equal(pool.take(some).pixels(), pool.pixels(some))


def test_without_a_generator_all_images_come_in_order(pool: Pool) -> None:
    """Also the last short batch."""
    batches = list(pool.batches(4, None))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), pool.pixels())
    assert torch.equal(torch.cat([labels for _, labels in batches]), pool.labels)


def test_an_epoch_shuffles_and_drops_the_short_batch(pool: Pool) -> None:
    """Each image at most once, with its own label, in an order that the generator decides."""

    def seen(seed: int) -> tuple[list[int], list[int]]:
        batches = list(pool.batches(4, seeded(seed)))
        assert [len(labels) for _, labels in batches] == [4, 4]
        pixels = torch.cat([pixels for pixels, _ in batches])[:, 0, 0, 0]
        return ((pixels * 0.5 + 0.5) * 255 / 20).round().int().tolist(), torch.cat(
            [labels for _, labels in batches]
        ).tolist()

    images, labels = seen(1)
    assert len(set(images)) == 8
    assert labels == [image % 3 for image in images]
    assert seen(1) == (images, labels)
    assert seen(2) != (images, labels)


@pytest.mark.parametrize(("balance", "share"), [(0.5, 0.25), (1.0, 0.5)])
def test_balance_draws_small_classes_more_often(balance: float, share: float) -> None:
    """One image in ten is of the small class; balanced it comes in half, or in a quarter (1 :
    sqrt 9).
    """
    labels = (torch.arange(2000) % 10 == 0).long()
    images = torch.arange(2000).view(-1, 1, 1, 1).remainder(250).to(torch.uint8)
    pool = Pool(images, labels, torch.zeros(1), torch.full((1,), 1 / 255), 3)
    batches = list(pool.batches(100, seeded(), balance=balance))
    drawn, pixels = (
        torch.cat([labels for _, labels in batches]),
        torch.cat([pixels for pixels, _ in batches]),
    )
    assert len(drawn) == 2000
    assert abs(drawn.float().mean() - share) < 0.05
    assert torch.equal(pixels.flatten().round().long() % 10 == 0, drawn == 1)


def test_a_pool_smaller_than_a_batch_is_one_batch(pool: Pool) -> None:
    """Nothing to train on would be worse than a short batch."""
    ((_, labels),) = pool.batches(64, seeded())
    assert len(labels) == 10


def test_a_crop_is_one_of_the_windows_of_the_padded_image() -> None:
    """Every image is one of the (2p + 1)^2 windows, all windows occur, and about equally often."""
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    padded = functional.pad(image, (1, 1, 1, 1))
    windows = [padded[0, :, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    cropped = random_crop(image.expand(1800, -1, -1, -1), 1, seeded())
    counts = [int((cropped == window).flatten(1).all(1).sum()) for window in windows]
    assert sum(counts) == 1800
    assert min(counts) > 140  # 200 expected, deviation 13


def test_a_flip_mirrors_about_half() -> None:
    """Each image is itself or its mirror image."""
    image = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    flipped = random_flip(image.expand(1000, -1, -1, -1), seeded())
    mirrored = int((flipped == image.flip(3)).flatten(1).all(1).sum())
    assert mirrored + int((flipped == image).flatten(1).all(1).sum()) == 1000
    assert 400 < mirrored < 600


def test_augmentation_moves_pixels_together_across_channels_and_not_across_images() -> None:
    """With labels written into the images, a crop and flip keeps channels aligned and images
    apart; other images get other draws.
    """
    mark = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    mark[:, :, 2, 3] = 255
    pool = Pool(mark, torch.zeros(64, dtype=torch.int64), torch.zeros(3), torch.ones(3), 2)
    ((pixels, _),) = pool.batches(64, seeded(), crop=2, flip=True)
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert len({tuple(image[0].nonzero().flatten().tolist()) for image in pixels}) > 20


def test_the_global_generator_is_untouched(pool: Pool) -> None:
    """Every draw comes from the generator that was given."""
    before = torch.get_rng_state()
    list(pool.batches(4, seeded(), crop=2, flip=True))
    few(pool, 2, seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_few_images_are_balanced_and_drawn_without_replacement(pool: Pool) -> None:
    """Two of each class; a class of three gives three when five are asked for; 0 is all."""
    rows = few(pool, 2, seeded())
    assert torch.bincount(pool.labels[rows]).tolist() == [2, 2, 2]
    rows = few(pool, 5, seeded())
    assert sorted(rows.tolist()) == list(range(10))
    assert few(pool, 0, seeded()).tolist() == list(range(10))
    assert few(pool, 2, seeded(1)).tolist() != few(pool, 2, seeded(2)).tolist()


def test_a_stored_split_is_loaded_as_described(
    save: Callable[..., str], drawn: dict[str, Any], files: Files
) -> None:
    """The three splits together are the set, and the training split has mean 0 and deviation 1 in
    each channel.
    """
    images = read_set(save("a", **drawn), DataRecipe(), files)
    pools = [load_pool(images, split, files) for split in ("train", "val", "test")]
    assert [len(pool) for pool in pools] == [
        images.counts.train,
        images.counts.val,
        images.counts.test,
    ]
    pixels: Tensor = pools[0].pixels()
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(pixels.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)
    assert pools[0].classes == 5


def test_a_record_of_other_images_is_refused(
    save: Callable[..., str], drawn: dict[str, Any], files: Files
) -> None:
    """Counts that do not agree with the file mean a mix-up."""
    images = read_set(save("a", **drawn), DataRecipe(), files)
    with pytest.raises(IntegrityError, match="train images"):
        load_pool(
            images.model_copy(update={"counts": Splits(train=1, val=1, test=1)}), "train", files
        )


@pytest.mark.gpu
def test_a_gpu_gives_the_same_batches(pool: Pool) -> None:
    """Draws are the CPU's, so devices agree."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    here = list(pool.batches(4, seeded(), crop=1, flip=True))
    there = list(pool.to("cuda").batches(4, seeded(), crop=1, flip=True))
    for (pixels, labels), (pixels_there, labels_there) in zip(here, there, strict=True):
        assert torch.allclose(pixels, pixels_there.cpu(), atol=1e-6)
        assert torch.equal(labels, labels_there.cpu())
