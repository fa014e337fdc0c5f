"""Bytes of any kind are a data set or a data fault: no other exception, no hang, no memory beyond
the file's own size.
"""

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lockforge.data.images import read_images
from lockforge.errors import DataError, ResourceError
from lockforge.recipe import DataRecipe

MOST = 200 * 2**20  # bytes: what a decoder may take, for files of some hundred
BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1))


def read_or_refuse(place: Path, recipe: DataRecipe | None = None) -> None:
    """Reads, or raises a data or resource fault; memory is bounded."""
    tracemalloc.start()
    with contextlib.suppress(DataError, ResourceError):
        read_images(str(place), recipe or DataRecipe(size=8))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < MOST


def spoil(data: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    """Bytes with some of them replaced."""
    made = bytearray(data)
    for at, new in cuts:
        start = at % max(1, len(made))
        made[start : start + len(new)] = new
    return bytes(made)


CUTS = st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=6)), max_size=6)


@BOUNDED
@given(
    kind=st.integers(0, 255),
    axes=st.lists(SIZES, max_size=5),
    body=st.binary(max_size=300),
    packed=st.booleans(),
    cuts=CUTS,
)
def test_any_idx_file(
    tmp_path: Path,
    kind: int,
    axes: list[int],
    body: bytes,
    packed: bool,
    cuts: list[tuple[int, bytes]],
) -> None:
    """Any header, any body, packed or not, spoilt or not."""
    data = struct.pack(f">HBB{len(axes)}I", 0, kind, len(axes), *axes) + body
    data = spoil(gzip.compress(data) if packed else data, cuts)
    ending = ".gz" if packed else ""
    folder = tmp_path / ending.strip(".")
    folder.mkdir(exist_ok=True)
    (folder / f"train-images-idx3-ubyte{ending}").write_bytes(data)
    (folder / "train-labels-idx1-ubyte").write_bytes(
        struct.pack(">HBBI", 0, 8, 1, 6) + bytes([0, 1, 2, 0, 1, 2])
    )
    read_or_refuse(folder)


@BOUNDED
@given(
    header=st.text(max_size=80),
    shape=st.lists(SIZES, max_size=5),
    body=st.binary(max_size=300),
    cuts=CUTS,
)
def test_any_npy_header(
    tmp_path: Path, header: str, shape: list[int], body: bytes, cuts: list[tuple[int, bytes]]
) -> None:
    """A header of any words, or a well-formed one of any shape, in a sound or a spoilt archive."""
    for number, words in enumerate(
        (header, f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(shape)}, }}")
    ):
        text = words.encode("utf-8", "replace")
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("x.npy", array)
            labels = io.BytesIO()
            np.save(labels, np.arange(6) % 3)
            out.writestr("y.npy", labels.getvalue())
        place = tmp_path / f"{number}.npz"
        place.write_bytes(spoil(archive.getvalue(), cuts))
        read_or_refuse(place)


@pytest.fixture(scope="module")
def encoded() -> dict[str, bytes]:
    """One small image in every format that is read."""
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    found = {}
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        out = io.BytesIO()
        image.save(out, kind)
        found[kind] = out.getvalue()
    return found


@BOUNDED
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]),
    cuts=CUTS,
    length=st.integers(0, 2000),
    skip=st.booleans(),
)
def test_any_image_bytes(
    tmp_path: Path,
    encoded: dict[str, bytes],
    kind: str,
    cuts: list[tuple[int, bytes]],
    length: int,
    skip: bool,
) -> None:
    """Spoilt and cut images of every format among sound ones, listed or skipped."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir(exist_ok=True)
        for at in range(3):
            (tmp_path / name / f"{at}.png").write_bytes(encoded["PNG"])
    (tmp_path / "dog" / "odd.png").write_bytes(spoil(encoded[kind], cuts)[:length])
    read_or_refuse(tmp_path, DataRecipe(size=8, skip_unreadable=skip))


@BOUNDED
@given(body=st.binary(max_size=400), cuts=CUTS)
def test_any_parquet_file(
    tmp_path: Path, make_table: Callable[[], bytes], body: bytes, cuts: list[tuple[int, bytes]]
) -> None:
    """A spoilt table, and bytes that only end as one does."""
    for number, data in enumerate((spoil(make_table(), cuts), b"PAR1" + body + b"PAR1")):
        place = tmp_path / f"{number}.parquet"
        place.write_bytes(data)
        read_or_refuse(place)


@pytest.fixture(scope="module")
def make_table(encoded: dict[str, bytes]) -> Callable[[], bytes]:
    """The bytes of a sound table of six images."""
    pa = pytest.importorskip("pyarrow", reason="the extra `tables` is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `tables` is not installed")
    out = io.BytesIO()
    pq.write_table(
        pa.table({"image": [{"bytes": encoded["PNG"], "path": None}] * 6, "label": [0, 1, 2] * 2}),
        out,
    )
    return out.getvalue
