"""The .npz reader: every layout an owner may have, every fault named, nothing unpickled."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockforge.data._arrays import read_arrays
from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED, VAL
from lockforge.errors import DataError

Save = Callable[..., str]


def read(place: str) -> Any:
    """A .npz file as decoded."""
    return read_arrays(Path(place))


def test_images_labels_and_classes_come_back_as_stored(save: Save, drawn: dict[str, Any]) -> None:
    """A round trip without splits."""
    back = read(save("a", **drawn))
    assert np.array_equal(back.images, drawn["x"])
    assert np.array_equal(back.labels, drawn["y"])
    assert back.classes == tuple(drawn["classes"])
    assert (back.split == UNDECIDED).all()


def test_given_splits_are_kept(save: Save, drawn: dict[str, Any]) -> None:
    """x_train, x_val and x_test are splits 0, 1 and 2."""
    x, y = drawn["x"], drawn["y"]
    back = read(
        save(
            "a",
            x_train=x[:40],
            y_train=y[:40],
            x_val=x[40:50],
            y_val=y[40:50],
            x_test=x[50:],
            y_test=y[50:],
        )
    )
    assert back.split.tolist() == [TRAIN] * 40 + [VAL] * 10 + [TEST] * 10
    assert np.array_equal(back.images, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.float32) / 255,
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
    ],
    ids=["channels first", "whole numbers", "0 to 1", "0 to 255", "big-endian"],
)
def test_every_way_to_store_pixels_gives_the_same_images(
    change: Callable[[np.ndarray], np.ndarray], save: Save, drawn: dict[str, Any]
) -> None:
    """Axis order and number format decide nothing."""
    assert np.array_equal(read(save("a", **{**drawn, "x": change(drawn["x"])})).images, drawn["x"])


def test_images_without_a_channel_axis_are_grey(save: Save, drawn: dict[str, Any]) -> None:
    """(n, h, w) is read; black-and-white booleans are 0 and 255."""
    bits = drawn["x"][..., 0] > 99
    back = read(save("a", **{**drawn, "x": bits}))
    assert np.array_equal(back.images, np.where(bits, 255, 0)[..., None])


def test_classes_that_do_not_occur_are_left_out(save: Save, drawn: dict[str, Any]) -> None:
    """Ten names, two of them used: two classes, labels 0 and 1."""
    back = read(
        save(
            "a",
            x=drawn["x"],
            y=np.where(drawn["y"] < 2, 7, 3),
            classes=np.array(list("abcdefghij")),
        )
    )
    assert back.classes == ("d", "h")
    assert np.array_equal(back.labels, (drawn["y"] < 2).astype(int))


def test_without_class_names_the_labels_are_the_names(save: Save, drawn: dict[str, Any]) -> None:
    """Whole numbers in order of size, words in alphabetical order."""
    assert read(save("a", x=drawn["x"], y=drawn["y"] * 5)).classes == ("0", "5", "10", "15", "20")
    words = np.array(["pear", "fig"])[drawn["y"] % 2]
    back = read(save("b", x=drawn["x"], y=words[:, None]))
    assert back.classes == ("fig", "pear")
    assert [back.classes[label] for label in back.labels] == words.tolist()


def _with(x: np.ndarray, value: float) -> np.ndarray:
    spoilt = x.astype(np.float64) / 255
    spoilt[3, 0, 0, 0] = value
    return spoilt


FAULTY: dict[str, tuple[Callable[[np.ndarray, np.ndarray], dict[str, Any]], str]] = {
    "lengths differ": (lambda x, y: {"x": x, "y": y[:-1]}, "x has 60 images, y has 59 labels"),
    "not a number": (
        lambda x, y: {"x": _with(x, np.nan), "y": y},
        r"1 image\(s\) with NaN or infinite pixels, the first at index 3",
    ),
    "infinite": (lambda x, y: {"x": _with(x, np.inf), "y": y}, "NaN or infinite"),
    "negative": (lambda x, y: {"x": _with(x, -0.5), "y": y}, "pixels from -0.5 to"),
    "too large": (lambda x, y: {"x": x.astype(np.int32) + 1, "y": y}, "to 256"),
    "two scales": (
        lambda x, y: {"x_train": x / 255.0, "y_train": y, "x_test": x / 1.0, "y_test": y},
        r"some in \[0, 255\]",
    ),
    "label beyond classes": (
        lambda x, y: {"x": x, "y": y, "classes": np.array(["a", "b"])},
        "labels from 0 to 4, but `classes` names 2",
    ),
    "negative label": (lambda x, y: {"x": x, "y": y - 1}, "a label cannot be negative"),
    "floating labels": (lambda x, y: {"x": x, "y": y / 2}, "labels are whole numbers or words"),
    "one-hot labels": (
        lambda x, y: {"x": x, "y": np.eye(5, dtype=int)[y]},
        r"y: int64 of shape \(60, 5\)",
    ),
    "words and numbers": (
        lambda x, y: {"x_train": x, "y_train": y, "x_test": x, "y_test": y.astype(str)},
        "words and some are numbers",
    ),
    "one class": (
        lambda x, y: {"x": x, "y": y * 0},
        r"1 class\(es\) with images \('0'\); at least 2",
    ),
    "a class named twice": (
        lambda x, y: {"x": x, "y": y, "classes": np.array(list("abbcd"))},
        "'b' is given twice",
    ),
    "unprintable class": (
        lambda x, y: {"x": x, "y": y, "classes": np.array(["a", "\x1b[31m", "c", "d", "e"])},
        "not a class name",
    ),
    "pickled": (
        lambda x, y: {"x": x, "y": y.astype(object)},
        "y: an object array; it would have to be unpickled",
    ),
    "no labels": (lambda x, _: {"x": x}, "only x is there"),
    "nothing known": (
        lambda x, _: {"images": x},
        "it holds none of x, y, x_train, y_train, but: images.npy",
    ),
    "only a test split": (lambda x, y: {"x_test": x, "y_test": y}, "no images to train on"),
    "both layouts": (
        lambda x, y: {"x": x, "y": y, "x_train": x, "y_train": y},
        "which are the images",
    ),
    "five channels": (
        lambda x, y: {"x": x.repeat(2, axis=3)[..., :5], "y": y},
        r"shape \(60, 12, 12, 5\)",
    ),
    "complex": (lambda x, y: {"x": x * 1j, "y": y}, "complex128 are not pixels"),
    "structured": (lambda x, y: {"x": x.astype([("r", "u1")]), "y": y}, "are not pixels"),
    "empty": (lambda x, y: {"x": x[:0], "y": y[:0]}, "no images to train on"),
    "shapes differ": (
        lambda x, y: {"x_train": x, "y_train": y, "x_test": x[:, :8], "y_test": y},
        "images of different shapes",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_file_is_refused_and_the_fault_named(
    fault: str, save: Save, drawn: dict[str, Any]
) -> None:
    """Each is a DataError with a way out."""
    make, message = FAULTY[fault]
    with pytest.raises(DataError, match=message) as caught:
        read(save("a", **make(drawn["x"], drawn["y"])))
    assert caught.value.hint


def test_all_faults_are_listed_at_once(save: Save, drawn: dict[str, Any]) -> None:
    """Bad pixels and bad labels in one go."""
    with pytest.raises(DataError) as caught:
        read(save("a", x=_with(drawn["x"], np.nan), y=drawn["y"] - 1))
    assert len(caught.value.faults) == 2


def npy_bytes(header: str) -> bytes:
    """An .npy file with this header and eight bytes of data."""
    out = io.BytesIO()
    text = header.ljust(118).encode() + b"\n"
    out.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8))
    return out.getvalue()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000), }",
            "but 8 bytes follow",
        ),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -2, 2), }", "8 bytes|not a sound"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "object array"),
        ("__import__('os').system('true')", "not a sound .npz file"),
        ("{'descr': '|u1'", "not a sound .npz file"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_asked_for(
    header: str, message: str, tmp_path: Path
) -> None:
    """A terabyte promised by a few bytes is not allocated, and a header is no code."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(header))
        archive.writestr("y.npy", npy_bytes(header))
    with pytest.raises(DataError, match=message):
        read_arrays(path)


def test_a_file_cut_anywhere_is_a_data_error(
    save: Save, drawn: dict[str, Any], tmp_path: Path
) -> None:
    """Never a traceback, at a hundred cuts; nor with a flipped byte, unless the images are as
    they were.
    """
    whole = Path(save("a", x=drawn["x"][:, :4, :4], y=drawn["y"])).read_bytes()
    path = tmp_path / "b.npz"
    for at in range(0, len(whole) - 1, max(1, len(whole) // 100)):
        path.write_bytes(whole[:at])
        with pytest.raises(DataError, match=r"b\.npz"):
            read_arrays(path)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            assert np.array_equal(read_arrays(path).images, drawn["x"][:, :4, :4])
        except DataError:
            continue
