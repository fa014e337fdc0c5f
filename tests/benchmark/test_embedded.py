"""The rows that look at embeddings: what they may read, what they do without images, and that the
oracle alone reads answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lockforge.benchmark import embedded
from lockforge.benchmark._views import Column, Sealed
from lockforge.benchmark.embedded import (
    EMBEDDED,
    ORACLE,
    PAPER,
    PROXIES,
    Known,
    Views,
    know,
    lacking,
    open_views,
)
from lockforge.benchmark.rows import Line, Plan, jobs_of, not_run, run_rows, summary
from lockforge.benchmark.tables._published import Table, percentiles
from lockforge.errors import DataError, IntegrityError
from lockforge.files import Files
from lockforge.records import Cell, FileRef, TaskEmbedding
from lockforge.search.ranking import rank, standing
from lockforge.spaces.cells import connected

PLAN = Plan(40, seeds=2, least=90.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten mutations and a panel of sixteen, to be quick."""
    monkeypatch.setattr(embedded, "SETTINGS", embedded.SETTINGS.model_copy(update={"steps": 10}))
    monkeypatch.setattr(embedded, "_PANEL", 16)


@pytest.fixture
def histories(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Cell]]:
    """What each evolution of the test remembered."""
    seen: list[Sequence[Cell]] = []
    inner = embedded.evolve

    def watch(*given: object, **named: object) -> object:
        found = inner(*given, **named)  # type: ignore[arg-type]
        seen.append(found.history)
        return found

    monkeypatch.setattr(embedded, "evolve", watch)
    return seen


def lines(table: Table, row: str, known: Known | None, seeds: int = 2) -> list[Line]:
    """What a row finds for the source a."""
    return [
        line
        for line, _ in run_rows(
            table, (row,), replace(PLAN, seeds=seeds), 0, sources=("a",), known=known
        )
    ]


def reversed_(table: Table) -> Table:
    """The same cells with every answer turned round."""
    return Table(
        table.space, table.cells, {task: -values for task, values in table.final.items()}, {}
    )


@pytest.mark.parametrize("row", [*PAPER, PROXIES])
def test_the_recipe_without_an_oracle_reads_no_table(row: str, table: Table, known: Known) -> None:
    """Turning all results round changes no choice, and no measurement is counted."""
    found = lines(table, row, known)
    assert [line.chosen for line in found] == [
        line.chosen for line in lines(reversed_(table), row, known)
    ]
    assert all(line.source_measurements == line.other_measurements == 0 for line in found)
    assert not any(line.reads_answers for line in found)
    assert all("no measurement" in line.used for line in found)


@pytest.mark.parametrize("row", ORACLE)
def test_the_oracle_reads_answers_and_says_so(row: str, table: Table, known: Known) -> None:
    """Its reads are counted, its line and its summary are marked, and other answers make other
    choices.
    """
    found = run_rows(table, (row,), PLAN, 0, sources=("a",), known=known)
    for line, _ in found:
        assert line.reads_answers
        assert "READS THE ANSWERS" in line.used
        assert line.source_measurements > 20
        assert (line.other_measurements > 0) == (row != "paper+oracle S")
        assert min(line.source_percentile) >= 97
    assert all(one["reads_answers"] for one in summary(found, 0))
    assert [line.chosen for line, _ in found] != [
        line.chosen for line in lines(reversed_(table), row, known)
    ]


def test_the_recipe_takes_the_fittest_remembered_cell(
    table: Table, known: Known, histories: list[Sequence[Cell]]
) -> None:
    """Target rank less twice source rank, judged anew over the history of the very same
    evolution.
    """
    source, target = known.vectors["a"][None], known.vectors["b"][None]
    line = lines(table, "paper TK", known, seeds=1)[0]
    on_source, on_target = (
        rank(known.predictor, histories[0], vector).ranks for vector in (source, target)
    )
    assert line.chosen == (str(histories[0][int(np.argmax(on_target - 2 * on_source))]),)


def test_the_oracle_takes_the_remembered_cell_that_is_worst_on_the_target(
    table: Table, known: Known, histories: list[Sequence[Cell]]
) -> None:
    """Against the history of the very same evolution; in S it takes the one that is best on the
    source.
    """
    place = {cell: at for at, cell in enumerate(table.cells)}
    for row, task, best in (
        ("paper+oracle TK", "b", min),
        ("paper+oracle TU", "b", min),
        ("paper+oracle S", "a", max),
    ):
        histories.clear()
        line = lines(table, row, known, seeds=1)[0]
        wanted = best(histories[0], key=lambda cell, values=table.final[task]: values[place[cell]])
        assert line.chosen == (str(wanted),), row


def test_a_cell_without_admitted_neighbours_is_no_dead_end(
    table: Table, rng: np.random.Generator
) -> None:
    """Where every mutation is refused a random admitted cell is taken, as the authors do after
    sixteen.
    """
    only = table.cells[1234]
    asked: list[Cell] = []
    first, child_of = embedded._admitted(
        "transnas101", lambda cell: bool(asked.append(cell)) or cell == only, rng
    )
    assert first() == only
    asked.clear()
    assert child_of(only) == only
    apart = [sum(a != b for a, b in zip(cell.ops, only.ops, strict=True)) for cell in asked]
    assert apart[:16] == [1] * 16
    assert max(apart[16:]) > 1


@pytest.mark.parametrize("row", EMBEDDED)
def test_only_the_oracle_is_handed_columns(
    row: str, table: Table, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other row gets views that refuse, so one that asked would be caught in the act."""
    seen: list[Views] = []

    def leak(_row: str, _known: Known, _tasks: object, views: Views, _generator: object) -> Cell:
        seen.append(views)
        views.target([table.cells[0]])
        return table.cells[0]

    monkeypatch.setattr(embedded, "choose", leak)
    if row in {"paper+oracle TU", "paper+oracle TK"}:
        assert lines(table, row, known, seeds=1)[0].other_measurements == 1
    else:
        with pytest.raises(IntegrityError, match="before it had chosen"):
            lines(table, row, known, seeds=1)
    assert isinstance(seen[0].target, Column) == (row in {"paper+oracle TU", "paper+oracle TK"})
    assert isinstance(seen[0].source, Column if row in ORACLE else Sealed)


def test_schemes_look_at_the_embeddings_they_say(table: Table, known: Known) -> None:
    """Another target's embedding changes TK and not TU; S and TU run without it; another source's
    changes both.
    """
    other = Known(
        known.predictor,
        {
            **known.vectors,
            "b": known.vectors["a"][::-1].copy(),
            "c": known.vectors["a"][::-1].copy(),
        },
    )
    alone = Known(known.predictor, {"a": known.vectors["a"]})
    moved = Known(known.predictor, {**known.vectors, "a": known.vectors["a"][::-1].copy()})

    def chosen(row: str, known: Known) -> list[tuple[str, ...]]:
        return [line.chosen for line in lines(table, row, known)]

    assert chosen("paper TU", known) == chosen("paper TU", other) == chosen("paper TU", alone)
    assert chosen("paper TK", known) != chosen("paper TK", other)
    assert chosen("paper TU", known) != chosen("paper TU", moved)
    assert chosen("paper TK", alone) == []


def test_proxies_take_the_cell_that_the_predictor_ranks_first(table: Table, known: Known) -> None:
    """Of all connected cells, and there is one run because there is no draw."""
    (line,) = lines(table, PROXIES, known, seeds=5)
    cells = [cell for cell in table.cells if connected(cell)]
    panel = [cells[at] for at in np.linspace(0, len(cells) - 1, 16).round().astype(int)]
    shares = standing(known.predictor, cells, panel, known.vectors["a"][None])
    assert line.chosen == (str(cells[int(shares.argmax())]),)


def test_what_has_no_images_is_told_and_left_out(table: Table, known: Known) -> None:
    """Nothing vanishes: each job that cannot be run has its reason; rows without embeddings run as
    ever.
    """
    jobs = jobs_of(table, ("S", "paper", PROXIES))
    assert {row for row, *_ in jobs} == {"S", *PAPER, PROXIES}
    absent = not_run(jobs, None)
    assert {(one["row"], one["source"]) for one in absent} == {
        (row, task) for row in (*PAPER, PROXIES) for task in "abc"
    }
    assert {one["why"] for one in absent} == {"not run: no images"}
    some = Known(known.predictor, {task: known.vectors[task] for task in "ab"})
    assert [
        (one["row"], one["source"], one["no_images_of"])
        for one in not_run(jobs, some)
        if one["source"] != "c"
    ] == [
        ("paper TK", "a", ["c"]),
        ("paper TK", "b", ["c"]),
    ]
    assert [line.targets for line in lines(table, "paper TK", some, seeds=1)] == [("b",)]
    assert lacking("TK", "a", ("b",), None) == ()


def test_the_bar_is_the_authors_or_a_percentile(table: Table) -> None:
    """90, 71 and 45 percent on NAS-Bench-201; elsewhere the least value that 97 % of the cells lie
    under; out of reach is an error.
    """
    bar = open_views(table, "paper+oracle S", "a", ("b",)).bar
    ranked = percentiles(table.final["a"])
    assert ranked[table.final["a"] >= bar].min() == ranked[ranked >= 97].min()
    values = np.linspace(0, 80, len(table.cells))
    nas = Table("nasbench201", table.cells, {"cifar10": values, "cifar100": values}, {})
    assert open_views(nas, "paper+oracle TK", "cifar100", ("cifar10",)).bar == 71
    with pytest.raises(DataError, match="authors' bar of 90"):
        open_views(nas, "paper+oracle TK", "cifar10", ("cifar100",))


def test_one_set_for_two_tasks_is_refused(known: Known, tmp_path: Path) -> None:
    """Their embeddings would be the same, and TK would lock a task against itself."""
    mark = known.predictor.mark
    one = TaskEmbedding(
        images="ab" * 32,
        probe=mark.probe,
        definition=mark.definition,
        dimension=known.predictor.tasks.shape[1],
        samples=4,
        probe_accuracy=0.5,
        vector=FileRef(sha256="cd" * 32, size=1),
    )
    with pytest.raises(DataError, match="same images") as caught:
        know("transnas101", {"a": one, "b": one}, Files(tmp_path))
    assert caught.value.faults == ("a and b: abababababab",)
