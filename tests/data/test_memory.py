"""Room for images: the same arrays in memory and on disk."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from lockforge.data import _memory as memory
from lockforge.data._memory import gather, hold, join, pieces
from lockforge.data.images import read_images
from lockforge.data.roles import read_set
from lockforge.errors import ResourceError
from lockforge.files import Files
from lockforge.recipe import DataRecipe


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes to disk, a few rows at a time."""
    monkeypatch.setattr(memory, "IN_MEMORY", 0)
    monkeypatch.setattr(memory, "CHUNK", 1000)


@pytest.mark.usefixtures("on_disk")
def test_pieces_cover_all_rows_once_and_in_order(rng: np.random.Generator) -> None:
    """With and without chosen rows; gather and join are what numpy gives."""
    array = rng.integers(0, 256, (37, 3, 9, 9)).astype(np.uint8)
    rows = rng.permutation(37)[:20]
    mask = rng.random(37) < 0.5
    assert np.array_equal(np.concatenate([part for _, part in pieces(array)]), array)
    assert len(list(pieces(array))) > 5
    assert np.array_equal(gather(array, rows), array[rows])
    assert np.array_equal(gather(array, mask), array[mask])
    assert np.array_equal(join([array, array[:5]]), np.concatenate([array, array[:5]]))


@pytest.mark.usefixtures("on_disk")
def test_what_lies_on_disk_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves no file behind that has a name."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = hold((5, 4), np.float32)
    array[:] = 2.5
    assert array.sum() == 50
    assert not list(tmp_path.iterdir())


def test_the_same_set_comes_out_whether_it_fits_in_memory_or_not(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Folder and arrays, resized and in floating point: same records, so everything downstream is
    shared.
    """
    images = read_images(str(folder), DataRecipe(size=16))
    shown = images.images.transpose(0, 2, 3, 1)
    np.savez_compressed(tmp_path / "a.npz", x=shown / 255.0, y=images.labels)
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(shown), y=images.labels)
    places = [str(folder), str(tmp_path / "a.npz"), str(tmp_path / "f.npz")]
    files = Files(tmp_path / "files")
    before = [read_set(place, DataRecipe(size=12), files) for place in places]
    request.getfixturevalue("on_disk")
    assert [read_set(place, DataRecipe(size=12), files) for place in places] == before


def test_a_set_that_does_not_fit_on_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 2**30))
    with pytest.raises(ResourceError, match=r"140\.2 GiB.*\n.*data\.size"):
        hold((1_000_000, 3, 224, 224))
