"""Finished stages on disk: ask each question once, resume what was interrupted, never show half an
answer.

    runs/
      format.json                                 the version of this layout
      files/sha256-9c1e....safetensors            arrays and weights, named by their bytes
      embed_task/3f2a9c1d04b7aa10/                a finished call: result, inputs, provenance, log
      train_cell/77e0b1c2aa90ffe1.partial/        interrupted: resumes here

The key of a question is the SHA-256 of the stage's name and version, the seed, and the digests of
all inputs. One rename takes `.partial` away; until then nobody takes the folder for an answer.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints

from lockforge.errors import DataError, IntegrityError
from lockforge.files import Files, held, write_whole, writing
from lockforge.jobs import Executor, Input, InTurn, Job, Task, TaskResult
from lockforge.records import FileRef, Record, canonical_json, sha256_text

FORMAT = 1
WORDS = {  # stages as people read them
    "embed_task": "embed",
    "search_cell": "search",
    "train_cell": "train",
    "adopt_model": "measure",
    "adopt_encoder": "head",
    "prune_model": "prune",
    "audit_transfer": "audit",
    "export_artifact": "export",
    "score_cells": "score",
    "fit_predictor": "fit",
}
_KEPT = frozenset({"result.json", "inputs.json", "provenance.json", "log.jsonl", "lock"})
R = TypeVar("R", bound=Record)
StageInput = Input


class Reporter(Protocol):
    """Where progress goes: a terminal, a log, or nowhere."""

    def begin(self, stage: str) -> None:
        """A stage starts."""

    def step(self, done: float, total: float, note: str) -> None:
        """It has come so far."""

    def end(self, stage: str, seconds: float, *, cached: bool, note: str) -> None:
        """It is done, or was found done. Args: note: what was told last of it, nothing where it was
        found.
        """


class Silent:
    """A reporter that says nothing."""

    def begin(self, stage: str) -> None:
        """Say nothing."""

    def step(self, done: float, total: float, note: str) -> None:
        """Say nothing."""

    def end(self, stage: str, seconds: float, *, cached: bool, note: str) -> None:
        """Say nothing."""


def stage(version: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Mark a plain function as a stage whose answers changed `version - 1` times."""

    def mark(function: Callable[..., R]) -> Callable[..., R]:
        function.version = version  # type: ignore[attr-defined]  # a mark that Runs reads
        return function

    return mark


def _say_nothing(_done: float, _total: float, _note: str) -> None:
    pass


def _go_on() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What a stage is handed beside its inputs: none of it decides the outcome but the seed.

    `folder` is the stage's own `.partial` folder: what a stage leaves there is found again when it
    resumes, and gone when it is finished. `pulse` is called now and then by what takes long, and
    raises when it should not go on; `report` calls it too.
    """

    files: Files
    folder: Path
    seed: int
    device: str = "cpu"
    report: Callable[[float, float, str], None] = _say_nothing
    executor: Executor = field(default_factory=InTurn)
    pulse: Callable[[], None] = _go_on

    def spread(
        self, spread: Job[R], pieces: Sequence[tuple[Input, ...]], came: Callable[[int, R], None]
    ) -> None:
        """Have independent pieces of this stage done, each on one thread, and be told of each as it
        comes: its place, what came of it.

        The first that fails, and an error in `came`, stop the others and are raised.
        """
        work = replace(self, report=lambda _done, _total, _note: self.pulse())
        self.executor.run(
            spread,
            [Task(inputs, work) for inputs in pieces],
            lambda done: came(done.place, done.result),
        )

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


class Runs:
    """Ask a stage a question, or find its answer: `do(train_cell, architecture, source,
    recipe.train)`.

    Args: folder: where answers are kept. seed: the recipe's. device: where tensors live. reporter:
        who is told of progress. executor: where independent questions and pieces of them are worked
        out. threads: the recipe's, which several questions at once share.
    Raises: DataError: the folder was written by a newer version. ResourceError: it cannot be
        written to.
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
        self.spent: dict[tuple[str, str], float] = {}
        self.keys: dict[str, list[str]] = {}
        _check_format(folder)

    @property
    def seconds(self) -> dict[str, float]:
        """What the answers have taken, by stage, whenever they were worked out; an answer that was
        asked for twice counts once.
        """
        return {
            stage: round(sum(spent for (of, _), spent in self.spent.items() if of == stage), 3)
            for stage, _ in self.spent
        }

    def key(self, ask: Callable[..., Record], inputs: tuple[StageInput, ...]) -> str:
        """The name of this question: 16 hex digits."""
        parts = [ask.__name__, ask.version, self.seed, [input_digest(value) for value in inputs]]  # type: ignore[attr-defined]
        return sha256_text(canonical_json(parts))[:16]

    def __call__(self, ask: Callable[..., R], *inputs: StageInput) -> R:
        """The answer: read if it is there, worked out if not. The stage is called as `ask(*inputs,
        work=Work)`.

        Raises: IntegrityError: a stored answer was changed. ResourceError: another process works on
            the same question.
        """
        return self.all(ask, [inputs])[0]

    def all(
        self, ask: Callable[..., R], questions: Sequence[tuple[StageInput, ...]]
    ) -> tuple[R, ...]:
        """The answers to several questions that do not need one another, in order; those that are
        missing are worked out at once.

        Each computes on an equal part of the recipe's threads, one at least, so that last digits
        may differ from those of a question asked alone. A question that is asked twice is worked
        out once.

        Raises: IntegrityError: a stored answer was changed. ResourceError: another process works on
            one of these questions.
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
            notes = (
                self._work_out(ask, {key: wanted[key] for key in open_}, open_, len(wanted))
                if open_
                else {}
            )
        result_type: type[R] = get_type_hints(ask)["return"]
        return tuple(
            self._found(name, self._done(name, key), result_type, notes.pop(key, None))
            for key in keys
        )

    def _done(self, name: str, key: str) -> Path:
        return self.folder / name / key

    def write_lock(self, recipe: str) -> Path:
        """Write RECIPE.lock.json: which stage answered under which key, so that a report can be
        traced to its runs.
        """
        path = self.folder / f"{recipe}.lock.json"
        write_whole(path, (json.dumps(self.keys, indent=2, sort_keys=True) + "\n").encode())
        return path

    def _found(self, name: str, done: Path, result_type: type[R], note: str | None) -> R:
        """A stored answer, to the order of its keys what will be found next time. Args: note: told
        last of it, if it is new.
        """
        try:
            result = result_type.from_json((done / "result.json").read_bytes())
            seconds = float(json.loads((done / "provenance.json").read_text())["seconds"])
        except (OSError, ValueError, KeyError, IntegrityError) as error:
            raise IntegrityError(
                f"{done} is not a finished {name}: {error}",
                hint="remove it with `lockforge runs clean` and start again",
            ) from error
        missing = [ref.sha256[:12] for ref in file_refs(result) if not self.files.has(ref)]
        if missing:
            raise IntegrityError(
                f"{done} names files that are gone: {', '.join(missing)}",
                hint=f"delete {done} and start again",
            )
        self.spent[name, done.name] = seconds
        self.reporter.end(name, seconds, cached=note is None, note=note or "")
        return result

    def _work_out(
        self,
        ask: Callable[..., R],
        wanted: Mapping[str, tuple[StageInput, ...]],
        folders: Mapping[str, Path],
        asked: int,
    ) -> dict[str, str]:
        """Work out what is missing, and store each answer as it comes.

        Args: asked: questions with those that were found. Returns: what was told last of each.
        """
        name = ask.__name__
        self.reporter.begin(name)
        progress = dict.fromkeys(wanted, 0.0)
        notes = dict.fromkeys(wanted, "")

        def teller(key: str) -> Callable[[float, float, str], None]:
            def tell(done: float, total: float, note: str) -> None:
                progress[key], notes[key] = done / total if total else 0.0, note
                if len(wanted) > 1:
                    done, total = sum(progress.values()), len(wanted)
                self.reporter.step(done, total, note)

            return tell

        begun, pieces = time.perf_counter(), []
        for key, inputs in wanted.items():
            write_whole(
                folders[key] / "inputs.json",
                canonical_json([input_digest(value) for value in inputs]).encode(),
            )
            pieces.append(
                Task(
                    inputs,
                    Work(
                        self.files, folders[key], self.seed, self.device, teller(key), self.executor
                    ),
                )
            )
        left = dict(zip(wanted, pieces, strict=True))

        def came(done: TaskResult[R]) -> None:
            key = tuple(wanted)[done.place]
            self._store(name, key, folders[key], done)
            del left[key]
            if len(wanted) > 1:
                teller(key)(1, 1, notes[key])

        alone = InTurn() if asked == 1 else self.executor
        try:
            alone.run(Job(ask), pieces, came, threads=max(1, self.threads // asked))
        except BaseException:
            for key in left:
                write_whole(
                    folders[key] / "seconds",
                    str(_spent(folders[key]) + time.perf_counter() - begun).encode(),
                )
            raise
        return notes

    def _store(self, name: str, key: str, partial: Path, done: TaskResult[R]) -> None:
        """Write an answer down; the one rename takes `.partial` away."""
        seconds = round(_spent(partial) + done.seconds, 3)
        write_whole(partial / "result.json", done.result.to_json().encode())
        write_whole(
            partial / "provenance.json",
            json.dumps({"seconds": seconds, "device": self.device}).encode(),
        )
        with writing(name, partial):
            for path in partial.iterdir():
                if path.name not in _KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            partial.rename(self._done(name, key))


def _spent(partial: Path) -> float:
    """Seconds that an interrupted question has taken so far."""
    noted = partial / "seconds"
    return float(noted.read_text()) if noted.is_file() else 0.0


def is_runs_folder(folder: Path) -> bool:
    """Whether a folder carries the mark of a runs folder, `format.json` with a layout's number."""
    mark = folder / "format.json"
    try:
        if mark.is_symlink() or mark.stat().st_size > 1000:
            return False
        tree = json.loads(mark.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.keys() == {"version"} and type(tree["version"]) is int


def _check_format(folder: Path) -> None:
    mark = folder / "format.json"
    if mark.is_file():
        try:
            version = int(json.loads(mark.read_text())["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{mark} cannot be read: {error}", hint="give another folder with --runs"
            ) from error
        if version > FORMAT:
            raise DataError(
                f"{folder} was written by a newer LockForge (layout {version}, this one knows "
                f"{FORMAT})",
                hint="update LockForge or give another folder with --runs",
            )
    else:
        write_whole(mark, json.dumps({"version": FORMAT}).encode())
