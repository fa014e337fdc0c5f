"""Pieces side by side in this process: as many at once as torch has threads, each on one of them.

The operations of a small network are too short to be shared between threads, whole trainings are
not. A piece computes on as many threads as it is told however many pieces there are, and draws from
generators of its own: answers do not depend on their number or order.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from lockforge.errors import InterruptedRunError
from lockforge.jobs import InTurn, Job, Q, Task, TaskResult, run_task
from lockforge.runs import Work

_TURN = 2e-4  # seconds; in trials with .01 to 5 ms a tenth of an audit was gained below 1 ms


class Brake:
    """Stops pieces that are under way: threads cannot be interrupted, so each asks as it reports
    progress whether it should go on.
    """

    def __init__(self) -> None:
        self._pulled = threading.Event()

    def pull(self) -> None:
        """From now on whoever asks is stopped."""
        self._pulled.set()

    def ask(self) -> None:
        """Go on?

        Raises: InterruptedRunError: the brake was pulled.
        """
        if self._pulled.is_set():
            raise InterruptedRunError(
                "this was stopped because the stage was", hint="run the same command again"
            )

    def on(self, work: Work) -> Work:
        """Work that asks as it reports, and does in turn what it has to spread."""

        def report(done: float, total: float, note: str) -> None:
            self.ask()
            work.report(done, total, note)

        return replace(work, report=report, pulse=self.ask, executor=InTurn())


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Let a thread that waits for Python have it sooner than after the usual five milliseconds: a
    step of a small network is shorter.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def threads_each(count: int) -> Iterator[int]:
    """Torch on so many threads an operation; gives the number there was, and gives it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class Threads:
    """Threads of this process. Args: workers: pieces at once; None: torch's threads over those of a
    piece; on CUDA one at a time.

    On CUDA each of several workers has a stream of its own, so that small kernels of different
    pieces can run at once.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def run(
        self,
        spread: Job[Q],
        pieces: Sequence[Task],
        came: Callable[[TaskResult[Q]], None],
        *,
        threads: int = 1,
    ) -> None:
        """Do all pieces; see `Executor.run`."""
        if not pieces:
            return
        brake, device = Brake(), pieces[0].work.device

        def do(before: tuple[Any, ...], place: int, piece: Task) -> TaskResult[Q]:
            with _stream(device) if at_once > 1 else nullcontext():
                return run_task(spread, before, place, replace(piece, work=brake.on(piece.work)))

        with threads_each(threads) as there, short_turns():
            at_once = self.workers or (max(1, there // threads) if device == "cpu" else 1)
            before = spread.prepared(pieces[0].work)
            with ThreadPoolExecutor(at_once) as pool:
                running = [
                    pool.submit(do, before, place, piece) for place, piece in enumerate(pieces)
                ]
                try:
                    for future in as_completed(running):
                        came(future.result())
                except BaseException:
                    brake.pull()
                    raise
                finally:
                    pool.shutdown(cancel_futures=True)


def _stream(device: str) -> AbstractContextManager[object]:
    """A stream of this thread's own, which begins after all that was asked of the device so far."""
    if not device.startswith("cuda"):
        return nullcontext()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)
