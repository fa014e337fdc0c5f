"""Finished stages on disk: ask each question once, resume what was interrupted, never show half an answer.

    runs/
      format.json                                 the version of this layout
      files/sha256-9c1e....safetensors            arrays and weights, named by their bytes
      embed_task/3f2a9c1d04b7aa10/                a finished question: result.json, inputs.json, provenance.json, log.jsonl
      train_cell/77e0b1c2aa90ffe1.partial/        interrupted: resumes here

The key of a question is the SHA-256 of the stage's name and version, the seed, and the digests of all inputs. One rename takes
`.partial` away; until then nobody takes the folder for an answer.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

from lockforge.errors import DataError, IntegrityError, ResourceError
from lockforge.records import FileRef, Record, canonical_json, sha256_text

if TYPE_CHECKING:
    import numpy as np
    import torch

FORMAT = 1
_KEPT = frozenset({"result.json", "inputs.json", "provenance.json", "log.jsonl", "lock"})
R = TypeVar("R", bound=Record)
StageInput = Record | tuple[Any, ...] | str | int | float | bool | None


class Reporter(Protocol):
    """Where progress goes: a terminal, a log, or nowhere."""

    def begin(self, stage: str) -> None:
        """A stage starts."""

    def step(self, done: float, total: float, note: str) -> None:
        """It has come so far."""

    def end(self, stage: str, seconds: float, *, cached: bool) -> None:
        """It is done, or was found done."""


class Silent:
    """A reporter that says nothing."""

    def begin(self, stage: str) -> None:
        """Say nothing."""

    def step(self, done: float, total: float, note: str) -> None:
        """Say nothing."""

    def end(self, stage: str, seconds: float, *, cached: bool) -> None:
        """Say nothing."""


def stage(version: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Mark a plain function as a stage whose answers changed `version - 1` times."""

    def mark(function: Callable[..., R]) -> Callable[..., R]:
        function.version = version  # type: ignore[attr-defined]  # a mark that Runs reads
        return function

    return mark


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
        if error.errno in hints or isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            raise ResourceError(
                f"{what} cannot be written to {where}: {error.strerror}", hint=hints.get(error.errno or 0, "give another folder")
            ) from error
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises: ResourceError: the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(out: Path, what: str) -> Iterator[Path]:
    """A folder to fill beside its place, renamed there at the end: what is at `out` is whole, and what was there until then is replaced.

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
                f"{path} is missing", hint="remove the run that names it with `lockforge runs clean` and start again"
            ) from error
        if found != ref.sha256:
            raise IntegrityError(f"{path} holds other bytes (sha256 {found[:12]})", hint="delete that file and start again")
        self.checked.add(ref.sha256)

    def put_arrays(self, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> FileRef:
        """Store numpy arrays as safetensors, a piece at a time, so that they need not fit in memory."""
        import hashlib

        from lockforge.tensors import pieces_of_file

        part = self.root / f".{os.getpid()}.part"
        made, size = hashlib.sha256(), 0
        with writing("arrays", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as out:
                    for piece in pieces_of_file(arrays):
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
        """Arrays whose pages are read from the file when they are used. They may be written to: the file does not change.

        Raises: IntegrityError: missing, or not what was stored.
        """
        from lockforge.tensors import map_file

        if ref.sha256 not in self.checked:
            self._check(ref)
        return map_file(self.path(ref))

    def put_tensors(self, tensors: Mapping[str, "torch.Tensor"]) -> FileRef:
        """Store torch tensors as safetensors."""
        from safetensors.torch import save

        return self.put(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

    def get_tensors(self, ref: FileRef) -> dict[str, "torch.Tensor"]:
        """Read torch tensors, on the CPU."""
        from safetensors.torch import load

        return dict(load(self.get(ref)))


def _say_nothing(_done: float, _total: float, _note: str) -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What a stage is handed beside its inputs: none of it decides the outcome but the seed.

    `folder` is the stage's own `.partial` folder: what a stage leaves there is found again when it resumes, and gone when it is finished.
    """

    files: Files
    folder: Path
    seed: int
    device: str = "cpu"
    report: Callable[[float, float, str], None] = _say_nothing

    def log(self, **fields: Any) -> None:
        """Append one line to the stage's log.jsonl."""
        with writing("log.jsonl", self.folder), (self.folder / "log.jsonl").open("a") as out:
            out.write(json.dumps(fields, sort_keys=True) + "\n")


def input_digest(value: Any) -> str:
    """The digest of one input of a stage: a record, a tuple of inputs, or a plain value."""
    match value:
        case Record():
            return value.digest
        case tuple():
            return sha256_text(canonical_json([input_digest(item) for item in value]))
        case None | str() | bool() | int() | float():
            return sha256_text(canonical_json(value))
    raise TypeError(f"a stage takes records, tuples and plain values, not {type(value).__name__}")


def file_refs(value: Any) -> Iterator[FileRef]:
    """Every FileRef inside a record."""
    match value:
        case FileRef():
            yield value
        case Record():
            for name in type(value).model_fields:
                yield from file_refs(getattr(value, name))
        case tuple():
            for item in value:
                yield from file_refs(item)
        case dict():
            for item in value.values():
                yield from file_refs(item)


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
                f"{path.parent} is in use by another process", hint="wait for it, or give another folder with --runs"
            ) from error
        yield lock


def in_use(folder: Path) -> bool:
    """Whether a process holds the lock of an unfinished question's folder; nothing is written there."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Runs:
    """Ask a stage a question, or find its answer: `do(train_cell, architecture, source, recipe.train)`.

    Args: folder: where answers are kept. seed: the recipe's. device: where tensors live. reporter: who is told of progress.
    Raises: DataError: the folder was written by a newer version. ResourceError: it cannot be written to.
    """

    def __init__(self, folder: Path, *, seed: int, device: str = "cpu", reporter: Reporter | None = None) -> None:
        self.folder = folder
        self.seed = seed
        self.device = device
        self.reporter: Reporter = reporter or Silent()
        self.files = Files(folder / "files")
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.keys: dict[str, list[str]] = {}
        _check_format(folder)

    def key(self, ask: Callable[..., Record], inputs: tuple[StageInput, ...]) -> str:
        """The name of this question: 16 hex digits."""
        parts = [ask.__name__, ask.version, self.seed, [input_digest(value) for value in inputs]]  # type: ignore[attr-defined]
        return sha256_text(canonical_json(parts))[:16]

    def __call__(self, ask: Callable[..., R], *inputs: StageInput) -> R:
        """The answer: read if it is there, worked out if not. The stage is called as `ask(*inputs, work=Work)`.

        Raises: IntegrityError: a stored answer was changed. ResourceError: another process works on the same question.
        """
        name, key = ask.__name__, self.key(ask, inputs)
        self.keys.setdefault(name, []).append(key)
        done = self.folder / name / key
        result_type: type[R] = get_type_hints(ask)["return"]
        if done.is_dir():
            return self._found(name, done, result_type)
        partial = done.with_name(f"{key}.partial")
        with held(partial / "lock"):
            if done.is_dir():
                shutil.rmtree(partial)
                return self._found(name, done, result_type)
            return self._work_out(ask, inputs, done, partial)

    def write_lock(self, recipe: str) -> Path:
        """Write RECIPE.lock.json: which stage answered under which key, so that a report can be traced to its runs."""
        path = self.folder / f"{recipe}.lock.json"
        write_whole(path, (json.dumps(self.keys, indent=2, sort_keys=True) + "\n").encode())
        return path

    def _found(self, name: str, done: Path, result_type: type[R]) -> R:
        try:
            result = result_type.from_json((done / "result.json").read_bytes())
            seconds = float(json.loads((done / "provenance.json").read_text())["seconds"])
        except (OSError, ValueError, KeyError, IntegrityError) as error:
            raise IntegrityError(
                f"{done} is not a finished {name}: {error}", hint="remove it with `lockforge runs clean` and start again"
            ) from error
        missing = [ref.sha256[:12] for ref in file_refs(result) if not self.files.has(ref)]
        if missing:
            raise IntegrityError(f"{done} names files that are gone: {', '.join(missing)}", hint=f"delete {done} and start again")
        self._count(name, seconds)
        self.reporter.end(name, seconds, cached=True)
        return result

    def _work_out(self, ask: Callable[..., R], inputs: tuple[StageInput, ...], done: Path, partial: Path) -> R:
        name = ask.__name__
        self.reporter.begin(name)
        spent = partial / "seconds"
        before = float(spent.read_text()) if spent.is_file() else 0.0
        started = time.perf_counter()
        work = Work(files=self.files, folder=partial, seed=self.seed, device=self.device, report=self.reporter.step)
        write_whole(partial / "inputs.json", canonical_json([input_digest(value) for value in inputs]).encode())
        try:
            result = ask(*inputs, work=work)
        except BaseException:
            write_whole(spent, str(before + time.perf_counter() - started).encode())
            raise
        seconds = before + time.perf_counter() - started
        write_whole(partial / "result.json", result.to_json().encode())
        write_whole(partial / "provenance.json", json.dumps({"seconds": round(seconds, 3), "device": self.device}).encode())
        with writing(name, done):
            for path in partial.iterdir():
                if path.name not in _KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            partial.rename(done)
        self._count(name, seconds)
        self.reporter.end(name, seconds, cached=False)
        return type(result).from_json(result.to_json())  # what will be found next time, to the order of its keys

    def _count(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)


def _check_format(folder: Path) -> None:
    mark = folder / "format.json"
    if mark.is_file():
        try:
            version = int(json.loads(mark.read_text())["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{mark} cannot be read: {error}", hint="give another folder with --runs") from error
        if version > FORMAT:
            raise DataError(
                f"{folder} was written by a newer LockForge (layout {version}, this one knows {FORMAT})",
                hint="update LockForge or give another folder with --runs",
            )
    else:
        write_whole(mark, json.dumps({"version": FORMAT}).encode())


@dataclass(frozen=True)
class RunEntry:
    """One line of `lockforge runs list`."""

    stage: str
    key: str
    finished: bool
    seconds: float
    bytes: int


def list_runs(folder: Path) -> tuple[RunEntry, ...]:
    """Every finished and interrupted question below a runs folder."""
    entries = []
    for path in sorted(folder.glob("*/*")):
        if not path.is_dir() or path.parent.name == "files":
            continue
        finished = not path.name.endswith(".partial")
        noted = path / "provenance.json"
        seconds = float(json.loads(noted.read_text())["seconds"]) if finished and noted.is_file() else 0.0
        size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
        entries.append(RunEntry(path.parent.name, path.name.removesuffix(".partial"), finished, seconds, size))
    return tuple(entries)


def clean_runs(folder: Path, *, everything: bool) -> tuple[int, int]:
    """Remove interrupted questions (all questions and files when `everything`).

    Returns: how many folders or files were removed, and their bytes.
    Raises: ResourceError: one of them is in use.
    """
    removed = freed = 0
    for path in sorted(folder.glob("*/*")):
        if not everything and not path.name.endswith(".partial"):
            continue
        with contextlib.ExitStack() as stack:
            if path.is_dir() and path.name.endswith(".partial"):
                stack.enter_context(held(path / "lock"))
            freed += sum(item.stat().st_size for item in (path.rglob("*") if path.is_dir() else (path,)) if item.is_file())
            with writing("nothing", path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        removed += 1
    return removed, freed
