"""Bytes on disk: written whole or not at all, named by their hash, held by one process at a
time.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lockforge.errors import IntegrityError, ResourceError
from lockforge.records import FileRef

if TYPE_CHECKING:
    import numpy as np
    import torch


def cache_folder() -> Path:
    """`lockforge` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "lockforge"


@contextlib.contextmanager
def writing(what: str, where: Path) -> Iterator[None]:
    """Turn the disk's refusals into a ResourceError that names the place."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space or give another folder",
            errno.EACCES: "give a folder you may write to",
            errno.EPERM: "give a folder you may write to",
            errno.EROFS: "give a folder you may write to",
        }
        if error.errno in hints or isinstance(
            error, NotADirectoryError | FileExistsError | IsADirectoryError
        ):
            raise ResourceError(
                f"{what} cannot be written to {where}: {error.strerror}",
                hint=hints.get(error.errno or 0, "give another folder"),
            ) from error
        raise


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file, at once or in pieces, so that it is there whole or not at all.

    Raises: ResourceError: the disk refuses.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with writing(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                out.writelines([data] if isinstance(data, bytes) else data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_arrays(
    path: Path, arrays: Mapping[str, "np.ndarray[Any, Any]"], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, there whole or not at all, without a copy of the arrays.

    Raises: ResourceError: the disk refuses.
    """
    from lockforge.tensors import chunks_of_file

    write_whole(path, chunks_of_file(arrays, metadata))


@contextlib.contextmanager
def whole_folder(out: Path, what: str) -> Iterator[Path]:
    """A folder to fill beside its place, renamed there at the end: what is at `out` is whole, and
    what was there until then is replaced.

    Raises: ResourceError: the disk refuses.
    """
    with writing(what, out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        try:
            yield part
            mask = os.umask(0)
            os.umask(mask)
            part.chmod(0o777 & ~mask)
            old = part.with_suffix(".old")
            if out.exists():
                out.rename(old)
            part.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class Files:
    """Bytes by their hash, below one folder."""

    root: Path
    checked: set[str] = field(default_factory=set, compare=False, repr=False)

    def path(self, ref: FileRef) -> Path:
        """Where the bytes lie."""
        return self.root / f"sha256-{ref.sha256}"

    def put(self, data: bytes) -> FileRef:
        """Store bytes; the same bytes are stored once."""
        import hashlib

        ref = FileRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        if not self.has(ref):
            write_whole(self.path(ref), data)
        return ref

    def has(self, ref: FileRef) -> bool:
        """Whether a file of that name and size is there."""
        path = self.path(ref)
        return path.is_file() and path.stat().st_size == ref.size

    def get(self, ref: FileRef) -> bytes:
        """The bytes, checked against their name.

        Raises: IntegrityError: missing, or not what was stored.
        """
        if ref.sha256 not in self.checked:
            self._check(ref)
        return self.path(ref).read_bytes()

    def _check(self, ref: FileRef) -> None:
        import hashlib

        path = self.path(ref)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise IntegrityError(
                f"{path} is missing",
                hint="remove the run that names it with `lockforge runs clean` and start again",
            ) from error
        if found != ref.sha256:
            raise IntegrityError(
                f"{path} holds other bytes (sha256 {found[:12]})",
                hint="delete that file and start again",
            )
        self.checked.add(ref.sha256)

    def put_arrays(self, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> FileRef:
        """Store numpy arrays as safetensors, a piece at a time, so that they need not fit in
        memory.
        """
        import hashlib

        from lockforge.tensors import chunks_of_file

        part = self.root / f".{uuid.uuid4().hex}.part"
        made, size = hashlib.sha256(), 0
        with writing("arrays", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as out:
                    for piece in chunks_of_file(arrays):
                        made.update(piece)
                        size += out.write(piece)
                    out.flush()
                    os.fsync(out.fileno())
                ref = FileRef(sha256=made.hexdigest(), size=size)
                if not self.has(ref):
                    part.replace(self.path(ref))
            finally:
                part.unlink(missing_ok=True)
        return ref

    def get_arrays(self, ref: FileRef) -> dict[str, "np.ndarray[Any, Any]"]:
        """Read numpy arrays."""
        from safetensors.numpy import load

        return dict(load(self.get(ref)))

    def map_arrays(self, ref: FileRef) -> dict[str, "np.ndarray[Any, Any]"]:
        """Arrays whose pages are read from the file when they are used. They may be written to: the
        file does not change.

        Raises: IntegrityError: missing, or not what was stored.
        """
        from lockforge.tensors import map_file

        if ref.sha256 not in self.checked:
            self._check(ref)
        return map_file(self.path(ref))

    def put_tensors(self, tensors: Mapping[str, "torch.Tensor"]) -> FileRef:
        """Store torch tensors as safetensors."""
        from safetensors.torch import save

        return self.put(
            save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        )

    def get_tensors(self, ref: FileRef) -> dict[str, "torch.Tensor"]:
        """Read torch tensors, on the CPU."""
        from safetensors.torch import load

        return dict(load(self.get(ref)))


@contextlib.contextmanager
def held(path: Path) -> Iterator[IO[str]]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends."""
    with writing("a lock", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(
                f"{path.parent} is in use by another process",
                hint="wait for it, or give another folder with --runs",
            ) from error
        yield lock
