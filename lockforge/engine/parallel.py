"""One large network trained by several processes of this machine, each on its own share of every
batch (`engine._team`).

The processes are started afresh and are handed plain text: the name of a function that makes the
training out of a job, the job as JSON, and paths. What they find lies in the run's folder, where
`fit` reads it again. They end when this process ends, however it ends; and when one of them fails,
the others are ended.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn

from lockforge import errors
from lockforge.engine._team import Team
from lockforge.engine.device import choose_device
from lockforge.engine.feed import Feed
from lockforge.engine.fit import Fitted, Loss, RunContext, fit
from lockforge.errors import LockForgeError, ResourceError
from lockforge.recipe import FitRecipe

_CONTEXT = get_context("spawn")  # a process that has threads, or holds a GPU, must not be forked
_PATIENCE = 2.0  # seconds in which the others may say what went wrong, once one process has failed
_LONGEST_STEP = timedelta(
    hours=1
)  # that one process waits for the others: rank 0 stores its run, or a machine sleeps


@dataclass(frozen=True)
class Training:
    """What `fit` is told, but for the place: see there."""

    module: nn.Module
    train: Feed
    recipe: FitRecipe
    generator: torch.Generator
    val: Feed | None = None
    loss: Loss | None = None
    sharpness: float = 0.0
    mask: Mapping[str, Tensor] | None = None

    def go(self, context: RunContext) -> Fitted:
        """Train."""
        return fit(
            self.module,
            self.train,
            self.recipe,
            generator=self.generator,
            val=self.val,
            loss=self.loss,
            sharpness=self.sharpness,
            mask=self.mask,
            context=context,
        )


Make = Callable[[str, str], Training]


@dataclass(frozen=True)
class _Place:
    """Where one of the processes stands; it travels as JSON."""

    rank: int
    size: int
    device: str
    threads: int
    folder: str
    meeting: str
    save_every: float


def fit_together(make: Make, job: str, processes: int, context: RunContext) -> Fitted:
    """Train one network with several processes of this machine: what `fit` gives, raises and
    resumes, for a team of them.

    On the CPU they share this process's threads; on CUDA each has a device, from `context.device`
    on.

    Args: make: (job, device) -> training, the same wherever it is called; a function at the top of
        a module that can be imported. job: what it is made of, as text. context: its folder is
        where the run is kept; the team is made here.
    Raises: what `fit` raises in one of them. ResourceError: a process died, or there are not as
        many devices. RuntimeError: a process failed by a bug; it holds that process's traceback.
    """
    if context.folder is None:
        raise ValueError("processes that train together need a folder")
    devices = _devices(context.device, processes)
    context.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lockforge-") as meeting:
        places = [
            _Place(
                rank=rank,
                size=processes,
                device=device,
                threads=max(1, torch.get_num_threads() // processes),
                folder=str(context.folder),
                meeting=str(Path(meeting) / "store"),
                save_every=context.save_every,
            )
            for rank, device in enumerate(devices)
        ]
        with _started(make, job, places) as members:
            _watch(members, context)
    return replace(make(job, context.device), loss=_never).go(
        RunContext(context.device, context.folder)
    )


def _never(_outputs: Tensor, _labels: Tensor) -> NoReturn:
    raise RuntimeError(
        "the processes left no finished run of this training: their job does not make the same "
        "one here"
    )


def _devices(device: str, processes: int) -> tuple[str, ...]:
    """One for each process."""
    if not distributed.is_available():
        raise ResourceError(
            "this torch was built without torch.distributed",
            hint="set train.processes to 1, or install another torch",
        )
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return (device,) * processes
    found = tuple(f"cuda:{index}" for index in range(int(number or "0"), torch.cuda.device_count()))
    if len(found) < processes:
        raise ResourceError(
            f"{processes} processes need a CUDA device each, and there are {len(found)} from "
            f"{device} on",
            hint="set train.processes to that number, or use --device cpu",
        )
    return found[:processes]


@dataclass
class _Member:
    """A process that was started, and what it has told."""

    place: _Place
    process: BaseProcess
    line: Connection
    open: bool = True
    fault: dict[str, Any] | None = None

    def listen(self, context: RunContext) -> None:
        """Take one message: progress, or what went wrong."""
        try:
            told = json.loads(self.line.recv_bytes())
        except (EOFError, OSError):
            self.open = False
            return
        if "fault" in told:
            self.fault = told
        else:
            context.report(*told["progress"])

    @property
    def failed(self) -> bool:
        """Whether it has ended, and not as it should."""
        return self.fault is not None or self.process.exitcode not in {None, 0}


@contextlib.contextmanager
def _started(make: Make, job: str, places: Sequence[_Place]) -> Iterator[list[_Member]]:
    """The processes; none of them is left at the end."""
    members: list[_Member] = []
    try:
        for place in places:
            mine, theirs = _CONTEXT.Pipe(duplex=False)
            process = _CONTEXT.Process(
                target=_work, args=(make, job, json.dumps(asdict(place)), theirs)
            )
            members.append(_Member(place, process, mine))
            with _quiet_torch():
                process.start()
            theirs.close()
        yield members
    finally:
        for member in members:
            if member.process.pid is not None:
                member.process.kill()
                member.process.join()
            member.line.close()


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Processes that are started inside tell of torch's errors and not of its warnings: one is that
    unused parameters were looked for.
    """
    # PYTHONSAFEPATH: they must not import what lies in the current folder, as workers must not.
    names = {"TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONSAFEPATH": "1"}
    added = [name for name in names if name not in os.environ]
    os.environ |= {name: names[name] for name in added}
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _watch(members: Sequence[_Member], context: RunContext) -> None:
    """Pass progress on until all have ended.

    Raises: what the first of them to fail has told.
    """
    deadline = float("inf")
    while time.monotonic() < deadline:
        lines = {member.line: member for member in members if member.open}
        ends = [member.process.sentinel for member in members if member.process.exitcode is None]
        if (
            not lines and not ends
        ):  # the lists, not the processes: one that ends in between would leave nothing to wait for
            break
        for ready in wait([*lines, *ends], timeout=None if deadline == float("inf") else 0.1):
            if isinstance(ready, Connection):
                lines[ready].listen(context)
        if any(member.failed for member in members):
            deadline = min(deadline, time.monotonic() + _PATIENCE)
    failed = [member for member in members if member.failed]
    if failed:
        raise _error(failed)


def _error(failed: Sequence[_Member]) -> Exception:
    """Why a team failed: a death before what the others say of it, then the fault that was told
    first.
    """
    for member in failed:
        if member.process.exitcode is not None and member.process.exitcode < 0:
            number = -member.process.exitcode
            return ResourceError(
                f"process {member.place.rank + 1} of {member.place.size} that train together was "
                f"killed by {signal.Signals(number).name}",
                hint="often memory ran out, see the system's log: give a smaller "
                "train.batch_size or fewer train.processes, start again",
            )
    told = sorted(
        (member.fault for member in failed if member.fault), key=lambda fault: float(fault["at"])
    )
    if not told:
        member = failed[0]
        return RuntimeError(
            f"process {member.place.rank + 1} of {member.place.size} ended with "
            f"{member.process.exitcode}; its traceback is above"
        )
    first = told[0]
    kind = getattr(errors, first["fault"], None)
    if isinstance(kind, type) and issubclass(kind, LockForgeError):
        return kind(first["message"], hint=first["hint"], faults=first["faults"])
    return (
        MemoryError(first["message"])
        if first["fault"] == "MemoryError"
        else RuntimeError(first["message"])
    )


def _work(make: Make, job: str, place_json: str, line: Connection) -> None:
    """The life of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = _Place(**json.loads(place_json))
    torch.set_num_threads(place.threads)

    def report(done: float, total: float, note: str) -> None:
        line.send_bytes(json.dumps({"progress": [done, total, note]}).encode())

    try:
        with _team(place) as team:
            context = RunContext(
                place.device, Path(place.folder), save_every=place.save_every, team=team
            )
            make(job, place.device).go(replace(context, report=report) if team.first else context)
            distributed.barrier()  # nobody leaves while another still listens
    except (LockForgeError, MemoryError, RuntimeError) as error:
        fault = {"fault": type(error).__name__, "at": time.monotonic(), "message": str(error)}
        if isinstance(error, LockForgeError):
            fault |= {"message": error.message, "hint": error.hint, "faults": error.faults}
        elif isinstance(
            error, RuntimeError
        ):  # torch's word for a peer that is gone, or a bug: whoever reads all of them knows
            fault |= {
                "message": f"process {place.rank + 1} of {place.size} "
                f"failed:\n{traceback.format_exc()}"
            }
        line.send_bytes(json.dumps(fault).encode())
        line.close()
        sys.stdout.flush()
        os._exit(1)  # a torch process group whose peers are gone may wait for them in its own end


def _end_with_parent() -> None:
    """Nobody would read what a process finds whose parent is gone, and it would write into the
    folder of the next one.
    """
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _team(place: _Place) -> Iterator[Team]:
    """The process group, open; all of it talks on this machine's own network alone."""
    cuda = place.device.startswith("cuda")
    loop = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loop is not None:
        os.environ |= {"GLOO_SOCKET_IFNAME": loop, "NCCL_SOCKET_IFNAME": loop}
    if cuda:
        torch.cuda.set_device(choose_device(place.device))
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        # torch's stubs lack it
        store=distributed.FileStore(place.meeting, place.size),  # type: ignore[attr-defined]
        rank=place.rank,
        world_size=place.size,
        timeout=_LONGEST_STEP,
    )
    yield Team(place.rank, place.size)
    distributed.destroy_process_group()
