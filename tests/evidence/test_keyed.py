"""Keyed digests: nothing that could be looked up is left, and everything still fits together."""

import hashlib
import hmac
import re
import stat
from pathlib import Path

import pytest

from lockforge.errors import RecipeError
from lockforge.evidence.keyed import (
    digest_key_path,
    keyed_digest,
    keyed_report,
    keyed_set,
    own_digest_key,
    recognise,
)
from lockforge.records import FileRef, Report
from tests.report import made_up

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def report() -> Report:
    """One target."""
    made = made_up.report(targets={"usps": 0.05}, attackers=2, seeds=2)
    vectors = [
        one.model_copy(update={"vector": FileRef(sha256=f"{at}" * 64, size=1)})
        for at, one in enumerate(made.embeddings, 1)
    ]
    return made.model_copy(update={"embeddings": tuple(vectors)})


def test_a_keyed_digest_is_an_hmac(report: Report) -> None:
    """Worked out by hand."""
    digest = report.roles.source.pixels.sha256
    assert (
        keyed_digest(digest, KEY)
        == hmac.digest(KEY, b"lockforge data digest " + digest.encode(), hashlib.sha256).hex()
    )


def test_no_digest_of_data_is_left_and_all_references_hold(report: Report) -> None:
    """Of all digests only those of weights, probe and predictor stay; targets, embeddings and
    weights point where they did.
    """
    found = keyed_report(report, KEY)
    before, after = (set(re.findall(r"\b[0-9a-f]{64}\b", one.to_json())) for one in (report, found))
    subjects = report.subjects
    assert before & after == {"0" * 64} | {
        one.weights.sha256 for one in (subjects.release, subjects.reference)
    }
    assert found.digests == "keyed"
    assert [one.target for one in found.audits] == [one.digest for one in found.roles.targets]
    sets = (found.roles.source, *found.roles.targets)
    assert [one.images for one in found.embeddings] == [one.digest for one in sets]
    assert Report.from_json(found.to_json()) == found
    assert keyed_report(found, KEY) == found


def test_the_owner_can_test_a_set_and_nobody_else_can(report: Report) -> None:
    """The same key gives the same digest again; another key another one; a target's moments are
    rounded, the source's are not.
    """
    found = keyed_report(report, KEY)
    target = report.roles.targets[0].model_copy(update={"mean": (0.123456,)})
    assert keyed_set(report.roles.targets[0], KEY, exact=False).digest == found.audits[0].target
    assert (
        keyed_set(report.roles.targets[0], bytes(32), exact=False).digest != found.audits[0].target
    )
    assert keyed_set(target, KEY, exact=False).mean == (0.12,)
    assert keyed_set(target, KEY, exact=True).mean == (0.123456,)


def test_images_are_recognised_with_the_key_and_alike_without(report: Report) -> None:
    """By the owner the source and a target; by others only as far as the report tells of them;
    others' images never.
    """
    found = keyed_report(report, KEY)
    source, target = report.roles.source, report.roles.targets[0]
    for said, here in ((found.roles.source, source), (found.roles.targets[0], target)):
        assert recognise(said, here, "keyed", KEY) == "same"
        assert (
            recognise(said, here, "keyed", None)
            == recognise(said, here, "keyed", bytes(32))
            == "alike"
        )
    assert recognise(target, target, "open", None) == "same"
    assert recognise(target, source, "open", None) == "other"
    changes = (
        {"classes": ("x", "y")},
        {"mean": (0.3,)},
        {"counts": target.counts.model_copy(update={"test": 1})},
    )
    for change in changes:
        assert (
            recognise(found.roles.targets[0], target.model_copy(update=change), "keyed", None)
            == "other"
        )


def test_the_owners_key_is_made_once_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0600 in the config folder, 32 bytes; a file of something else is never taken for a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = own_digest_key()
    assert len(first) == 32
    assert own_digest_key() == first
    assert stat.S_IMODE(digest_key_path().stat().st_mode) == 0o600
    for wrong in ("", "ab", "hello"):
        digest_key_path().write_text(wrong)
        with pytest.raises(RecipeError, match="no key for digests"):
            own_digest_key()
