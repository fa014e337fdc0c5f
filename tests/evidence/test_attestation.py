"""The attestation: bound to bytes, to figures and to curves; whatever is edited is named, whoever
signed it again.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockforge.errors import IntegrityError
from lockforge.evidence.attestation import (
    CodeVersion,
    attest,
    check_attestation,
    curve_digests,
    read_attestation,
)
from lockforge.evidence.signing import PrivateKey, new_key, open_envelope, signed_envelope
from lockforge.records import FileRef, Report, canonical_json, sha256_text
from tests.report import made_up

TIME = "2026-11-21T12:00:00Z"
CODE = CodeVersion(lockforge="0.1.0", commit="abc")
FILES = {
    "model.safetensors": FileRef(sha256="1" * 64, size=1),
    "model.onnx": FileRef(sha256="2" * 64, size=1),
    "report.json": FileRef(sha256="3" * 64, size=1),
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """The owner's."""
    return new_key(tmp_path_factory.mktemp("keys") / "k")


@pytest.fixture(scope="module")
def report() -> Report:
    """Two targets, three attackers."""
    return made_up.report(targets={"usps": 0.05, "svhn": 0.55}, attackers=3, seeds=2)


@pytest.fixture(scope="module")
def data(report: Report, key: PrivateKey) -> bytes:
    """attestation.json."""
    return attest(report, FILES, CODE, TIME, key)


def test_an_attestation_comes_back_and_names_its_subjects(
    data: bytes, report: Report, key: PrivateKey
) -> None:
    """A DSSE envelope around an in-toto Statement v1: subjects by SHA-256, figures as in the
    report, the time it was given.
    """
    said = check_attestation(data, key.public_key(), report, FILES)
    statement = json.loads(base64.b64decode(json.loads(data)["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": "model.onnx", "digest": {"sha256": "2" * 64}},
        {"name": "model.safetensors", "digest": {"sha256": "1" * 64}},
    ]
    assert said.time == TIME
    assert said.report == "3" * 64
    assert said.recipe == sha256_text(canonical_json(report.recipe))
    assert [one.removed_vs_reference for one in said.audits] == [
        one.measures.removed_vs_reference for one in report.audits
    ]
    assert [one.worst_attacker for one in said.audits] == [
        one.measures.worst_attacker for one in report.audits
    ]
    assert {area.start for one in said.audits for area in one.slc_auc} == {"release"}
    assert said.source_accuracy.test == report.subjects.release.test_accuracy
    assert [one.role for one in said.roles] == ["source", "target", "target"]


def test_a_curve_digest_follows_from_its_points_alone(report: Report) -> None:
    """Worked out by hand for one curve; the order of the points does not matter, a single accuracy
    does.
    """
    points = report.audits[0].points
    found = {(one.start, one.attacker): one for one in curve_digests(points)}
    mine = sorted(
        point.to_json()
        for point in points
        if (point.start, point.attacker) == ("release", "adaptive")
    )
    assert found["release", "adaptive"].sha256 == sha256_text("[" + ",".join(mine) + "]")
    assert found["release", "adaptive"].points == len(mine)
    assert curve_digests(points[::-1]) == curve_digests(points)
    other = curve_digests((points[0].model_copy(update={"val_accuracy": 0.123}), *points[1:]))
    assert sum(one != two for one, two in zip(curve_digests(points), other, strict=True)) == 1


@pytest.mark.parametrize("name", FILES)
def test_other_bytes_are_named(name: str, data: bytes, report: Report, key: PrivateKey) -> None:
    """Weights, ONNX and report each have their own line; so has a file that is gone."""
    with pytest.raises(IntegrityError, match="not of this release") as caught:
        check_attestation(
            data, key.public_key(), report, FILES | {name: FileRef(sha256="9" * 64, size=1)}
        )
    assert any(name in fault or "attestation.report" in fault for fault in caught.value.faults)
    with pytest.raises(IntegrityError, match="not of this release"):
        check_attestation(
            data,
            key.public_key(),
            report,
            {other: ref for other, ref in FILES.items() if other != name},
        )


def edited(data: bytes, key: PrivateKey, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The same statement with one change, signed again with the right key."""
    statement = json.loads(open_envelope(json.loads(data), key.public_key(), "x"))
    edit(statement)
    return json.dumps(signed_envelope(json.dumps(statement).encode(), key)).encode()


CLAIMS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a better R": (
        lambda s: s["predicate"]["audits"][0]["removed_vs_reference"].update(mean=0.99),
        "attestation.audits.0.removed_vs_reference.mean",
    ),
    "another curve": (
        lambda s: s["predicate"]["audits"][1]["curves"][0].update(sha256="0" * 64),
        "attestation.audits.1.curves.0.sha256",
    ),
    "a curve less": (
        lambda s: s["predicate"]["audits"][1]["curves"].pop(),
        "attestation.audits.1.curves",
    ),
    "another suite": (
        lambda s: s["predicate"]["audits"][0].update(suite="full"),
        "attestation.audits.0.suite",
    ),
    "a kinder verdict": (
        lambda s: s["predicate"].update(verdict="all is well"),
        "attestation.verdict",
    ),
    "a better source": (
        lambda s: s["predicate"]["source_accuracy"].update(test=1.0),
        "attestation.source_accuracy.test",
    ),
    "another recipe": (lambda s: s["predicate"].update(recipe="0" * 64), "attestation.recipe"),
    "other data": (
        lambda s: s["predicate"]["roles"][0].update(images="0" * 64),
        "attestation.roles.0.images",
    ),
    "pruned": (
        lambda s: s["predicate"].update(pruning={"method": "ntp", "sparsity": 0.9}),
        "attestation.pruning",
    ),
    "another model": (
        lambda s: s["subject"][1]["digest"].update(sha256="0" * 64),
        ("about another model.safetensors"),
    ),
    "no model": (lambda s: s["subject"].pop(), "model.safetensors is not attested"),
    "a model more": (
        lambda s: s["subject"].append({"name": "x", "digest": {"sha256": "0"}}),
        ("x is attested but missing"),
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_that_the_report_does_not_bear_is_named(
    case: str, data: bytes, report: Report, key: PrivateKey
) -> None:
    """The owner's own key does not make it true."""
    edit, said = CLAIMS[case]
    with pytest.raises(IntegrityError) as caught:
        check_attestation(edited(data, key, edit), key.public_key(), report, FILES)
    assert any(said in fault for fault in caught.value.faults), caught.value.faults


MALFORMED: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda s: s.update(_type="x"),
    lambda s: s.update(predicateType="https://x/v9"),
    lambda s: s.update(predicate=[]),
    lambda s: s.update(subject="all"),
    lambda s: s.update(subject=[3]),
    lambda s: s["subject"].append(s["subject"][0]),
    lambda s: s.update(note="trust me"),
    lambda s: s["predicate"].update(note="trust me"),
    lambda s: s["predicate"].update(schema_version=2),
    lambda s: s["predicate"].update(time="yesterday"),
    lambda s: s.pop("subject"),
)


@pytest.mark.parametrize("at", range(len(MALFORMED)))
def test_a_malformed_statement_is_refused(at: int, data: bytes, key: PrivateKey) -> None:
    """Rightly signed, and still no attestation."""
    with pytest.raises(IntegrityError):
        read_attestation(edited(data, key, MALFORMED[at]), key.public_key())


def test_another_key_is_refused(data: bytes, report: Report, tmp_path: Path) -> None:
    """An attestation by somebody else is no attestation."""
    with pytest.raises(IntegrityError, match="no signature by the key"):
        check_attestation(data, new_key(tmp_path / "other").public_key(), report, FILES)


def test_signing_again_changes_nothing_else(data: bytes, report: Report, key: PrivateKey) -> None:
    """The edits above are refused for what they change."""
    assert (
        check_attestation(edited(data, key, lambda _: None), key.public_key(), report, FILES).time
        == TIME
    )


def test_every_sampled_byte_flip_is_caught(data: bytes, key: PrivateKey) -> None:
    """Envelope, payload and signature: every byte has a meaning, and none may be added."""
    for noise in (data + b"\n", b" " + data, data[:-1]):
        with pytest.raises(IntegrityError):
            read_attestation(noise, key.public_key())
    for position in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(IntegrityError):
            read_attestation(
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :],
                key.public_key(),
            )


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON of few values, with an envelope's own keys."""
    keys = st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("aé\n\x00", max_size=5)


@given(st.binary(max_size=200) | trees(VALUES).map(lambda tree: json.dumps(tree).encode()))
def test_no_noise_gives_a_traceback(key: PrivateKey, noise: bytes) -> None:
    """Whatever stands in attestation.json, the answer is an IntegrityError of one line."""
    with pytest.raises(IntegrityError) as caught:
        read_attestation(noise, key.public_key())
    assert "\n" not in caught.value.message


@given(trees(VALUES), st.integers(0, 10**6))
def test_no_signed_noise_passes(
    data: bytes, report: Report, key: PrivateKey, noise: object, at: int
) -> None:
    """Any one value of the statement replaced by anything else, and signed with the right key:
    refused without a traceback.
    """
    places: list[tuple[Any, Any]] = []

    def collect(tree: Any) -> None:
        for place, value in (
            tree.items()
            if isinstance(tree, dict)
            else enumerate(tree)
            if isinstance(tree, list)
            else ()
        ):
            places.append((tree, place))
            collect(value)

    def replace(statement: dict[str, Any]) -> None:
        collect(statement)
        tree, place = places[at % len(places)]
        changed.append((place, tree[place]))
        tree[place] = noise

    changed: list[tuple[Any, Any]] = []
    try:
        check_attestation(edited(data, key, replace), key.public_key(), report, FILES)
    except IntegrityError as error:
        said = error.message
    else:
        said = ""
    place, before = changed[0]
    assert "\n" not in said
    assert said or place in {"time", "lockforge", "commit"} or before == noise, (
        place,
        before,
        noise,
    )
