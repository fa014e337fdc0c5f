"""README.md of a release: a model card in Markdown, with the front matter that model hubs read.
Every figure is the report's.

Names come from the owner's data and may hold anything printable: in Markdown they are escaped, in
the front matter YAML quotes them.
"""

import re
from collections.abc import Mapping

import yaml

from lockforge.records import Report
from lockforge.report.findings import worst_area
from lockforge.report.page import percent, short

CARD = "README.md"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&])")
_MOST_CLASSES = 20
INTRODUCTION = """\
An image classifier of {classes} classes, made with LockForge: meant to be good at its own task \
and a poor start for others. What a thief
who attacked it got is below and, with every raw point, in `report.json` and `report.html`."""
LIMITS = """\
## Limits

The lock does not keep anyone from using the model for its own task, nor from training an \
empty network. Figures hold for the targets, sizes
and attackers that were tried, and for no others. It is no encryption and no watermark."""
R_IN_WORDS = """\
R is 1 where the release is worth no more to a thief than an empty network, 0 where \
the lock removed nothing. Brackets: 95 % intervals."""
USE = """\
## Use

```sh
lockforge verify .              # is it what was signed?
lockforge predict . IMAGE...  # what does it say?
```

Input: {channels} images of {height} x {width} pixels, prepared as `preprocessing.json` says. \
Output: one logit a class:
{classes}."""


def write_card(report: Report, facts: Mapping[str, str]) -> bytes:
    """The card. Args: facts: more to say of the model, by name."""
    parts = [
        f"---\n{_front_matter(report)}---",
        f"# {escape(report.roles.names[0])} classifier",
        INTRODUCTION.format(classes=len(report.roles.source.classes)),
        _own_task(report),
        _audits(report),
        _use(report),
        _data(report),
        _facts(report, facts),
        LIMITS,
    ]
    return ("\n\n".join(parts) + "\n").encode()


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> print(escape("a|b <i> [x](y)"))
    a\|b \<i\> \[x\](y)
    """
    return _SPECIAL.sub(r"\\\1", text)


def _front_matter(report: Report) -> str:
    name, release = report.roles.names[0], report.subjects.release
    text: str = yaml.safe_dump(
        {
            "library_name": "lockforge",
            "pipeline_tag": "image-classification",
            "tags": ["lockforge", "image-classification", "onnx", "safetensors"],
            "model-index": [
                {
                    "name": f"{name} classifier",
                    "results": [
                        {
                            "task": {"type": "image-classification"},
                            "dataset": {"name": name, "type": name},
                            "metrics": [
                                {
                                    "type": "accuracy",
                                    "name": "test accuracy",
                                    "value": round(release.test_accuracy, 4),
                                }
                            ],
                        }
                    ],
                }
            ],
        },
        sort_keys=False,
        allow_unicode=True,
    )
    return text


def _own_task(report: Report) -> str:
    rows = [
        ("release", report.subjects.release),
        *([("without the weight lock", report.subjects.twin)] if report.pruned else []),
        ("reference (no lock)", report.subjects.reference),
    ]
    lines = [
        f"| {name} | {percent(one.test_accuracy)} | {percent(one.val_accuracy)} |"
        for name, one in rows
    ]
    if report.int8:
        lines.insert(
            1,
            "| release in 8-bit whole numbers (`model.int8.onnx`) | "
            f"{percent(report.int8.accuracy)} | |",
        )
    images = report.subjects.release.test_samples
    return "\n".join(
        [
            "## Its own task",
            "",
            f"| network | accuracy, test ({images} images) | validation |",
            "|---|---|---|",
            *lines,
        ]
    )


def _audits(report: Report) -> str:
    lines = ["## What a thief gets", ""]
    if not report.audits:
        return "\n".join([*lines, "Not audited: no target was given, and nothing is claimed."])
    lines += [
        (
            "| target | verdict | advantage removed (R) | SLC-AUC, strongest attacker | worst "
            "attacker | suite |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        found = audit.measures
        lines.append(
            f"| {escape(name)} | {audit.verdict.word} | {short(found.removed_vs_reference)} | "
            f"{short(worst_area(audit))} "
            f"| {escape(found.worst_attacker)} | {audit.suite} {audit.suite_version}, "
            f"{len(audit.seeds)} seeds |"
        )
    lines += ["", R_IN_WORDS]
    reasons = [
        f"* {escape(name)}: {escape(audit.verdict.reason)}"
        for name, audit in zip(report.roles.target_names, report.audits, strict=True)
    ]
    return "\n".join([*lines, "", *reasons])


def _use(report: Report) -> str:
    c, h, w = report.roles.source.shape
    classes = report.roles.source.classes
    shown = ", ".join(escape(name) for name in classes[:_MOST_CLASSES])
    more = (
        f" and {len(classes) - _MOST_CLASSES} more (`labels.json`)"
        if len(classes) > _MOST_CLASSES
        else ""
    )
    return USE.format(channels="grey" if c == 1 else "RGB", height=h, width=w, classes=shown + more)


def _data(report: Report) -> str:
    roles = report.roles
    words = ["source", *["auxiliary"] * len(roles.auxiliary), *["target"] * len(roles.targets)]
    sets = (roles.source, *roles.auxiliary, *roles.targets)
    rows = [
        f"| {word} | {escape(name)} | {len(images.classes)} | {images.counts.train} | "
        f"{images.counts.val} | {images.counts.test} |"
        for word, name, images in zip(words, roles.names, sets, strict=True)
    ]
    return "\n".join(
        [
            "## Data",
            "",
            "| role | name | classes | train | validation | test |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _facts(report: Report, facts: Mapping[str, str]) -> str:
    pruning = report.pruned.get("release")
    all_facts = {
        "architecture": str(report.subjects.release.architecture),
        "weight lock": f"{pruning.method}, sparsity {percent(pruning.sparsity)}"
        if pruning
        else "none",
        "ONNX and weights": report.parity,
        **facts,
    }
    return "\n".join(
        ["## More", "", *(f"* {name}: {escape(value)}" for name, value in all_facts.items())]
    )
