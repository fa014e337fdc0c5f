"""Keyless signatures by the real library and by the stock tool, with a Sigstore of our own on this
machine; and every way to be refused.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockforge.errors import IntegrityError, RecipeError, ResourceError
from lockforge.evidence import keyless
from lockforge.evidence.keyless import OFFLINE, Identity, Keyless
from lockforge.evidence.manifest import read_manifest
from lockforge.evidence.signing import Trust, fingerprint, new_key, sign_folder, verify_folder

pytest.importorskip(
    "sigstore", reason="keyless signatures are an extra: pip install 'lockforge[sign]'"
)
from tests.evidence.own_sigstore import MAIL, PROVIDER, OwnSigstore, token


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something to sign."""
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "model.bin").write_bytes(bytes(range(100)))
    return tmp_path / "release"


@pytest.fixture
def signed(folder: Path, trust_config: Path, token_file: Path) -> Path:
    """Signed by the real library."""
    Keyless(token_file, str(trust_config)).sign_folder(folder)
    return folder


def by(trust_config: Path, name: str = MAIL, provider: str = PROVIDER) -> Trust:
    """What a reader brings who wants this signer."""
    return Trust(identity=Identity(name, provider, str(trust_config)))


def test_a_keyless_release_names_its_signer(
    folder: Path, trust_config: Path, token_file: Path
) -> None:
    """By name and provider he is established; without them the bytes are checked and the
    certificate's word is said to be no more.
    """
    how = Keyless(token_file, str(trust_config))
    how.check()
    assert how.sign_folder(folder) == f"{MAIL} ({PROVIDER})"
    found, alone = verify_folder(folder, by(trust_config)), verify_folder(folder)
    assert (found.name, found.established, str(found)) == (
        f"{MAIL} ({PROVIDER})",
        True,
        f"{MAIL} ({PROVIDER}), keyless",
    )
    assert (alone.name, alone.established, alone.claimed) == ("", False, f"{MAIL} ({PROVIDER})")
    assert "nobody checked" in str(alone)
    assert read_manifest(folder).signer is None


def test_the_stock_tool_reads_ours_and_we_read_its(signed: Path, trust_config: Path) -> None:
    """model_signing with `sigstore`, both ways: the same identity, every file covered."""
    stock = pytest.importorskip(
        "model_signing",
        reason="the stock tool is the interoperability oracle: pip install 'lockforge[sign]'",
    )
    verifier = stock.verifying.Config().use_sigstore_verifier(
        identity=MAIL, oidc_issuer=PROVIDER, trust_config=trust_config
    )
    verifier.verify(signed, signed / "model.sig")
    (signed / "model.bin").write_bytes(b"another")
    with pytest.raises(ValueError, match="mismatch"):
        stock.verifying.Config().use_sigstore_verifier(
            identity=MAIL, oidc_issuer=PROVIDER, trust_config=trust_config
        ).verify(signed, signed / "model.sig")
    signer = stock.signing.Config().use_sigstore_signer(
        identity_token=token(), trust_config=trust_config
    )
    signer.set_hashing_config(
        stock.hashing.Config().set_ignored_paths(paths=[signed / "model.sig"])
    ).sign(signed, signed / "model.sig")
    found = verify_folder(signed, by(trust_config))
    assert (found.established, found.ignored) == (
        True,
        (".git", ".gitattributes", ".github", ".gitignore"),
    )


def test_another_signer_is_refused(signed: Path, trust_config: Path, tmp_path: Path) -> None:
    """Another name, another provider, another Sigstore with services of the same names, and a key
    or certificates in their place.
    """
    with OwnSigstore().serving(tmp_path / "other.json"):
        pass
    for trust in (
        by(trust_config, "thief@example.org"),
        by(trust_config, MAIL, "https://thief.example.org"),
        by(tmp_path / "other.json"),
    ):
        with pytest.raises(IntegrityError, match="it is not shown that"):
            verify_folder(signed, trust)
    own = new_key(tmp_path / "key")
    with pytest.raises(IntegrityError, match="signed keyless, not with a key"):
        verify_folder(signed, Trust(own.public_key()))
    sign_folder(signed, own)
    with pytest.raises(IntegrityError, match="signed with a key, not keyless"):
        verify_folder(signed, by(trust_config))


def test_somebody_elses_certificate_does_not_lend_its_name(
    signed: Path, trust_config: Path, tmp_path: Path
) -> None:
    """A thief's signature beside the owner's certificate and log entry: its key did not make it,
    with the identity or without.
    """
    theirs = json.loads((signed / "model.sig").read_text())
    (signed / "model.bin").write_bytes(b"worse")
    sign_folder(signed, new_key(tmp_path / "thief"))
    mixed = json.loads((signed / "model.sig").read_text()) | {
        "verificationMaterial": theirs["verificationMaterial"]
    }
    (signed / "model.sig").write_text(json.dumps(mixed))
    for trust in (by(trust_config), Trust()):
        with pytest.raises(IntegrityError, match="no signature by the key"):
            verify_folder(signed, trust)


def test_a_signature_that_no_log_has_seen_is_refused(signed: Path, trust_config: Path) -> None:
    """Without the log's entry, or with an entry for another signature, nothing says when the
    certificate was used.
    """
    bundle = json.loads((signed / "model.sig").read_text())
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    for entries in ([], [entry | {"canonicalizedBody": "e30="}], [entry | {"integratedTime": "1"}]):
        bundle["verificationMaterial"]["tlogEntries"] = entries
        (signed / "model.sig").write_text(json.dumps(bundle))
        with pytest.raises(IntegrityError, match="it is not shown that"):
            verify_folder(signed, by(trust_config))
        assert not verify_folder(signed).established


def test_what_the_library_finds_signed_is_what_was_found_here(
    signed: Path, trust_config: Path
) -> None:
    """Should the two ever read a bundle differently, it is refused."""
    with pytest.raises(IntegrityError, match="read in two ways"):
        keyless.check_identity(
            (signed / "model.sig").read_bytes(), b"{}", Identity(MAIL, PROVIDER, str(trust_config))
        )


def test_changed_files_and_changed_signatures_are_caught(signed: Path, trust_config: Path) -> None:
    """A file more, another file, and the signature flipped at many places, cut short or made
    longer: refused, and never a traceback.
    """
    shutil.copytree(signed, signed.with_name("more"))
    (signed.with_name("more") / "run.py").write_text("")
    with pytest.raises(IntegrityError, match="not what was signed"):
        verify_folder(signed.with_name("more"), by(trust_config))
    data = (signed / "model.sig").read_bytes()
    flips = [
        data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
        for i in range(0, len(data), len(data) // 150)
    ]
    for changed in (
        *flips,
        data[:-1],
        data + b" ",
        b"",
        data.replace(b'"logIndex":"0"', b'"logIndex":"99999999999999999999"'),
    ):
        (signed / "model.sig").write_bytes(changed)
        with pytest.raises(IntegrityError):
            verify_folder(signed, by(trust_config))


def places_in(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON tree but the whole."""
    for key in (
        tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    ):
        yield (*way, key)
        yield from places_in(tree[key], (*way, key))


ODD: tuple[Any, ...] = (None, -1, 10**30, "", "e30=", "99999999999999999999", "\ud800", [[]], {})
SAME = {
    ("timestampVerificationData", "None"),
    ("timestampVerificationData", "{}"),
}  # no time stamps, said in another way


def test_no_value_in_a_bundle_gives_a_traceback(signed: Path, trust_config: Path) -> None:
    """Every value of the signature replaced by something odd: refused, but for other spellings of
    the same.
    """
    tree = json.loads((signed / "model.sig").read_text())
    accepted = set()
    for way in places_in(tree):
        for odd in ODD:
            changed = json.loads(json.dumps(tree))
            here = changed
            for key in way[:-1]:
                here = here[key]
            here[way[-1]] = odd
            (signed / "model.sig").write_text(json.dumps(changed))
            try:
                verify_folder(signed, by(trust_config))
            except IntegrityError:
                continue
            accepted.add((str(way[-1]), str(odd)))
    assert accepted == SAME


def test_what_leaves_the_house_is_name_and_digests(
    signed: Path,
    sigstore: OwnSigstore,
    trust_config: Path,
    token_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two requests: one holds the token, in its header, and one the names and digests of the files;
    the token is nowhere else.
    """
    (path, headers, asked), (log, other, entry) = sigstore.requests
    assert (path, log) == ("/api/v2/signingCert", "/api/v1/log/entries")
    raw = headers["Authorization"].removeprefix("Bearer ")
    assert raw.count(".") == 2
    assert raw not in json.dumps([asked, other, entry])
    assert bytes(range(100)) not in json.dumps(entry).encode()
    token_file.write_text(token())
    with caplog.at_level(logging.DEBUG):
        Keyless(token_file, str(trust_config)).sign_folder(signed)
    assert len(caplog.text) > 100
    assert token_file.read_text() not in caplog.text
    assert not [path for path in signed.iterdir() if raw.encode() in path.read_bytes()]


# What is missing is said before the work, and nothing of it is a traceback

BAD: dict[str, str] = {
    "expired": token(minutes=-1),
    "made for another service": token(audience="somebody"),
    "malformed": "not.a.token",
    "empty": "",
    "cut short": token()[:-30].rpartition(".")[0],
    "not text": "\x00\xff",
}


@pytest.mark.parametrize("case", BAD)
def test_a_token_that_is_not_valid_is_refused_and_not_shown(
    case: str, folder: Path, trust_config: Path
) -> None:
    """Exit 4, before and after the work, with what to do instead; the token stays out of the
    message.
    """
    (folder.parent / "token").write_text(BAD[case])
    how = Keyless(folder.parent / "token", str(trust_config))
    for act in (how.check, lambda: how.sign_folder(folder)):
        with pytest.raises(ResourceError, match="valid now") as caught:
            act()
        assert "--key" in str(caught.value)
        assert not BAD[case] or BAD[case] not in str(caught.value)
    assert not (folder / "model.sig").exists()


def test_without_a_token_it_says_where_one_was_looked_for(
    trust_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file given and no CI job; a file that is not there; a CI job that may not ask for one."""
    with pytest.raises(ResourceError, match="no CI job that has a credential"):
        Keyless(None, str(trust_config)).check()
    with pytest.raises(RecipeError, match="cannot be read"):
        Keyless(tmp_path / "none", str(trust_config)).check()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(ResourceError, match="id-token: write"):
        Keyless(None, str(trust_config)).check()


def test_a_ci_job_signs_with_its_own_credential(
    folder: Path, trust_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitLab puts a token into the job's environment."""
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", token("robot@example.org"))
    Keyless(None, str(trust_config)).sign_folder(folder)
    assert verify_folder(folder, by(trust_config, "robot@example.org")).established


@pytest.mark.parametrize("service", ["signingCert", "log/entries"])
def test_a_service_that_refuses_is_named_and_nothing_is_signed(
    service: str, signed: Path, sigstore: OwnSigstore, trust_config: Path, token_file: Path
) -> None:
    """Neither the old signature nor a half of a new one is left."""
    sigstore.refuse = service
    with pytest.raises(ResourceError, match="signing keyless failed") as caught:
        Keyless(token_file, str(trust_config)).sign_folder(signed)
    assert "run the same command again" in str(caught.value)
    assert not (signed / "model.sig").exists()


def test_offline_it_says_that_the_services_are_needed(signed: Path, token_file: Path) -> None:
    """Signing and verifying by the public Sigstore without a network: what was tried, what is
    needed, and the two ways out.
    """
    with pytest.raises(ResourceError, match="cannot be fetched from its servers") as caught:
        Keyless(token_file).check()
    assert "--key" in str(caught.value)
    with pytest.raises(ResourceError, match=f"--trust-config {OFFLINE}"):
        verify_folder(signed, Trust(identity=Identity(MAIL, PROVIDER)))
    with pytest.raises(
        IntegrityError, match="it is not shown that"
    ):  # by the public keys that came with the library, which asks nobody
        verify_folder(signed, Trust(identity=Identity(MAIL, PROVIDER, OFFLINE)))


def test_a_trust_config_that_is_none_is_named(signed: Path, tmp_path: Path) -> None:
    """A file that is not there, no JSON, and JSON of something else."""
    (tmp_path / "text").write_text("hello")
    (tmp_path / "json").write_text("{}")
    for name in ("none", "text", "json"):
        with pytest.raises(RecipeError, match=name):
            verify_folder(signed, by(tmp_path / name))


def test_without_the_extra_it_says_so(
    signed: Path, trust_config: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 4 where Sigstore is asked for; without an identity the core reads a keyless signature
    all the same.
    """
    monkeypatch.setattr(keyless, "find_spec", lambda _name: None)
    with pytest.raises(ResourceError, match="extra `sign`"):
        Keyless(token_file, str(trust_config)).check()
    with pytest.raises(ResourceError, match="extra `sign`"):
        verify_folder(signed, by(trust_config))
    alone = verify_folder(signed)
    assert (alone.established, len(fingerprint(alone.key))) == (False, 64)
