"""A verdict in the words of others: JUnit XML and SARIF 2.1.0 for machines, a Markdown table for
the summary of a job.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from lockforge.records import Check, Verdict

SARIF_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-!|~:@&])")


def junit(verdict: Verdict, release: str) -> str:
    """JUnit XML: a test case a check, a failure where it did not pass. A verdict without checks is
    one failure.
    """
    checks = verdict.checks or (
        Check(name="gate", value="nothing was checked", bound="a verdict", passed=False),
    )
    failures = sum(not check.passed for check in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": f"lockforge gate {release}", **counts})
    for check in checks:
        case = ET.SubElement(suite, "testcase", {"name": check.name, "classname": "lockforge.gate"})
        if not check.passed:
            failure = ET.SubElement(case, "failure", {"message": check.value, "type": "gate"})
            failure.text = f"found: {check.value}\nwanted: {check.bound}"
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def sarif(verdict: Verdict, policy: Path, version: str) -> str:
    """SARIF 2.1.0: a result for each check that failed, at the policy, which is the file that a
    repository has. None failed: no results.

    Args: policy: as it was given; one outside the folder that we are in is named without its way
        there. version: LockForge's.
    """
    place = (
        policy.as_posix() if not policy.is_absolute() and ".." not in policy.parts else policy.name
    )
    location = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(place)}, "region": {"startLine": 1}}
    }
    rules = list(dict.fromkeys(_rule(check) for check in verdict.checks))
    results = [
        {
            "ruleId": _rule(check),
            "ruleIndex": rules.index(_rule(check)),
            "level": "error",
            "message": {"text": f"{check.name}: {check.value} (wanted: {check.bound})"},
            "locations": [location],
        }
        for check in verdict.checks
        if not check.passed
    ]
    driver = {
        "name": "lockforge gate",
        "semanticVersion": version,
        "rules": [
            {"id": rule, "shortDescription": {"text": f"the release passes the check: {rule}"}}
            for rule in rules
        ],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(check: Check) -> str:
    """What a check asks, whatever the target: what stands before the last colon is a target's
    name.
    """
    return check.name.rpartition(": ")[2]


def _uri(place: str) -> str:
    from urllib.parse import quote

    return quote(place)


def summary(verdict: Verdict, release: str) -> str:
    """A table in GitHub-flavoured Markdown, what failed first."""
    word = "passes" if verdict.passed else "does not pass"
    head = [
        f"### {_cell(release)} {word} the gate",
        "",
        "| | check | found | wanted |",
        "|---|---|---|---|",
    ]
    rows = sorted(verdict.checks, key=lambda check: check.passed)
    return "\n".join([*head, *_rows(rows), "", ""])


def _rows(checks: Sequence[Check]) -> list[str]:
    marks = {True: "ok", False: "**FAIL**"}
    return [
        f"| {marks[check.passed]} | {_cell(check.name)} | {_cell(check.value)} | "
        f"{_cell(check.bound)} |"
        for check in checks
    ]


def _cell(text: str) -> str:
    """Text that means nothing in Markdown or HTML: no links, no images, no mentions, no cell of its
    own.
    """
    return _MARKDOWN.sub(r"\\\1", text)
