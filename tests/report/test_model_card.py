"""The model card: its front matter is YAML, its figures are the report's, and no name can break out
of its cell.
"""

import pytest
import yaml

from lockforge.records import LayerSparsity, Pruning, Report
from lockforge.report.model_card import escape, write_card
from lockforge.report.page import percent, short
from tests.report import made_up


@pytest.fixture(scope="module")
def report() -> Report:
    """Three targets."""
    return made_up.report(attackers=2, seeds=2)


def parts(report: Report) -> tuple[dict[str, object], str]:
    """Front matter and text."""
    nothing, front, text = write_card(report, {"ONNX opset": "20"}).decode().split("---\n", 2)
    assert nothing == ""
    return yaml.safe_load(front), text


def test_the_front_matter_is_what_hubs_read(report: Report) -> None:
    """Pipeline, tags and a model index with the test accuracy."""
    front, _ = parts(report)
    assert front["pipeline_tag"] == "image-classification"
    index = front["model-index"]
    assert isinstance(index, list)
    assert index[0]["results"][0]["metrics"][0]["value"] == report.subjects.release.test_accuracy


def test_every_target_has_its_verdict_and_figures(report: Report) -> None:
    """A row each, with R and its interval, the strongest attacker and the suite; source accuracy of
    release and reference.
    """
    _, text = parts(report)
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        row = next(
            line
            for line in text.splitlines()
            if line.startswith(f"| {name} | {audit.verdict.word} |")
        )
        assert short(audit.measures.removed_vs_reference) in row
        assert f"standard 1, {len(audit.seeds)} seeds" in row
    assert f"| release | {percent(report.subjects.release.test_accuracy)} |" in text
    assert "* ONNX opset: 20" in text


def test_an_unaudited_release_claims_nothing() -> None:
    """No target, no claim."""
    assert (
        "Not audited: no target was given, and nothing is claimed."
        in parts(made_up.report(targets={}))[1]
    )


def test_a_weight_lock_is_named(report: Report) -> None:
    """Method and share of zeros; the twin has a row of its own."""
    pruning = Pruning(
        method="ntp",
        fisher=True,
        auxiliary="given",
        layers=(LayerSparsity(name="a", weights=4, zeros=3),),
        rounds=(),
        source_drop=0.0,
        dense_bytes=1,
        sparse_bytes=1,
    )
    _, text = parts(report.model_copy(update={"pruned": {"release": pruning}}))
    assert "* weight lock: ntp, sparsity 75.0 %" in text
    assert "| without the weight lock |" in text


def test_no_name_breaks_out(report: Report) -> None:
    """A data set named like markup, YAML or a table stays a name."""
    name = "a|b\\ <script> [x](javascript:y) `code` --- : #"
    roles = report.roles.model_copy(update={"names": (name, *report.roles.names[1:])})
    front, text = parts(report.model_copy(update={"roles": roles}))
    index = front["model-index"]
    assert isinstance(index, list)
    assert index[0]["name"] == f"{name} classifier"
    assert escape(name) in text
    assert "<script>" not in text.replace("\\<", "")
    row = next(line for line in text.splitlines() if line.startswith("| source |"))
    assert row.replace("\\|", "").count("|") == 7
