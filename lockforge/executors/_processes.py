"""Pieces in worker processes of this machine; a worker that dies loses the piece it was doing,
which is begun again by another.
"""

import contextlib
import ctypes
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import torch

from lockforge.errors import BUG, ResourceError
from lockforge.executors._messages import answered, ask
from lockforge.jobs import TRIES, Job, Q, Task, TaskResult


class Processes:
    """Worker processes, started when they are first needed and kept for the next stage; they end
    with this process.

    Args: workers: of them; None: torch's threads over those of a piece.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers
        self.idle: "list[_Worker]" = []
        weakref.finalize(self, _end_all, self.idle)

    def run(
        self,
        spread: Job[Q],
        pieces: Sequence[Task],
        came: Callable[[TaskResult[Q]], None],
        *,
        threads: int = 1,
    ) -> None:
        """Do all pieces; see `Executor.run`.

        Raises: ResourceError: a piece's workers died again and again.
        """
        if not pieces:
            return
        count = min(len(pieces), self.workers or max(1, torch.get_num_threads() // threads))
        give_back_memory()
        round_ = _Round([ask(spread, piece, threads) for piece in pieces], self.idle)
        minders = [threading.Thread(target=round_.mind, daemon=True) for _ in range(count)]
        for minder in minders:
            minder.start()
        try:
            for _ in pieces:
                place, text = round_.said()
                came(answered(text, place))
        finally:
            round_.stop()
            for minder in minders:
                minder.join()


class _Round:
    """The pieces of one run, and the workers at them. One thread minds each worker."""

    def __init__(self, requests: Sequence[str], idle: "list[_Worker]") -> None:
        self.requests = requests
        self.idle = idle
        self.tries = [0] * len(requests)
        self.waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.outcomes: queue.SimpleQueue[tuple[int, str | Exception]] = queue.SimpleQueue()
        self.busy: "set[_Worker]" = set()
        self.over = threading.Event()
        for place in range(len(requests)):
            self.waiting.put(place)

    def said(self) -> tuple[int, str]:
        """The next outcome.

        Raises: ResourceError, RuntimeError: a worker could not give one.
        """
        place, said = self.outcomes.get()
        if isinstance(said, Exception):
            raise said
        return place, said

    def stop(self) -> None:
        """No piece is begun any more, and workers that are at one are ended."""
        self.over.set()
        for worker in tuple(self.busy):
            worker.process.kill()
        for _ in range(len(self.requests) + 1):
            self.waiting.put(None)

    def mind(self) -> None:
        """Give a worker one piece after the other; take another one where it dies."""
        worker: "_Worker | None" = None
        while (place := self.waiting.get()) is not None and not self.over.is_set():
            try:
                worker = worker or self._idle() or _start()
            except OSError as error:
                self.outcomes.put(
                    (
                        place,
                        ResourceError(
                            f"a worker process cannot be started: {error}",
                            hint="give fewer --workers",
                        ),
                    )
                )
                return
            self.busy.add(worker)
            said = "" if self.over.is_set() else worker.talk(self.requests[place])
            self.busy.discard(worker)
            if said:
                self.outcomes.put((place, said))
                continue
            self.died(place, worker.close())
            worker = None
        if worker is not None:
            self.idle.append(worker)

    def _idle(self) -> "_Worker | None":
        with contextlib.suppress(
            IndexError
        ):  # not asked first whether there is one: another minder may take it in between
            return self.idle.pop()
        return None

    def died(self, place: int, code: int) -> None:
        """A worker is gone, and with it the piece it was at."""
        self.tries[place] += 1
        if self.over.is_set():
            return
        if code == BUG:
            self.outcomes.put((place, RuntimeError("a worker failed: its own account is above")))
        elif self.tries[place] < TRIES:
            self.waiting.put(place)
        else:
            self.outcomes.put((
                place,
                ResourceError(
                    f"{TRIES} workers died at the same piece of work (the last with exit code "
                    f"{code})",
                    hint="memory may have run out: give fewer --workers, smaller batches or "
                         "smaller images; finished pieces are kept",
                ),
            ))  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Worker:
    """A worker process, and the pipes to it and from it."""

    process: subprocess.Popen[str]
    stdin: IO[str]
    stdout: IO[str]

    def talk(self, request: str) -> str:
        """Ask it, and wait for what it says; nothing if it died."""
        try:
            self.stdin.write(request + "\n")
            self.stdin.flush()
        except BrokenPipeError:
            return ""
        said = self.stdout.readline()
        return said if said.endswith("\n") else ""

    def close(self) -> int:
        """Close the pipes, upon which it ends, and wait. Returns: its exit code."""
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.process.wait()


def give_back_memory() -> None:
    """Hand freed memory back to the system, which the workers need more: C's allocator keeps it
    otherwise.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _start() -> _Worker:
    # A worker must not import what lies in the current folder, which may be a stranger's release.
    # -P leaves empty and relative entries of PYTHONPATH as they are, and those lead there too.
    command = [sys.executable, "-P", "-m", "lockforge.executors.worker"]
    process = subprocess.Popen(  # noqa: S603  our own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env=_environment(),
    )
    return _Worker(process, cast("IO[str]", process.stdin), cast("IO[str]", process.stdout))


def _environment() -> dict[str, str]:
    """The environment of this process, with none but absolute folders in PYTHONPATH."""
    environment = dict(os.environ)
    entries = environment.pop("PYTHONPATH", "").split(os.pathsep)
    absolute = [entry for entry in entries if Path(entry).is_absolute()]
    if absolute:
        environment["PYTHONPATH"] = os.pathsep.join(absolute)
    return environment


def _end_all(workers: "list[_Worker]") -> None:
    for worker in workers:
        worker.process.kill()
        worker.close()
