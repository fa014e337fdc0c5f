"""Places: what is there is read, what is not is refused before anything is read."""

from pathlib import Path

import numpy as np
import pytest

from lockforge.data.images import check_place, read_images
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe


@pytest.mark.parametrize("place", ["no/such/folder", "\0", "~nobody-by-this-name/x", "x" * 5000])
def test_a_missing_place_is_a_data_error(place: str) -> None:
    """Whatever was typed."""
    with pytest.raises(DataError, match=r"or a built-in name such as digits"):
        check_place(place)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    """A single image is no data set."""
    (tmp_path / "cat.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"not a kind of file that is read"):
        check_place(str(tmp_path / "cat.png"))


def test_the_home_folder_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME=~/photos: no shell expands this one."""
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(read_images("~/photos", DataRecipe())) == 8


def test_the_source_decides_the_shape_of_the_others(shared_data: Path) -> None:
    """Grey 28 x 28 digits become colour 32 x 32; their content hashes are those of the original
    images.
    """
    place = str(shared_data / "images" / "mnist.npz")
    brought, own = (
        read_images(place, DataRecipe(size=16), like=(3, 32, 32)),
        read_images(place, DataRecipe()),
    )
    assert brought.images.shape[1:] == (3, 32, 32)
    assert own.images.shape[1:] == (1, 28, 28)
    assert np.array_equal(brought.content, own.content)
    assert (brought.images[:, 0] == brought.images[:, 2]).all()
