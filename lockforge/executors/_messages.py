"""A piece as text, and its outcome as text: all that passes between this process and a worker.

A piece is never pickled: a function is named by its module and name, and must be one of ours; a
record by its type and its JSON. (Ray carries this text, and the one function that takes it, by its
own means, which are pickles.)
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lockforge import errors
from lockforge.errors import LockForgeError, ResourceError
from lockforge.files import Files
from lockforge.jobs import Input, Job, Task, TaskResult
from lockforge.records import Record, sha256_text
from lockforge.runs import Work


@dataclass(frozen=True)
class Request:
    """What a worker is asked to do. `same` tells requests whose pieces share what is prepared."""

    spread: Job[Any]
    inputs: tuple[Input, ...]
    work: Work
    threads: int
    share: str | None
    same: str


def ask(
    spread: Job[Any],
    piece: Task,
    threads: int,
    *,
    device: str | None = None,
    share: str | None = None,
) -> str:
    """A piece as one line of JSON. Args: device: where it is done, where that is not where the
    stage is.
    """
    work = piece.work
    tree = {
        "version": version("lockforge"),
        "each": _name(spread.each),
        "prepare": None if spread.prepare is None else _name(spread.prepare),
        "shared": _encode(spread.shared),
        "inputs": _encode(piece.inputs),
        "files": str(work.files.root.absolute()),
        "folder": str(work.folder.absolute()),
        "seed": work.seed,
        "device": device or work.device,
        "threads": threads,
        "share": share,
    }
    return json.dumps(tree)


def asked(text: str) -> Request:
    """The request in a line.

    Raises: ResourceError: the worker has another version of LockForge.
    """
    tree = json.loads(text)
    if tree["version"] != version("lockforge"):
        raise ResourceError(
            f"a worker has LockForge {version('lockforge')}, it is asked by {tree['version']}",
            hint="install the same version on all machines",
        )
    spread = Job(
        _function(tree["each"]),
        tree["prepare"] and _function(tree["prepare"]),
        _decode(tree["shared"]),
    )
    work = Work(
        files=Files(Path(tree["files"])),
        folder=Path(tree["folder"]),
        seed=tree["seed"],
        device=tree["device"],
    )
    parts = [tree[name] for name in ("prepare", "shared", "files", "seed", "device")]
    return Request(
        spread,
        _decode(tree["inputs"]),
        work,
        tree["threads"],
        tree["share"],
        sha256_text(json.dumps(parts)),
    )


def answer(result: Record, seconds: float) -> str:
    """An outcome as one line."""
    return json.dumps({"result": _encode((result,)), "seconds": seconds})


def refuse(error: LockForgeError) -> str:
    """An error that was raised on purpose, as one line."""
    return json.dumps(
        {
            "error": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "faults": list(error.faults),
        }
    )


def answered(text: str, place: int) -> TaskResult[Any]:
    """The outcome in a line.

    Raises: LockForgeError: what the piece raised.
    """
    tree = json.loads(text)
    if "error" in tree:
        kinds: dict[str, type[LockForgeError]] = {
            kind.__name__: kind for kind in LockForgeError.__subclasses__()
        }
        raise kinds[tree["error"]](tree["message"], hint=tree["hint"], faults=tree["faults"])
    (result,) = _decode(tree["result"])
    return TaskResult(place, result, tree["seconds"])


def _name(of: Callable[..., Any] | type[Record]) -> str:
    """A function or a record type by its module and name."""
    return f"{of.__module__}:{of.__qualname__}"


def _find(name: str) -> Any:
    module, _, own = name.partition(":")
    if module.split(".")[0] != errors.__name__.split(".")[0] or not own.isidentifier():
        raise ValueError(f"{name} is not a name of ours")
    return getattr(importlib.import_module(module), own)


def _function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = _find(name)
    return found


def _encode(values: Sequence[Any]) -> list[Any]:
    """Inputs as a tree: records by type and JSON, tuples as lists, plain values as they are."""
    tree: list[Any] = []
    for value in values:
        match value:
            case Record():
                tree.append({"record": _name(type(value)), "json": value.to_json()})
            case tuple():
                tree.append(_encode(value))
            case None | str() | bool() | int() | float():
                tree.append(value)
            case _:
                raise TypeError(
                    f"a piece takes records, tuples and plain values, not {type(value).__name__}"
                )
    return tree


def _decode(tree: Sequence[Any]) -> tuple[Any, ...]:
    values: list[Any] = []
    for one in tree:
        match one:
            case dict():
                kind = _find(one["record"])
                if not (isinstance(kind, type) and issubclass(kind, Record)):
                    raise TypeError(f"{one['record']} is no record")
                values.append(kind.from_json(one["json"]))
            case list():
                values.append(_decode(one))
            case _:
                values.append(one)
    return tuple(values)
