"""What a killed audit leaves behind: a line of points for each finished item.

A line counts only when it is whole, ends in a line break and carries the right checksum; the first
that does not, and all after it, are cut off before anything is appended. So a kill at any moment
loses at most what was running.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from lockforge.audit.protocol import Item
from lockforge.errors import IntegrityError
from lockforge.files import writing
from lockforge.records import AttackPoint, canonical_json, sha256_text

NAME = "points.jsonl"


class Ledger:
    """The finished items of one audit, in memory and on disk. Its folder belongs to one question,
    so the lines need not name it.

    Raises: ResourceError: the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._finished, whole = _read(self._path)
        if self._path.is_file() and whole < self._path.stat().st_size:
            with writing(NAME, folder):
                os.truncate(self._path, whole)

    @property
    def finished(self) -> Mapping[Item, tuple[AttackPoint, ...]]:
        """The points of every finished item."""
        return self._finished

    def add(self, item: Item, points: tuple[AttackPoint, ...]) -> None:
        """Append an item: on disk before this returns."""
        body = canonical_json(
            [
                [item.start, item.attacker, item.seed, item.budget],
                [point.to_json() for point in points],
            ]
        )
        line = f"{sha256_text(body)[:16]} {body}\n".encode()
        with writing(NAME, self._path.parent), self._path.open("ab") as out:
            out.write(line)
            out.flush()
            os.fsync(out.fileno())
        self._finished[item] = points


def finished_items(folder: Path) -> frozenset[Item]:
    """What is finished in an audit's folder; nothing is changed there."""
    return frozenset(_read(folder / NAME)[0])


def _read(path: Path) -> tuple[dict[Item, tuple[AttackPoint, ...]], int]:
    """The items of the whole lines, and how many bytes these lines take."""
    finished: dict[Item, tuple[AttackPoint, ...]] = {}
    whole = 0
    if not path.is_file():
        return finished, whole
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            item, points = _parse(line)
        except (ValueError, IntegrityError):
            break
        finished[item] = points
        whole += len(line)
    return finished, whole


def _parse(line: bytes) -> tuple[Item, tuple[AttackPoint, ...]]:
    """One line of the ledger.

    Raises: ValueError or IntegrityError: not whole.
    """
    checksum, _, body = line.decode().partition(" ")
    if not body.endswith("\n") or sha256_text(body[:-1])[:16] != checksum:
        raise ValueError("cut short")
    names, texts = json.loads(body)
    return Item(*names), tuple(AttackPoint.from_json(text) for text in texts)
