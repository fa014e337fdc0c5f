"""Official files, as tiny ones of the same shape: what is read is the mean over seeds of the last
epoch's validation result.
"""

import bz2
import pickle
import sys
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lockforge.benchmark.tables._official import Results, read_official
from lockforge.errors import DataError
from lockforge.spaces import all_cells
from lockforge.spaces.codecs import spell

CELLS = [spell(cell, "nasbench201") for cell in all_cells("nasbench201")[:4]]
MICRO = [spell(cell, "transnas101") for cell in all_cells("transnas101")[:3]]
SETS = {"cifar10": "cifar10-valid", "cifar100": "cifar100", "imagenet16_120": "ImageNet16-120"}
Tree = dict[str, Any]


def run(
    rng: np.random.Generator, name: str, seed: int, last: float, *, epochs: int, every: bool = True
) -> Tree:
    """One training, as ResultsCount keeps its state: `last` is the validation accuracy of the last
    epoch.
    """
    splits = ["x-valid", "x-test", "ori-test"]
    told = [
        (split, epoch) for epoch in range(0 if every else epochs - 1, epochs) for split in splits
    ]
    accuracy = {f"{split}@{epoch}": float(rng.uniform(10, 90)) for split, epoch in told} | {
        f"x-valid@{epochs - 1}": last
    }
    shuffled = {key: accuracy[key] for key in rng.permutation(list(accuracy)).tolist()}
    curve = {epoch: float(rng.uniform()) for epoch in range(epochs)}
    return {
        "name": f"infer.tiny-{name}",
        "net_state_dict": None,
        "train_acc1es": dict(curve),
        "train_acc5es": dict(curve),
        "train_losses": dict(curve),
        "train_times": dict(curve),
        "arch_config": {"channel": 16, "num_cells": 5, "class_num": 10},
        "params": np.float64(0.1),
        "flop": np.float64(15.0),
        "seed": seed,
        "epochs": epochs,
        "latency": [0.01],
        "eval_names": splits,
        "eval_acc1es": shuffled,
        "eval_times": dict.fromkeys(shuffled, 1.0),
        "eval_losses": dict.fromkeys(shuffled, 2.0),
    }


def runs(
    rng: np.random.Generator, index: int, lasts: Mapping[str, list[float]], **how: Any
) -> Tree:
    """All trainings of a cell at one length, as ArchResults keeps its state."""
    return {
        "arch_index": index,
        "arch_str": CELLS[index],
        "all_results": {
            (name, 777 + at): run(rng, name, 777 + at, last, **how)
            for name, values in lasts.items()
            for at, last in enumerate(values)
        },
        "dataset_seed": {
            name: [777 + at for at in range(len(values))] for name, values in lasts.items()
        },
        "clear_net_done": True,
    }


@pytest.fixture
def truth(rng: np.random.Generator) -> dict[str, dict[str, list[list[float]]]]:
    """`truth["full" | "less"][data set][cell]`: the last validation accuracies by seed; the number
    of seeds differs, as it does there.
    """
    return {
        length: {
            name: [
                rng.uniform(10, 90, 1 + (at + len(name)) % 3).tolist() for at in range(len(CELLS))
            ]
            for name in SETS.values()
        }
        for length in ("full", "less")
    }


def tree_of(
    rng: np.random.Generator,
    truth: Any,
    *,
    keys: tuple[str, str],
    early: tuple[str, ...] = tuple(SETS.values()),
    **how: Any,
) -> Tree:
    """A whole benchmark: the same layout in NAS-Bench-201 and NATS-Bench but for two keys. CIFAR-10
    is also trained on everything.
    """
    infos = {}
    for index in rng.permutation(len(CELLS)).tolist():
        full = {name: truth["full"][name][index] for name in SETS.values()} | {"cifar10": [99.0]}
        less = {name: truth["less"][name][index] for name in early}
        infos[index] = {
            keys[0]: runs(rng, index, full, epochs=20, **how),
            keys[1]: runs(rng, index, less, epochs=3, **how),
        }
    return {
        "meta_archs": list(CELLS),
        "arch2infos": infos,
        "evaluated_indexes": set(range(len(CELLS))),
    }


def assert_means(found: Results, truth: Any, early: tuple[str, ...] = tuple(SETS)) -> None:
    """Every result is the mean over seeds, whatever order the file has."""
    assert found.faults == []
    order = [CELLS.index(spelling) for spelling in found.spellings]
    assert sorted(order) == list(range(len(CELLS)))
    for length, columns, tasks in (
        ("full", found.final, tuple(SETS)),
        ("less", found.early, early),
    ):
        assert tuple(columns) == tasks
        for task in tasks:
            wanted = [np.mean(truth[length][SETS[task]][at]) for at in order]
            assert np.allclose(columns[task], wanted, rtol=1e-12)


@pytest.mark.parametrize("zipped", [True, False])
def test_nas_bench_201_of_the_second_version(
    zipped: bool, tmp_path: Path, rng: np.random.Generator, truth: Any
) -> None:
    """All data sets, long and short, in either of torch's formats."""
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    torch.save(
        tree_of(rng, truth, keys=("full", "less")), path, _use_new_zipfile_serialization=zipped
    )
    found = read_official(path, "nasbench201")
    assert found.layout == "NAS-Bench-201"
    assert_means(found, truth)


def test_nas_bench_201_of_the_first_version(
    tmp_path: Path, rng: np.random.Generator, truth: Any
) -> None:
    """Short trainings on CIFAR-10 alone, and evaluations after the last epoch alone."""
    path = tmp_path / "NAS-Bench-201-v1_0-e61699.pth"
    tree = tree_of(rng, truth, keys=("full", "less"), early=("cifar10-valid",), every=False)
    torch.save(tree, path, _use_new_zipfile_serialization=False)
    assert_means(read_official(path, "nasbench201"), truth, early=("cifar10",))


def test_nats_bench_as_one_file(tmp_path: Path, rng: np.random.Generator, truth: Any) -> None:
    """The topology space, packed."""
    path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(tree_of(rng, truth, keys=("200", "12")), 4)))
    found = read_official(path, "nasbench201")
    assert found.layout == "NATS-Bench"
    assert_means(found, truth)


def test_nats_bench_as_a_folder(tmp_path: Path, rng: np.random.Generator, truth: Any) -> None:
    """One packed file a cell beside the list of cells; other files in the folder are left alone."""
    tree = tree_of(rng, truth, keys=("200", "12"))
    (tmp_path / "meta.pickle.pbz2").write_bytes(
        bz2.compress(pickle.dumps({"meta_archs": tree["meta_archs"]}, 4))
    )
    for index, info in tree["arch2infos"].items():
        (tmp_path / f"{index:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(info, 4)))
    (tmp_path / "README.txt").write_text("no pickle")
    assert_means(read_official(tmp_path, "nasbench201"), truth)


def test_trainings_kept_as_objects(
    tmp_path: Path, rng: np.random.Generator, truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects of the official classes are read like their states; the classes are not asked."""
    module = types.ModuleType("nas_201_api.api_utils")
    for name in ("ArchResults", "ResultsCount"):
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
    monkeypatch.setitem(sys.modules, "nas_201_api", types.ModuleType("nas_201_api"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def made(name: str, state: Tree) -> Any:
        new = getattr(module, name)()
        new.__dict__.update(state)
        return new

    tree = tree_of(rng, truth, keys=("full", "less"))
    for info in tree["arch2infos"].values():
        for length, state in info.items():
            results = {key: made("ResultsCount", one) for key, one in state["all_results"].items()}
            info[length] = made("ArchResults", {**state, "all_results": results})
    path = tmp_path / "objects.pth"
    torch.save(tree, path)
    monkeypatch.undo()
    assert_means(read_official(path, "nasbench201"), truth)


def test_faults_of_a_benchmark_are_listed_at_once(
    tmp_path: Path, rng: np.random.Generator, truth: Any
) -> None:
    """A training that stopped early, one that is missing, a cell under another name, one that is
    not on the list.
    """
    tree = tree_of(rng, truth, keys=("full", "less"))
    infos = tree["arch2infos"]
    del infos[0]["full"]["all_results"]["cifar100", 777]["eval_acc1es"]["x-valid@19"]
    del infos[1]["less"]["all_results"]["cifar100", 777]
    infos[2]["full"]["arch_str"] = CELLS[3]
    infos[9] = infos[3]
    path = tmp_path / "file.pth"
    torch.save(tree, path)
    told = "\n".join(read_official(path, "nasbench201").faults)
    assert told.count("\n") == 3
    for words in (
        "cell 0: no validation accuracy on cifar100 after the last epoch of seed 777",
        "cell 1: no",
        "cell 2 is called",
        "9 is no place",
    ):
        assert words in told


def transnas(rng: np.random.Generator) -> Tree:
    """TransNAS-Bench-101 with three cells of the micro space and one of the other."""
    metrics = {
        "class_scene": ["top1", "top5", "loss"],
        "room_layout": ["loss", "neg_loss"],
        "segmentsemantic": ["loss", "acc", "mIoU"],
        "autoencoder": ["ssim", "l1_loss"],
    }
    names = {
        task: [f"{split}_{name}" for split in ("train", "valid", "test") for name in own]
        + ["time_elapsed"]
        for task, own in metrics.items()
    }

    def task(own: list[str]) -> Tree:
        return {
            "total_epochs": 5,
            "model_info": {"inference_time": 0.1, "encoder_params": 1000},
            "metrics": {name: rng.uniform(-3, 90, 5).tolist() for name in own},
        }

    data = {
        "macro": {"64-4111-basic": 1},
        "micro": {cell: {name: task(own) for name, own in names.items()} for cell in MICRO[::-1]},
    }
    return {
        "metrics_dict": names,
        "info_names": ["inference_time", "encoder_params"],
        "task_list": list(metrics),
        "data": data,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_transnas_bench_101(zipped: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    """The last epoch of the metric in which higher is better, of the micro space and of the tasks
    that are there.
    """
    tree = transnas(rng)
    path = tmp_path / "transnas-bench_v10141024.pth"
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    found = read_official(path, "transnas101")
    assert (found.layout, found.faults, found.early) == ("TransNAS-Bench-101", [], {})
    assert list(found.spellings) == MICRO[::-1]
    wanted = {
        "class_scene": "valid_top1",
        "room_layout": "valid_neg_loss",
        "segmentsemantic": "valid_acc",
        "autoencoder": "valid_ssim",
    }
    assert set(found.final) == set(wanted)
    for task, metric in wanted.items():
        assert found.final[task].tolist() == [
            tree["data"]["micro"][cell][task]["metrics"][metric][-1] for cell in MICRO[::-1]
        ]


def test_naslibs_digests_as_one_file_or_a_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    """One number, or one an epoch of which the last counts; a folder's files are put together, and
    none may repeat another.
    """
    one = {
        cell: {
            name: {"eval_acc1es": float(rng.uniform(10, 90)), "params": 0.1}
            for name in [*SETS.values(), "cifar10"]
        }
        for cell in CELLS
    }
    path = tmp_path / "nb201_all.pickle"
    path.write_bytes(pickle.dumps(one))
    found = read_official(path, "nasbench201")
    assert (found.layout, found.faults, found.early, list(found.spellings)) == (
        "NASLib",
        [],
        {},
        CELLS,
    )
    assert {task: found.final[task].tolist() for task in SETS} == {
        task: [one[c][SETS[task]]["eval_acc1es"] for c in CELLS] for task in SETS
    }

    folder = tmp_path / "whole"
    folder.mkdir()
    curves = {
        name: {cell: rng.uniform(10, 90, 20).tolist() for cell in CELLS}
        for name in list(SETS.values())[:2]
    }
    for name, own in curves.items():
        tree = {
            cell: {
                name: {
                    "eval_acc1es": curve,
                    "train_losses": curve,
                    "cost_info": {"train_time": 3.0},
                }
            }
            for cell, curve in own.items()
        }
        (folder / f"nb201_{name}_full_training.pickle").write_bytes(pickle.dumps(tree))
    found = read_official(folder, "nasbench201")
    assert {task: found.final[task].tolist() for task in found.final} == {
        task: [curves[SETS[task]][cell][-1] for cell in CELLS] for task in ("cifar10", "cifar100")
    }
    (folder / "nb201_all.pickle").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="that another file holds as well"):
        read_official(folder, "nasbench201")


ODD = {
    "a list": [1, 2],
    "an empty dictionary": {},
    "another dictionary": {"a": 1},
    "no list of cells": {"meta_archs": 3, "arch2infos": {0: {}}},
    "no results": {"meta_archs": ["x"], "arch2infos": [1]},
    "cells of no kind": {
        "meta_archs": [1, None],
        "arch2infos": {0: {"full": 1}, "a": 2, (1, 2): {}},
    },
    "runs of no kind": {
        "meta_archs": CELLS,
        "arch2infos": {
            0: {"full": {"dataset_seed": {"cifar100": ["x"]}, "all_results": [1]}},
            1: None,
        },
    },
    "epochs of no kind": {
        "meta_archs": CELLS,
        "arch2infos": {
            0: {
                "full": {
                    "dataset_seed": {"cifar100": [1]},
                    "all_results": {("cifar100", 1): {"eval_acc1es": {"x-valid@1": "high"}}},
                }
            }
        },
    },
    "tasks of no kind": {
        "data": {"micro": {"x": {"jigsaw": {"metrics": [1]}}, "y": 3}},
        "metrics_dict": 1,
    },
    "curves of no kind": {
        "data": {"micro": {"x": {"jigsaw": {"metrics": {"valid_top1": [[1]]}}}}},
        "metrics_dict": 1,
    },
    "a digest of no kind": {"|x|": {"cifar100": {"eval_acc1es": {"a": "b"}}}, "|y|": 3},
}


@pytest.mark.parametrize("tree", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("space", ["nasbench201", "transnas101"])
def test_a_tree_of_another_shape_is_refused_or_has_no_results(
    tree: Any, space: str, tmp_path: Path
) -> None:
    """A DataError, or a table without tasks, which is no table."""
    path = tmp_path / "file.pickle"
    path.write_bytes(pickle.dumps(tree))
    found = None
    with suppress(DataError):
        found = read_official(path, space)
    assert found is None or found.final == {}


def test_a_file_of_the_other_space_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """With what it is and what was wanted."""
    path = tmp_path / "file.pth"
    torch.save(transnas(rng), path)
    with pytest.raises(DataError, match="a file of TransNAS-Bench-101, and nasbench201 is wanted"):
        read_official(path, "nasbench201")
    with pytest.raises(DataError, match="holds neither"):
        read_official(tmp_path, "nasbench201")
