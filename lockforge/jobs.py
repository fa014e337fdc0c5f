"""Independent pieces of work, and what carries them out.

A piece is a function of a module and the records it is called with: whoever knows these can do it,
in this process or on another machine. Pieces share what is dear to make (images in memory,
networks): `prepare` makes it once in every process that does some of them.

    spread = Job(each=attack_once, prepare=set_scene, shared=(subjects, source, target, recipe))
    work.spread(spread, [("release", "full", 0), ("release", "full", 1)], came=lambda place, points:
    ...)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lockforge.records import Record

if TYPE_CHECKING:
    from lockforge.runs import Work

Input = Record | tuple[Any, ...] | str | int | float | bool | None
Q = TypeVar("Q", bound=Record)
TRIES = 3  # times that a piece is begun before its workers' deaths are taken for its own fault


@dataclass(frozen=True)
class Job(Generic[Q]):
    """What pieces have in common.

    Args: each: does a piece: `each(prepared, *inputs, work=Work)`, or `each(*inputs, work=Work)`
        where nothing is prepared. prepare: makes what pieces share, `prepare(*shared, work=Work)`.
        here: what it made in this process already.
    """

    each: Callable[..., Q]
    prepare: Callable[..., Any] | None = None
    shared: tuple[Input, ...] = ()
    here: Any = None

    def prepared(self, work: "Work") -> tuple[Any, ...]:
        """What comes before a piece's own inputs."""
        if self.prepare is None:
            return ()
        return (self.prepare(*self.shared, work=work) if self.here is None else self.here,)


@dataclass(frozen=True)
class Task:
    """One call: its own inputs, and the work it is handed."""

    inputs: tuple[Input, ...]
    work: "Work"


@dataclass(frozen=True)
class TaskResult(Generic[Q]):
    """What came of a piece: its place among the pieces, the answer, and how long it took."""

    place: int
    result: Q
    seconds: float


class Executor(Protocol):
    """Carries out pieces. None of it decides the outcome: every piece computes on as many threads
    as it is told, wherever it is done.
    """

    def run(
        self,
        spread: Job[Q],
        pieces: Sequence[Task],
        came: Callable[[TaskResult[Q]], None],
        *,
        threads: int = 1,
    ) -> None:
        """Do all pieces, in any order, and tell of each in the caller's thread as it comes.

        The first that fails stops the others, and so does an error in `came`: what is under way is
        braked or ended, and the error raised.

        Args: threads: torch's threads for one piece.
        """


class InTurn:
    """One after the other, here, on the threads that torch has."""

    def run(
        self,
        spread: Job[Q],
        pieces: Sequence[Task],
        came: Callable[[TaskResult[Q]], None],
        *,
        threads: int = 1,
    ) -> None:
        """Do all pieces in their order."""
        del threads
        before = spread.prepared(pieces[0].work) if pieces else ()
        for place, piece in enumerate(pieces):
            came(run_task(spread, before, place, piece))


def run_task(spread: Job[Q], before: tuple[Any, ...], place: int, piece: Task) -> TaskResult[Q]:
    """Do one piece, and look at the clock."""
    started = time.perf_counter()
    result = spread.each(*before, *piece.inputs, work=piece.work)
    return TaskResult(place, result, time.perf_counter() - started)
