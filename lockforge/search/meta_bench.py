"""A small bench of real trainings: cells of a space, trained briefly on a few tasks, and what that
says of every cell in general.

The prior of TU: a cell that is good on all tasks is no lock. No table and nothing of source or
target is in it. One file a space, safetensors: `cells` int8 (m, 6) indices into the space's
operations, `accuracy` f32 (t, m) in [0, 1] (NaN where a training diverged), and a card (JSON) that
says of which tasks and how they were trained.

Shapes: m measured cells, k cells asked about, t tasks.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from lockforge.errors import IntegrityError
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import EDGES, Cell, Digest, FileRef, ImageSet, Record
from lockforge.runs import Work, stage
from lockforge.search._short_training import ShortTrainings
from lockforge.search.surrogate import Surrogate, normal_scores
from lockforge.spaces import ops_of

LEAST_CELLS = 8
_REDO = "install LockForge again, or make one with `lockforge metabench`"


class CellAccuracies(Record):
    """Validation accuracy of some cells after a short training on one task; `accuracy` holds
    `accuracy` f64 (m,), NaN where it diverged.
    """

    images: Digest
    cells: tuple[Cell, ...]
    accuracy: FileRef


class GatheredBench(Record):
    """A meta-bench's file and its card."""

    file: FileRef
    card: dict[str, Any]


@stage(version=1)
def measure_cells(
    images: ImageSet,
    network: NetworkRecipe,
    cells: tuple[Cell, ...],
    recipe: FitRecipe,
    *,
    work: Work,
) -> CellAccuracies:
    """Train each cell briefly on one task; every result is stored as soon as it is known."""

    def told(count: int, said: str) -> None:
        work.report(count, len(cells), f"short training: {said}")

    found = ShortTrainings(images, network, recipe, work, told).measure(cells)
    values = np.array([np.nan if value is None else value for value in found])
    return CellAccuracies(
        images=images.digest, cells=cells, accuracy=work.files.put_arrays({"accuracy": values})
    )


@stage(version=1)
def gather_bench(
    measured: tuple[CellAccuracies, ...],
    names: tuple[str, ...],
    network: NetworkRecipe,
    recipe: FitRecipe,
    *,
    work: Work,
) -> GatheredBench:
    """Put the tasks' measurements of the same cells into one file.

    Args: names: of the tasks, for the card. network, recipe: how the cells were trained, for the
        card.
    Raises: IntegrityError: the tasks were measured on different cells.
    """
    cells = measured[0].cells
    if any(task.cells != cells for task in measured):
        raise IntegrityError(
            "the tasks of a meta-bench were measured on different cells",
            hint="measure the same cells on every task",
        )
    table = np.stack([work.files.get_arrays(task.accuracy)["accuracy"] for task in measured])
    ranks = np.stack([normal_scores(np.nan_to_num(row, nan=-1.0)) for row in table])
    card = {
        "space": network.space,
        "tasks": list(names),
        "cells": len(cells),
        "seed": work.seed,
        "network": network.model_dump(mode="json"),
        "fit": recipe.model_dump(mode="json"),
        "diverged": int(np.isnan(table).sum()),
        "accuracy": {
            name: [round(float(np.nanmin(row)), 4), round(float(np.nanmax(row)), 4)]
            for name, row in zip(names, table, strict=True)
        },
        "agreement": np.corrcoef(ranks).round(3).tolist() if len(names) > 1 else [[1.0]],
    }
    names_of_ops = [op.name for op in ops_of(network.space)]
    codes = np.array([[names_of_ops.index(op.name) for op in cell.ops] for cell in cells], np.int8)
    data = _save(codes, table.astype(np.float32), card)
    return GatheredBench(file=work.files.put(data), card=card)


@dataclass(frozen=True)
class MetaBench:
    """Measured cells of a space, and their accuracy on several tasks."""

    space: str
    cells: tuple[Cell, ...]
    accuracy: Float[np.ndarray, "t m"]
    card: Mapping[str, Any]

    def good_in_general(self, cells: Sequence[Cell]) -> Float[np.ndarray, " k"]:
        """How good cells are on the bench's tasks, in [0, 1]: the share of `cells` that is expected
        to be worse.

        The mean over tasks of the measured cells' normal scores; a Gaussian process over the edges
        says it of the others.
        """
        everything = tuple(dict.fromkeys((*cells, *self.cells)))
        place = {cell: at for at, cell in enumerate(everything)}
        mean = np.mean(
            [normal_scores(np.nan_to_num(row, nan=-1.0)) for row in self.accuracy], axis=0
        )
        measured: Int64[np.ndarray, " m"] = np.array([place[cell] for cell in self.cells])
        values = Surrogate(everything).fit(measured, mean).mean
        asked = np.array([values[place[cell]] for cell in cells])
        worse: Float[np.ndarray, " k"] = np.searchsorted(np.sort(asked), asked, side="left") / max(
            1, len(cells) - 1
        )
        return worse


def packaged_bench(space: str) -> str:
    """The file of a space's meta-bench inside the package."""
    return f"metabench-{space}.safetensors"


def load_meta_bench(space: str, data: bytes | None = None) -> MetaBench:
    """The meta-bench of a space, from the package or from given bytes.

    Raises: IntegrityError: not a meta-bench, of another space, or with arrays that do not fit
        together; every fault is listed.
    """
    name = packaged_bench(space)
    if data is None:
        packaged = package_files("lockforge.search").joinpath(name)
        if not packaged.is_file():
            raise IntegrityError(f"this installation has no {name}", hint=_REDO)
        data = packaged.read_bytes()
    card, arrays = _read(data, name)
    if card.get("space") != space:
        raise IntegrityError(
            f"this meta-bench is for {card.get('space')}, not for {space}",
            hint=f"give the one of {space}",
        )
    ops = list(ops_of(space))
    codes, accuracy = arrays.get("cells", np.empty(0)), arrays.get("accuracy", np.empty(0))
    faults = []
    if (
        codes.ndim != 2
        or codes.shape[1] != len(EDGES)
        or len(codes) < LEAST_CELLS
        or codes.dtype != np.int8
    ):
        faults.append(
            f"cells: {codes.dtype} {codes.shape} where int8 ({LEAST_CELLS} or more, "
            f"{len(EDGES)}) is needed"
        )
    elif codes.min() < 0 or codes.max() >= len(ops) or len(np.unique(codes, axis=0)) < len(codes):
        faults.append(
            f"cells: operations {codes.min()} to {codes.max()} where 0 to {len(ops) - 1} are "
            "known, or a cell twice"
        )
    if accuracy.ndim != 2 or accuracy.shape[1] != len(codes) or not len(accuracy):
        faults.append(f"accuracy: {accuracy.shape} does not fit {len(codes)} cells")
    elif np.isinf(accuracy).any() or (accuracy < 0).any() or (accuracy > 1).any():
        faults.append("accuracy: a value outside 0 to 1")
    if faults:
        raise IntegrityError(f"{name} is not a meta-bench of {space}", faults=faults, hint=_REDO)
    cells = tuple(Cell(ops=tuple(ops[at] for at in row)) for row in codes.tolist())
    return MetaBench(space, cells, accuracy.astype(np.float64), card)


def _save(codes: np.ndarray, accuracy: np.ndarray, card: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    return save(
        {"cells": codes, "accuracy": accuracy}, {"card": json.dumps(dict(card), sort_keys=True)}
    )


def _read(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(data))
        (length,) = struct.unpack("<Q", data[:8])
        card = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["card"])
    except (
        SafetensorError,
        struct.error,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
    ) as error:
        raise IntegrityError(f"{name} is not a meta-bench: {error}", hint=_REDO) from error
    if not isinstance(card, dict):
        raise IntegrityError(
            f"the card of {name} is {type(card).__name__}, not an object", hint=_REDO
        )
    return card, arrays
