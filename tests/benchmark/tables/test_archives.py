"""Files that pickles come in: plain, packed, torch's two formats; damaged, hostile or too large
ones are refused.
"""

import bz2
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockforge.benchmark.tables import _archives as archives
from lockforge.benchmark.tables._archives import digest_of, read_archive
from lockforge.benchmark.tables._stand_ins import StubObject
from lockforge.benchmark.tables._streams import Limits
from lockforge.errors import DataError

GIVEN = {
    "meta_archs": ["a", "b"],
    ("cifar10", 777): {"x@1": 2.5, "n": np.float64(3)},
    "set": {1, 2},
    "none": None,
}


def torch_bytes(value: Any, *, zipped: bool) -> bytes:
    """A file as torch writes it."""
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "plain": pickle.dumps,
    "packed": lambda value: bz2.compress(pickle.dumps(value, 4)),
    "torch zip": lambda value: torch_bytes(value, zipped=True),
    "torch legacy": lambda value: torch_bytes(value, zipped=False),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_read(kind: str, tmp_path: Path) -> None:
    """The same values out of each, whatever the file is called."""
    path = tmp_path / "file.bin"
    path.write_bytes(WRITERS[kind](GIVEN))
    assert read_archive(path) == GIVEN


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_passed_over(zipped: bool, tmp_path: Path) -> None:
    """Tensors become holders without numbers; the results beside them are read."""
    layer = torch.nn.Linear(3, 2)
    path = tmp_path / "file.pth"
    path.write_bytes(
        torch_bytes(
            {
                "net": layer.state_dict(),
                "one": torch.ones(2),
                "acc": 91.5,
                "size": torch.Size([2, 3]),
            },
            zipped=zipped,
        )
    )
    found = read_archive(path)
    assert found == {
        "net": OrderedDict(
            weight=StubObject("torch Tensor", ()), bias=StubObject("torch Tensor", ())
        ),
        "one": StubObject("torch Tensor", ()),
        "acc": 91.5,
        "size": (2, 3),
    }


def test_tensors_in_a_plain_pickle_are_passed_over_too(tmp_path: Path) -> None:
    """Their storages are whole torch files inside the pickle, which are not opened."""
    path = tmp_path / "file.pickle"
    path.write_bytes(pickle.dumps({"one": torch.ones(2), "acc": 91.5}))
    assert read_archive(path) == {"one": StubObject("torch Tensor", ()), "acc": 91.5}


def zip_of(**changes: Any) -> bytes:
    """A zip file; `names` maps members to bytes, `packed` says how they are stored."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", changes.get("packed", zipfile.ZIP_STORED)) as archive:
        for name, data in changes["names"]:
            archive.writestr(name, data)
    return out.getvalue()


ONE = pickle.dumps([1.5])
REFUSED = {
    "a packed member": (
        zip_of(names=[("a/data.pkl", ONE)], packed=zipfile.ZIP_DEFLATED),
        "packed or locked",
    ),
    "a zip bomb": (
        zip_of(names=[("a/data.pkl", bytes(2**24))], packed=zipfile.ZIP_DEFLATED),
        "packed or locked",
    ),
    "no pickle": (zip_of(names=[("a/version", b"3")]), "0 members are called data.pkl"),
    "two pickles": (
        zip_of(names=[("a/data.pkl", ONE), ("a/data/data.pkl", ONE)]),
        "2 members are called data.pkl",
    ),
    "a way out": (
        zip_of(names=[("a/data.pkl", ONE), ("a/../../x", b"")]),
        "a name that torch does not give",
    ),
    "an absolute name": (
        zip_of(names=[("a/data.pkl", ONE), ("/etc/x", b"")]),
        "a name that torch does not give",
    ),
    "two folders": (zip_of(names=[("a/data.pkl", ONE), ("b/version", b"3")]), "2 folders"),
    "a zip cut short": (zip_of(names=[("a/data.pkl", ONE)])[:-30], "not a zip file"),
    "a damaged member": (
        zip_of(names=[("a/data.pkl", ONE)]).replace(struct.pack(">d", 1.5), struct.pack(">d", 2.5)),
        "Bad CRC-32",
    ),
    "bz2 cut short": (bz2.compress(ONE)[:-8], "ended before"),
    "no bz2": (b"BZh9" + bytes(100), "Invalid data stream"),
    "a bz2 bomb": (bz2.compress(b"\x80\x04" + b"N0" * 2**22 + b"."), "unpacks to more"),
    "something behind": (ONE + b"x", "follows the end"),
    "another torch": (pickle.dumps(archives._MAGIC) + pickle.dumps(1002), "another version"),
    "torch cut short": (pickle.dumps(archives._MAGIC) + pickle.dumps(1001), "cut short"),
    "a program": (b"\x7fELF" + bytes(100), "not understood"),
    "nothing": (b"", "cut short"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_benchmark_file_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    """A DataError that names the file and the reason."""
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"file\.pth") as caught:
        read_archive(path)
    assert said in str(caught.value)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """Readers do not agree on which of them counts."""
    path = tmp_path / "file.pth"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(
            zip_of(names=[("a/data.pkl", ONE), ("a/version", b"2"), ("a/version", b"3")])
        )
    with pytest.raises(DataError) as caught:
        read_archive(path)
    assert "members of one name" in caught.value.faults


def test_an_index_is_not_read_at_the_size_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip file whose index is larger than any of torch's is refused before it is in memory."""
    monkeypatch.setattr(archives, "_LARGEST_INDEX", 2**16)
    path = tmp_path / "file.pth"
    path.write_bytes(
        zip_of(names=[("a/data.pkl", ONE), *((f"a/data/{at}", b"") for at in range(2000))])
    )
    with pytest.raises(DataError, match="index of more than"):
        read_archive(path)


def test_what_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    """A missing file, and a limit that is given."""
    with pytest.raises(DataError, match="No such file"):
        read_archive(tmp_path / "none.pth")
    (tmp_path / "large.pickle").write_bytes(pickle.dumps(b"a" * 5000))
    with pytest.raises(DataError, match="unpacks to more than 1000"):
        read_archive(tmp_path / "large.pickle", limits=Limits(total=1000))


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    """Of a folder: it follows from names and bytes, in whatever order they were written."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        for part in "xy" if name == "b" else "yx":
            (tmp_path / name / part).write_text(part)
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "a" / "x").write_text("z")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")
    (tmp_path / "empty").write_bytes(b"")
    assert digest_of(tmp_path / "empty").startswith("e3b0c442")


FILES = [write(GIVEN) for write in WRITERS.values()]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=4)), min_size=1, max_size=3),
    st.integers(0, 3),
)
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, data: bytes, edits: list[tuple[int, bytes]], cut: int
) -> None:
    """Whatever is put in their place, and wherever the file ends: a value or a DataError."""
    for at, put in edits:
        data = data[: at % len(data)] + put + data[at % len(data) + len(put) :]
    path = tmp_path / "file"
    path.write_bytes(data[: len(data) - cut * 37])
    with suppress(DataError):
        read_archive(
            path,
            limits=Limits(total=2**20, instructions=2**16, memory=2**22, stack=2**12, string=2**16),
        )
