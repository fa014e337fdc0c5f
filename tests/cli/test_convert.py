"""`benchmark --convert`: an official file once into a small one, which the command then reads;
hostile files end with an exit code.
"""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lockforge.spaces import all_cells
from lockforge.spaces.codecs import spell

Run = Callable[..., tuple[int, str]]


def test_an_official_file_is_converted_once_and_used(
    run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    """What the small file gives is what the official one gives."""
    cells = [spell(cell, "transnas101") for cell in all_cells("transnas101")]
    micro = {
        cell: {
            task: {"metrics": {"valid_top1": [1.0, float(rng.uniform(10, 90))]}}
            for task in ("class_scene", "jigsaw")
        }
        for cell in cells
    }
    (tmp_path / "official.pth").write_bytes(
        pickle.dumps({"metrics_dict": {}, "data": {"micro": micro}})
    )
    code, said = run(
        "benchmark",
        "transnas101",
        "--table",
        "official.pth",
        "--convert",
        "small.safetensors",
        "--json",
    )
    assert code == 0
    told = json.loads(said)
    best = max(tasks["jigsaw"]["metrics"]["valid_top1"][-1] for tasks in micro.values())
    assert (told["cells"], told["best"]["jigsaw"], told["early"]) == (4096, best, [])
    assert (tmp_path / "small.safetensors").stat().st_size == told["bytes"] < 120_000
    code, said = run(
        "benchmark", "transnas101", "--table", "official.pth", "--convert", "again.safetensors"
    )
    assert code == 0
    assert "4096 cells" in said
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "small.safetensors"
    ).read_bytes()

    options = ("--row", "random", "--seeds", "2", "--measurements", "5", "--json")
    answers = [
        run("benchmark", "transnas101", "--table", name, *options)
        for name in ("official.pth", "small.safetensors")
    ]
    official, small = (json.loads(said[: said.rindex("}") + 1]) for _, said in answers)
    assert official == small
    assert len(official["rows"]) == 2


class Shell:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_a_hostile_file_is_an_exit_code_and_nothing_else(run: Run, tmp_path: Path) -> None:
    """Code 3 with what it names; the command is not run and nothing is written."""
    (tmp_path / "official.pth").write_bytes(pickle.dumps(Shell()))
    code, said = run(
        "benchmark", "nasbench201", "--table", "official.pth", "--convert", "small.safetensors"
    )
    assert code == 3
    assert "'posix system', which is not on the list" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official.pth"]


def test_a_name_that_would_not_be_read_again_is_refused(run: Run) -> None:
    """Before the official file is read."""
    code, said = run("benchmark", "nasbench201", "--table", "none.pth", "--convert", "small.npz")
    assert code == 2
    assert "safetensors" in said
