"""Tables are read whole and checked whole."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockforge.errors import DataError, RecipeError
from lockforge.spaces import all_cells
from lockforge.spaces.codecs import spell
from lockforge.spaces.tables import percentiles, read_table

Rows = list[dict[str, str]]


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    """A made-up table of the small space with three tasks, in an order of its own."""
    cells = all_cells("transnas101")
    values = rng.normal(50, 10, (len(cells), 3))
    made = [
        {"arch_str": spell(cell, "transnas101"), **{f"{task}_val_final": repr(float(x)) for task, x in zip("abc", line, strict=True)}}
        for cell, line in zip(cells, values, strict=True)
    ]
    return [made[at] for at in rng.permutation(len(made))]


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


def test_a_table_comes_back_in_the_order_of_the_space(rows: Rows, write: Callable[[Rows], Path]) -> None:
    """Whatever order it was written in."""
    table = read_table(write(rows), "transnas101")
    assert table.cells == all_cells("transnas101")
    assert table.tasks == ("a", "b", "c")
    by_name = {row["arch_str"]: float(row["b_val_final"]) for row in rows}
    assert all(table.final["b"][at] == by_name[spell(cell, "transnas101")] for at, cell in enumerate(table.cells))


def test_any_subset_of_tasks_will_do_but_one_is_too_few(rows: Rows, write: Callable[[Rows], Path]) -> None:
    """An empty column is no task."""
    for row in rows:
        row["c_val_final"] = ""
    assert read_table(write(rows), "transnas101").tasks == ("a", "b")
    for row in rows:
        row["b_val_final"] = ""
    with pytest.raises(DataError, match="at least 2 are needed"):
        read_table(write(rows), "transnas101")


def test_every_fault_of_a_table_is_listed_at_once(rows: Rows, write: Callable[[Rows], Path]) -> None:
    """A missing cell, one that is there twice, an unknown spelling, a value that is no number, one that is missing, fractions."""
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


def test_the_published_tables_are_read(shared_data: Path) -> None:
    """With the published optima."""
    table = read_table(shared_data / "nas" / "nasbench201.csv.gz", "nasbench201")
    assert [round(float(table.final[task].max()), 3) for task in table.tasks] == [91.607, 73.493, 46.733]
    assert set(table.early) == set(table.tasks)


def test_a_percentile_is_the_share_that_is_strictly_worse(rng: np.random.Generator) -> None:
    """By counting."""
    values = rng.integers(10, size=50).astype(float)
    assert np.allclose(percentiles(values), [100 * (values < value).mean() for value in values])
