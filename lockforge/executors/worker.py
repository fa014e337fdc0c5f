"""A worker: does one piece after the other as it is told, until nobody is there to tell it.

As a program (`python -m lockforge.executors.worker`) it reads requests from standard input, a line
each, and writes outcomes to standard output; whatever else is printed goes to standard error. When
standard input ends, it ends at once, whatever it is doing.
"""

import os
import queue
import sys
import tempfile
import threading
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from lockforge.errors import BUG, LockForgeError, memory_ran_out
from lockforge.executors._messages import Request, answer, asked, refuse
from lockforge.files import Files, cache_folder
from lockforge.jobs import Task, run_task
from lockforge.runs import Work, file_refs


@dataclass
class _Desk:
    """What this process prepared last: the pieces of one spread come one after the other."""

    same: str = ""
    prepared: tuple[Any, ...] = field(default_factory=tuple)

    def prepare(self, request: Request, work: Work) -> tuple[Any, ...]:
        if self.same != request.same:
            self.prepared, self.same = (), ""
            self.prepared = request.spread.prepared(work)
            self.same = request.same
        return self.prepared


_DESK = _Desk()


def carry_out(text: str) -> str:
    """Do what a line asks for. Returns: the outcome as a line; errors that were raised on purpose,
    and want of memory, are outcomes too.
    """
    try:
        request = asked(text)
        torch.set_num_threads(request.threads)
        with ExitStack() as stack:
            work = request.work if request.share is None else _with_own_files(request, stack)
            before = _DESK.prepare(request, work)
            done = run_task(request.spread, before, 0, Task(request.inputs, work))
            if request.share is not None:
                from lockforge.executors._share import push

                push(request.share, work.files, file_refs(done.result))
            return answer(done.result, done.seconds)
    except LockForgeError as error:
        return refuse(error)
    except (MemoryError, RuntimeError) as error:
        told = memory_ran_out(error)
        if told is None:
            raise
        return refuse(told)


def _with_own_files(request: Request, stack: ExitStack) -> Work:
    """Work with this machine's own files, in the user's cache folder, where those that the piece
    needs have been fetched.
    """
    from lockforge.executors._share import pull

    files = Files(cache_folder() / "files")
    pull(str(request.share), files, file_refs((*request.spread.shared, *request.inputs)))
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lockforge-"))
    return replace(request.work, files=files, folder=Path(folder))


def main() -> None:
    """Read, do, write, until there is no more to read."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.excepthook = _bug
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while True:
        out.write(carry_out(lines.get()) + "\n")
        out.flush()


def _listen(lines: "queue.SimpleQueue[str]") -> None:
    """Hear what is asked, and notice when nobody asks any more."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(BUG)


if __name__ == "__main__":
    main()
