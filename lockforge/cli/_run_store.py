"""What a runs folder holds: listed, and cleaned up."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lockforge.files import held, writing


@dataclass(frozen=True)
class RunEntry:
    """One line of `lockforge runs list`."""

    stage: str
    key: str
    finished: bool
    seconds: float
    bytes: int


def list_runs(folder: Path) -> tuple[RunEntry, ...]:
    """Every finished and interrupted question below a runs folder."""
    entries = []
    for path in sorted(folder.glob("*/*")):
        if not path.is_dir() or path.parent.name == "files":
            continue
        finished = not path.name.endswith(".partial")
        noted = path / "provenance.json"
        seconds = (
            float(json.loads(noted.read_text())["seconds"]) if finished and noted.is_file() else 0.0
        )
        size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
        entries.append(
            RunEntry(path.parent.name, path.name.removesuffix(".partial"), finished, seconds, size)
        )
    return tuple(entries)


def clean_runs(folder: Path, *, everything: bool) -> tuple[int, int]:
    """Remove interrupted questions (all questions and files when `everything`).

    Returns: how many folders or files were removed, and their bytes.
    Raises: ResourceError: one of them is in use.
    """
    removed = freed = 0
    for path in sorted(folder.glob("*/*")):
        if not everything and not path.name.endswith(".partial"):
            continue
        with contextlib.ExitStack() as stack:
            if path.is_dir() and path.name.endswith(".partial"):
                stack.enter_context(held(path / "lock"))
            freed += sum(
                item.stat().st_size
                for item in (path.rglob("*") if path.is_dir() else (path,))
                if item.is_file()
            )
            with writing("nothing", path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        removed += 1
    return removed, freed
