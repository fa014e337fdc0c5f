"""Worker processes, found from outside and killed."""

import contextlib
import os
import signal
from pathlib import Path

NAMES = {"processes": b"lockforge.executors.worker", "ray": b"ray::carry_out"}


def workers_of(kind: str) -> list[int]:
    """The worker processes of an executor: for Ray those that are at a piece."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if NAMES[kind] in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def kill_workers(kind: str) -> list[int]:
    """Kill them all. Returns: those who were there."""
    killed = []
    for pid in workers_of(kind):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    return killed
