"""The files that official benchmarks come in, down to the pickle inside. A locked door: only the
importers of tables and tests open it.

    plain          a pickle (.pickle, .pkl, .p), or the same packed with bz2 (.pbz2)
    torch, legacy  four pickles, then numbers of tensors: a magic number, a version, what the
                   machine was like, the object
    torch, zip     NAME/data.pkl, NAME/version, NAME/data/...: stored, never packed

The numbers of tensors are not read: a benchmark's results are no tensors.
"""

import bz2
import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from lockforge.benchmark.tables._streams import HINT, Limits, Readable, Source
from lockforge.benchmark.tables._unpickled import Fold, read_pickle
from lockforge.errors import DataError

_MAGIC = 0x1950A86A20F9469CFC6C  # of torch's legacy files
_VERSION = 1001
_MOST_PACKED = 100  # times as large: learning curves pack to about a fifth
_LARGEST_INDEX = 2**22  # bytes of a zip file's index
_MEMBER = re.compile(r"[^/\\]+/([^/\\]+|data/[^/\\]+|\.data/[^/\\]+)")


class _Careful(io.RawIOBase):
    """A file that gives no more than `_LARGEST_INDEX` bytes at a time: zipfile reads an index
    whole, as large as it claims to be.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        wanted = _LARGEST_INDEX + 1 if size is None or size < 0 else size
        found = self._file.read(min(wanted, _LARGEST_INDEX + 1))
        if len(found) > _LARGEST_INDEX:
            raise DataError(
                f"{self._name} has an index of more than {_LARGEST_INDEX >> 20} MiB", hint=HINT
            )
        return found


def read_archive(path: Path, *, fold: Fold | None = None, limits: Limits | None = None) -> Any:
    """What the pickle of a file holds, read without running it; see `read_pickle` for what comes
    back and for `fold`.

    Raises: DataError: not there, damaged, beyond a limit, or it names what is not on the list.
    """
    limits = limits or Limits()
    try:
        with _opened(path, limits) as (stream, allowed, zipped):
            source = Source(stream, str(path), allowed)
            found = read_pickle(source, fold=fold, storages=zipped)
            if type(found) is int and found == _MAGIC:
                return _legacy(source, fold)
            if source.read(1):
                source.refuse("something follows the end")
            return found
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        struct.error,
    ) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=HINT) from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; of a folder, of the names and digests of its files.

    Raises: DataError: it cannot be read.
    """
    if path.is_dir():
        lines = [
            f"{digest_of(file)}  {file.name}\n" for file in sorted(path.iterdir()) if file.is_file()
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", hint=HINT) from error


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[Readable, Limits, bool]]:
    """The stream that begins with a pickle, what it may cost, and whether it lies in a zip file."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"BZh"):
            most = _MOST_PACKED * path.stat().st_size + 2**16
            with bz2.open(file) as stream:
                yield stream, replace(limits, total=min(limits.total, most)), False
        elif start == b"PK\x03\x04":
            with (
                zipfile.ZipFile(_Careful(file, str(path))) as archive,
                archive.open(_pickle_in(archive, path)) as stream,
            ):
                yield stream, limits, True
        else:
            yield file, limits, False


def _pickle_in(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = archive.infolist()
    names = [member.filename for member in members]
    found = [member for member in members if member.filename.endswith("/data.pkl")]
    faults = [f"{len(found)} members are called data.pkl, one is needed"] if len(found) != 1 else []
    faults += ["members of one name"] if len(set(names)) < len(names) else []
    folders = {name.split("/", 1)[0] for name in names}
    odd = [name for name in names if not _MEMBER.fullmatch(name) or ".." in name.split("/")]
    faults += (
        [f"{len(odd)} member(s) with a name that torch does not give, the first {odd[0]!r:.100}"]
        if odd
        else []
    )
    faults += [f"{len(folders)} folders, one is needed"] if len(folders) != 1 else []
    packed = [
        member.filename
        for member in members
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1
    ]
    faults += (
        [
            (
                f"{len(packed)} member(s) packed or locked, which torch does not do, the first "
                f"{packed[0]!r:.100}"
            )
        ]
        if packed
        else []
    )
    if faults:
        raise DataError(f"{path} is no file of torch", faults=faults, hint=HINT)
    return found[0]


def _legacy(source: Source, fold: Fold | None) -> Any:
    version = read_pickle(source)
    if type(version) is not int or version != _VERSION:
        source.refuse(f"a torch file of another version than {_VERSION}")
    read_pickle(source)
    return read_pickle(source, fold=fold, storages=True)
