"""bom.json: a machine-learning bill of materials, CycloneDX 1.6, as data. No time is in it: the
same release gives the same bytes.

The library of the format drops a model's card when it reads one back, so the document is written
here and held against the official schema in the tests.
"""

import json
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import quote

from lockforge.records import (
    Architecture,
    Estimate,
    FileRef,
    Report,
    TransferAudit,
    canonical_json,
    sha256_text,
)
from lockforge.report.findings import worst_area

BOM = "bom.json"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MADE_WITH = (
    "torch",
    "numpy",
    "scipy",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "pillow",
    "pydantic",
    "cryptography",
)
_MODEL = "model"


def versions_here() -> dict[str, str]:
    """The packages a release is made with, as they are installed; one that is not is left out."""
    found = {}
    for name in MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_bom(
    report: Report,
    files: Mapping[str, FileRef],
    facts: Mapping[str, str],
    packages: Mapping[str, str],
    made_by: str,
) -> bytes:
    """The document. Args: files: of the release, before it. facts: more to say of the model, by
    name. packages: versions by name. made_by: LockForge's version.
    """
    parts = [_file(name, ref) for name, ref in sorted(files.items())]
    libraries = [_library(name, text) for name, text in sorted(packages.items())]
    told = canonical_json([parts, libraries, sorted(facts.items()), made_by])
    tree = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, sha256_text(told))}",
        "version": 1,
        "metadata": {
            "tools": {"components": [_library("lockforge", made_by)]},
            "component": _model(report, files, facts),
        },
        "components": [*parts, *libraries],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": sorted(part["bom-ref"] for part in (*parts, *libraries))},
            *({"ref": part["bom-ref"]} for part in (*parts, *libraries)),
        ],
    }
    return (
        json.dumps(tree, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    ).encode()


def _file(name: str, ref: FileRef) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": ref.sha256}],
    }


def _library(name: str, text: str) -> dict[str, Any]:
    place = f"pkg:pypi/{name}@{quote(text, safe='')}"
    return {"type": "library", "bom-ref": place, "name": name, "version": text, "purl": place}


def _model(
    report: Report, files: Mapping[str, FileRef], facts: Mapping[str, str]
) -> dict[str, Any]:
    weights, architecture = files["model.safetensors"].sha256, report.subjects.release.architecture
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": f"{report.roles.names[0]} classifier",
        "version": weights[:12],
        "description": f"Image classifier of {len(report.roles.source.classes)} classes, locked "
        "to its own task by LockForge",
        "hashes": [{"alg": "SHA-256", "content": weights}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "image classification",
                **(
                    {"architectureFamily": "convolutional neural network"}
                    if isinstance(architecture, Architecture)
                    else {}
                ),
                "modelArchitecture": str(architecture),
                "datasets": _datasets(report),
                "inputs": [
                    {
                        "format": "image, float32 (batch, "
                        f"{', '.join(str(axis) for axis in report.roles.source.shape)})"
                    }
                ],
                "outputs": [
                    {"format": f"logits, float32 (batch, {len(report.roles.source.classes)})"}
                ],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(report)},
            "considerations": {
                "useCases": [f"classifying images like those of {report.roles.names[0]}"],
                "technicalLimitations": [
                    f"{name}: {audit.verdict.word}; {audit.verdict.reason}"
                    for name, audit in zip(report.roles.target_names, report.audits, strict=True)
                ]
                or ["not audited: what a thief gets out of it is not known"],
                "performanceTradeoffs": _tradeoffs(report),
            },
            "properties": [
                {"name": f"lockforge:{name}", "value": value}
                for name, value in sorted(_facts(report, facts).items())
            ],
        },
    }


def _facts(report: Report, facts: Mapping[str, str]) -> dict[str, str]:
    return {
        **facts,
        "recipe": sha256_text(canonical_json(report.recipe)),
        "verdict": report.verdict,
        "parity": report.parity,
    }


def _datasets(report: Report) -> list[dict[str, Any]]:
    """The roles by name and digest, keyed or plain as the report has them."""
    roles = report.roles
    words = ["source", *["auxiliary"] * len(roles.auxiliary), *["target"] * len(roles.targets)]
    sets = (roles.source, *roles.auxiliary, *roles.targets)
    return [
        {
            "type": "dataset",
            "bom-ref": f"data:{at}",
            "name": name,
            "description": f"{word}: {images.counts.total} images of {len(images.classes)} classes",
            "contents": {
                "properties": [
                    {"name": "lockforge:role", "value": word},
                    {"name": f"lockforge:digest ({report.digests})", "value": images.digest},
                    *(
                        {"name": f"lockforge:{split}", "value": str(getattr(images.counts, split))}
                        for split in ("train", "val", "test")
                    ),
                ]
            },
        }
        for at, (word, name, images) in enumerate(zip(words, roles.names, sets, strict=True))
    ]


def _metrics(report: Report) -> list[dict[str, Any]]:
    release, names = report.subjects.release, report.roles.names
    found = [
        {
            "type": "accuracy",
            "value": f"{release.test_accuracy:.4f}",
            "slice": f"{names[0]}, test split",
        },
        {
            "type": "accuracy",
            "value": f"{release.val_accuracy:.4f}",
            "slice": f"{names[0]}, validation split",
        },
    ]
    if report.int8:
        found.append(
            {
                "type": "accuracy",
                "value": f"{report.int8.accuracy:.4f}",
                "slice": f"{names[0]}, test split, model.int8.onnx",
            }
        )
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        for kind, value in _figures(audit):
            if value.mean is not None:
                found.append(
                    {"type": kind, "value": f"{value.mean:.4f}", "slice": f"target {name}"}
                    | _interval(value)
                )
    return found


def _figures(audit: TransferAudit) -> tuple[tuple[str, Estimate], ...]:
    measures = audit.measures
    return (
        ("advantage removed (R) against the reference", measures.removed_vs_reference),
        ("advantage removed (R) against the twin", measures.removed_vs_twin),
        ("SLC-AUC of the strongest attacker", worst_area(audit)),
    )


def _interval(value: Estimate) -> dict[str, Any]:
    if value.low is None or value.high is None:
        return {}
    return {
        "confidenceInterval": {"lowerBound": f"{value.low:.4f}", "upperBound": f"{value.high:.4f}"}
    }


def _tradeoffs(report: Report) -> list[str]:
    release, reference = report.subjects.release, report.subjects.reference
    return [
        (
            f"accuracy on its own task {release.test_accuracy:.4f}, of the same without a lock "
            f"{reference.test_accuracy:.4f}"
        )
    ]
