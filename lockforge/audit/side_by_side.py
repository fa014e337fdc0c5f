"""Attacks side by side: as many at once as torch has threads, each on one thread.

The operations of a small network are too short to be shared between threads, whole attacks are not. Each attack computes on one thread
however many there are, and draws from generators of its own: the points do not depend on the number of threads or on the order.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch

from lockforge.audit.ledger import Ledger
from lockforge.audit.protocol import Item
from lockforge.errors import InterruptedRunError
from lockforge.records import AttackPoint
from lockforge.runs import Work

Job = Callable[[], tuple[AttackPoint, ...]]


class Brake:
    """Stops attacks that are under way: threads cannot be interrupted, so each asks after every few steps whether it should go on."""

    def __init__(self) -> None:
        self._pulled = threading.Event()

    def pull(self) -> None:
        """From now on whoever asks is stopped."""
        self._pulled.set()

    def ask(self, _done: float, _total: float, _note: str) -> None:
        """Called as progress is reported.

        Raises: InterruptedRunError: the brake was pulled.
        """
        if self._pulled.is_set():
            raise InterruptedRunError("this attack was stopped because the audit was", hint="run the same command again")


@contextlib.contextmanager
def one_thread_each() -> Iterator[int]:
    """Torch on one thread an operation; gives the number of threads there were, and gives them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def run_all(jobs: Mapping[Item, Job], ledger: Ledger, work: Work, brake: Brake) -> tuple[AttackPoint, ...]:
    """The points of every job in the order of the jobs; those in the ledger are not done again, the others are added to it.

    The first job that fails stops the audit, and so does Ctrl-C: no other is begun, those under way are braked, and the error is raised.
    """
    wanted = {item: job for item, job in jobs.items() if item not in ledger.finished}
    done = len(jobs) - len(wanted)
    with one_thread_each() as threads, ThreadPoolExecutor(threads if work.device == "cpu" else 1) as pool:
        running = {pool.submit(job): item for item, job in wanted.items()}
        try:
            for future in as_completed(running):
                item = running[future]
                ledger.add(item, future.result())
                done += 1
                work.report(done, len(jobs), f"{item.start}: {item.attacker}, seed {item.seed}")
        except BaseException:
            brake.pull()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return tuple(point for item in jobs for point in ledger.finished[item])
