"""Signatures: our own round trip, every way to tamper, and the stock tool in both directions."""

import base64
import copy
import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence.manifest import write_manifest
from lockforge.evidence.signing import (
    PrivateKey,
    Trust,
    default_key_path,
    fingerprint,
    is_locked,
    load_private,
    load_public,
    new_key,
    own_key,
    public_pem,
    sign_folder,
    verify_folder,
)


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    """A fresh signing key at `tmp_path/k`."""
    return new_key(tmp_path / "k")


@pytest.fixture
def release(tmp_path: Path, key: PrivateKey) -> Path:
    """A signed folder."""
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(200)))
    (folder / "sub" / "data").write_bytes(b"data")
    (folder / "sub.txt").write_bytes(b"sorts between sub and sub/data")
    sign_folder(folder, key)
    return folder


def test_a_signed_folder_verifies_with_and_without_its_key(release: Path, key: PrivateKey) -> None:
    """With the reader's key the signer is established; without it only the fingerprint of the key
    that came along is known.
    """
    ours = verify_folder(release, Trust(key.public_key()))
    assert (ours.fingerprint, ours.established) == (fingerprint(key.public_key()), True)
    alone = verify_folder(release)
    assert (alone.fingerprint, alone.established) == (fingerprint(key.public_key()), False)


def test_a_folder_can_be_signed_again(release: Path, key: PrivateKey) -> None:
    """The old signature is no part of the new content."""
    (release / "more").write_bytes(b"more")
    sign_folder(release, key)
    assert verify_folder(release, Trust(key.public_key())).established


@pytest.mark.parametrize("name", ["model.bin", "manifest.json", "model.sig", "sub.txt"])
def test_every_sampled_byte_flip_is_caught(release: Path, key: PrivateKey, name: str) -> None:
    """Any flipped bit of content, manifest or signature, with the key and without: nothing in the
    release may change unseen.
    """
    data = (release / name).read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        (release / name).write_bytes(
            data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]
        )
        for public in (key.public_key(), None):
            with pytest.raises(IntegrityError):
                verify_folder(release, Trust(public))
    (release / name).write_bytes(data)
    assert verify_folder(release).fingerprint


def test_truncations_swaps_additions_and_removals_are_caught(
    release: Path, key: PrivateKey
) -> None:
    """Each structural change has its own line that names the file."""
    model, extra, text, git = (release / name for name in ("model.bin", "extra", "sub.txt", ".git"))
    data = model.read_bytes()
    changes: tuple[tuple[Callable[[], object], Callable[[], object], str], ...] = (
        (
            lambda: model.write_bytes(data[:-1]),
            lambda: model.write_bytes(data),
            ("model.bin was changed"),
        ),
        (lambda: extra.write_bytes(b""), extra.unlink, "extra is there but not listed"),
        (
            lambda: text.rename(release / "s.txt"),
            lambda: (release / "s.txt").rename(text),
            ("sub.txt is missing"),
        ),
        (lambda: git.write_bytes(b""), git.unlink, ".git is there but not listed"),
    )
    for change, undo, said in changes:
        change()
        with pytest.raises(IntegrityError, match=said):
            verify_folder(release, Trust(key.public_key()))
        undo()
    (release / "model.sig").unlink()
    with pytest.raises(IntegrityError, match=r"model\.sig is missing"):
        verify_folder(release, Trust(key.public_key()))


def test_another_signer_is_caught_when_the_key_is_given(
    release: Path, key: PrivateKey, tmp_path: Path
) -> None:
    """Changed and signed again by somebody else: seen with the owner's key, and only the
    fingerprint tells without it.
    """
    (release / "model.bin").write_bytes(b"other")
    sign_folder(release, other := new_key(tmp_path / "other"))
    with pytest.raises(IntegrityError, match="another key"):
        verify_folder(release, Trust(key.public_key()))
    assert (
        verify_folder(release).fingerprint
        == fingerprint(other.public_key())
        != fingerprint(key.public_key())
    )


def test_an_unsigned_release_is_not_a_signed_one(release: Path) -> None:
    """A manifest without a signer, or no manifest at all, cannot pass."""
    write_manifest(release)
    with pytest.raises(IntegrityError, match="names no signer"):
        verify_folder(release)
    (release / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match=r"no manifest\.json"):
        verify_folder(release)


# Malformed bundles


def resigned(release: Path, key: PrivateKey, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the signed statement and sign it again with the right key: what a careless or hostile
    signer could make.
    """
    bundle = json.loads((release / "model.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    edit(statement)
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    signed = (
        b"DSSEv1 "
        + str(len(kind)).encode()
        + b" "
        + kind
        + b" "
        + str(len(payload)).encode()
        + b" "
        + payload
    )
    from cryptography.hazmat.primitives import hashes

    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(
        key.sign(signed, ec.ECDSA(hashes.SHA256()))
    ).decode()
    (release / "model.sig").write_text(json.dumps(bundle))


def set_root(statement: dict[str, Any]) -> None:
    """Make the subject's digest fit the resources again."""
    digests = b"".join(
        bytes.fromhex(resource["digest"]) for resource in statement["predicate"]["resources"]
    )
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()


def ignore_last(statement: dict[str, Any]) -> None:
    """Take a file out of the list and ask the reader to ignore it."""
    predicate = statement["predicate"]
    predicate["serialization"]["ignore_paths"].append(predicate["resources"].pop()["name"])
    set_root(statement)


def leave_out_last(statement: dict[str, Any]) -> None:
    """Take a file out of the list and say nothing."""
    statement["predicate"]["resources"].pop()
    set_root(statement)


STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another statement type": (lambda s: s.update(_type="x"), "another kind"),
    "another predicate": (lambda s: s.update(predicateType="https://x/v9"), "another kind"),
    "shards": (lambda s: s["predicate"]["serialization"].update(method="shards"), "not read here"),
    "a wrong root": (
        lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
        ("does not give the digest"),
    ),
    "no subject": (lambda s: s.update(subject=[]), "lacks 'digest'"),
    "path traversal": (
        lambda s: s["predicate"]["resources"][0].update(name="../../etc/passwd"),
        "not allowed",
    ),
    "another hash": (lambda s: s["predicate"]["resources"][0].update(algorithm="md5"), "malformed"),
    "a short digest": (lambda s: s["predicate"]["resources"][0].update(digest="00"), "malformed"),
    "a file twice": (
        lambda s: s["predicate"]["resources"].append(copy.deepcopy(s["predicate"]["resources"][0])),
        "malformed",
    ),
    "no list": (lambda s: s["predicate"].update(resources="all"), "malformed"),
    "no table": (lambda s: s.update(predicate=[1]), "not a table"),
    "an ignored file": (ignore_last, "the signer asks to ignore 'sub/data'"),
    "a file left out": (leave_out_last, "sub/data is there but not listed"),
    "an ignore list that is none": (
        lambda s: s["predicate"]["serialization"].update(ignore_paths="*"),
        "no list of names",
    ),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_rightly_signed_but_impossible_statement_is_refused(
    case: str, release: Path, key: PrivateKey
) -> None:
    """The right key does not make a malformed statement true, and a signer's ignore list hides
    nothing.
    """
    edit, said = STATEMENTS[case]
    resigned(release, key, lambda statement: edit(statement) and None)
    with pytest.raises(IntegrityError, match=said):
        verify_folder(release, Trust(key.public_key()))


def test_the_way_the_statement_is_signed_again_is_right(release: Path, key: PrivateKey) -> None:
    """The edit of the test above changes nothing else: an unedited statement, signed again by hand,
    verifies.
    """
    resigned(release, key, lambda _: None)
    assert verify_folder(release, Trust(key.public_key())).established


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        ('{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'),
        '{"mediaType": 3}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_no_malformed_bundle_gives_a_traceback(
    text: str | bytes, release: Path, key: PrivateKey
) -> None:
    """Whatever stands in model.sig, the answer is an IntegrityError of one line."""
    (release / "model.sig").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(IntegrityError) as caught:
        verify_folder(release, Trust(key.public_key()))
    assert "\n" not in caught.value.message


def test_another_spelling_of_the_same_signature_is_refused(release: Path, key: PrivateKey) -> None:
    """Base64 leaves bits unused before its padding; setting them decodes to the same bytes and is
    still an edit.
    """
    while not (
        text := json.loads((release / "model.sig").read_text())["dsseEnvelope"]["signatures"][0][
            "sig"
        ]
    ).endswith("="):
        sign_folder(release, key)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip("=")
    other = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]
    assert base64.b64decode(other) == base64.b64decode(text)
    (release / "model.sig").write_text((release / "model.sig").read_text().replace(text, other))
    with pytest.raises(IntegrityError, match="another way"):
        verify_folder(release, Trust(key.public_key()))


def test_the_stock_tools_own_ignore_list_is_shown_and_hides_nothing(
    release: Path, key: PrivateKey
) -> None:
    """Git's files may be on the list; they are named, and one that is there is still an unlisted
    file.
    """
    resigned(
        release,
        key,
        lambda s: s["predicate"]["serialization"].update(
            ignore_paths=["model.sig", ".git", ".gitignore"]
        ),
    )
    assert verify_folder(release, Trust(key.public_key())).ignored == (".git", ".gitignore")
    (release / ".gitignore").write_text("*")
    with pytest.raises(IntegrityError, match=r"\.gitignore is there but not listed"):
        verify_folder(release, Trust(key.public_key()))


def test_a_bundle_of_neither_key_nor_certificate_is_named_as_such(
    release: Path, key: PrivateKey
) -> None:
    """Other kinds of material, and a certificate that is none, are the release's fault."""
    bundle = json.loads((release / "model.sig").read_text())
    for material, said in (
        ({}, "neither a key nor a certificate"),
        ({"certificate": {"rawBytes": "AAAA"}}, "cannot be read"),
    ):
        (release / "model.sig").write_text(json.dumps(bundle | {"verificationMaterial": material}))
        with pytest.raises(IntegrityError, match=said):
            verify_folder(release, Trust(key.public_key()))


# Keys


def test_a_locked_key_is_known_as_such(tmp_path: Path) -> None:
    """So that a passphrase is asked for only where one is needed."""
    new_key(tmp_path / "open")
    new_key(tmp_path / "locked", b"open sesame")
    assert (is_locked(tmp_path / "open"), is_locked(tmp_path / "locked")) == (False, True)
    with pytest.raises(RecipeError, match="cannot be read"):
        is_locked(tmp_path / "none")


def test_a_new_key_is_private_and_comes_back(tmp_path: Path) -> None:
    """0600, P-256, public part beside it; never overwritten; a passphrase is needed where one was
    set.
    """
    made = new_key(tmp_path / "deep" / "k", b"open sesame")
    assert stat.S_IMODE((tmp_path / "deep" / "k").stat().st_mode) == 0o600
    assert fingerprint(load_public(tmp_path / "deep" / "k.pub")) == fingerprint(made.public_key())
    assert fingerprint(
        load_private(tmp_path / "deep" / "k", b"open sesame").public_key()
    ) == fingerprint(made.public_key())
    for wrong in (None, b"guess"):
        with pytest.raises(RecipeError, match="can be opened") as caught:
            load_private(tmp_path / "deep" / "k", wrong)
        assert "guess" not in str(caught.value)
    with pytest.raises(RecipeError, match="there already"):
        new_key(tmp_path / "deep" / "k")


def test_the_users_own_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In XDG_CONFIG_HOME, made on first use, read afterwards."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = own_key()
    assert default_key_path() == tmp_path / "config" / "lockforge" / "signing.pem"
    assert stat.S_IMODE(default_key_path().stat().st_mode) == 0o600
    assert fingerprint(own_key().public_key()) == fingerprint(first.public_key())


def test_the_fingerprint_is_of_the_der(key: PrivateKey) -> None:
    """SHA-256 of the PEM's base64, decoded: the standard form, worked out by hand."""
    body = "".join(public_pem(key.public_key()).splitlines()[1:-1])
    assert fingerprint(key.public_key()) == hashlib.sha256(base64.b64decode(body)).hexdigest()


def test_other_keys_are_refused_by_name(tmp_path: Path) -> None:
    """Ed25519 and P-256K are not in the format; text and missing files are no keys."""
    pem, pkcs8, none = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    for odd in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        (tmp_path / "odd").write_bytes(odd.private_bytes(pem, pkcs8, none))
        (tmp_path / "odd.pub").write_bytes(odd.public_key().public_bytes(pem, info))
        with pytest.raises(RecipeError, match="not an EC key"):
            load_private(tmp_path / "odd")
        with pytest.raises(RecipeError, match="not an EC key"):
            load_public(tmp_path / "odd.pub")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RecipeError, match="not a public key"):
        load_public(tmp_path / "text")
    with pytest.raises(RecipeError, match="can be opened"):
        load_private(tmp_path / "text")
    for load in (load_private, load_public):
        with pytest.raises(RecipeError, match="cannot be read"):
            load(tmp_path / "none")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_the_longer_curves_sign_too(curve: ec.EllipticCurve, release: Path) -> None:
    """P-384 with SHA-384 and P-521 with SHA-512, as the format has them."""
    longer = ec.generate_private_key(curve)
    sign_folder(release, longer)
    assert verify_folder(release, Trust(longer.public_key())).established


# The stock tool

STOCK = "the stock tool is the interoperability oracle: pip install 'lockforge[sign]'"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_stock_tool_reads_what_we_sign(
    curve: ec.EllipticCurve, release: Path, tmp_path: Path
) -> None:
    """model_signing verifies our bundle, and refuses it after a change: the acceptance is not
    empty.
    """
    stock = pytest.importorskip("model_signing", reason=STOCK)
    theirs = ec.generate_private_key(curve)
    sign_folder(release, theirs)
    (tmp_path / "pub").write_text(public_pem(theirs.public_key()))
    stock.verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "pub").verify(
        release, release / "model.sig"
    )
    (release / "extra").write_bytes(b"")
    with pytest.raises(ValueError, match="extra"):
        stock.verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "pub").verify(
            release, release / "model.sig"
        )


def test_we_read_what_the_stock_tool_signs(release: Path, key: PrivateKey, tmp_path: Path) -> None:
    """A folder signed by model_signing verifies here, and a change in it is caught."""
    stock = pytest.importorskip("model_signing", reason=STOCK)
    (release / "model.sig").unlink()
    hashing = stock.hashing.Config().set_ignored_paths(paths=[release / "model.sig"])
    signing = (
        stock.signing.Config()
        .use_elliptic_key_signer(private_key=tmp_path / "k")
        .set_hashing_config(hashing)
    )
    signing.sign(release, release / "model.sig")
    assert verify_folder(release, Trust(key.public_key())).established
    (release / "sub" / "data").write_bytes(b"Data")
    with pytest.raises(IntegrityError, match="sub/data was changed"):
        verify_folder(release, Trust(key.public_key()))
