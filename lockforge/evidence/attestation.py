"""What an owner claims of a release, bound to its bytes and to the raw curves: an in-toto Statement
v1 in a DSSE envelope.

Its signature is made with the release's key. A keyless release has none that lasts: its envelope
has no signature of its own, and the one over the release, which covers attestation.json as it
covers every file, stands for it.

The subject is the weights and the ONNX file by SHA-256; the predicate (docs/attestation.md has
every field) says with what, against whom and how well. Everything in it but the code's version and
the time follows from `report.json`, and `check_attestation` works it out again.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from lockforge.errors import IntegrityError
from lockforge.evidence._dsse import (
    STATEMENT_TYPE,
    at,
    envelope_of,
    known,
    parsed,
    parsed_file,
    shown,
    table,
    unsigned_payload,
)
from lockforge.evidence.faults import unlike
from lockforge.evidence.signing import PrivateKey, PublicKey, open_envelope, signed_envelope
from lockforge.records import (
    AttackPoint,
    AuditVerdict,
    Count,
    Digest,
    Estimate,
    FileRef,
    Record,
    Report,
    Share,
    SlcArea,
    Start,
    TransferAudit,
    canonical_json,
    sha256_text,
)

ATTESTATION = "attestation.json"
PREDICATE_TYPE = "https://lockforge/transferability/v1"
SUBJECTS = ("model.int8.onnx", "model.onnx", "model.safetensors")


class RoleDigest(Record):
    """A data set by its role, its name and the digest of its images, which is keyed or plain as the
    predicate's `digests` says.
    """

    role: Literal["source", "auxiliary", "target"]
    name: str
    images: Digest


class EmbeddingDigest(Record):
    """The task embedding of one data set: whose it is, by which probe, and the digest of the
    vector's file.
    """

    images: Digest
    probe: Digest
    vector: Digest


class CurveDigest(Record):
    """All raw points of one attacker from one start: how many, and SHA-256 of their canonical JSON
    in canonical order.
    """

    start: Start
    attacker: str
    points: Count
    sha256: Digest


class AttestedAudit(Record):
    """One target: how it was attacked and what was found."""

    target: str
    images: Digest
    suite: str
    suite_version: Annotated[int, Field(ge=1)]
    grid: tuple[int, ...]
    samples: tuple[int, ...]
    seeds: tuple[int, ...]
    curves: tuple[CurveDigest, ...]
    removed_vs_reference: Estimate
    removed_vs_twin: Estimate
    slc_auc: tuple[SlcArea, ...]
    worst_attacker: str
    verdict: AuditVerdict


class SourceAccuracy(Record):
    """The release on its own task."""

    val: Share
    test: Share
    test_samples: Count


class AttestedPruning(Record):
    """The weight lock: how, and the share of zeros among the prunable weights."""

    method: str
    sparsity: Share


class CodeVersion(Record):
    """What made the release."""

    lockforge: str
    commit: str


class Predicate(Record):
    """The claim. `report` is SHA-256 of report.json; `time` is when it was signed, by the signer's
    clock, in UTC.
    """

    schema_version: Literal[1] = 1
    recipe: Digest
    digests: Literal["open", "keyed"]
    roles: tuple[RoleDigest, ...]
    embeddings: tuple[EmbeddingDigest, ...]
    predictor: Digest | None
    audits: tuple[AttestedAudit, ...]
    source_accuracy: SourceAccuracy
    pruning: AttestedPruning | None
    verdict: str
    report: Digest
    code: CodeVersion
    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


def attest(
    report: Report,
    files: Mapping[str, FileRef],
    code: CodeVersion,
    time: str,
    key: PrivateKey | None,
) -> bytes:
    """attestation.json.

    Args: files: of the release, with report.json as it is released. time: as in `Predicate`. key:
        None where the release is signed keyless.
    """
    predicate = predicate_of(report, files["report.json"].sha256, code, time)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": files[name].sha256}}
            for name in SUBJECTS
            if name in files
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate.model_dump(mode="json"),
    }
    payload = canonical_json(statement).encode()
    return json.dumps(signed_envelope(payload, key) if key else envelope_of(payload, None)).encode()


def predicate_of(report: Report, report_digest: str, code: CodeVersion, time: str) -> Predicate:
    """What is claimed of a report."""
    roles, release, pruning = report.roles, report.subjects.release, report.pruned.get("release")
    words = ["source", *["auxiliary"] * len(roles.auxiliary), *["target"] * len(roles.targets)]
    sets = (roles.source, *roles.auxiliary, *roles.targets)
    return Predicate(
        recipe=sha256_text(canonical_json(report.recipe)),
        digests=report.digests,
        roles=tuple(
            # the three words above
            RoleDigest(role=word, name=name, images=images.digest)  # type: ignore[arg-type]
            for word, name, images in zip(words, roles.names, sets, strict=True)
        ),
        embeddings=tuple(
            EmbeddingDigest(images=one.images, probe=one.probe, vector=one.vector.sha256)
            for one in report.embeddings
        ),
        predictor=report.search.predictor if report.search else None,
        audits=tuple(
            _audit(name, audit)
            for name, audit in zip(roles.target_names, report.audits, strict=True)
        ),
        source_accuracy=SourceAccuracy(
            val=release.val_accuracy, test=release.test_accuracy, test_samples=release.test_samples
        ),
        pruning=AttestedPruning(method=pruning.method, sparsity=pruning.sparsity)
        if pruning
        else None,
        verdict=report.verdict,
        report=report_digest,
        code=code,
        time=time,
    )


def _audit(name: str, audit: TransferAudit) -> AttestedAudit:
    found = audit.measures
    return AttestedAudit(
        target=name,
        images=audit.target,
        suite=audit.suite,
        suite_version=audit.suite_version,
        grid=audit.grid,
        samples=audit.samples,
        seeds=audit.seeds,
        curves=curve_digests(audit.points),
        removed_vs_reference=found.removed_vs_reference,
        removed_vs_twin=found.removed_vs_twin,
        slc_auc=tuple(area for area in found.slc if area.start == "release"),
        worst_attacker=found.worst_attacker,
        verdict=audit.verdict,
    )


def curve_digests(points: Sequence[AttackPoint]) -> tuple[CurveDigest, ...]:
    """A digest for each start and attacker, whatever the order of the points: their JSON texts are
    sorted and put into a JSON list.
    """
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for point in points:
        rows[point.start, point.attacker].append(point.to_json())
    return tuple(
        CurveDigest(
            start=start,
            attacker=attacker,
            points=len(texts),
            sha256=sha256_text("[" + ",".join(sorted(texts)) + "]"),
        )
        for (start, attacker), texts in sorted(rows.items())
    )


def read_attestation(data: bytes, key: PublicKey | None) -> tuple[dict[str, str], Predicate]:
    """Subjects (name -> SHA-256) and predicate of an attestation that this key signed; None: that a
    keyless release's signature covers.

    Raises: IntegrityError: another key's, or no such statement.
    """
    envelope = parsed_file(data, ATTESTATION)
    payload = (
        open_envelope(envelope, key, ATTESTATION)
        if key
        else unsigned_payload(envelope, ATTESTATION)
    )
    statement = known(
        parsed(payload, "the attested statement"),
        {"_type", "subject", "predicateType", "predicate"},
        ATTESTATION,
    )
    kinds = (at(statement, "_type", ATTESTATION), at(statement, "predicateType", ATTESTATION))
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise IntegrityError(f"{ATTESTATION} states something of another kind: {shown(kinds)}")
    rows = at(statement, "subject", ATTESTATION)
    subjects = {}
    for row in rows if isinstance(rows, list) else [rows]:
        digest = row.get("digest") if isinstance(row, dict) else None
        if (
            not isinstance(digest, dict)
            or not isinstance(row.get("name"), str)
            or row["name"] in subjects
        ):
            raise IntegrityError(f"{ATTESTATION} has a malformed subject: {shown(row)}")
        subjects[row["name"]] = str(digest.get("sha256"))
    return subjects, Predicate.from_json(json.dumps(table(statement, "predicate", ATTESTATION)))


def check_attestation(
    data: bytes, key: PublicKey | None, report: Report, files: Mapping[str, FileRef]
) -> Predicate:
    """The claim, if it is about these very files and says what the report says.

    Args: key: None where the release was found to be signed keyless. files: of the release, by
        name, as they were hashed.
    Raises: IntegrityError: not signed with this key, about other bytes, or other figures than the
        report's; every difference is a fault.
    """
    subjects, said = read_attestation(data, key)
    wanted = {name: files[name].sha256 for name in SUBJECTS if name in files}
    faults = [f"{name} is attested but missing" for name in sorted(subjects.keys() - wanted.keys())]
    faults += [f"{name} is not attested" for name in sorted(wanted.keys() - subjects.keys())]
    faults += [
        f"the attestation is about another {name}"
        for name in wanted
        if name in subjects and subjects[name] != wanted[name]
    ]
    found = predicate_of(
        report,
        files["report.json"].sha256 if "report.json" in files else "0" * 64,
        said.code,
        said.time,
    )
    faults += [
        f"{line.partition(':')[0]} is not what the report says"
        for line in unlike(
            said.model_dump(mode="json"),
            found.model_dump(mode="json"),
            ATTESTATION.removesuffix(".json"),
        )
    ]
    if faults:
        raise IntegrityError(
            f"{ATTESTATION} is not of this release",
            faults=faults,
            hint="get the release again from its owner",
        )
    return said
