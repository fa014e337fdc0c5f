"""The base of every record: a frozen value with a digest, read from and written to JSON."""

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lockforge.errors import IntegrityError

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Share = Annotated[float, Field(ge=0, le=1)]


Count = Annotated[int, Field(ge=0)]


Side = Annotated[int, Field(ge=1)]


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN; the text that digests are taken of.

    >>> canonical_json({"b": 1, "a": [0.5]})
    '{"a":[0.5],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """SHA-256 of UTF-8 text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


class Record(BaseModel):
    """A frozen value that knows its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return sha256_text(self.to_json())

    def to_json(self) -> str:
        """The canonical JSON text; `from_json` gives the same record back."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record.

        Raises: IntegrityError: the text is not such a record; every fault is listed.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise IntegrityError(
                f"this is not a {cls.__name__} record",
                faults=fault_lines(error),
                hint="it was edited, cut short or written by another version",
            ) from error


def fault_lines(error: ValidationError) -> tuple[str, ...]:
    """One line a fault: where, which value, what was wanted."""
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "(the whole)"
        given = repr(fault["input"])
        shown = given if len(given) <= 60 else given[:57] + "..."
        lines.append(f"{where}: {fault['msg']} (given: {shown})")
    return tuple(lines)


class FileRef(Record):
    """A file named by its bytes."""

    sha256: Digest
    size: Count
