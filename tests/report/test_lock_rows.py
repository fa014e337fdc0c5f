"""The weight lock on the page, beside another report, and on a terminal: what was pruned, how, and
what each part of the lock does.
"""

import json
import re
from pathlib import Path

import pytest

from lockforge.cli import _console as show
from lockforge.records import Estimate, Report
from lockforge.report._charts import BOTTOM, EDGE, PANEL, TOP, removed_chart
from lockforge.report._round_charts import PANELS, round_charts
from lockforge.report.comparison import compare, page_of
from lockforge.report.lock_rows import GENERATED, PAPERS_ATTACKER, lock_rows, told
from lockforge.report.page import page, short
from tests.report import made_up
from tests.report.test_page import Words

ORDER = [
    "reference",
    "twin",
    "ablation:weight-lock",
    "ablation:magnitude",
    "ablation:no-fisher",
    "release",
]


@pytest.fixture(scope="module")
def report() -> Report:
    """A pruned release with all its ablations, one target."""
    return made_up.pruned_report(targets={"usps": 0.85})


@pytest.fixture(scope="module")
def plain() -> Report:
    """The same without a weight lock."""
    return made_up.report(targets={"usps": 0.85}, attackers=2)


def prune_section(report: Report) -> str:
    """The words of the page's section."""
    return Words(
        page(report, None).partition('<section id="prune">')[2].partition("</section>")[0]
    ).words


def test_every_part_of_the_lock_has_a_row_with_its_own_figures(report: Report) -> None:
    """Figures are the measures' own, by start; the reference is what the others are held against,
    the release what they stand beside.
    """
    (audit,) = report.audits
    rows = lock_rows(report.subjects, report.pruned, audit)
    assert [row.start for row in rows] == ORDER
    measures = {one.start: one for one in audit.measures.ablations}
    areas = {(one.start, one.attacker): one.area for one in audit.measures.slc}
    for row in rows:
        assert (row.attacker, row.area) == (PAPERS_ATTACKER, areas[row.start, PAPERS_ATTACKER])
        if row.start in measures:
            one = measures[row.start]
            assert (row.removed, row.beyond) == (one.removed_vs_reference, one.beyond_release)
            assert row.reached.per_seed == one.curve.accuracy[-1]
    reference, release = rows[0], rows[-1]
    assert (reference.removed, release.beyond) == (None, None)
    assert release.removed == audit.measures.removed_vs_reference
    assert reference.beyond is not None
    assert reference.beyond.mean == pytest.approx(
        (audit.measures.worth.mean or 0) - (audit.measures.kept.mean or 0)
    )
    assert [row.sparsity for row in rows] == pytest.approx([None, None, 0.9, 0.9, 0.9, 0.9])
    assert [row.source for row in rows] == [0.97, 0.96, 0.96, 0.95, 0.94, 0.94]


def test_without_the_papers_attacker_the_worst_is_told_by_name(report: Report) -> None:
    """Each row's own worst attacker, who is the measures' own."""
    (audit,) = report.audits
    others = tuple(one for one in audit.measures.slc if one.attacker != PAPERS_ATTACKER)
    fewer = audit.model_copy(update={"measures": audit.measures.model_copy(update={"slc": others})})
    rows = {row.start: row for row in lock_rows(report.subjects, report.pruned, fewer)}
    assert f"release:{rows['release'].attacker}" == audit.measures.worst_attacker


def test_a_network_of_ones_own_has_no_architecture_lock(report: Report) -> None:
    """Where the twin is the reference there is no row for a locked cell, and the release has one
    lock.
    """
    own = report.subjects.model_copy(update={"reference": report.subjects.twin})
    rows = lock_rows(own, report.pruned, report.audits[0])
    assert "twin" not in {row.start for row in rows}
    assert rows[-1].words == "release (weight lock)"


def test_what_was_not_pruned_has_no_rows_and_one_sentence(plain: Report) -> None:
    """The section is there whatever was done."""
    assert lock_rows(plain.subjects, plain.pruned, plain.audits[0]) == ()
    said = prune_section(plain)
    assert "Nothing was pruned" in said
    assert "advantage removed" not in said


def test_the_section_says_what_was_done_and_what_it_cost(report: Report) -> None:
    """Method, sparsity, stand-in, points of source accuracy, sizes; every layer; every row with its
    interval.
    """
    said = prune_section(report)
    for words in (
        "with the Fisher term: 90.0 %",
        "stood post.",
        "cost 1.4 points",
        "56.2 KiB",
        "8.9 KiB",
        "16 %",
    ):
        assert words in said
    assert all(layer.name in said for layer in report.pruned["release"].layers)
    for row in lock_rows(report.subjects, report.pruned, report.audits[0]):
        assert row.words in said
        for figure in (row.area, row.removed, row.reached):
            assert figure is None or all(part in said for part in short(figure).split(" [")), row
    assert "Nothing stood in for a thief's task." in said  # of the magnitude pruning
    assert "weaker" not in said


def test_a_generated_stand_in_is_said_to_be_weaker_wherever_it_is_shown(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the page, on the terminal after pruning and after protecting, and beside a report with a
    set that was given.
    """
    generated = made_up.pruned_report(targets={"usps": 0.5}, stand_in="generated")
    assert GENERATED in prune_section(generated)
    assert GENERATED in told(generated.pruned["release"], ())
    found = compare(report, generated, ("a", "b"))
    assert GENERATED in page_of(found, report, generated).replace("&#39;", "'")
    show.pruned(made_up.pruned_model("generated"), tmp_path / "out", as_json=False)
    show.figures(show.console_of(), generated)
    assert " ".join(capsys.readouterr().out.split()).count(GENERATED) == 2


def test_two_releases_stand_beside_one_another_part_by_part(report: Report, plain: Report) -> None:
    """Zeros and the advantage that each part removes; a release that was not pruned has none and no
    parts.
    """
    other = made_up.pruned_report(targets={"usps": 0.5})
    names = [figure.name for figure in compare(report, other, ("a", "b")).targets[0].figures]
    assert [name for name in names if "magnitude" in name or "Fisher" in name] == [
        "advantage removed, magnitude pruning instead",
        "advantage removed, without the Fisher term",
    ]
    found = compare(report, plain, ("a", "b"))
    (zeros,) = (figure for figure in found.source if figure.name.startswith("zeros"))
    assert (zeros.a.mean, zeros.b.mean) == (pytest.approx(0.9), 0.0)
    assert not any("magnitude" in figure.name for figure in found.targets[0].figures)
    assert "weight lock: method" in {difference.where for difference in found.differences}
    assert not any(
        figure.name.startswith("zeros") for figure in compare(plain, plain, ("a", "b")).source
    )


# Drawings


def test_every_known_value_of_a_round_is_drawn_and_lies_in_its_box(report: Report) -> None:
    """A dot for each; residuals end where the recovery begins, and a line says where that is."""
    pruning = report.pruned["release"]
    charts = round_charts(pruning)
    assert list(charts) == list(PANELS)
    rounds = sum(one.phase == "rounds" for one in pruning.rounds)
    dots = {line.name: line.dots for chart in charts.values() for line in chart.lines}
    assert (len(dots["|W - Z| / |W|"]), len(dots["source"]), len(dots["recovery begins"])) == (
        rounds,
        len(pruning.rounds),
        0,
    )
    assert all(
        TOP - 1e-6 <= y <= PANEL[1] - BOTTOM + 1e-6 for line in dots.values() for _, y in line
    )
    assert all(2 <= len(chart.up) <= 8 for chart in charts.values())
    assert "between classes from 40 to 0.0391" in charts["scatter of auxiliary features"].text


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.02, 1.0, 3.7, 1234.0])
def test_a_level_line_of_any_height_has_an_axis(report: Report, value: float) -> None:
    """Zero, tiny and large values alike, in each panel, one round alone too."""
    pruning = report.pruned["release"]
    changes = {
        "source_loss": value,
        "auxiliary_loss": value,
        "between": value,
        "within": value,
        "primal": value,
        "dual": value,
    }
    one = pruning.rounds[0].model_copy(update=changes)
    for rounds in ((one,), (one, one)):
        for chart in round_charts(pruning.model_copy(update={"rounds": rounds})).values():
            assert all(
                TOP - 1e-6 <= y <= PANEL[1] - BOTTOM + 1e-6
                for line in chart.lines
                for _, y in line.dots
            )
            places = [place for place, _ in chart.up]
            assert 2 <= len(set(places)) == len(places) <= 8


def test_magnitude_pruning_has_no_rounds_to_draw(report: Report) -> None:
    """Nothing is drawn where there is nothing, and panels without values are left out."""
    assert round_charts(report.pruned["ablation:magnitude"]) == {}
    assert list(round_charts(report.pruned["ablation:no-fisher"])) == list(PANELS)[:2]


def test_advantages_are_drawn_by_their_size_and_undefined_ones_by_name() -> None:
    """0 and 1 are a unit apart, an interval without bounds is cut at the box, and what is not
    defined has no dot.
    """
    wide = Estimate(mean=0.5, low=-9.0, high=9.0)
    chart = removed_chart(
        [("a", "c1", wide), ("b", "c2", Estimate(mean=None)), ("c", "c3", Estimate(mean=1.0))]
    )
    (zero, _), *_, (one, _) = chart.across
    first, second, third = chart.rows
    assert first.at == pytest.approx((zero + one) / 2)
    assert (first.low, first.high) == (EDGE, PANEL[0] - EDGE)
    assert second.at is None
    assert third.at == third.low == third.high == pytest.approx(one)
    assert chart.text == "Advantage removed: a 0.50; b not defined; c 1.00."
    assert first.y < second.y < third.y < chart.box[1] - BOTTOM


def test_where_no_advantage_is_defined_none_is_drawn(report: Report) -> None:
    """The table says so row by row; a drawing of nothing would look like one of zeros."""
    (audit,) = report.audits
    none = Estimate(mean=None, reason="nothing to protect")
    rows = tuple(
        row.model_copy(update={"removed_vs_reference": none}) for row in audit.measures.ablations
    )
    measures = audit.measures.model_copy(update={"ablations": rows, "removed_vs_reference": none})
    text = page(
        report.model_copy(update={"audits": (audit.model_copy(update={"measures": measures}),)}),
        None,
    )
    assert "Advantage removed: " not in text
    assert "Advantage removed: " in page(report, None)


# Terminal


def test_the_terminal_has_the_same_rows(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """After protect with zeros, after audit without; nothing where nothing was pruned."""
    show.figures(show.console_of(), report)
    said = capsys.readouterr().out
    rows = lock_rows(report.subjects, report.pruned, report.audits[0])
    for row in rows:
        assert re.search(
            re.escape(row.words)
            + rf" +{row.source:.3f} +{'-' if row.sparsity is None else '90.0%'} ",
            said,
        ), row.words
    show.audits(report.roles, report.subjects, report.audits, as_json=False)
    assert re.search(r"magnitude pruning instead +0\.950 +- ", capsys.readouterr().out)
    show.figures(show.console_of(), made_up.report(targets={"usps": 0.85}, attackers=2))
    assert "parts of the lock" not in capsys.readouterr().out


def test_a_pruned_model_is_shown_layer_by_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every layer, all together, first and last round of each phase, drop and sizes; for machines
    the whole record.
    """
    model = made_up.pruned_model()
    show.pruned(model, tmp_path / "out", as_json=False)
    said = capsys.readouterr().out
    assert all(layer.name in said for layer in model.pruning.layers)
    assert re.search(r"all +14,400 +12,960 +90\.0%", said)
    assert re.findall(r"^(\d+)(?:, recovery)? .*%", said, re.MULTILINE) == ["1", "8", "9", "11"]
    assert "the lock cost 1.4 points" in said
    assert "56.2 KiB, in the compact form 8.9 KiB" in said
    show.pruned(model, tmp_path / "out", as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["sparsity"] == pytest.approx(0.9)
    assert answer["pruned"] == model.model_dump(mode="json")
    assert show.summary(made_up.pruned_report(targets={}))["pruned"]["release"][
        "sparsity"
    ] == pytest.approx(0.9)
