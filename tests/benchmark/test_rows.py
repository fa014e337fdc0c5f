"""The rows on a made-up table: what is good on each task is known, so is what a search should
find.
"""

import numpy as np
import pytest

from lockforge.benchmark import rows
from lockforge.benchmark._views import Sealed
from lockforge.benchmark.rows import Plan, run_rows, summary
from lockforge.benchmark.tables._published import Table
from lockforge.errors import IntegrityError, RecipeError
from lockforge.search.measured import Found

PLAN = Plan(60, seeds=3, good_enough=0.95, least=90.0)


def test_measuring_beats_random_search_and_knows_its_budget(table: Table) -> None:
    """S finds nearly the best cell with 60 of 4,096 measurements."""
    found = {
        line.row: line
        for line, _ in run_rows(table, ("S", "random", "evolution"), PLAN, 0, sources=("a",))
    }
    assert np.mean(found["S"].source_percentile) > 99.5
    assert np.mean(found["S"].source_percentile) > np.mean(found["random"].source_percentile)
    assert all(
        line.source_measurements == 60 and line.other_measurements == 0 for line in found.values()
    )


def test_knowing_the_other_task_lowers_it(table: Table) -> None:
    """TK is well below chance and still good on the source; it counts the other task's
    measurements, and says so.
    """
    (line, runs), *_ = run_rows(table, ("TK",), PLAN, 0, sources=("b",))
    (row, *_) = summary([(line, runs)], 0)
    assert np.mean(line.source_percentile) > 90
    assert row["gain"] > 5
    assert row["p"] < 0.05
    assert 0 < line.other_measurements <= 60
    assert "target's column" in line.used


def test_a_prior_leaves_source_and_target_out(table: Table) -> None:
    """Spoiling the target's column changes nothing of the choice; spoiling the third task's
    does.
    """
    chosen = [line.chosen for line, _ in run_rows(table, ("TU table",), PLAN, 0, sources=("a",))]
    spoilt = Table(table.space, table.cells, table.final | {"b": -table.final["b"]}, {})
    again = [line.chosen for line, _ in run_rows(spoilt, ("TU table",), PLAN, 0, sources=("a",))]
    assert chosen[0] == again[0]  # target b, prior c
    assert chosen[1] != again[1]  # target c, prior b


@pytest.mark.parametrize("row", ["S", "TU table", "TU shipped"])
def test_a_search_that_asks_for_a_target_is_caught(
    row: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are handed a column that refuses; a row that asked it would fail, and none does."""
    seen: list[object] = []
    inner = rows._choose

    def watch(*given: object) -> object:
        seen.append(given[4])
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "_choose", watch)
    run_rows(table, (row,), Plan(40, seeds=1, good_enough=0.9, least=80.0), 0, sources=("a",))
    assert seen
    assert all(isinstance(one, Sealed) for one in seen)

    def leak(
        _table: Table, _row: str, _trust: float, _measure: object, other: object, *_: object
    ) -> Found:
        return other([table.cells[0]])  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(rows, "_choose", leak)
    with pytest.raises(IntegrityError, match="before it had chosen"):
        run_rows(table, (row,), Plan(40, seeds=1), 0, sources=("a",))


def test_unknown_rows_tasks_and_budgets_are_refused(table: Table) -> None:
    """With those that exist."""
    with pytest.raises(RecipeError, match="unknown: TX, jigsaw"):
        run_rows(table, ("TX",), PLAN, 0, sources=("jigsaw",))
    with pytest.raises(RecipeError, match="measure at least 2"):
        run_rows(table, ("S",), Plan(1, seeds=1), 0)
    two = Table(table.space, table.cells, {"a": table.final["a"], "b": table.final["b"]}, {})
    with pytest.raises(RecipeError, match="third task"):
        run_rows(two, ("TU table",), PLAN, 0)
