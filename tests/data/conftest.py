"""Small data sets on disk: what an owner would hand over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockforge.data._raw_images import UNDECIDED, Images, content_hashes
from lockforge.data._synthetic import draw_images
from lockforge.files import Files

Save = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A runs folder's files."""
    return Files(tmp_path / "runs" / "files")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """`save("a", x=..., y=...)` writes a.npz and gives its place."""

    def write(name: str, **arrays: Any) -> str:
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


@pytest.fixture
def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Sixty drawn colour images as x, y and classes of a .npz file: which figure?"""
    asked = draw_images(60, rng, side=12).asked("figure")
    return {"x": asked.images, "y": asked.labels, "classes": np.array(asked.classes)}


@pytest.fixture
def images(rng: np.random.Generator) -> Callable[..., Images]:
    """`images(labels, split=...)` makes random, different 4 x 4 images with these labels."""

    def make(labels: list[int], split: list[int] | None = None) -> Images:
        images = rng.integers(256, size=(len(labels), 4, 4, 1), dtype=np.uint8)
        return Images(
            images=images.transpose(0, 3, 1, 2),
            labels=np.array(labels, np.int64),
            content=content_hashes(images),
            split=np.array(split or [UNDECIDED] * len(labels), np.uint8),
            classes=tuple("abcdefgh"[: max(labels) + 1]),
        )

    return make


def put(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    """Write one image, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)
    return path


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """cat/ and dog/ with four random 9 x 7 colour images each."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        for at in range(4):
            put(root / name / f"{at}.png", rng.integers(256, size=(9, 7, 3), dtype=np.uint8))
    return root
