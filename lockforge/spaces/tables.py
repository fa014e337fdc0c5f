"""Published benchmark tables. A locked door: only `benchmark` and tests open it.

A table is a CSV file (gzip or not), one row a cell: `arch_str` or `arch` holds the official spelling; for each task a column of final
results and, where there is one, of early results after a few epochs:

    nasbench201    cifar10_valid_val, cifar100_val, imagenet16_120_val; early ep12_ before the same names
    transnas101    TASK_val_final

Higher is better everywhere. Any subset of the tasks will do; a task is left out as a whole where it has no values.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from lockforge.errors import DataError, RecipeError
from lockforge.records import Cell
from lockforge.spaces import all_cells, nasbench201, transnas101
from lockforge.spaces.codecs import parse

_COLUMNS = {
    nasbench201.NAME: {"cifar10": "cifar10_valid_val", "cifar100": "cifar100_val", "imagenet16_120": "imagenet16_120_val"},
    transnas101.NAME: {},
}
_EARLY = "ep12_"
_FINAL = "_val_final"
_MOST_BYTES = 2**28
_SHOWN = 20


@dataclass(frozen=True)
class Table:
    """Final and early results of every cell of a space, by task; `digest` is that of the file's values."""

    space: str
    cells: tuple[Cell, ...]
    final: dict[str, Float[np.ndarray, " k"]]
    early: dict[str, Float[np.ndarray, " k"]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with results."""
        return tuple(self.final)


def read_table(path: Path, space: str) -> Table:
    """Read a table and check it against the space: every cell once, every number finite, percent and not fractions.

    Raises: DataError: every fault at once. RecipeError: not a space with tables.
    """
    if space not in _COLUMNS:
        raise RecipeError(f"there is no space {space!r}", hint=f"give one of {', '.join(_COLUMNS)}")
    hint = "give a CSV table of the whole space with official spellings, see docs/benchmark.md"
    rows = _rows(path, hint)
    header = rows[0].keys() if rows else ()
    spelt = next((name for name in ("arch_str", "arch", "architecture") if name in header), "")
    columns = {task: name for task, name in _COLUMNS[space].items() if name in header}
    columns |= {name.removesuffix(_FINAL): name for name in header if name.endswith(_FINAL)} if space == transnas101.NAME else {}
    columns = {task: name for task, name in columns.items() if any(row[name] for row in rows)}
    faults = [] if spelt else ["no column arch_str or arch with the cells' spellings"]
    faults += [] if len(columns) >= 2 else [f"{len(columns)} task(s) with results; at least 2 are needed"]
    _refuse(path, faults, hint)

    places = {cell: at for at, cell in enumerate(all_cells(space))}
    place: list[int] = []
    for number, row in enumerate(rows, 2):
        try:
            place.append(places[parse(row[spelt], space)])
        except (RecipeError, KeyError):
            place.append(-1)
            faults.append(f"line {number}: {row[spelt]!r} is no cell of {space}")
    counts = np.bincount([at for at in place if at >= 0], minlength=len(places))
    faults += [f"{int((counts == 0).sum())} cell(s) of {len(places)} are missing"] if (counts == 0).any() else []
    faults += [f"{int((counts > 1).sum())} cell(s) occur more than once"] if (counts > 1).any() else []
    names = list(columns.items()) + [
        (f"{_EARLY}{task}", f"{_EARLY}{name}") for task, name in columns.items() if f"{_EARLY}{name}" in header
    ]
    values = {task: _numbers(rows, name, faults) for task, name in names}
    _refuse(path, faults, hint)

    order = np.argsort(place)
    final = {task: values[task][order] for task in columns}
    early = {task: values[f"{_EARLY}{task}"][order] for task in columns if f"{_EARLY}{task}" in values}
    return Table(space, tuple(all_cells(space)), final, early)


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
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as text:
            start = text.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=hint) from error
    if len(start) > _MOST_BYTES:
        raise DataError(f"{path} unpacks to more than {_MOST_BYTES >> 20} MiB", hint=hint)
    try:
        return [{str(key): str(value or "") for key, value in row.items()} for row in csv.DictReader(start.splitlines())]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table: {error}", hint=hint) from error


def _numbers(rows: Sequence[dict[str, str]], name: str, faults: list[str]) -> Float[np.ndarray, " k"]:
    values = np.empty(len(rows))
    bad = []
    for at, row in enumerate(rows):
        try:
            values[at] = float(row[name])
        except ValueError:
            values[at] = math.nan
        if not math.isfinite(values[at]):
            bad.append(at + 2)
    if bad:
        faults.append(f"{name}: {len(bad)} value(s) are no finite number, the first in line {bad[0]}")
    elif values.min() >= 0 and values.max() <= 1:
        faults.append(f"{name}: values from {values.min():g} to {values.max():g} look like fractions; percent are needed")
    return values


def _refuse(path: Path, faults: Sequence[str], hint: str) -> None:
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(f"{path} cannot be used: {len(faults)} fault(s)", faults=[*faults[:_SHOWN], *more], hint=hint)
