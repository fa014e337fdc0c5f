"""What the tests of this room share: small image sets and a place to work."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lockforge.files import Files
from lockforge.randomness import torch_generator
from lockforge.records import ImageSet, Splits
from lockforge.runs import Work
from tools.drawings import FAMILIES, draw_family

MakeSet = Callable[[Tensor, Tensor], ImageSet]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A stage's surroundings in an empty folder."""
    folder = tmp_path / "embed_task" / "key.partial"
    folder.mkdir(parents=True)
    return Work(files=Files(tmp_path / "files"), folder=folder, seed=0)


@pytest.fixture
def make_set(work: Work) -> MakeSet:
    """Store 8-bit images and labels as an image set: every fourth four of images is validation,
    the last twenty are the test split.
    """

    def make(images: Tensor, labels: Tensor) -> ImageSet:
        n, classes = len(images), int(labels.max()) + 1
        split = np.zeros(n, np.uint8)
        split[np.arange(n) // 4 % 4 == 0] = 1
        split[-20:] = 2
        arrays = {
            "images": images.numpy(),
            "labels": labels.numpy().astype(np.int64),
            "content": np.arange(n * 16, dtype=np.uint32).astype(np.uint8).reshape(n, 16),
            "split": split,
        }
        train = images[torch.from_numpy(split == 0)].double() / 255
        counts = [int((split == k).sum()) for k in range(3)]
        return ImageSet(
            classes=tuple(f"class {k}" for k in range(classes)),
            shape=tuple(images.shape[1:]),
            mean=tuple(train.mean((0, 2, 3)).tolist()),
            std=tuple(train.std((0, 2, 3)).tolist()),
            counts=Splits(train=counts[0], val=counts[1], test=counts[2]),
            pixels=work.files.put_arrays(arrays),
        )

    return make


def drawn_task(family: str, classes: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labelled images of a family, of prototypes that the packaged probe never saw: `seed` is not
    its own.
    """
    assert family in FAMILIES
    labels = torch.arange(count) % classes
    return draw_family(family, labels, seed, torch_generator(seed, "test", family)), labels


@pytest.fixture
def drawn() -> Callable[[str, int, int, int], tuple[Tensor, Tensor]]:
    """`drawn_task`, for tests that want images rather than a stored set."""
    return drawn_task


@pytest.fixture
def glyphs(make_set: MakeSet) -> ImageSet:
    """Four invented characters, 160 images."""
    return make_set(*drawn_task("glyphs", 4, 160, 77))


@pytest.fixture
def textures(make_set: MakeSet) -> ImageSet:
    """Four textures, 160 images."""
    return make_set(*drawn_task("textures", 4, 160, 77))
