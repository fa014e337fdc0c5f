"""Results out of the official benchmark files, as they are laid out by their authors. A locked
door: only `tables` and tests open it.

    NAS-Bench-201 (Dong & Yang 2020), v1.0 and v1.1 `.pth`: meta_archs[i]; arch2infos[i]["full" |
    "less"]: the runs of 200 and of 12 epochs NATS-Bench topology (Dong et al. 2021),
    `.pickle.pbz2`: the same with "200" | "12"; its folder: meta, and one file a cell
    TransNAS-Bench-101 (Duan et al. 2021), `.pth`: data["micro"][cell][task]["metrics"][name], one
    number an epoch NASLib's digests of NAS-Bench-201, `nb201_*.pickle`: [cell][data
    set]["eval_acc1es"], one number or one an epoch

Runs: all_results[data set, seed]["eval_acc1es"]["x-valid@" + epoch], counted from 0. Final and
early results are the mean over the seeds of the last epoch's validation accuracy, as the
benchmarks' own `get_more_info(..., is_random=False)` gives it. TransNAS: the last epoch.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lockforge.benchmark.tables._archives import read_archive
from lockforge.benchmark.tables._stand_ins import StubObject
from lockforge.benchmark.tables._streams import HINT
from lockforge.errors import DataError
from lockforge.spaces import nasbench201, transnas101

SUFFIXES = frozenset({".pth", ".pt", ".pickle", ".pkl", ".p", ".pbz2", ".bz2"})
_DATA_SETS = {
    "cifar10": "cifar10-valid",
    "cifar100": "cifar100",
    "imagenet16_120": "ImageNet16-120",
}
_FINAL, _EARLY = ("full", "200"), ("less", "12")
_METRICS = {  # what NASLib takes for the validation accuracy; higher is better
    "class_scene": "valid_top1",
    "class_object": "valid_top1",
    "room_layout": "valid_neg_loss",
    "jigsaw": "valid_top1",
    "segmentsemantic": "valid_acc",
    "normal": "valid_ssim",
    "autoencoder": "valid_ssim",
}
_ONE_CELL = re.compile(r"(\d{1,6})\.pickle\.pbz2")
_META = "meta.pickle.pbz2"
_DROPPED = (
    "train_",
    "test_",
    "eval_losses",
    "eval_times",
    "net_state_dict",
    "time_elapsed",
    "macro",
)


@dataclass
class Results:
    """Results as a file has them, one entry a cell in the file's order, NaN where there is none.
    `labels` names tasks as the file does.
    """

    layout: str
    spellings: Sequence[str]
    final: dict[str, Float[np.ndarray, " k"]]
    early: dict[str, Float[np.ndarray, " k"]]
    faults: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    entry: str = "entry"
    first: int = 0


def read_official(path: Path, space: str) -> Results:
    """Read an official file or folder; whether it is complete is asked elsewhere.

    Raises: DataError: not one of the layouts above, of another space, or no file to be read.
    """
    if path.is_dir():
        layout, tree = _read_folder(path)
    else:
        tree = read_archive(path, fold=keep_the_last)
        layout = _layout_of(tree)
    of = transnas101.NAME if layout == "TransNAS-Bench-101" else nasbench201.NAME
    if not layout or of != space:
        what = (
            f"a file of {layout}"
            if layout
            else f"a {type(tree).__name__} of no layout that is understood"
        )
        raise DataError(f"{path} is {what}, and {space} is wanted", hint=HINT)
    if layout == "TransNAS-Bench-101":
        return _from_tasks(tree, layout)
    return _from_digest(tree, layout) if layout == "NASLib" else _from_runs(tree, layout)


def keep_the_last(key: str, value: Any) -> Any:
    """Of learning curves the last epoch, of what is not needed nothing.

    >>> keep_the_last("eval_acc1es", {"x-valid@0": 10.0, "x-valid@1": 20.0})
    {'x-valid': (1, 20.0)}
    >>> keep_the_last("valid_top1", [1.0, 2.0]), keep_the_last("train_losses", [3.0])
    (2.0, None)
    """
    if key.startswith(_DROPPED):
        return None
    if key != "eval_acc1es" and not key.startswith("valid_"):
        return value
    if isinstance(value, list):
        return value[-1] if value and isinstance(value[-1], int | float) else value
    last: dict[str, tuple[int, float]] = {}
    for name, number in value.items():
        split, _, epoch = str(name).rpartition("@")
        if not (epoch.isdecimal() and len(epoch) < 9 and isinstance(number, int | float)):
            return value
        if split not in last or int(epoch) > last[split][0]:
            last[split] = int(epoch), float(number)
    return last


def _layout_of(tree: Any) -> str:
    if not isinstance(tree, dict) or not tree:
        return ""
    if {"meta_archs", "arch2infos"} <= tree.keys():
        infos = tree["arch2infos"]
        first = next(iter(infos.values()), None) if isinstance(infos, dict) else None
        return "NATS-Bench" if isinstance(first, dict) and _EARLY[1] in first else "NAS-Bench-201"
    if {"data", "metrics_dict"} <= tree.keys():
        return "TransNAS-Bench-101"
    return "NASLib" if all(isinstance(key, str) and key.startswith("|") for key in tree) else ""


def _read_folder(path: Path) -> tuple[str, Any]:
    if (path / _META).is_file():
        meta = read_archive(path / _META, fold=keep_the_last)
        found = [
            (int(match[1]), file)
            for file in sorted(path.iterdir())
            if (match := _ONE_CELL.fullmatch(file.name)) and file.is_file()
        ]
        infos = (
            (index, read_archive(file, fold=keep_the_last)) for index, file in found
        )  # one at a time: only its results are kept
        return "NATS-Bench", {"meta_archs": _fields(meta).get("meta_archs"), "arch2infos": infos}
    files = sorted(path.glob("nb201_*.pickle"))
    if not files:
        raise DataError(f"{path} holds neither {_META} nor any nb201_*.pickle", hint=HINT)
    merged: dict[str, dict[str, Any]] = {}
    for file in files:
        tree = read_archive(file, fold=keep_the_last)
        if _layout_of(tree) != "NASLib":
            raise DataError(f"{file} is no digest of NASLib", hint=HINT)
        for cell, results in tree.items():
            known = merged.setdefault(cell, {})
            twice = known.keys() & _fields(results).keys() & set(_DATA_SETS.values())
            if twice:
                raise DataError(
                    f"{file} holds results on {min(twice)} that another file holds as well",
                    hint="leave one of the files out",
                )
            known.update(_fields(results))
    return "NASLib", merged


def _from_runs(tree: Mapping[str, Any], layout: str) -> Results:
    cells, infos = tree["meta_archs"], tree["arch2infos"]
    pairs = iter(infos.items()) if isinstance(infos, dict) else infos
    if not isinstance(cells, list) or not isinstance(pairs, Iterator):
        return Results(layout, (), {}, {}, ["meta_archs is no list, or arch2infos no dictionary"])
    found = Results(layout, [], {}, {})
    rows: list[list[float]] = []
    spellings: list[str] = []
    for index, info in pairs:
        if not (
            isinstance(index, int) and 0 <= index < len(cells) and isinstance(cells[index], str)
        ):
            found.faults.append(f"{index!r:.40} is no place in the list of cells")
            continue
        long, short = (
            _fields(next((_fields(info)[key] for key in keys if key in _fields(info)), None))
            for keys in (_FINAL, _EARLY)
        )
        told = {runs["arch_str"] for runs in (long, short) if isinstance(runs.get("arch_str"), str)}
        if told - {cells[index]}:
            found.faults.append(
                f"cell {index} is called {cells[index]!r:.120} and "
                f"{min(told - {cells[index]})!r:.120}"
            )
        spellings.append(cells[index])
        rows.append(
            [
                _mean(runs, name, f"cell {index}", found.faults)
                for runs in (long, short)
                for name in _DATA_SETS.values()
            ]
        )
    found.spellings = spellings
    values = np.array(rows, float).reshape(-1, 2 * len(_DATA_SETS))
    found.final = _with_results(dict(zip(_DATA_SETS, values.T[:3], strict=True)))
    found.early = _with_results(dict(zip(_DATA_SETS, values.T[3:], strict=True)))
    return found


def _mean(runs: Mapping[str, Any], name: str, where: str, faults: list[str]) -> float:
    """Over the seeds; NaN where there is no run on this data set."""
    seeds = _fields(runs.get("dataset_seed")).get(name)
    if not isinstance(seeds, list) or not seeds:
        return math.nan
    numbers = []
    for seed in seeds:
        run = _fields(
            _fields(runs.get("all_results")).get((name, seed) if isinstance(seed, int) else None)
        )
        last = _fields(run.get("eval_acc1es")).get("x-valid")
        epochs = run.get("epochs")
        if not isinstance(last, tuple) or not isinstance(epochs, int) or last[0] != epochs - 1:
            faults.append(
                f"{where}: no validation accuracy on {name} after the last epoch of seed "
                f"{seed!r:.40}"
            )
            return math.nan
        numbers.append(last[1])
    return math.fsum(numbers) / len(numbers)


def _from_tasks(tree: Mapping[str, Any], layout: str) -> Results:
    cells = _fields(_fields(tree["data"]).get("micro"))
    values = {
        task: np.array(
            [
                _number(_fields(_fields(_fields(tasks).get(task)).get("metrics")).get(metric))
                for tasks in cells.values()
            ],
            float,
        )
        for task, metric in _METRICS.items()
    }
    faults = [] if cells else ["no cell of the micro space"]
    return Results(layout, [str(cell) for cell in cells], _with_results(values), {}, faults)


def _from_digest(tree: Mapping[str, Any], layout: str) -> Results:
    values = {
        task: np.array(
            [
                _number(_fields(_fields(sets).get(name)).get("eval_acc1es"))
                for sets in tree.values()
            ],
            float,
        )
        for task, name in _DATA_SETS.items()
    }
    return Results(layout, list(tree), _with_results(values), {})


def _with_results(values: dict[str, Float[np.ndarray, " k"]]) -> dict[str, Float[np.ndarray, " k"]]:
    return {task: column for task, column in values.items() if np.isfinite(column).any()}


def _fields(value: Any) -> Mapping[Any, Any]:
    """A dictionary, or the state of an object that was kept as one; empty for anything else."""
    found = value.state if isinstance(value, StubObject) else value
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
