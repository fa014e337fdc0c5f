"""Pieces on this machine, where they are done soonest."""

from collections.abc import Callable, Sequence

import torch

from lockforge.executors._processes import Processes
from lockforge.executors.threads import Threads
from lockforge.jobs import Job, Q, Task, TaskResult

# pieces for each of those at work, from which on starting processes pays: three seconds, and a
# piece may take less than one
_MANY = 4


class Here:
    """Worker processes for many pieces on a CPU, threads of this process for few of them, and on
    CUDA. Workers that are there are used.

    Threads queue for Python, which takes a third of a step of a small network: on two cores the
    audit of the digits takes 1.5 to 1.7 times as long in threads as in processes
    (`tests/benchmarks/protect.py`).

    Args: workers: pieces at once; None: torch's threads over those of a piece.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers
        self.threads = Threads(workers)
        self.processes = Processes(workers)

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
        at_once = self.workers or max(1, torch.get_num_threads() // threads)
        ready = (
            bool(self.processes.idle) and spread.prepare is not None
        )  # whole stages tell of their progress, which a worker cannot
        enough = len(pieces) >= (2 if ready else _MANY * at_once)
        apart = at_once > 1 and enough and pieces[0].work.device == "cpu"
        (self.processes if apart else self.threads).run(spread, pieces, came, threads=threads)
