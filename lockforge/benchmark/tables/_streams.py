"""A stream that is read within limits, and says where it stood when something was wrong."""

from dataclasses import dataclass
from typing import NoReturn, Protocol

from lockforge.errors import DataError

HINT = "nothing in it was run; which official files are understood is in docs/benchmark.md"
_LINE = 2**16  # bytes
_PIECE = 2**16


@dataclass(frozen=True)
class Limits:
    """What one pickle may cost: bytes read, instructions, estimated bytes of memory, nesting,
    values on the stack, bytes of one string.
    """

    total: int = 2**34
    instructions: int = 2**32
    memory: int = 2**32
    depth: int = 64
    stack: int = 2**20
    string: int = 2**26


class Readable(Protocol):
    """A stream that gives at most as many bytes as it is asked for, and fewer only at the end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class Source:
    """A stream with a limit on the whole, on one read and on one line."""

    def __init__(self, stream: Readable, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self._stream = stream
        self._piece = b""
        self._at = 0
        self._before = 0  # bytes in the pieces before this one
        self._ended = False

    @property
    def taken(self) -> int:
        """Bytes read so far."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end.

        Raises: DataError: more than one string, or the whole, may have.
        """
        start, self._at = self._at, self._at + size
        if self._at <= len(self._piece):
            return self._piece[start : self._at]
        self._at = start
        self._fill(size)
        start, self._at = self._at, min(self._at + size, len(self._piece))
        return self._piece[start : self._at]

    def number(self, size: int) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.read(size), "little")

    def text(self, size: int) -> str:
        """Text of so many bytes."""
        data = self.read(size)
        if len(data) < size:
            self.refuse(f"a text of {size} bytes is claimed, {len(data)} are left")
        return data.decode("utf-8", "surrogatepass")

    def readline(self) -> bytes:
        """A line with its end.

        Raises: DataError: longer than a line may be, or no end.
        """
        self._fill(_LINE)
        end = self._piece.find(b"\n", self._at, self._at + _LINE) + 1
        if not end:
            self.refuse("a line has no end")
        start, self._at = self._at, end
        return self._piece[start:end]

    def _fill(self, size: int) -> None:
        """Have `size` bytes at hand, or all that are left."""
        if size > self.limits.string:
            self.refuse(f"a string of {size} bytes is claimed, {self.limits.string} are the limit")
        left = len(self._piece) - self._at
        if left >= size or self._ended:
            return
        more = self._stream.read(max(size - left, _PIECE))
        self._ended = not more
        self._before += self._at
        self._piece, self._at = self._piece[self._at :] + more, 0
        if self._before + len(self._piece) > self.limits.total:
            self.refuse(f"it unpacks to more than {self.limits.total} bytes")

    def refuse(self, what: str) -> NoReturn:
        """Say what is wrong and where.

        Raises: DataError: always.
        """
        raise DataError(f"{self.name} cannot be read at byte {self.taken}: {what}", hint=HINT)
