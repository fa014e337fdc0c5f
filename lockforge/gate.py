"""Evidence and a policy to a verdict: may this release pass? Every check is made on what `verify`
has found sound, and fails closed.

What is missing, unreadable or not what was signed fails. Nothing is waived but what the policy
waives by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import areas, in_words
from lockforge.evidence.signing import Trust, fingerprint, verify_folder
from lockforge.evidence.statistics import fieller
from lockforge.evidence.suites import missing_attackers
from lockforge.policy import Policy, recipe_digest
from lockforge.records import Check, Estimate, Provenance, Report, SlcArea, TransferAudit, Verdict
from lockforge.verify import Release, examine, trust_of

if TYPE_CHECKING:
    from lockforge.evidence.keyless import Identity

ATTESTATION = "attestation.json"
ALIKE = "same logits"  # how `evidence.parity` says that ONNX and weights agree
_AHEAD = 10 / (24 * 60)  # days by which a signer's clock may be ahead of ours
_LONGEST = 400  # characters of a value: a release's words are its maker's

Finding = tuple[str, bool]  # what was found, and whether it is good enough


def gate_release(
    folder: Path,
    policy: Policy,
    public_key: Path | None = None,
    *,
    trusted: Path | None = None,
    identity: "Identity | None" = None,
    now: datetime | None = None,
) -> Verdict:
    """Judge a release.

    Args: public_key: the signer's. trusted: certificates (PEM) that the signer's must lead to, in
    place of the key or beside it. identity: who must have signed keyless, in place of both. The
    policy may name signers instead; whatever is given must all hold. now: today.
    Returns: the checks of `verify`, then one for each thing that the policy asks for; those of a
        target only where the report can be read.
    Raises: RecipeError: the key file is no key, or there are no certificates in the other.
    ResourceError: Sigstore, where it is asked for, cannot be used.
    """
    trust = trust_of(public_key, trusted, identity)
    if not folder.is_dir():
        return Verdict(
            checks=(
                Check(
                    name="release",
                    value="there is no such folder",
                    bound="a release folder",
                    passed=False,
                ),
            )
        )
    verified, release = examine(folder, trust, parity=policy.parity == "again")
    sound = [check for check in verified.checks if check.name != "parity"]
    checks = [_plain(check) for check in sound]
    wrong = next((check.name for check in sound if not check.passed), "")
    if release is None:
        return Verdict(checks=tuple(checks))
    gate = _Gate(release, policy, trust, now or datetime.now(UTC), verified)
    readable = any(check.name == "report" and check.passed for check in sound)
    for name, bound, look in gate.questions(readable=readable):
        found = (f"not judged, since the {wrong} failed", False) if wrong else _answer(look)
        checks.append(_plain(Check(name=name, value=found[0], bound=bound, passed=found[1])))
    return Verdict(checks=tuple(checks))


def _answer(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except IntegrityError as error:
        return ": ".join((error.message, *error.faults[:1])), False


def printable(text: str) -> str:
    r"""A text on one line, without anything unprintable: the names in a release could otherwise be
    commands to whoever reads a log.

    >>> printable("x\n::set-env")
    'x�::set-env'
    """
    shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."


def _plain(check: Check) -> Check:
    return check.model_copy(
        update={name: printable(getattr(check, name)) for name in ("name", "value", "bound")}
    )


Question = tuple[str, str, Callable[[], Finding]]


@dataclass(frozen=True)
class _Gate:
    """One release before one policy. `trust`: what the reader brought to know the signer by."""

    release: Release
    policy: Policy
    trust: Trust
    now: datetime
    verified: Verdict

    def questions(self, *, readable: bool) -> Iterator[Question]:
        """Name, bound and how to find out, in order; figures are asked for by target, as long as
        the report is `readable`.
        """
        policy = self.policy
        yield "signer", self._wanted_signer(), self.signer
        if policy.attestation == "required":
            yield "attested", f"{ATTESTATION} is there", self.attestation
        if policy.max_age_days is not None:
            yield "age", f"<= {policy.max_age_days:g} days", self.age
        if policy.recipes:
            yield "recipe", _some(policy.recipes), self.recipe
        if policy.parity != "any":
            yield "parity", "ONNX answers like the weights", self.parity
        yield "targets", f">= {policy.targets_at_least}", self.targets
        if policy.source_accuracy_at_least is not None:
            yield "source accuracy", f">= {policy.source_accuracy_at_least:g}", self.source_accuracy
        if readable:
            for name, audit in _targets(self.release.report):
                yield from _of_target(name, audit, policy)
        if policy.baseline is not None:
            yield "baseline", f"not worse by more than {policy.baseline_tolerance:g}", self.baseline

    def _wanted_signer(self) -> str:
        """Who may have signed, in words."""
        if self.policy.signers:
            return _some(self.policy.signers)
        if self.trust.key:
            return fingerprint(self.trust.key)
        if self.trust.identity:
            return str(self.trust.identity)
        return (
            "a certificate that leads to a trusted one"
            if self.trust.roots
            else "--key, or signers in the policy"
        )

    def signer(self) -> Finding:
        """Who signed, and whether what was given and the policy say so."""
        return _signed_by(self.release, self.policy.signers, self.trust)

    def attestation(self) -> Finding:
        """Whether the file is there; the signature covers it as it covers every file."""
        there = ATTESTATION in self.release.found
        return (f"{ATTESTATION} is there" if there else f"{ATTESTATION} is missing"), there

    def age(self) -> Finding:
        """Days since the release was made. The time is the signer's word: nobody else's is among
        the signed bytes.
        """
        policy = self.policy
        if policy.max_age_days is None or not self.signer()[1]:
            return "unknown: the time is the signer's word, and he is not established", False
        made = signed_time(self.release)
        days = (self.now - made).total_seconds() / 86400
        if days < -_AHEAD:
            return f"made in the future: {made.isoformat()}", False
        return f"{max(days, 0):.1f} days (made {made.isoformat()})", days <= policy.max_age_days

    def recipe(self) -> Finding:
        """Whether the report's recipe is, to the last value, one of those allowed."""
        digest = self.release.recipe.digest
        names = [name for name in self.policy.recipes if recipe_digest(name) == digest]
        return (names[0] if names else f"another one (digest {digest})"), bool(names)

    def parity(self) -> Finding:
        """What the report says, or what was found just now."""
        again = self.policy.parity == "again"
        made = [check for check in self.verified.checks if check.name == "parity"]
        said = made[0].value if again and made else self.release.report.parity
        sound = all(check.passed for check in made)
        return (said if sound else made[0].value), said.startswith(ALIKE) and sound

    def targets(self) -> Finding:
        """How many different targets were audited."""
        number = len({audit.target for audit in self.release.report.audits})
        return str(number), number >= self.policy.targets_at_least

    def source_accuracy(self) -> Finding:
        """The release's accuracy on the test split of its own task."""
        found, bound = self.release.report.subjects.release, self.policy.source_accuracy_at_least
        return (
            f"{found.test_accuracy:.4f} on {found.test_samples} images",
            bound is not None and found.test_accuracy >= bound,
        )

    def baseline(self) -> Finding:
        """Whether the baseline is sound and signed by an allowed signer, and no figure fell behind
        it by more than the tolerance.
        """
        folder = Path(self.policy.baseline or "")
        if not folder.is_dir():
            return "there is no such release", False
        allowed = self.policy.signers or ((fingerprint(self.trust.key),) if self.trust.key else ())
        trust = replace(
            self.trust, key=None
        )  # another signer that the policy names may have signed it
        verified, release = examine(folder, trust, parity=False)
        wrong = next(
            (f"{check.name}: {check.value}" for check in verified.checks if not check.passed), ""
        )
        if wrong or release is None:
            return f"the baseline is not sound: {wrong}", False
        signer, established = _signed_by(release, allowed, trust)
        if not established:
            return f"the baseline's signer: {signer}", False
        worse = list(_behind(self.release.report, release.report, self.policy.baseline_tolerance))
        return ("; ".join(worse) if worse else "nothing fell behind"), not worse


def signed_time(release: Release) -> datetime:
    """When the run that made the release began, as provenance.json says, which the signature
    covers.

    Raises: IntegrityError: missing, malformed, or a time without a zone.
    """
    try:
        made = datetime.fromisoformat(Provenance.from_json(release.read("provenance.json")).started)
    except ValueError as error:
        raise IntegrityError("provenance.json names no time") from error
    if made.tzinfo is None:
        raise IntegrityError(f"provenance.json names a time without a zone: {made.isoformat()}")
    return made


def _signed_by(release: Release, allowed: Sequence[str], trust: Trust) -> Finding:
    """Whether the signature is by whom the reader's trust leads to, and by one of those allowed
    where some are named.

    Raises: IntegrityError: not signed, or an untrusted signer.
    """
    signer = verify_folder(release.folder, trust, release.found)
    if allowed:
        return str(signer), signer.fingerprint in allowed
    return (
        (str(signer), True) if signer.established else (f"{signer}, for whom nobody vouches", False)
    )


def _targets(report: Report) -> Iterator[tuple[str, TransferAudit]]:
    yield from zip(report.roles.target_names, report.audits, strict=True)


def _of_target(name: str, audit: TransferAudit, policy: Policy) -> Iterator[Question]:
    """What is asked of one target's audit."""
    measures = audit.measures
    yield f"{name}: suite", _some(policy.suites), lambda: _suite(audit, policy)
    yield (
        f"{name}: seeds",
        f">= {policy.seeds_at_least}",
        lambda: (str(len(audit.seeds)), len(audit.seeds) >= policy.seeds_at_least),
    )
    words: tuple[str, ...] = (
        *policy.verdicts,
        *(["nothing to protect"] if policy.allow_nothing_to_protect else []),
    )
    yield (
        f"{name}: verdict",
        _some(words),
        lambda: (audit.verdict.word, audit.verdict.word in words),
    )
    if policy.allow_nothing_to_protect and audit.verdict.word == "nothing to protect":
        return
    least, most, share = (
        policy.removed_at_least,
        policy.slc_auc_at_most,
        policy.worst_attacker_at_most,
    )
    if least is not None:
        removed = measures.removed_vs_reference
        yield (
            f"{name}: advantage removed", f">= {least:g} (lower end)",
            lambda: (in_words(removed), removed.low is not None and removed.low >= least),
        )  # fmt: skip
    if most is not None:
        yield f"{name}: SLC-AUC", f"<= {most:g} (upper end)", lambda: _slc(measures.slc, most)
    if share is not None:
        yield (
            f"{name}: worst attacker",
            f"<= {share:g} of the unlocked model (upper end)",
            lambda: _relative(audit, share),
        )


def _suite(audit: TransferAudit, policy: Policy) -> Finding:
    """Whether the suite is allowed, and all of its attackers attacked or are said to have been left
    out.
    """
    missing = missing_attackers(audit)
    if missing:
        return f"{audit.suite}, but without {', '.join(missing)}", False
    return audit.suite, audit.suite in policy.suites


def _slc(rows: Sequence[SlcArea], most: float) -> Finding:
    """The attacker from the release whose upper end is highest; one without an interval is beyond
    every bound.
    """
    ends = {row.attacker: row.area.high for row in rows if row.start == "release"}
    if not ends:
        return "nobody attacked the release", False
    without = sorted(name for name, end in ends.items() if end is None)
    if without:
        return f"{without[0]} has no interval", False
    worst, end = max(
        ((name, end) for name, end in ends.items() if end is not None), key=lambda one: one[1]
    )
    return f"{end:.4f} ({worst})", end <= most


def _relative(audit: TransferAudit, most: float) -> Finding:
    """Mean accuracy over ln x of what a thief gets with the release, as a share of that with the
    unlocked model: A(W) / A(V).
    """
    found = relative_to_unlocked(audit)
    return in_words(found), found.high is not None and found.high <= most


def relative_to_unlocked(audit: TransferAudit) -> Estimate:
    """A(W) / A(V), W and V the envelopes of release and reference: the thief chooses among all
    attackers by validation, with either.

    The interval is Fieller's, paired over seeds.
    Raises: IntegrityError: an envelope is missing.
    """
    curves = {envelope.name: envelope.curve for envelope in audit.measures.envelopes}
    if not {"release", "reference"} <= curves.keys():
        raise IntegrityError("the audit has no envelopes of release and reference")
    return fieller(areas(curves["release"]), areas(curves["reference"]))


def _behind(ours: Report, theirs: Report, tolerance: float) -> Iterator[str]:
    """A line for each figure that fell behind the baseline's, or that cannot be held against it."""
    accuracies = [report.subjects.release.test_accuracy for report in (ours, theirs)]
    if accuracies[0] < accuracies[1] - tolerance:
        yield f"source accuracy {accuracies[0]:.4f}, before {accuracies[1]:.4f}"
    now: Mapping[str, TransferAudit] = {audit.target: audit for audit in ours.audits}
    for name, before in _targets(theirs):
        if before.target not in now:
            yield f"{name} was not audited again"
            continue
        audit = now[before.target]
        if audit.samples != before.samples or audit.suite != before.suite:
            yield f"{name} was audited otherwise ({audit.suite}, {list(audit.samples)} images)"
            continue
        yield from _behind_on(name, audit, before, tolerance)


def _behind_on(
    name: str, audit: TransferAudit, before: TransferAudit, tolerance: float
) -> Iterator[str]:
    """R must not be lower and no attacker's SLC-AUC higher than the highest before; a figure that
    there was must be there.
    """
    new, old = (one.measures.removed_vs_reference.mean for one in (audit, before))
    if old is not None and (new is None or new < old - tolerance):
        yield (
            f"{name}: advantage removed {'undefined' if new is None else f'{new:.4f}'}, before "
            f"{old:.4f}"
        )
    ends = [
        [row.area.mean for row in one.measures.slc if row.start == "release"]
        for one in (audit, before)
    ]
    highest = [max((end for end in some if end is not None), default=None) for some in ends]
    if highest[1] is not None and (highest[0] is None or highest[0] > highest[1] + tolerance):
        yield (
            f"{name}: SLC-AUC {'undefined' if highest[0] is None else f'{highest[0]:.4f}'}, "
            f"before {highest[1]:.4f}"
        )


def _some(words: Sequence[str]) -> str:
    return ", ".join(words)
