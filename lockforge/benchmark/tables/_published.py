"""Published benchmark tables. A locked door: only `benchmark` and tests open it.

A table is an official file (`official`), what was converted from one (`.safetensors`), or a CSV
file (gzip or not), one row a cell: `arch_str` or `arch` holds the official spelling; for each task
a column of final results and, where there is one, of early results after a few epochs:

    nasbench201    cifar10_valid_val, cifar100_val, imagenet16_120_val; early ep12_ before the same
                   names
    transnas101    TASK_val_final

Higher is better everywhere. Any subset of the tasks will do; a task is left out as a whole where it
has no values.
"""

import csv
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from lockforge.benchmark.tables._archives import digest_of
from lockforge.benchmark.tables._official import SUFFIXES, Results, read_official
from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.records import Cell, canonical_json
from lockforge.spaces import all_cells, nasbench201, ops_of, transnas101
from lockforge.spaces.cells import cell_of
from lockforge.spaces.codecs import parse, spell

_COLUMNS = {
    nasbench201.NAME: {
        "cifar10": "cifar10_valid_val",
        "cifar100": "cifar100_val",
        "imagenet16_120": "imagenet16_120_val",
    },
    transnas101.NAME: {},
}
_SIMILARITIES = frozenset(
    {"normal", "autoencoder"}
)  # structural similarity, at most 1; all else is percent or a negative loss
_CARD = "lockforge.table"
_EARLY = "ep12_"
_FINAL = "_val_final"
_MOST_BYTES = 2**28
_SHOWN = 20
_HINT = "give a table of the whole space with official spellings, see docs/benchmark.md"


@dataclass(frozen=True)
class Table:
    """Final and early results of every cell of a space, by task."""

    space: str
    cells: tuple[Cell, ...]
    final: dict[str, Float[np.ndarray, " k"]]
    early: dict[str, Float[np.ndarray, " k"]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with results."""
        return tuple(self.final)


def read_table(path: Path, space: str) -> Table:
    """Read a table and check it against the space: every cell once, every number finite, percent
    and not fractions.

    Raises: DataError: every fault at once. IntegrityError: a converted table is not what was
        written. RecipeError: not a space with tables.
    """
    return _checked(_read(path, space), path, space)


def convert_table(path: Path, space: str) -> tuple[Table, bytes]:
    """Read a table, and write it as one small file of arrays that `read_table` reads quickly and
    checks.

    Returns: the table; a safetensors file of `cells` u8 (k, 6), places in the space's operations,
    and of `final.TASK` and `early.TASK` f64 (k,). Its metadata names the layout and the SHA-256 of
    the file it was made of, and carries a checksum of all of it.
    Raises: as `read_table`.
    """
    from safetensors.numpy import save

    results = _read(path, space)
    table = _checked(results, path, space)
    ops = ops_of(space)
    arrays = {
        "cells": np.array([[ops.index(op) for op in cell.ops] for cell in table.cells], np.uint8)
    }
    arrays |= {f"final.{task}": values for task, values in table.final.items()}
    arrays |= {f"early.{task}": values for task, values in table.early.items()}
    card: dict[str, Any] = {
        "space": space,
        "layout": results.layout,
        "made_of": path.name,
        "made_of_sha256": digest_of(path),
    }
    card["tasks"] = list(table.tasks)
    card["checksum"] = _checksum(card, arrays)
    return table, save(arrays, {_CARD: canonical_json(card)})


def _read(path: Path, space: str) -> Results:
    if space not in _COLUMNS:
        raise RecipeError(f"there is no space {space!r}", hint=f"give one of {', '.join(_COLUMNS)}")
    if path.suffix == ".safetensors":
        return _read_arrays(path, space)
    return (
        read_official(path, space)
        if path.is_dir() or path.suffix in SUFFIXES
        else _read_csv(path, space)
    )


def _read_csv(path: Path, space: str) -> Results:
    rows = _rows(path, _HINT)
    header = rows[0].keys() if rows else ()
    spelt = next((name for name in ("arch_str", "arch", "architecture") if name in header), "")
    columns = {task: name for task, name in _COLUMNS[space].items() if name in header}
    columns |= (
        {name.removesuffix(_FINAL): name for name in header if name.endswith(_FINAL)}
        if space == transnas101.NAME
        else {}
    )
    columns = {task: name for task, name in columns.items() if any(row[name] for row in rows)}
    early = {
        task: f"{_EARLY}{name}" for task, name in columns.items() if f"{_EARLY}{name}" in header
    }
    found = Results(
        "CSV",
        [row[spelt] for row in rows] if spelt else [],
        {},
        {},
        labels=columns,
        entry="line",
        first=2,
    )
    found.faults = [] if spelt else ["no column arch_str or arch with the cells' spellings"]
    found.final = {task: _numbers(rows, name) for task, name in columns.items()}
    found.early = {task: _numbers(rows, name) for task, name in early.items()}
    return found


def _read_arrays(path: Path, space: str) -> Results:
    from safetensors import SafetensorError, safe_open

    again = "convert the official file again"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint=_HINT)
        with safe_open(path, "numpy") as file:
            # it is no dictionary
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            card = json.loads((file.metadata() or {}).get(_CARD, "null"))
        sound = isinstance(card, dict) and card.get("checksum") == _checksum(card, arrays)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", hint=_HINT) from error
    except (
        SafetensorError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # the middle two: kinds numpy does not have
        raise IntegrityError(f"{path} is damaged: {error}", hint=again) from error
    if not sound:
        raise IntegrityError(
            f"{path} is not what was written: its checksum does not fit its values", hint=again
        )
    if card.get("space") != space:
        raise DataError(
            f"{path} is a table of {card.get('space')}, and {space} is wanted", hint=_HINT
        )
    cells, tasks = arrays.pop("cells", np.zeros(0)), card.get("tasks")
    columns = all(
        values.dtype == np.float64 and values.shape == cells.shape[:1] for values in arrays.values()
    )
    named = isinstance(tasks, list) and {name for name in arrays if name.startswith("final.")} == {
        f"final.{task}" for task in tasks
    }
    if (
        cells.dtype != np.uint8
        or cells.shape[1:] != (6,)
        or cells.max(initial=0) >= len(ops_of(space))
        or not columns
        or not named
    ):
        raise IntegrityError(
            f"{path} is no converted table: its arrays are of other names, kinds or shapes",
            hint=again,
        )
    found = Results(str(card.get("layout")), _spellings(cells, space), {}, {})
    found.final = {task: arrays[f"final.{task}"] for task in tasks}
    found.early = {task: arrays[f"early.{task}"] for task in tasks if f"early.{task}" in arrays}
    return found


def _checksum(card: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the card without its checksum and of every array with its name, kind and shape."""
    digest = hashlib.sha256(
        canonical_json({key: value for key, value in card.items() if key != "checksum"}).encode()
    )
    for name in sorted(arrays):
        digest.update(
            canonical_json([name, arrays[name].dtype.str, list(arrays[name].shape)]).encode()
        )
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _spellings(cells: UInt8[np.ndarray, "k 6"], space: str) -> list[str]:
    ops = ops_of(space)
    return [spell(cell_of([ops[place] for place in cell]), space) for cell in cells.tolist()]


def _checked(results: Results, path: Path, space: str) -> Table:
    faults = list(results.faults)
    faults += (
        []
        if len(results.final) >= 2
        else [f"{len(results.final)} task(s) with results; at least 2 are needed"]
    )
    _refuse(path, faults)
    places = {cell: at for at, cell in enumerate(all_cells(space))}
    place: list[int] = []
    for number, spelling in enumerate(results.spellings, results.first):
        try:
            place.append(places[parse(spelling, space)])
        except (RecipeError, KeyError):
            place.append(-1)
            faults.append(f"{results.entry} {number}: {spelling!r:.200} is no cell of {space}")
    counts = np.bincount([at for at in place if at >= 0], minlength=len(places))
    faults += (
        [f"{int((counts == 0).sum())} cell(s) of {len(places)} are missing"]
        if (counts == 0).any()
        else []
    )
    faults += (
        [f"{int((counts > 1).sum())} cell(s) occur more than once"] if (counts > 1).any() else []
    )
    for before, columns in (("", results.final), (_EARLY, results.early)):
        for task, values in columns.items():
            faults += _unfit(
                values,
                f"{before}{results.labels.get(task, task)}",
                results,
                percent=task not in _SIMILARITIES,
            )
    _refuse(path, faults)
    order = np.argsort(place)
    final = {task: values[order] for task, values in results.final.items()}
    early = {task: values[order] for task, values in results.early.items()}
    return Table(space, tuple(places), final, early)


def percentiles(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The share of cells that are strictly worse, in percent.

    >>> percentiles(np.array([3.0, 1.0, 3.0, 9.0])).tolist()
    [25.0, 0.0, 25.0, 75.0]
    """
    worse: Int64[np.ndarray, " k"] = np.searchsorted(np.sort(values), values, side="left")
    return 100.0 * worse / len(values)


def _rows(path: Path, hint: str) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint=hint)
        with (
            gzip.open(path, "rt", newline="")
            if path.suffix == ".gz"
            else path.open(newline="") as text
        ):
            start = text.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=hint) from error
    if len(start) > _MOST_BYTES:
        raise DataError(f"{path} unpacks to more than {_MOST_BYTES >> 20} MiB", hint=hint)
    try:
        return [
            {str(key): str(value or "") for key, value in row.items()}
            for row in csv.DictReader(start.splitlines())
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table: {error}", hint=hint) from error


def _numbers(rows: Sequence[dict[str, str]], name: str) -> Float[np.ndarray, " k"]:
    values = np.full(len(rows), math.nan)
    for at, row in enumerate(rows):
        try:
            values[at] = float(row[name])
        except ValueError:
            continue
    return values


def _unfit(
    values: Float[np.ndarray, " k"], label: str, results: Results, *, percent: bool
) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        return [
            (
                f"{label}: {len(bad)} value(s) are no finite number, the first in {results.entry} "
                f"{bad[0] + results.first}"
            )
        ]
    if percent and values.min() >= 0 and values.max() <= 1:
        return [
            (
                f"{label}: values from {values.min():g} to {values.max():g} look like fractions; "
                "percent are needed"
            )
        ]
    return []


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(
            f"{path} cannot be used: {len(faults)} fault(s)",
            faults=[*faults[:_SHOWN], *more],
            hint=_HINT,
        )
