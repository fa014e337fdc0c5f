"""Everything LockForge raises on purpose, as one tree; each branch has one exit code.

    LockForgeError
    |-- RecipeError        2   recipe, policy or command line
    |-- DataError          3   images, labels, roles
    |-- ResourceError      4   no GPU, memory, disk full, no permission, extra not installed
    |-- IntegrityError     5   not what was stored or signed
    |-- OutcomeError       6   training diverged, parity failed
    `-- InterruptedRunError  130  stopped by the user; the run can be resumed

Exit code 1 is kept for a gate that says no. Anything else that escapes is a bug: exit code 70 with
its whole traceback.
"""

from collections.abc import Sequence
from typing import ClassVar

BUG = 70


class LockForgeError(Exception):
    """What happened, where, with which value; `hint` says what to do next.

    Args: message: one sentence. hint: the way out, one sentence. faults: when several were found at
        once, a line each.
    """

    exit_code: ClassVar[int] = BUG

    def __init__(self, message: str, *, hint: str = "", faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """The message, its faults and its hint, as a terminal shows them."""
        lines = [self.message, *(f"  - {fault}" for fault in self.faults)]
        return "\n".join([*lines, f"hint: {self.hint}"] if self.hint else lines)


class RecipeError(LockForgeError):
    """An invalid recipe, policy or command line."""

    exit_code = 2


class DataError(LockForgeError):
    """Images, labels or roles that cannot be used as given."""

    exit_code = 3


class ResourceError(LockForgeError):
    """The machine lacks something: a GPU, memory, disk, permission, an extra."""

    exit_code = 4


def memory_ran_out(error: BaseException) -> ResourceError | None:
    """What to say of an error that means that memory ran out; None of another one. torch raises a
    RuntimeError, on the CPU as on a GPU.

    >>> memory_ran_out(RuntimeError("no")) is None, memory_ran_out(MemoryError()).message
    (True, 'memory ran out')
    """
    said = isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )
    if not said and not isinstance(error, MemoryError):
        return None
    hint = (
        "give smaller images (data.size), a smaller batch, fewer images (data.limit_per_class) "
        "or fewer --workers"
    )
    return ResourceError("memory ran out", hint=hint)


class IntegrityError(LockForgeError):
    """Something is not what was stored or signed."""

    exit_code = 5


class OutcomeError(LockForgeError):
    """The work was done and its outcome must not be used: divergence, a refused guard, failed
    parity.
    """

    exit_code = 6


class InterruptedRunError(LockForgeError):
    """The user stopped the run; what was finished is kept."""

    exit_code = 130
