"""The images: their numbers are the table's, the drawings are sound, and the sweeps pass through
the row they belong to.
"""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from lockforge.benchmark import _sweeps as sweeps
from lockforge.benchmark import embedded
from lockforge.benchmark._sweeps import Point, sweep
from lockforge.benchmark.embedded import Known
from lockforge.benchmark.figures import draw_all, draw_heat, draw_sweep, panel_of
from lockforge.benchmark.rows import Line, Plan, run_rows
from lockforge.benchmark.tables._published import Table, percentiles


def line(row: str, table: Table, places: tuple[int, ...], targets: tuple[str, ...]) -> Line:
    """A row's line for the source a, with these cells chosen."""
    chosen = tuple(str(table.cells[at]) for at in places)
    return Line(row, "a", targets, chosen, (), (), (), (), 0.0, (), (), 0, 0, "")


def words(svg: str) -> list[str]:
    """The texts of a drawing."""
    return [
        element.text or ""
        for element in ET.fromstring(svg).iter()  # noqa: S314
        if element.tag.endswith("text")
    ]


def test_a_panel_holds_the_percentiles_of_what_was_chosen(table: Table) -> None:
    """A row that chose for all targets is asked about each; one that chose for a pair, about that
    pair.
    """
    ranked = {task: percentiles(values) for task, values in table.final.items()}
    whole = panel_of(table, [line("S", table, (5, 70), ("b", "c"))])
    assert whole.values.tolist() == [[float(ranked[task][[5, 70]].mean()) for task in "abc"]]
    pairs = panel_of(table, [line("TK", table, (5,), ("b",)), line("TK", table, (70,), ("c",))])
    assert pairs.values.tolist() == [
        [float(ranked["a"][[5, 70]].mean()), float(ranked["b"][5]), float(ranked["c"][70])]
    ]
    (alone,) = panel_of(table, [line("TK", table, (5,), ("b",))]).values
    assert np.isnan(alone[2])


def test_a_heat_map_shows_every_number_and_marks_the_oracle(table: Table) -> None:
    """One value a box, "not run" where there is none, names as text."""
    panels = [
        panel_of(table, [line(row, table, (at,), targets)])
        for row, at, targets in (("S", 9, ("b", "c")), ("paper+oracle TK", 3, ("b",)))
    ]
    shown = words(draw_heat(panels, "a < b & c", 10))
    assert shown[0] == "a < b & c"
    values = [
        f"{value:.1f}" for panel in panels for value in panel.values.ravel() if not np.isnan(value)
    ]
    assert [word for word in shown if word in values] == values
    assert shown.count("not run") == 1
    assert "paper+oracle TK (reads the answers)" in shown


def test_a_sweep_shows_every_seed() -> None:
    """Two dots a seed and setting, higher on the page is a higher percentile."""
    points = [
        Point("cosine", c, "a", ("b",), (99.0, 95.0, 90.0), (80.0, 70.0, 72.0)) for c in (0.1, 0.9)
    ]
    drawing = draw_sweep(points, "title", "cosine")
    # - our own text
    dots = [element for element in ET.fromstring(drawing).iter() if element.get("class") == "seed"]  # noqa: S314
    assert len(dots) == 2 * 2 * 3
    heights = [float(dot.get("cy", "nan")) for dot in dots[:3]]
    assert heights == sorted(heights)
    assert {"0.1", "0.9", "source a", "cosine"} <= set(words(drawing))


def test_the_sweeps_pass_through_the_row(
    table: Table, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the authors' setting both sweeps are the row `paper TU` to the last digit, and elsewhere
    they are something else.
    """
    monkeypatch.setattr(embedded, "SETTINGS", embedded.SETTINGS.model_copy(update={"steps": 10}))
    monkeypatch.setattr(sweeps, "COSINES", (0.1, 0.9))
    monkeypatch.setattr(sweeps, "NUMBERS", (1, 10))
    ((row, _),) = run_rows(table, ("paper TU",), Plan(40, seeds=3), 0, sources=("a",), known=known)
    ticks: list[int] = []
    points = sweep(
        table, known, 3, 0, sources=("a",), tick=lambda done, _total, _note: ticks.append(done)
    )
    assert ticks == [1, 2, 3]  # the shared setting is run once
    found = {(point.sweep, point.value): point for point in points}
    for key in (("cosine", 0.9), ("number", 10)):
        assert found[key].source_percentile == row.source_percentile
        assert found[key].target_percentile == pytest.approx(row.target_percentile)
    assert found["cosine", 0.1].source_percentile != row.source_percentile


def test_the_files_are_those_of_the_rows_that_ran(
    table: Table, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without images one heat map of our rows; with them the paper's, marked oracle and both
    sweeps, each with its numbers.
    """
    monkeypatch.setattr(embedded, "SETTINGS", embedded.SETTINGS.model_copy(update={"steps": 1}))
    monkeypatch.setattr(sweeps, "COSINES", (0.9,))
    monkeypatch.setattr(sweeps, "NUMBERS", (10,))
    plain = run_rows(table, ("S",), Plan(24, seeds=1), 0, sources=("a",))
    assert set(draw_all(table, plain, None, 1, 0)) == {"heatmap.svg", "heatmap.json"}
    some = run_rows(
        table, ("paper TU", "paper+oracle TU"), Plan(24, seeds=1), 0, sources=("a",), known=known
    )
    files = draw_all(table, some, known, 1, 0)
    stems = {"heatmap-paper", "heatmap-oracle", "sweep-cosine", "sweep-number"}
    assert set(files) == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "json")}
    oracle, paper = (json.loads(files[f"heatmap-{name}.json"]) for name in ("oracle", "paper"))
    assert oracle["reads_answers"]
    assert not paper["reads_answers"]
    assert paper["panels"][0]["tasks"] == ["a", "b", "c"]
