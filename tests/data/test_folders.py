"""The folder reader: layouts, formats, faults."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lockforge.data._folders import read_folder
from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED, VAL, Images, content_hashes
from lockforge.data.images import read_images
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe
from tests.data.conftest import put


def read(root: Path, **recipe: int) -> Images:
    """A folder as an owner would give it."""
    # sizes and channels are whole numbers
    return read_folder(root, DataRecipe(**recipe), None)  # type: ignore[arg-type]


def test_class_folders_become_classes_in_alphabetical_order(folder: Path) -> None:
    """Every image is there, pixel for pixel, with its label."""
    back = read(folder)
    assert back.classes == ("cat", "dog")
    assert back.labels.tolist() == [0] * 4 + [1] * 4
    assert (back.split == UNDECIDED).all()
    first = np.asarray(Image.open(folder / "cat" / "0.png"))
    assert np.array_equal(back.images[0].transpose(1, 2, 0), first)


def test_split_folders_are_kept(folder: Path, tmp_path: Path) -> None:
    """train, valid and test become 0, 1 and 2."""
    root = tmp_path / "split"
    for name in ("train", "valid", "test"):
        shutil.copytree(folder, root / name)
    assert np.bincount(read(root).split).tolist() == [8, 8, 8]
    assert {TRAIN, VAL, TEST} == set(read(root).split.tolist())


def test_a_class_called_train_is_a_class(folder: Path) -> None:
    """Vehicles: bus, train. Only folders that are all splits are splits."""
    (folder / "dog").rename(folder / "train")
    assert read(folder).classes == ("cat", "train")


def test_a_folder_and_an_npz_of_the_same_images_are_the_same(folder: Path, tmp_path: Path) -> None:
    """Two readers and two resizes agree on pixels, labels and content, larger and smaller, in
    colour and grey.
    """
    paths = sorted(folder.rglob("*.png"))
    stored = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.savez(tmp_path / "a.npz", x=stored, y=[path.parent.name for path in paths])
    for recipe in (DataRecipe(), DataRecipe(size=16), DataRecipe(size=4, channels=1)):
        one, other = (
            read_images(str(folder), recipe),
            read_images(str(tmp_path / "a.npz"), recipe),
        )
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.content, other.content)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "webp", "tiff", "ppm"])
def test_a_format_does_not_change_the_content(ending: str, tmp_path: Path) -> None:
    """A grey image is known again in every lossless format, also where the format makes a palette
    or colour of it.
    """
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    for name in ("a", "b"):
        put(
            tmp_path / "set" / name / f"0.{ending}",
            grey,
            **({"lossless": True} if ending == "webp" else {}),
        )
    assert (read(tmp_path / "set").content == content_hashes(grey[None, ..., None])).all()


def test_upright_opaque_and_eight_bits(tmp_path: Path) -> None:
    """A camera's orientation is applied; transparent pixels are white; 16-bit grey is divided by
    257.
    """
    root = tmp_path / "set"
    tall = np.zeros((8, 6, 3), np.uint8)
    tall[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root / "a" / "turned.png", tall.transpose(1, 0, 2).copy(), exif=exif)
    clear = np.zeros((8, 6, 4), np.uint8)
    put(root / "b" / "clear.png", clear)
    put(root / "c" / "deep.png", np.full((8, 6), 257 * 100, np.uint16))
    back = read(root)
    assert back.images.shape == (3, 3, 8, 6)
    assert back.images[0, 0, 0, 5] == 255
    assert (back.images[1] == 255).all()
    assert (back.images[2] == 100).all()


def bomb(side: int) -> bytes:
    """A tiny PNG that promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_every_unreadable_file_is_listed_at_once(folder: Path) -> None:
    """Truncated, corrupt, empty, no image, a directory, bombs of three sizes: all named, by name
    within the folder.
    """
    whole = (folder / "cat" / "0.png").read_bytes()
    spoilt = {
        "cut.png": whole[: len(whole) // 2],
        "corrupt.png": whole[:60] + bytes(20) + whole[80:],
        "empty.png": b"",
        "notes.txt": b"these are my cats",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "bomb1.png": bomb(8_000),
        "bomb2.png": bomb(10_000),
        "bomb3.png": bomb(40_000),
    }
    for name, data in spoilt.items():
        (folder / "cat" / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(folder)
    listed = "\n".join(caught.value.faults)
    headers = {"empty.png", "notes.txt", "script.eps", "bomb1.png", "bomb2.png", "bomb3.png"}
    assert all(f"cat/{name}: " in listed for name in headers)
    assert listed.count("decompression bomb") == 3
    for name in headers:
        (folder / "cat" / name).unlink()
    with pytest.raises(DataError) as caught:
        read(folder)
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "cat/corrupt.png",
        "cat/cut.png",
    ]


def test_a_folder_that_is_no_data_set_says_what_it_lacks(tmp_path: Path, folder: Path) -> None:
    """Empty, one class, an empty class, images and folders in the wrong place."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no class folders in it"):
        read(empty)
    (folder / "bird").mkdir()
    (folder / "dog" / "puppies").mkdir()
    put(folder / "stray.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError) as caught:
        read(folder)
    assert caught.value.faults == (
        "stray.png: an image outside any class folder",
        "bird: no images",
        "dog/puppies: a folder inside a class folder",
    )
    shutil.rmtree(folder)
    put(folder / "cat" / "0.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"1 class\(es\) with images \('cat'\)"):
        read(folder)


def test_hidden_and_system_files_are_passed_over(folder: Path) -> None:
    """What file managers leave behind is no fault."""
    for name in (".DS_Store", "Thumbs.db", ".git"):
        (folder / "cat" / name).write_bytes(b"x")
    (folder / "README.md").write_text("my cats and dogs")
    assert len(read(folder)) == 8


def test_images_of_many_sizes_need_a_size(folder: Path) -> None:
    """Without data.size nothing says what to bring them to; with it they are stretched to it."""
    put(folder / "cat" / "big.png", np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(DataError, match=r"2 different sizes, from 9 x 7 to 40 x 30\n.*data\.size"):
        read(folder)
    assert read(folder, size=8).images.shape == (9, 3, 8, 8)


def test_one_colour_image_makes_a_colour_set(folder: Path) -> None:
    """Grey and colour together are colour; data.channels=1 makes all grey."""
    put(folder / "cat" / "grey.png", np.full((9, 7), 50, np.uint8))
    assert read(folder).images.shape[1] == 3
    assert read(folder, channels=1).images.shape[1] == 1
