"""The bill of materials: what it says, that it always says it in the same bytes, and that the
official schema takes it.
"""

import json
import re
from typing import Any

import pytest

from lockforge.export._bom import versions_here, write_bom
from lockforge.records import FileRef, Report
from tests.report import made_up

FILES = {
    name: FileRef(sha256=f"{at}" * 64, size=1)
    for at, name in enumerate(("model.safetensors", "model.onnx", "report.json"))
}
PACKAGES = {"torch": "2.13.0+cpu", "numpy": "2.3.0"}
FACTS = {"ONNX opset": "20"}


@pytest.fixture(scope="module")
def report() -> Report:
    """Three targets, on one of which nothing could be protected."""
    return made_up.report(attackers=2, seeds=2)


def tree(report: Report, **changed: Any) -> Any:
    """The document of a report, read again."""
    return json.loads(
        write_bom(
            report,
            **{"files": FILES, "facts": FACTS, "packages": PACKAGES, "made_by": "0.1.0"} | changed,
        )
    )


def test_the_same_release_gives_the_same_bytes(report: Report) -> None:
    """No time and no draw is in it; other weights give another serial number."""
    once, again = (write_bom(report, FILES, FACTS, PACKAGES, "0.1.0") for _ in range(2))
    assert once == again
    other = tree(report, files=FILES | {"model.onnx": FileRef(sha256="9" * 64, size=1)})
    assert other["serialNumber"] != tree(report)["serialNumber"]


def test_it_names_model_files_data_and_packages(report: Report) -> None:
    """The model with its card and hash, each file, each role with its digest and counts, each
    package with its version; nothing dangles.
    """
    found = tree(report)
    model = found["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    data = model["modelCard"]["modelParameters"]["datasets"]
    assert [one["name"] for one in data] == list(report.roles.names)
    digests = [
        value["value"]
        for one in data
        for value in one["contents"]["properties"]
        if "digest" in value["name"]
    ]
    assert digests == [images.digest for images in (report.roles.source, *report.roles.targets)]
    assert {
        one["name"]: one.get("version") for one in found["components"] if one["type"] == "library"
    } == PACKAGES
    assert {one["name"] for one in found["components"] if one["type"] == "file"} == set(FILES)
    assert "pkg:pypi/torch@2.13.0%2Bcpu" in {one.get("purl") for one in found["components"]}
    refs = {model["bom-ref"], *(one["bom-ref"] for one in found["components"])}
    assert {one["ref"] for one in found["dependencies"]} == refs
    assert set(found["dependencies"][0]["dependsOn"]) == refs - {"model"}


def test_every_figure_is_the_reports(report: Report) -> None:
    """Source accuracy, and R and SLC-AUC with their intervals for each target where they are
    defined.
    """
    metrics = tree(report)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"][
        "performanceMetrics"
    ]
    assert metrics[0]["value"] == f"{report.subjects.release.test_accuracy:.4f}"
    removed = {
        one["slice"]: one
        for one in metrics
        if one["type"] == "advantage removed (R) against the reference"
    }
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        value = audit.measures.removed_vs_reference
        if value.mean is not None and value.low is not None:
            assert removed[f"target {name}"]["value"] == f"{value.mean:.4f}"
            assert (
                removed[f"target {name}"]["confidenceInterval"]["lowerBound"] == f"{value.low:.4f}"
            )
    assert removed


def test_it_has_the_shape_of_cyclonedx_1_6(report: Report) -> None:
    """What the schema asks of the parts that are used: kinds, names and spellings, checked by hand
    where its validator is missing.
    """
    for audited in (report, made_up.report(targets={})):
        found = tree(audited)
        assert (found["bomFormat"], found["specVersion"], found["version"]) == (
            "CycloneDX",
            "1.6",
            1,
        )
        assert re.fullmatch(
            r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            found["serialNumber"],
        )
        card = found["metadata"]["component"]["modelCard"]
        assert card.keys() <= {
            "modelParameters",
            "quantitativeAnalysis",
            "considerations",
            "properties",
        }
        assert card["considerations"].keys() <= {
            "useCases",
            "technicalLimitations",
            "performanceTradeoffs",
        }
        assert all(
            isinstance(line, str) for lines in card["considerations"].values() for line in lines
        )
        for metric in card["quantitativeAnalysis"]["performanceMetrics"]:
            assert metric.keys() <= {"type", "value", "slice", "confidenceInterval"}
            assert isinstance(metric["value"], str)
        for data in card["modelParameters"]["datasets"]:
            assert data.keys() <= {"type", "bom-ref", "name", "description", "contents"}
            assert data["type"] == "dataset"
        assert all(
            part.keys() == {"name", "value"} and isinstance(part["value"], str)
            for part in card["properties"]
        )
        for part in found["components"]:
            assert part.keys() <= {"type", "bom-ref", "name", "version", "purl", "hashes"}


def test_the_official_schema_takes_it(report: Report) -> None:
    """CycloneDX's own strict validator, on an audited and an unaudited release; a document with a
    wrong word is refused.
    """
    reason = "the official validator is the interop oracle: pip install 'lockforge[sbom]'"
    pytest.importorskip("cyclonedx", reason=reason)
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for audited in (report, made_up.report(targets={})):
        text = write_bom(audited, FILES, FACTS, versions_here(), "0.1.0").decode()
        assert validator.validate_str(text) is None
        assert (
            validator.validate_str(text.replace('"machine-learning-model"', '"thing"')) is not None
        )


def test_packages_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime a release is made all the same."""
    monkeypatch.setattr("lockforge.export._bom.MADE_WITH", ("numpy", "no-such-package-anywhere"))
    assert versions_here().keys() == {"numpy"}
