"""Two reports side by side: only what asked the same is compared, and whatever differs is named."""

import json
import math
import sys
from pathlib import Path

import pytest

from lockforge import cli
from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence.curves import areas
from lockforge.evidence.manifest import write_manifest
from lockforge.records import Estimate, Report, TransferAudit
from lockforge.report.comparison import compare, page_of, read_report
from tests.report import made_up

NAMES = ("a", "b")


@pytest.fixture(scope="module")
def one() -> Report:
    """Two targets."""
    return made_up.report(targets={"usps": 0.2, "svhn": 0.6}, attackers=3)


@pytest.fixture(scope="module")
def other() -> Report:
    """The same targets with a better lock on the first."""
    return made_up.report(targets={"usps": 0.7, "svhn": 0.6}, attackers=3)


def with_audit(report: Report, **changes: object) -> Report:
    """The report with something else in its first audit."""
    first: TransferAudit = report.audits[0].model_copy(update=changes)
    return report.model_copy(update={"audits": (first, *report.audits[1:])})


def test_a_report_beside_itself_differs_in_nothing(one: Report) -> None:
    """Every difference is 0, and nothing else differs."""
    found = compare(one, one, NAMES)
    assert found.comparable
    assert found.differences == found.only_a == found.only_b == ()
    figures = [figure for target in found.targets for figure in target.figures]
    assert figures
    assert {figure.difference.mean for figure in figures if figure.a.defined} == {0.0}


def test_differences_are_taken_seed_by_seed(one: Report, other: Report) -> None:
    """Seeds share what is hard about them: the interval of B minus A is that of their differences,
    here narrower than A's own.
    """
    (figure,) = (
        row
        for row in compare(one, other, NAMES).targets[0].figures
        if row.name == "release: mean over the grid"
    )
    curves = [
        next(e.curve for e in report.audits[0].measures.envelopes if e.name == "release")
        for report in (one, other)
    ]
    own = [[area / figure_span(curve.samples) for area in areas(curve)] for curve in curves]
    assert figure.difference.per_seed == pytest.approx([b - a for a, b in zip(*own, strict=True)])
    assert figure.difference.high is not None
    assert figure.difference.high < 0


def figure_span(samples: tuple[int, ...]) -> float:
    """ln(x_max / x_min)."""
    return math.log(samples[-1] / samples[0])


def test_other_seeds_are_not_paired(one: Report) -> None:
    """Three seeds against five: the means differ, without an interval, and it is said why."""
    five = made_up.report(targets={"usps": 0.2, "svhn": 0.6}, attackers=3, seeds=5)
    found = compare(one, five, NAMES)
    (figure,) = (
        row for row in found.targets[0].figures if row.name == "release: accuracy, all images"
    )
    assert figure.difference.low is None
    assert "not paired" in figure.difference.reason
    assert "audit of usps: seeds" in {difference.where for difference in found.differences}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite": "quick"}, "suites differ"),
        ({"suite_version": 2}, "version 2"),
        ({"grid": (1, 2, 5, 10, 20, 40, 0)}, "grids, images a class, differ"),
        ({"samples": (10, 20, 50, 100, 200, 400, 4000)}, "grids, images, differ"),
        ({"target": "f" * 64}, "images differ"),
    ],
)
def test_figures_of_unlike_audits_are_refused(
    one: Report, changes: dict[str, object], words: str
) -> None:
    """Other suite, grid or images: no figure of that target stands beside the other's, the reason
    is said, the second target goes on.
    """
    found = compare(one, with_audit(one, **changes), NAMES)
    refused = {target.name: target for target in found.targets}["usps"]
    assert refused.figures == ()
    assert any(words in why for why in refused.refused)
    assert found.comparable
    assert words in page_of(found, one, with_audit(one, **changes))


def test_other_means_of_the_thief_are_refused(one: Report) -> None:
    """Twice the steps make another audit; a key of the training does not."""
    longer = one.model_copy(
        update={"recipe": one.recipe | {"audit": one.recipe["audit"] | {"steps": 48}}}
    )
    found = compare(one, longer, NAMES)
    assert not found.comparable
    assert "audit.steps: None; 48" in found.targets[0].refused[0]
    trained = one.model_copy(
        update={"recipe": one.recipe | {"train": one.recipe["train"] | {"epochs": 99}}}
    )
    found = compare(one, trained, NAMES)
    assert found.comparable
    assert [(row.where, row.a, row.b) for row in found.differences] == [
        ("recipe: train.epochs", "12", "99")
    ]


def test_a_target_is_known_by_its_images(one: Report) -> None:
    """The same images under another name are the same target, the same name over other images
    is not.
    """
    renamed = one.model_copy(
        update={"roles": one.roles.model_copy(update={"names": ("digits", "post", "svhn")})}
    )
    found = compare(one, renamed, NAMES)
    assert [target.name for target in found.targets] == ["usps / post", "svhn"]
    assert all(target.figures for target in found.targets)
    stranger = made_up.report(targets={"svhn": 0.6, "new": 0.1}, attackers=3)
    found = compare(one, stranger, NAMES)
    assert (found.only_a, found.only_b) == (("usps",), ("new",))


def test_nothing_in_common_is_not_comparable(one: Report) -> None:
    """Two reports without a common target have no figures side by side."""
    assert not compare(one, made_up.report(targets={"new": 0.1}, attackers=3), NAMES).comparable


def test_an_undefined_figure_has_no_difference(one: Report) -> None:
    """Where one R is not defined, B minus A is not either."""
    undefined = Estimate(mean=None, reason="nothing to protect")
    measures = one.audits[0].measures.model_copy(update={"removed_vs_reference": undefined})
    (figure, *_) = compare(one, with_audit(one, measures=measures), NAMES).targets[0].figures
    assert not figure.difference.defined


@pytest.fixture
def folders(one: Report, other: Report, tmp_path: Path) -> Path:
    """Two release folders and a stranger's, side by side."""
    for name, report in {
        "one": one,
        "other": other,
        "stranger": made_up.report(targets={"new": 0.1}, attackers=3),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(report.to_json())
        write_manifest(tmp_path / name)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `lockforge report`."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["lockforge", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_compares_two_releases(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words on a terminal, JSON for machines, a page on request; both name every figure."""
    assert (
        call(
            monkeypatch,
            folders / "one",
            folders / "other" / "report.json",
            "--html",
            folders / "page.html",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert call(monkeypatch, folders / "one", folders / "other", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["comparable"] is True
    for figure in answer["targets"][0]["figures"]:
        assert figure["name"] in said
        assert figure["name"] in (folders / "page.html").read_text()


def test_the_command_ends_with_a_data_fault_where_nothing_compares(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What differs is still told, so that one can see why."""
    assert call(monkeypatch, folders / "one", folders / "stranger") == 3
    said = capsys.readouterr()
    assert "only in A: usps, svhn" in said.out
    assert "error: no figures" in said.err


def test_one_report_is_shown_again_and_written_as_a_page(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the release, never inside: its files are signed."""
    assert call(monkeypatch, folders / "one", "--html", folders / "again.html") == 0
    assert "verdict" in capsys.readouterr().out
    assert "<h1>" in (folders / "again.html").read_text()
    assert call(monkeypatch, folders / "one", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["targets"]) == {"usps", "svhn"}
    assert call(monkeypatch, folders / "one", "--html", folders / "one" / "report.html") == 2
    assert not (folders / "one" / "report.html").exists()


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """A place with nothing there is a fault of the command line, a broken file one of integrity."""
    with pytest.raises(RecipeError, match="not there"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(IntegrityError):
        read_report(tmp_path)
