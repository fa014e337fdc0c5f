"""Data that needs no download: the handwritten digits of scikit-learn, and drawings.

1,797 grey images, 8 x 8 pixels, 0 to 16 scaled to 0 to 255: Alpaydin and Kaynak 1998, Optical
Recognition of Handwritten Digits, UCI (CC BY 4.0), the test part. No two are equal.

    digits          all ten
    digits:0-4      some of them
    digits:5-9/a    half of each digit's images, decided by content; /b is the other half

2,000 drawn colour images, 32 x 32 pixels (`data._synthetic`), always the same ones; each name has
images of its own.

    drawings:figure, drawings:colour, drawings:texture
"""

import re
from functools import cache

import numpy as np

from lockforge.data._raw_images import UNDECIDED, Decoded, content_hashes
from lockforge.data._synthetic import NAMES, Answer, draw_images
from lockforge.errors import DataError
from lockforge.randomness import numpy_generator

DEFAULT: tuple[str, tuple[str, ...], tuple[str, ...]] = (
    "digits:0-4",
    ("digits:5-9/a",),
    ("digits:5-9/b",),
)
_NAME = re.compile(r"digits(?::(\d)-(\d)(?:/([ab]))?)?")
_DRAWINGS = 2000
_KNOWN = "digits, digits:0-4, digits:5-9, digits:5-9/a, digits:5-9/b, " + ", ".join(
    f"drawings:{answer}" for answer in NAMES
)


def is_builtin(place: str) -> bool:
    """Whether a place is a built-in name; a folder of that name is given as ./NAME."""
    return place == "digits" or place.startswith(("digits:", "drawings:"))


def read_builtin(place: str) -> Decoded:
    """Read a built-in data set by its name.

    Raises: DataError: no such built-in name.

    >>> read_builtin("digits:0-1").classes
    ('0', '1')
    """
    drawings: dict[str, Answer] = {f"drawings:{answer}": answer for answer in NAMES}
    if place in drawings:
        return draw_images(_DRAWINGS, numpy_generator(0, "builtin", place), side=32).asked(
            drawings[place]
        )
    match = _NAME.fullmatch(place)
    first, last, half = match.groups() if match else ("1", "0", None)
    low, high = int(first or 0), int(last or 9)
    if low >= high:
        raise DataError(f"there is no built-in data set {place!r}", hint=f"use one of {_KNOWN}")
    whole = _digits()
    rows = np.flatnonzero((whole.labels >= low) & (whole.labels <= high))
    if half:
        rows = rows[_half(whole, rows) == (half == "b")]
    classes = tuple(str(digit) for digit in range(low, high + 1))
    return Decoded(whole.images[rows], whole.labels[rows] - low, whole.split[rows], classes)


def _half(whole: Decoded, rows: np.ndarray) -> np.ndarray:
    """0 or 1 by turns along each class's content hashes in order; equal images get the same."""
    keys = content_hashes(whole.images[rows]).view("S16").ravel()
    half = np.empty(len(rows), np.int64)
    for label in np.unique(whole.labels[rows]):
        mine = whole.labels[rows] == label
        half[mine] = np.unique(keys[mine], return_inverse=True)[1] % 2
    return half


@cache
def _digits() -> Decoded:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.floor(raw.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int64)
    return Decoded(images, labels, np.full(len(labels), UNDECIDED, np.uint8), tuple("0123456789"))
