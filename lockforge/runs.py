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
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

from lockforge.errors import DataError, IntegrityError, ResourceError
from lockforge.pieces import Done, Executor, Input, InTurn, Piece, Spread
from lockforge.records import FileRef, Record, canonical_json, sha256_text

if TYPE_CHECKING:
    import numpy as np
    import torch

FORMAT = 1
_KEPT = frozenset({"result.json", "inputs.json", "provenance.json", "log.jsonl", "lock"})
R = TypeVar("R", bound=Record)
StageInput = Input


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


def write_arrays(path: Path, arrays: Mapping[str, "np.ndarray[Any, Any]"], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, there whole or not at all, without a copy of the arrays.

    Raises: ResourceError: the disk refuses.
    """
    from lockforge.tensors import pieces_of_file

    write_whole(path, pieces_of_file(arrays, metadata))


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

        part = self.root / f".{uuid.uuid4().hex}.part"
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


def _go_on() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What a stage is handed beside its inputs: none of it decides the outcome but the seed.

    `folder` is the stage's own `.partial` folder: what a stage leaves there is found again when it resumes, and gone when it is finished.
    `pulse` is called now and then by what takes long, and raises when it should not go on; `report` calls it too.
    """

    files: Files
    folder: Path
    seed: int
    device: str = "cpu"
    report: Callable[[float, float, str], None] = _say_nothing
    executor: Executor = field(default_factory=InTurn)
    pulse: Callable[[], None] = _go_on

    def spread(self, spread: Spread[R], pieces: Sequence[tuple[Input, ...]], came: Callable[[int, R], None]) -> None:
        """Have independent pieces of this stage done, each on one thread, and be told of each as it comes: its place, what came of it.

        The first that fails, and an error in `came`, stop the others and are raised.
        """
        work = replace(self, report=lambda _done, _total, _note: self.pulse())
        self.executor.run(spread, [Piece(inputs, work) for inputs in pieces], lambda done: came(done.place, done.result))

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


class Runs:
    """Ask a stage a question, or find its answer: `do(train_cell, architecture, source, recipe.train)`.

    Args: folder: where answers are kept. seed: the recipe's. device: where tensors live. reporter: who is told of progress. executor: where
        independent questions and pieces of them are worked out. threads: the recipe's, which several questions at once share.
    Raises: DataError: the folder was written by a newer version. ResourceError: it cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        device: str = "cpu",
        reporter: Reporter | None = None,
        executor: Executor | None = None,
        threads: int = 1,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.device = device
        self.reporter: Reporter = reporter or Silent()
        self.executor: Executor = executor or InTurn()
        self.threads = threads
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
        return self.all(ask, [inputs])[0]

    def all(self, ask: Callable[..., R], questions: Sequence[tuple[StageInput, ...]]) -> tuple[R, ...]:
        """The answers to several questions that do not need one another, in order; those that are missing are worked out at once.

        Each computes on an equal part of the recipe's threads, one at least. A question that is asked twice is worked out once.

        Raises: IntegrityError: a stored answer was changed. ResourceError: another process works on one of these questions.
        """
        name = ask.__name__
        keys = [self.key(ask, inputs) for inputs in questions]
        self.keys.setdefault(name, []).extend(keys)
        wanted = dict(zip(keys, questions, strict=True))
        with contextlib.ExitStack() as stack:
            open_: dict[str, Path] = {}
            for key in wanted:
                partial = self.folder / name / f"{key}.partial"
                if self._done(name, key).is_dir():
                    continue
                stack.enter_context(held(partial / "lock"))
                if self._done(name, key).is_dir():
                    shutil.rmtree(partial)
                else:
                    open_[key] = partial
            if open_:
                self._work_out(ask, {key: wanted[key] for key in open_}, open_, len(wanted))
        result_type: type[R] = get_type_hints(ask)["return"]
        return tuple(self._found(name, self._done(name, key), result_type, cached=key not in open_) for key in keys)

    def _done(self, name: str, key: str) -> Path:
        return self.folder / name / key

    def write_lock(self, recipe: str) -> Path:
        """Write RECIPE.lock.json: which stage answered under which key, so that a report can be traced to its runs."""
        path = self.folder / f"{recipe}.lock.json"
        write_whole(path, (json.dumps(self.keys, indent=2, sort_keys=True) + "\n").encode())
        return path

    def _found(self, name: str, done: Path, result_type: type[R], *, cached: bool) -> R:
        """A stored answer, to the order of its keys what will be found next time."""
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
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)
        self.reporter.end(name, seconds, cached=cached)
        return result

    def _work_out(
        self, ask: Callable[..., R], wanted: Mapping[str, tuple[StageInput, ...]], folders: Mapping[str, Path], asked: int
    ) -> None:
        """Work out what is missing, and store each answer as it comes. Args: asked: questions with those that were found."""
        name = ask.__name__
        self.reporter.begin(name)
        progress = dict.fromkeys(wanted, 0.0)
        notes: dict[str, str] = {}

        def teller(key: str) -> Callable[[float, float, str], None]:
            def tell(done: float, total: float, note: str) -> None:
                if len(wanted) == 1:
                    self.reporter.step(done, total, note)
                    return
                progress[key], notes[key] = done / total if total else 0.0, note
                self.reporter.step(sum(progress.values()), len(wanted), note)

            return tell

        begun, pieces = time.perf_counter(), []
        for key, inputs in wanted.items():
            write_whole(folders[key] / "inputs.json", canonical_json([input_digest(value) for value in inputs]).encode())
            pieces.append(Piece(inputs, Work(self.files, folders[key], self.seed, self.device, teller(key), self.executor)))
        left = dict(zip(wanted, pieces, strict=True))

        def came(done: Done[R]) -> None:
            key = tuple(wanted)[done.place]
            self._store(name, key, folders[key], done)
            del left[key]
            teller(key)(1, 1, notes.get(key, ""))

        alone = InTurn() if asked == 1 else self.executor
        try:
            alone.run(Spread(ask), pieces, came, threads=max(1, self.threads // asked))
        except BaseException:
            for key in left:
                write_whole(folders[key] / "seconds", str(_spent(folders[key]) + time.perf_counter() - begun).encode())
            raise

    def _store(self, name: str, key: str, partial: Path, done: Done[R]) -> None:
        """Write an answer down; the one rename takes `.partial` away."""
        seconds = round(_spent(partial) + done.seconds, 3)
        write_whole(partial / "result.json", done.result.to_json().encode())
        write_whole(partial / "provenance.json", json.dumps({"seconds": seconds, "device": self.device}).encode())
        with writing(name, partial):
            for path in partial.iterdir():
                if path.name not in _KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            partial.rename(self._done(name, key))


def _spent(partial: Path) -> float:
    """Seconds that an interrupted question has taken so far."""
    noted = partial / "seconds"
    return float(noted.read_text()) if noted.is_file() else 0.0


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
