"""Pieces on a Ray cluster: one that is running already, or one of this machine's own for as long as
this process lives.

Requests and outcomes are text. Ray begins a piece again elsewhere when its worker is lost; finished
pieces are not lost with it.
"""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lockforge.errors import ResourceError
from lockforge.executors._messages import answered, ask
from lockforge.executors._share import pull, push
from lockforge.executors.worker import carry_out
from lockforge.jobs import TRIES, Job, Q, Task, TaskResult
from lockforge.runs import file_refs

_PATIENCE = 10.0  # seconds until an address is taken for wrong
_LOOK = 1.0  # seconds between two looks at whether the user wants to stop


class Ray:
    """A Ray cluster. Args: see `executors.make_executor`.

    Raises: ResourceError: Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        gpus: float = 0.0,
        share: str | None = None,
    ) -> None:
        os.environ.setdefault(
            "RAY_TQDM_PATCH_PRINT", "0"
        )  # Ray would put a `print` of its own in place of Python's
        try:
            import ray
        except ImportError as error:
            raise ResourceError(
                "--executor ray needs Ray", hint="pip install 'lockforge[cluster]'"
            ) from error
        self.ray: Any = ray
        self.address, self.workers, self.gpus, self.share = address, workers, gpus, share

    def run(
        self,
        spread: Job[Q],
        pieces: Sequence[Task],
        came: Callable[[TaskResult[Q]], None],
        *,
        threads: int = 1,
    ) -> None:
        """Do all pieces; see `Executor.run`.

        Raises: ResourceError: no cluster at the address, or a piece's workers were lost again and
            again.
        """
        if not pieces:
            return
        self._connect()
        device = "cuda" if self.gpus else pieces[0].work.device
        if self.share:
            for piece in (Task(spread.shared, pieces[0].work), *pieces):
                push(self.share, piece.work.files, file_refs(piece.inputs))
        remote = self.ray.remote(carry_out).options(
            num_cpus=threads, num_gpus=self.gpus, max_retries=TRIES - 1
        )
        requests = [
            ask(spread, piece, threads, device=device, share=self.share) for piece in pieces
        ]
        waiting = {
            remote.remote(text): place for place, text in enumerate(requests[: self.workers])
        }
        begun = len(waiting)
        try:
            while waiting:
                ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=_LOOK)
                for one in ready:
                    place = waiting.pop(one)
                    if begun < len(requests):
                        waiting[remote.remote(requests[begun])] = begun
                        begun += 1
                    done = self._answer(one, place)
                    if self.share:
                        pull(self.share, pieces[place].work.files, file_refs(done.result))
                    came(done)
        finally:
            for one in waiting:
                self.ray.cancel(one, force=True)

    def _answer(self, one: object, place: int) -> TaskResult[Any]:
        lost = (
            self.ray.exceptions.WorkerCrashedError,
            self.ray.exceptions.NodeDiedError,
            self.ray.exceptions.OutOfMemoryError,
        )
        try:
            return answered(self.ray.get(one), place)
        except lost as error:
            raise ResourceError(
                f"{TRIES} workers were lost at the same piece of work: "
                f"{str(error).splitlines()[0]}",
                hint="memory may have run out on a machine: give fewer --workers, smaller "
                "batches or smaller images",
            ) from error

    def _connect(self) -> None:
        """Join the cluster, or start one of this machine's own, once in a process.

        Raises: ResourceError: there is none at the address.
        """
        own = (
            {}
            if self.address
            else {"num_cpus": self.workers or torch.get_num_threads(), "include_dashboard": False}
        )
        host, _, port = (self.address or "").removeprefix("ray://").rpartition(":")
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # Ray's coming default: a piece without a GPU sees them all
        try:
            if port.isdecimal():  # Ray itself goes on trying for minutes, then ends the process
                socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
            if not self.ray.is_initialized():
                self.ray.init(
                    address=self.address, log_to_driver=False, logging_level="ERROR", **own
                )
        except (ConnectionError, ValueError, OSError) as error:
            raise ResourceError(
                f"there is no Ray cluster at {self.address}: {str(error).splitlines()[0]}",
                hint="start one with `ray start --head`, or leave --address away",
            ) from error
