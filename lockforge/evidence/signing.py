"""Signatures in the OpenSSF Model Signing v1.0 format, with `cryptography` alone.

A signature file is a Sigstore bundle (JSON, v0.3, public-key material) around a DSSE envelope around an in-toto Statement v1, whose
predicate lists every file with its SHA-256. Keys are elliptic curve keys (P-256 where we make one; P-384 and P-521 are read). The stock
tool (`model_signing`) reads what we write and we read what it writes with a key; certificates and keyless signatures are not read here.

Sources: OpenSSF Model Signing v1.0; DSSE protocol v1.0.0 (github.com/secure-systems-lab/dsse); in-toto attestation Statement v1.
Key material is never logged nor put into an error message.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence.manifest import (
    MANIFEST,
    SIGNATURE,
    check_name,
    differences,
    hash_folder,
    read_limited,
    read_manifest,
    write_manifest,
)
from lockforge.records import FileRef
from lockforge.runs import write_whole, writing

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES: Mapping[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}


# Keys


def default_key_path() -> Path:
    """Where the user's own signing key lies: `lockforge/signing.pem` in the config folder (XDG_CONFIG_HOME, else ~/.config)."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return config / "lockforge" / "signing.pem"


def own_key() -> PrivateKey:
    """The user's own key, made on first use.

    Raises: RecipeError: the file there is no key. ResourceError: the folder cannot be written to.
    """
    path = default_key_path()
    return load_private(path) if path.exists() else new_key(path)


def new_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Make a P-256 key: the private part at `path`, readable by its owner only, the public part beside it as `path` + `.pub`.

    Raises: RecipeError: something is there already. ResourceError: it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    if path.exists() or path.is_symlink():
        raise RecipeError(f"{path} is there already", hint="a key is never overwritten: give another name or move it away")
    with writing("a signing key", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(private)
    write_whole(path.with_name(path.name + ".pub"), public_pem(key.public_key()).encode())
    return key


def load_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key (PEM).

    Raises: RecipeError: unreadable, no key, a wrong or missing passphrase, or another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", hint="give a private key file (PEM)") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        hint = "give an EC P-256 key in PEM; an encrypted one needs its passphrase"
        raise RecipeError(f"{path} is not a private key that can be opened", hint=hint) from None
    if not isinstance(key, PrivateKey) or key.curve.name not in _HASHES:
        raise RecipeError(f"{path} is not an EC key on P-256, P-384 or P-521", hint="the format has no other keys; make one of P-256")
    return key


def load_public(path: Path) -> PublicKey:
    """Read a public key (PEM).

    Raises: RecipeError: unreadable, no public key, or another kind of key.
    """
    try:
        return _public_of(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", hint="give the signer's public key file (PEM)") from error
    except ValueError as error:
        raise RecipeError(f"{path} {error}", hint="give the signer's public key in PEM: the .pub file beside the private one") from None


def _public_of(pem: bytes) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a public key in PEM") from None
    if not isinstance(key, PublicKey) or key.curve.name not in _HASHES:
        raise ValueError("is not an EC key on P-256, P-384 or P-521")
    return key


def public_pem(key: PublicKey) -> str:
    """A public key as PEM text."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the key's DER (SubjectPublicKeyInfo), in hex: what two people read to each other."""
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()


# Signing


def sign_folder(folder: Path, key: PrivateKey) -> None:
    """Sign everything in a folder: writes `manifest.json`, which names the signer, then `model.sig`, which covers it and all else.

    Raises: IntegrityError: a link or a forbidden name in the folder. ResourceError: it cannot be written to.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_manifest(folder, public_pem(key.public_key()))
    payload = json.dumps(_statement(hash_folder(folder)), sort_keys=True).encode()
    signature = key.sign(_to_be_signed(payload), ec.ECDSA(_HASHES[key.curve.name]))
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    write_whole(folder / SIGNATURE, (json.dumps(bundle) + "\n").encode())


def _statement(files: Mapping[str, FileRef]) -> dict[str, Any]:
    """The in-toto statement. The subject's name is a constant, since a folder's own name is nobody's business."""
    resources = [{"name": name, "algorithm": "sha256", "digest": ref.sha256} for name, ref in files.items()]
    serialization_ = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "release", "digest": {"sha256": _root([ref.sha256 for ref in files.values()])}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": serialization_, "resources": resources},
    }


def _root(digests: list[str]) -> str:
    """SHA-256 over the files' digests (as bytes), in the order of the list."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _to_be_signed(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: "DSSEv1", then type and payload, each after its length in bytes."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _hint(key: PublicKey) -> str:
    """SHA-256 of the key's PEM, by which the stock tool says which key a bundle needs."""
    return hashlib.sha256(public_pem(key).encode()).hexdigest()


# Verifying


@dataclass(frozen=True)
class Signer:
    """Who signed: `established` only when the reader brought the key; else the key came with the release and proves no name."""

    fingerprint: str
    established: bool


def verify_folder(folder: Path, public: PublicKey | None = None, found: Mapping[str, FileRef] | None = None) -> Signer:
    """Check that a folder holds exactly what was signed.

    Args: public: the signer's key; without it the key that `manifest.json` names, which proves that nothing changed since signing but
    not who signed. found: the folder's files where they have been hashed already.
    Raises: IntegrityError: not signed, signed by another key, or not what was signed; every differing file is a fault.
    """
    found = hash_folder(folder) if found is None else found
    key = public or _named_signer(folder)
    payload, signature = _opened(read_limited(folder / SIGNATURE), key)
    try:
        key.verify(signature, _to_be_signed(payload), ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        raise IntegrityError(f"{SIGNATURE} is no signature by the key {fingerprint(key)[:16]}...", hint="it was edited or forged") from None
    promised = _promised(_parsed(payload, "the signed statement"))
    differing = differences(promised, {name: ref for name, ref in found.items() if name != SIGNATURE})
    if differing:
        raise IntegrityError("the folder is not what was signed", faults=differing, hint="get the release again from its owner")
    return Signer(fingerprint(key), established=public is not None)


def _named_signer(folder: Path) -> PublicKey:
    if not (folder / MANIFEST).exists():
        raise IntegrityError(f"the signature cannot be checked: there is no key and no {MANIFEST}", hint="give the signer's public key")
    pem = read_manifest(folder).signer
    if pem is None:
        raise IntegrityError(f"the signature cannot be checked: {MANIFEST} names no signer", hint="give the signer's public key")
    try:
        return _public_of(pem.encode())
    except ValueError as error:
        raise IntegrityError(f"the signer that {MANIFEST} names {error}") from None


def _opened(bundle: bytes, key: PublicKey) -> tuple[bytes, bytes]:
    """The payload and the signature of a bundle made with a key. Nothing else may stand in it: no byte of the file is without meaning."""
    tree = _known(_parsed(bundle, SIGNATURE), {"mediaType", "verificationMaterial", "dsseEnvelope"})
    if _at(tree, "mediaType") != BUNDLE_TYPE:
        raise IntegrityError(f"{SIGNATURE} is of another format: {_shown(tree['mediaType'])}", hint=f"wanted: {BUNDLE_TYPE}")
    material = _table(tree, "verificationMaterial")
    if "publicKey" not in material:
        hint = "certificates and keyless signatures are checked by the model_signing tool"
        raise IntegrityError(f"{SIGNATURE} was not made with a key", hint=hint)
    named = _known(_table(_known(material, {"publicKey", "tlogEntries"}), "publicKey"), {"hint", "rawBytes", "keyDetails"}).get("hint")
    if named and named != _hint(key):
        raise IntegrityError(
            f"it was signed with another key than {fingerprint(key)[:16]}...", hint="somebody else signed it, or it was signed again"
        )
    envelope = _known(_table(tree, "dsseEnvelope"), {"payload", "payloadType", "signatures"})
    if _at(envelope, "payloadType") != PAYLOAD_TYPE:
        raise IntegrityError(f"{SIGNATURE} signs something else: {_shown(envelope['payloadType'])}")
    signatures = _at(envelope, "signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise IntegrityError(f"{SIGNATURE} must hold exactly one signature")
    return _decoded(_at(envelope, "payload")), _decoded(_at(_known(signatures[0], {"sig", "keyid"}), "sig"))


def _known(tree: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    if not tree.keys() <= keys:
        raise IntegrityError(f"{SIGNATURE} holds something unknown: {_shown(sorted(tree.keys() - keys))}", hint="it was edited")
    return tree


def _promised(statement: dict[str, Any]) -> dict[str, str]:
    """Name -> SHA-256 of every signed file.

    Differs: the stock tool skips what the signer asked it to ignore; here only the signature file itself may go without a digest.
    """
    kinds = (_at(statement, "_type"), _at(statement, "predicateType"))
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise IntegrityError(f"the signed statement is of another kind: {_shown(kinds)}")
    predicate = _table(statement, "predicate")
    method = _table(predicate, "serialization").get("method")
    if method != "files":
        raise IntegrityError(
            f"files were signed in the form {_shown(method)}, which is not read here", hint="check it with the model_signing tool"
        )
    resources = _at(predicate, "resources")
    promised: dict[str, str] = {}
    for resource in resources if isinstance(resources, list) else [resources]:
        parts = resource if isinstance(resource, dict) else {}
        name, digest = parts.get("name"), parts.get("digest")
        if not isinstance(name, str) or not _is_sha256(digest) or parts.get("algorithm") != "sha256" or name in promised:
            raise IntegrityError(f"the signed list of files is malformed: {_shown(resource)}")
        check_name(name)
        promised[name] = str(digest)
    subjects = _at(statement, "subject")
    subject = subjects[0] if isinstance(subjects, list) and len(subjects) == 1 and isinstance(subjects[0], dict) else {}
    if _table(subject, "digest").get("sha256") != _root(list(promised.values())):
        raise IntegrityError("the signed list of files does not give the digest that was signed")
    return promised


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _parsed(data: bytes, what: str) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{what} is not JSON", hint="it was edited or cut short") from None
    if not isinstance(tree, dict):
        raise IntegrityError(f"{what} is not a table: {_shown(tree)}")
    return tree


def _at(tree: dict[str, Any], key: str) -> Any:
    if key not in tree:
        raise IntegrityError(f"{SIGNATURE} lacks {key!r}", hint="it was edited or cut short")
    return tree[key]


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = _at(tree, key)
    if not isinstance(value, dict):
        raise IntegrityError(f"{key!r} in {SIGNATURE} is not a table: {_shown(value)}")
    return value


def _decoded(text: object) -> bytes:
    try:
        data = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except (ValueError, binascii.Error):
        raise IntegrityError(f"{SIGNATURE} holds no base64 where it should: {_shown(text)}") from None
    if base64.b64encode(data).decode() != text:
        raise IntegrityError(f"{SIGNATURE} spells base64 in another way than it is written", hint="it was edited")
    return data


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
