"""Worker processes, found from outside and killed."""

import contextlib
import os
import signal
from pathlib import Path

NAMES = {"processes": b"lockforge.executors.worker", "ray": b"ray::carry_out"}


def workers_of(kind: str) -> list[int]:
    """The worker processes of this process's executor: for Ray those that are at a piece. Other
    tests may run beside this one.
    """
    parents: dict[int, int] = {}
    named: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if NAMES[kind] in (folder / "cmdline").read_bytes():
                named.append(int(folder.name))
    return [pid for pid in named if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) > 1:
        found.add(pid)
    return found


def kill_workers(kind: str) -> list[int]:
    """Kill them all. Returns: those who were there."""
    killed = []
    for pid in workers_of(kind):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    return killed
