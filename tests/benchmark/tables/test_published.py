"""Tables are read whole and checked whole."""

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load, save
from safetensors.torch import save as save_tensors

from lockforge.benchmark.tables import _published as tables
from lockforge.benchmark.tables._published import Table, convert_table, percentiles, read_table
from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.spaces import all_cells
from lockforge.spaces.codecs import spell

Rows = list[dict[str, str]]


def made_rows(rng: np.random.Generator) -> Rows:
    """A made-up table of the small space with three tasks, in an order of its own."""
    cells = all_cells("transnas101")
    values = rng.normal(50, 10, (len(cells), 3))
    made = [
        {
            "arch_str": spell(cell, "transnas101"),
            **{f"{task}_val_final": repr(float(x)) for task, x in zip("abc", line, strict=True)},
        }
        for cell, line in zip(cells, values, strict=True)
    ]
    return [made[at] for at in rng.permutation(len(made))]


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    """A table of each test's own."""
    return made_rows(rng)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Rows], Path]:
    """Write rows as CSV."""

    def to_file(rows: Rows) -> Path:
        path = tmp_path / "table.csv.gz"
        with gzip.open(path, "wt", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return to_file


def test_a_table_comes_back_in_the_order_of_the_space(
    rows: Rows, write: Callable[[Rows], Path]
) -> None:
    """Whatever order it was written in."""
    table = read_table(write(rows), "transnas101")
    assert table.cells == all_cells("transnas101")
    assert table.tasks == ("a", "b", "c")
    by_name = {row["arch_str"]: float(row["b_val_final"]) for row in rows}
    assert all(
        table.final["b"][at] == by_name[spell(cell, "transnas101")]
        for at, cell in enumerate(table.cells)
    )


def test_any_subset_of_tasks_will_do_but_one_is_too_few(
    rows: Rows, write: Callable[[Rows], Path]
) -> None:
    """An empty column is no task."""
    for row in rows:
        row["c_val_final"] = ""
    assert read_table(write(rows), "transnas101").tasks == ("a", "b")
    for row in rows:
        row["b_val_final"] = ""
    with pytest.raises(DataError, match="at least 2 are needed"):
        read_table(write(rows), "transnas101")


def test_every_fault_of_a_table_is_listed_at_once(
    rows: Rows, write: Callable[[Rows], Path]
) -> None:
    """A missing cell, one that is there twice, an unknown spelling, a value that is no number, one
    that is missing, fractions.
    """
    rows[3] = dict(rows[4])
    rows[5]["arch_str"] = "64-41414-9_00_000"
    rows[7]["a_val_final"] = "nan"
    rows[8]["b_val_final"] = ""
    for row in rows:
        row["c_val_final"] = "0.5"
    with pytest.raises(DataError) as caught:
        read_table(write(rows), "transnas101")
    told = "\n".join(caught.value.faults)
    for words in (
        "2 cell(s) of 4096 are missing",
        "1 cell(s) occur more than once",
        "line 7: '64-41414-9_00_000'",
        "a_val_final: 1 value(s)",
        "b_val_final: 1 value(s) are no finite number, the first in line 10",
        "look like fractions",
    ):
        assert words in told


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    """A missing file, no gzip, no columns, another space."""
    (tmp_path / "a.csv.gz").write_bytes(b"no")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    for name in ("missing.csv", "a.csv.gz", "b.csv"):
        with pytest.raises(DataError, match=name):
            read_table(tmp_path / name, "nasbench201")
    with pytest.raises(RecipeError, match="no space"):
        read_table(tmp_path / "b.csv", "darts")


def official(rows: Rows) -> dict[str, Any]:
    """The same values as TransNAS-Bench-101 has them: seven tasks in all, three here; the last
    number of a curve counts.
    """
    tasks = {
        "class_scene": ("valid_top1", "a", 1.0),
        "room_layout": ("valid_neg_loss", "b", -1.0),
        "normal": ("valid_ssim", "c", 0.01),
    }
    micro = {
        row["arch_str"]: {
            task: {"metrics": {metric: [0.0, scale * abs(float(row[f"{of}_val_final"]))]}}
            for task, (metric, of, scale) in tasks.items()
        }
        for row in rows
    }
    return {
        "metrics_dict": {},
        "info_names": [],
        "task_list": list(tasks),
        "data": {"macro": {}, "micro": micro},
    }


@pytest.fixture(scope="module")
def whole() -> Rows:
    """What the whole official file holds."""
    return made_rows(numpy_generator(0, "whole"))


@pytest.fixture(scope="module")
def archive(whole: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole official file of the small space; no test writes to it."""
    path = tmp_path_factory.mktemp("official") / "transnas-bench_v10141024.pth"
    torch.save(official(whole), path)
    return path


@pytest.fixture(scope="module")
def conversion(archive: Path) -> tuple[Table, bytes]:
    """What comes of it."""
    return convert_table(archive, "transnas101")


def test_an_official_file_is_a_table_like_any_other(archive: Path, whole: Rows) -> None:
    """In the order of the space; similarities may lie between 0 and 1, as no percent may."""
    table = read_table(archive, "transnas101")
    assert table.tasks == ("class_scene", "room_layout", "normal")
    by_name = {row["arch_str"]: row for row in whole}
    for at, cell in enumerate(table.cells):
        row = by_name[spell(cell, "transnas101")]
        assert table.final["class_scene"][at] == abs(float(row["a_val_final"]))
        assert table.final["room_layout"][at] == -abs(float(row["b_val_final"]))
        assert table.final["normal"][at] == 0.01 * abs(float(row["c_val_final"]))


def test_an_official_file_of_a_part_of_the_space_is_refused(rows: Rows, tmp_path: Path) -> None:
    """With the number of cells that are missing, and every other fault beside it."""
    tree = official(rows[:-7])
    tree["data"]["micro"][rows[0]["arch_str"]]["room_layout"] = {}
    tree["data"]["micro"]["64-41414-9_00_000"] = {}
    path = tmp_path / "file.pth"
    torch.save(tree, path)
    with pytest.raises(DataError) as caught:
        read_table(path, "transnas101")
    told = "\n".join(caught.value.faults)
    for words in (
        "7 cell(s) of 4096 are missing",
        "'64-41414-9_00_000' is no cell",
        "room_layout: 2 value(s)",
        "the first in entry 0",
    ):
        assert words in told


@pytest.fixture
def converted(conversion: tuple[Table, bytes], tmp_path: Path) -> Path:
    """What the official file was converted to, for each test anew."""
    path = tmp_path / "table.safetensors"
    path.write_bytes(conversion[1])
    return path


def test_a_converted_table_is_the_same_table(
    archive: Path, conversion: tuple[Table, bytes], converted: Path
) -> None:
    """Bit for bit, in the same bytes every time; its metadata names the official file by its
    digest.
    """
    table = conversion[0]
    assert convert_table(archive, "transnas101")[1] == converted.read_bytes()
    found = read_table(converted, "transnas101")
    assert (found.space, found.cells, found.tasks) == (table.space, table.cells, table.tasks)
    assert all(np.array_equal(found.final[task], table.final[task]) for task in table.tasks)
    with safe_open(converted, "numpy") as file:
        card = json.loads(file.metadata()["lockforge.table"])
    assert card["made_of_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (card["made_of"], card["layout"]) == (archive.name, "TransNAS-Bench-101")


def test_early_results_are_converted_too(shared_data: Path, tmp_path: Path) -> None:
    """A published CSV table through the small file."""
    path = tmp_path / "table.safetensors"
    table, data = convert_table(shared_data / "nas" / "nasbench201.csv.gz", "nasbench201")
    path.write_bytes(data)
    found = read_table(path, "nasbench201")
    assert set(found.early) == set(table.early) == set(table.tasks)
    assert all(np.array_equal(found.early[task], table.early[task]) for task in table.tasks)


@pytest.mark.parametrize(
    "what",
    [
        "a value",
        "a cell",
        "the card",
        "no card",
        "the end",
        "another card",
        "a kind numpy does not have",
    ],
)
def test_a_converted_table_that_was_changed_is_refused(what: str, converted: Path) -> None:
    """One bit, one name or one byte: IntegrityError."""
    data = converted.read_bytes()
    arrays = dict(load(data))
    with safe_open(converted, "numpy") as file:
        metadata = file.metadata()
    match what:
        case "a value":
            arrays["final.normal"] = np.nextafter(arrays["final.normal"], 1)
            data = save(arrays, metadata)
        case "a cell":
            arrays["cells"] = arrays["cells"][::-1].copy()
            data = save(arrays, metadata)
        case "the card":
            data = data.replace(b"TransNAS-Bench-101", b"TransNAS-Bench-102")
        case "no card":
            data = save(arrays)
        case "the end":
            data = data[:-1]
        case "another card":
            data = save(arrays, {"lockforge.table": '{"a": NaN}'})
        case _:
            data = save_tensors({"cells": torch.zeros((4096, 6)).to(torch.float8_e4m3fn)}, metadata)
    assert data != converted.read_bytes()
    converted.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"table\.safetensors"):
        read_table(converted, "transnas101")


@pytest.mark.parametrize(
    "what",
    [
        "fewer cells",
        "a number beyond the operations",
        "another shape",
        "no cells",
        "a task",
        "a cell twice",
    ],
)
def test_a_checksum_does_not_make_a_table(what: str, converted: Path) -> None:
    """Whoever computes it anew over arrays that are no table is refused all the same."""
    arrays = dict(load(converted.read_bytes()))
    match what:
        case "fewer cells":
            arrays = {name: values[:-1] for name, values in arrays.items()}
        case "a number beyond the operations":
            arrays["cells"] = arrays["cells"] + np.uint8(1)
        case "another shape":
            arrays["final.normal"] = arrays["final.normal"][:, None]
        case "no cells":
            del arrays["cells"]
        case "a cell twice":
            arrays["cells"][0] = arrays["cells"][1]
    card: dict[str, Any] = {
        "space": "transnas101",
        "tasks": ["class_scene", "room_layout"] + (["normal"] if what != "a task" else []),
    }
    card["checksum"] = tables._checksum(card, arrays)
    converted.write_bytes(save(arrays, {"lockforge.table": json.dumps(card)}))
    with pytest.raises((DataError, IntegrityError), match=r"table\.safetensors"):
        read_table(converted, "transnas101")


def test_a_converted_table_is_of_its_space(converted: Path, tmp_path: Path) -> None:
    """And it has to be there."""
    with pytest.raises(DataError, match="a table of transnas101, and nasbench201 is wanted"):
        read_table(converted, "nasbench201")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.safetensors", "nasbench201")


def test_the_published_tables_are_read(shared_data: Path) -> None:
    """With the published optima."""
    table = read_table(shared_data / "nas" / "nasbench201.csv.gz", "nasbench201")
    assert [round(float(table.final[task].max()), 3) for task in table.tasks] == [
        91.607,
        73.493,
        46.733,
    ]
    assert set(table.early) == set(table.tasks)


def test_a_percentile_is_the_share_that_is_strictly_worse(rng: np.random.Generator) -> None:
    """By counting."""
    values = rng.integers(10, size=50).astype(float)
    assert np.allclose(percentiles(values), [100 * (values < value).mean() for value in values])
