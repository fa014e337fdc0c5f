"""The page: what it says follows from the points, every name is on it, and it needs nothing but
itself.
"""

import re
from html.parser import HTMLParser

import pytest

from lockforge.evidence.curves import measure
from lockforge.records import AttackPoint, LearningCurve, Report
from lockforge.report._charts import (
    LEFT,
    PANEL,
    RIGHT,
    STRONGEST,
    TOP,
    Field,
    attacker_charts,
    field,
)
from lockforge.report.findings import attacker_rows, standings
from lockforge.report.page import large, page
from tests.report import made_up


@pytest.fixture(scope="module")
def report() -> Report:
    """Three targets, twelve attackers."""
    return made_up.report()


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    """Its page."""
    return page(report, made_up.vectors(report))


class Words(HTMLParser):
    """The words between the tags, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words = ""
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and what it points to."""
        self.tags.append(tag)
        self.loads += [
            value or ""
            for name, value in attrs
            if name in {"src", "href", "data", "action", "srcset"}
        ]

    def handle_data(self, data: str) -> None:
        """Note the words."""
        self.words += data


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    """No script, nothing loaded from anywhere: an auditor can open it on a machine without a
    network.
    """
    seen = Words(text)
    assert "script" not in seen.tags
    assert [value for value in seen.loads if not value.startswith(("#", "data:"))] == []
    assert "@import" not in text
    assert "url(" not in text


def test_every_verdict_with_its_reason_and_every_attacker_is_on_the_page(
    report: Report, text: str
) -> None:
    """The worst verdict is the heading; no attacker is hidden behind the strongest five."""
    words = Words(text).words
    # an error here is the failure
    assert re.search(r"<h1>(.*?)</h1>", text).group(1).lower() == report.verdict  # type: ignore[union-attr]
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        assert f"{name}: {audit.verdict.word}" in words
        assert audit.verdict.reason in words
        assert all(reason in words for reason in audit.dropped)
    for attacker in made_up.ATTACKERS:
        assert words.count(attacker) >= len(report.audits)


def section(text: str, heading: str) -> str:
    """The words from the first such heading to the next."""
    return Words(text.partition(f"<h3>{heading}</h3>")[2].partition("<h3>")[0]).words


def test_an_attacker_whose_budget_is_too_small_is_marked(text: str) -> None:
    """One of twelve reaches much more with four budgets: he alone is marked, and stands first."""
    said = section(text, "Is one budget enough?")
    assert said.count("too little") == 1
    assert "regrow" in said.partition("too little")[0]
    assert said.count("4 budgets") == len(made_up.ATTACKERS)


def test_what_was_skipped_and_the_adjusted_p_are_on_the_page(report: Report, text: str) -> None:
    """An attacker that could not be tried is named with the reason; every target has its p, raw and
    adjusted.
    """
    words = Words(text).words
    assert report.audits[0].skipped
    assert all(why in words for audit in report.audits for why in audit.skipped)
    said = section(text, "Does the lock take anything away?")
    for test in report.tests:
        assert test.target in said
        assert (f"{test.adjusted:.3f}" if test.adjusted >= 0.001 else "below 0.001") in said


def test_the_cost_is_told_for_the_release_beside_reference_and_scratch(
    report: Report, text: str
) -> None:
    """Images and operations as the measures have them; a start that is the release itself has no
    line of its own.
    """
    said = section(text, "What it costs to break")
    measures = report.audits[0].measures
    for name in ("release", "reference", "scratch"):
        images, operations = measures.samples_to_90[name], measures.flops_to_90[name]
        assert images is not None
        assert operations is not None
        assert f"{images:,.0f}" in said
        assert large(operations) in said
    assert "twin" not in said


def test_a_name_is_text_and_never_markup() -> None:
    """A target called like a tag does not become one."""
    text = page(made_up.report(targets={"<script>alert(1)</script>": 0.5}, attackers=2), None)
    assert "script" not in Words(text).tags
    assert "&lt;script&gt;" in text


def test_without_vectors_the_page_says_so(report: Report) -> None:
    """A page written from report.json alone has no strips, and no empty ones."""
    assert "holds their hashes, not their values" in page(report, None)
    assert "holds their hashes, not their values" not in page(report, made_up.vectors(report))


def test_an_unaudited_release_has_a_page() -> None:
    """Without a target the page says that nothing is known."""
    assert "Not audited" in page(made_up.report(targets={}), None)


def test_the_setting_chosen_most_often_is_the_one_counted() -> None:
    """Of three places setting b was chosen at two, by validation; points of a larger budget count
    nowhere.
    """
    chosen = {(10, 0): "a", (20, 0): "b", (40, 0): "b"}
    points = [
        AttackPoint(
            start=start,
            attacker="x",
            setting=setting,
            images_per_class=samples,
            samples=samples,
            seed=seed,
            steps=1,
            flops=1.0,
            val_accuracy=0.9 if picked else 0.1,
            test_accuracy=samples / 100 if picked else None,
        )
        for start in (
            "release",
            "twin",
            "reference",
            "scratch_release",
            "scratch_reference",
            "dummy",
        )
        for (samples, _), best in chosen.items()
        for seed in (0, 1)
        for setting in "ab"
        for picked in [setting == best]
    ]
    base = made_up.report(targets={"t": 0.5}, attackers=2).audits[0]
    larger = points[0].model_copy(update={"setting": "c", "budget": 4, "test_accuracy": 1.0})
    grid = {"grid": (10, 20, 40), "samples": (10, 20, 40), "seeds": (0, 1), "same_as": {}}
    audit = base.model_copy(
        update={"points": (*points, larger), "measures": measure(points, test_samples=100)} | grid
    )
    (row,) = attacker_rows(audit)["release"]
    assert (row.setting, row.times, row.places, row.settings) == ("b", 4, 6, 2)
    assert row.curve.accuracy == ((0.1, 0.1), (0.2, 0.2), (0.4, 0.4))
    assert row.last.mean == 0.4


def test_the_mean_over_the_grid_of_a_level_curve_is_its_level() -> None:
    """Scratch at every place .5: area over ln x, normalised, is .5."""
    audit = made_up.report(targets={"t": 0.5}, attackers=1).audits[0]
    level = LearningCurve(samples=audit.samples, accuracy=((0.5, 0.5, 0.5),) * len(audit.samples))
    envelopes = tuple(
        envelope.model_copy(update={"curve": level}) for envelope in audit.measures.envelopes
    )
    found = standings(
        audit.model_copy(
            update={"measures": audit.measures.model_copy(update={"envelopes": envelopes})}
        )
    )
    assert found["scratch"].over_grid.mean == pytest.approx(0.5)
    assert found["scratch"].last.mean == 0.5


def test_attackers_are_ordered_by_strength_and_the_strongest_are_the_same_in_both_panels(
    report: Report,
) -> None:
    """Five have colours, by their mean above scratch on the release; the reference's panel gives
    each the same colour.
    """
    audit = report.audits[1]
    rows = attacker_rows(audit)
    over = [row.over.mean for row in rows["release"] if row.over]
    assert over == sorted(over, key=lambda value: -(value or 0.0))
    shown = {
        start: {row.attacker: row.curve for row in rows[start]}
        for start in ("release", "reference")
    }
    charts = attacker_charts(audit, shown)
    styles = [{line.name: line.style for line in chart.lines} for chart in charts.values()]
    assert styles[0] == styles[1]
    assert [styles[0][row.attacker] for row in rows["release"]] == [
        f"a{at}" for at in range(1, STRONGEST + 1)
    ] + ["other"] * 7
    assert all(name in chart.text for chart in charts.values() for name in made_up.ATTACKERS)


def test_a_field_maps_its_corners_to_the_box() -> None:
    """The first number of images is at the left margin, the last at the right, the highest accuracy
    at the top.
    """
    place = Field(box=PANEL, samples=(10, 100, 1000), low=0.0, high=1.0)
    assert (place.x(10), place.y(1.0)) == (LEFT, TOP)
    assert place.x(1000) == PANEL[0] - RIGHT
    assert place.x(100) == pytest.approx((place.x(10) + place.x(1000)) / 2)


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.52, 0.58), (0.3, 0.3), (1.0, 1.0), (0.0, 0.0)])
def test_every_value_lies_in_the_field_made_for_it(values: tuple[float, float]) -> None:
    """Constant, narrow and full ranges all get an axis that holds them, with between two and seven
    ticks.
    """
    curve = LearningCurve(samples=(1, 10), accuracy=((values[0],), (values[1],)))
    place = field(PANEL, [curve])
    assert place.low <= min(values)
    assert max(values) <= place.high
    assert place.low < place.high
    assert 2 <= len(place.up()) <= 7
