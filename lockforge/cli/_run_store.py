"""What a runs folder holds: listed, and cleaned up."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockforge.errors import DataError
from lockforge.files import held, writing
from lockforge.runs import is_runs_folder

_KEY = re.compile(r"[0-9a-f]{16}(\.partial)?")
_FILE = re.compile(r"sha256-[0-9a-f]{64}(\..+)?")
_STAGE = re.compile(r"[a-z][a-z_]*")


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
    for path in _entries(folder) if folder.is_dir() else ():
        if path.parent.name == "files":
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


def _entries(folder: Path) -> Iterator[Path]:
    """What LockForge itself made below a runs folder: stage results by their key, files by their
    hash. Links are never followed, and other names are passed over.
    """
    for room in sorted(folder.iterdir()):
        if room.is_symlink() or not room.is_dir() or not _STAGE.fullmatch(room.name):
            continue
        for path in sorted(room.iterdir()):
            own = (
                _FILE.fullmatch(path.name) and path.is_file()
                if room.name == "files"
                else _KEY.fullmatch(path.name) and path.is_dir()
            )
            if own and not path.is_symlink():
                yield path


def clean_runs(folder: Path, *, everything: bool) -> tuple[int, int]:
    """Remove interrupted questions (all questions and files when `everything`).

    Returns: how many folders or files were removed, and their bytes.
    Raises: DataError: the folder holds something and is no runs folder. ResourceError: one of them
        is in use.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return 0, 0
    if not is_runs_folder(folder):
        raise DataError(
            f"{folder} is no runs folder of LockForge: it has no format.json that says so",
            hint="give the folder that was given to --runs; nothing was removed",
        )
    removed = freed = 0
    for path in tuple(_entries(folder)):
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
