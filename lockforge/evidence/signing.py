"""Signatures in the OpenSSF Model Signing v1.0 format, with `cryptography` alone.

A signature file is a Sigstore bundle (JSON, v0.3, public-key material) around a DSSE envelope
around an in-toto Statement v1, whose predicate lists every file with its SHA-256. Keys are elliptic
curve keys (P-256 where we make one; P-384 and P-521 are read), alone or with certificates
(`certificates.py`). Keyless signatures (Sigstore) are made in `keyless.py`, and read here as far as
no more is needed for that than the certificate in them. The stock tool (`model_signing`) reads what
we write and we read what it writes.

Sources: OpenSSF Model Signing v1.0; DSSE protocol v1.0.0 (github.com/secure-systems-lab/dsse);
in-toto attestation Statement v1. Key material is never logged nor put into an error message.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence._dsse import (
    STATEMENT_TYPE,
    at,
    envelope_of,
    known,
    opened,
    parsed,
    parsed_file,
    shown,
    table,
    to_be_signed,
)
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
from lockforge.files import write_whole, writing
from lockforge.records import FileRef

if TYPE_CHECKING:
    from lockforge.evidence.certificates import Certificates
    from lockforge.evidence.keyless import Identity

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
GIT_FILES = frozenset(
    {".git", ".gitattributes", ".github", ".gitignore"}
)  # what the stock tool ignores by default
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


# Keys


def default_key_path() -> Path:
    """Where the user's own signing key lies: `lockforge/signing.pem` in the config folder
    (XDG_CONFIG_HOME, else ~/.config).
    """
    given = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return config / "lockforge" / "signing.pem"


def own_key(open_: Callable[[Path], PrivateKey] | None = None) -> PrivateKey:
    """The user's own key, made on first use. Args: open_: how a key file is read, where it may need
    a passphrase.

    Raises: RecipeError: the file there is no key. ResourceError: the folder cannot be written to.
    """
    path = default_key_path()
    return (open_ or load_private)(path) if path.exists() else new_key(path)


def is_locked(path: Path) -> bool:
    """Whether a private key file needs a passphrase.

    Raises: RecipeError: it cannot be read.
    """
    try:
        return b"ENCRYPTED" in path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}", hint="give a private key file (PEM)"
        ) from error


def new_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Make a P-256 key: the private part at `path`, readable by its owner only, the public part
    beside it as `path` + `.pub`.

    Raises: RecipeError: something is there already. ResourceError: it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    locked = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked
    )
    write_secret(path, private)
    write_whole(path.with_name(path.name + ".pub"), public_pem(key.public_key()).encode())
    return key


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read.

    Raises: RecipeError: something is there already. ResourceError: it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise RecipeError(
            f"{path} is there already",
            hint="a key is never overwritten: give another name or move it away",
        )
    with writing("a key", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)


def load_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key (PEM).

    Raises: RecipeError: unreadable, no key, a wrong or missing passphrase, or another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}", hint="give a private key file (PEM)"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        hint = "give an EC P-256 key in PEM; an encrypted one needs its passphrase"
        raise RecipeError(f"{path} is not a private key that can be opened", hint=hint) from None
    if not isinstance(key, PrivateKey) or key.curve.name not in _HASHES:
        raise RecipeError(
            f"{path} is not an EC key on P-256, P-384 or P-521",
            hint="the format has no other keys; make one of P-256",
        )
    return key


def load_public(path: Path) -> PublicKey:
    """Read a public key (PEM).

    Raises: RecipeError: unreadable, no public key, or another kind of key.
    """
    try:
        return _public_of(path.read_bytes())
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}",
            hint="give the signer's public key file (PEM)",
        ) from error
    except ValueError as error:
        raise RecipeError(
            f"{path} {error}",
            hint="give the signer's public key in PEM: the .pub file beside the private one",
        ) from None


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
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the key's DER (SubjectPublicKeyInfo), in hex: what two people read to each
    other.
    """
    return hashlib.sha256(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


# Signing


def sign_folder(folder: Path, key: PrivateKey, chain: "Certificates" = ()) -> None:
    """Sign everything in a folder: writes `manifest.json`, which names the signer, then
    `model.sig`, which covers it and all else.

    Args: chain: certificates that say whose key it is, the key's own first; none signs with the
        bare key.
    Raises: IntegrityError: a link or a forbidden name in the folder. ResourceError: it cannot be
        written to.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_manifest(folder, public_pem(key.public_key()))
    payload = release_statement(folder)
    who: dict[str, object] = {"publicKey": {"hint": _hint(key.public_key())}}
    if chain:
        from lockforge.evidence.certificates import (
            to_bundle,  # certificates take as long to import as all the rest here
        )

        who = {"x509CertificateChain": to_bundle(chain)}
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {**who, "tlogEntries": []},
        "dsseEnvelope": signed_envelope(payload, key),
    }
    write_whole(folder / SIGNATURE, json.dumps(bundle).encode())


def release_statement(folder: Path) -> bytes:
    """What a signature is made over: the digest of every file but the signature, as it lies there
    now.
    """
    return json.dumps(_statement(hash_folder(folder)), sort_keys=True).encode()


def signed_envelope(payload: bytes, key: PrivateKey) -> dict[str, Any]:
    """A DSSE envelope around a payload, as a tree."""
    return envelope_of(payload, key.sign(to_be_signed(payload), ec.ECDSA(_HASHES[key.curve.name])))


def open_envelope(envelope: dict[str, Any], key: PublicKey, what: str) -> bytes:
    """The payload of an envelope that this key signed.

    Raises: IntegrityError: it did not, or there is something else in it.
    """
    payload, signature = opened(envelope, what)
    if key.curve.name not in _HASHES:
        raise IntegrityError(
            f"{what} is said to be signed with a key on {key.curve.name}",
            hint="the format has P-256, P-384 and P-521",
        )
    try:
        key.verify(signature, to_be_signed(payload), ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        raise IntegrityError(
            f"{what} is no signature by the key {fingerprint(key)[:16]}...",
            hint="it was edited or forged",
        ) from None
    return payload


def _statement(files: Mapping[str, FileRef]) -> dict[str, Any]:
    """The in-toto statement. The subject's name is a constant, since a folder's own name is
    nobody's business.
    """
    resources = [
        {"name": name, "algorithm": "sha256", "digest": ref.sha256} for name, ref in files.items()
    ]
    serialization_ = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE],
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": "release", "digest": {"sha256": _root([ref.sha256 for ref in files.values()])}}
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": serialization_, "resources": resources},
    }


def _root(digests: list[str]) -> str:
    """SHA-256 over the files' digests (as bytes), in the order of the list."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _hint(key: PublicKey) -> str:
    """SHA-256 of the key's PEM, by which the stock tool says which key a bundle needs."""
    return hashlib.sha256(public_pem(key).encode()).hexdigest()


# Verifying


@dataclass(frozen=True)
class Trust:
    """What a reader brought, from somewhere else than the release, to know the signer by. Nothing
    of it: the bytes alone are checked.

    Args: key: the signer's. roots: certificates that the signer's must lead to. identity: who must
        have signed, keyless.
    """

    key: PublicKey | None = None
    roots: "Certificates" = ()
    identity: "Identity | None" = None


NOBODY = Trust()


@dataclass(frozen=True)
class Signer:
    """Who signed: `established` only when the reader brought the key, or what leads to it; else the
    key came with the release and proves no name. `name` is what the certificate says, where it was
    checked; `claimed` what one says that was not, of a `keyless` signature, whose key served once.
    `ignored` is what the signer asked to leave out.
    """

    key: PublicKey
    established: bool
    name: str = ""
    claimed: str = ""
    keyless: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The key's."""
        return fingerprint(self.key)

    def __str__(self) -> str:
        """The name that was checked, and the key; of a keyless signature what its certificate
        says.
        """
        if self.keyless:
            return (
                f"{self.name}, keyless"
                if self.name
                else f"keyless, by a certificate that nobody checked and that names {self.claimed}"
            )
        return f"{self.name}, key {self.fingerprint}" if self.name else self.fingerprint


def verify_folder(
    folder: Path, trust: Trust = NOBODY, found: Mapping[str, FileRef] | None = None
) -> Signer:
    """Check that a folder holds exactly what was signed.

    Args: trust: without any the key is the one that `manifest.json` or a keyless signature's own
    certificate names, which proves that nothing changed since signing but not who signed. found:
    the folder's files where they have been hashed already.
    Raises: IntegrityError: not signed, signed by another key, or not what was signed; every
    differing file is a fault. ResourceError: keyless signatures cannot be checked here.
    """
    found = hash_folder(folder) if found is None else found
    data = read_limited(folder / SIGNATURE)
    bundle = _read_bundle(parsed_file(data, SIGNATURE))
    key, name = _key_and_name(folder, trust, bundle)
    payload = open_envelope(bundle.envelope, key, SIGNATURE)
    if trust.identity:
        from lockforge.evidence.keyless import check_identity

        name = check_identity(data, payload, trust.identity)
    promised, ignored = _promised(parsed(payload, "the signed statement"))
    differing = differences(
        promised, {name: ref for name, ref in found.items() if name != SIGNATURE}
    )
    if differing:
        raise IntegrityError(
            "the folder is not what was signed",
            faults=differing,
            hint="get the release again from its owner",
        )
    return Signer(
        key, trust != NOBODY, name, claimed=bundle.claimed, keyless=bundle.keyless, ignored=ignored
    )


def _key_and_name(folder: Path, trust: Trust, bundle: "_Bundle") -> tuple[PublicKey, str]:
    """The key that must have signed, and the name in its certificate where the reader trusts who
    issued it.
    """
    chain = bundle.chain
    if bundle.keyless and (trust.key or trust.roots):
        raise IntegrityError(
            "it was signed keyless, not with a key",
            hint="give --identity and --identity-provider instead",
        )
    if trust.identity and not bundle.keyless:
        raise IntegrityError(
            "it was signed with a key, not keyless",
            hint="give the signer's public key or certificates you trust instead",
        )
    if trust.roots and not chain:
        raise IntegrityError(
            "it was signed with a bare key, without certificates",
            hint="give the signer's public key instead",
        )
    if not chain:
        key = trust.key or named_signer(folder)
        other = bool(bundle.hint) and bundle.hint != _hint(key)
    else:
        from lockforge.evidence.certificates import check_chain, key_of

        own = bundle.keyless or bool(trust.roots)
        key = trust.key or (key_of(chain) if own else named_signer(folder))
        other = fingerprint(key_of(chain)) != fingerprint(key)
    if other:
        raise IntegrityError(
            f"it was signed with another key than {fingerprint(key)[:16]}...",
            hint="somebody else signed it, or it was signed again",
        )
    return key, check_chain(chain, trust.roots) if trust.roots else ""


def named_signer(folder: Path) -> PublicKey:
    """The key that `manifest.json` says the release is signed with: it proves no name.

    Raises: IntegrityError: there is none.
    """
    if not (folder / MANIFEST).exists():
        raise IntegrityError(
            f"the signature cannot be checked: there is no key and no {MANIFEST}",
            hint="give the signer's public key",
        )
    pem = read_manifest(folder).signer
    if pem is None:
        raise IntegrityError(
            f"the signature cannot be checked: {MANIFEST} names no signer",
            hint="give the signer's public key",
        )
    try:
        return _public_of(pem.encode())
    except ValueError as error:
        raise IntegrityError(f"the signer that {MANIFEST} names {error}") from None


@dataclass(frozen=True)
class _Bundle:
    """A signature file taken apart. `claimed`: what the certificate of a keyless one says,
    unchecked.
    """

    envelope: dict[str, Any]
    chain: "Certificates" = ()
    hint: str = ""
    keyless: bool = False
    claimed: str = ""


def _read_bundle(tree: dict[str, Any]) -> _Bundle:
    """Envelope, certificates and the key's hint. Nothing else may stand in a bundle: no byte of the
    file is without meaning.

    Only the entries of a public log are left to who asks for an identity: they are the log's, and
    the signature is good without them.
    """
    known(tree, {"mediaType", "verificationMaterial", "dsseEnvelope"}, SIGNATURE)
    if at(tree, "mediaType", SIGNATURE) != BUNDLE_TYPE:
        raise IntegrityError(
            f"{SIGNATURE} is of another format: {shown(tree['mediaType'])}",
            hint=f"wanted: {BUNDLE_TYPE}",
        )
    material = table(tree, "verificationMaterial", SIGNATURE)
    envelope = table(tree, "dsseEnvelope", SIGNATURE)
    if "x509CertificateChain" in material:
        from lockforge.evidence.certificates import from_bundle

        known(material, {"x509CertificateChain", "tlogEntries"}, SIGNATURE)
        return _Bundle(envelope, from_bundle(material["x509CertificateChain"], SIGNATURE))
    if "certificate" in material:
        from lockforge.evidence.certificates import from_bundle, identity_in

        known(material, {"certificate", "tlogEntries", "timestampVerificationData"}, SIGNATURE)
        chain = from_bundle({"certificates": [material["certificate"]]}, SIGNATURE)
        return _Bundle(envelope, chain, keyless=True, claimed=identity_in(chain[0]))
    if "publicKey" not in material:
        raise IntegrityError(
            f"{SIGNATURE} was made with neither a key nor a certificate",
            hint="get the release again from its owner",
        )
    known(material, {"publicKey", "tlogEntries"}, SIGNATURE)
    named = known(
        table(material, "publicKey", SIGNATURE), {"hint", "rawBytes", "keyDetails"}, SIGNATURE
    )
    return _Bundle(envelope, hint=str(named.get("hint") or ""))


def _promised(statement: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name -> SHA-256 of every signed file, and what the signer asked to ignore.

    Differs: the stock tool skips what the signer asked it to ignore; here only the signature file
    itself may go without a digest, and a list with more on it than the stock tool puts there of its
    own accord is refused.
    """
    what = SIGNATURE
    kinds = (at(statement, "_type", what), at(statement, "predicateType", what))
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise IntegrityError(f"the signed statement is of another kind: {shown(kinds)}")
    predicate = table(statement, "predicate", what)
    form = table(predicate, "serialization", what)
    if form.get("method") != "files":
        raise IntegrityError(
            f"files were signed in the form {shown(form.get('method'))}, which is not read here",
            hint="check it with the model_signing tool",
        )
    ignored = _ignored(form.get("ignore_paths", []))
    resources = at(predicate, "resources", what)
    promised: dict[str, str] = {}
    for resource in resources if isinstance(resources, list) else [resources]:
        parts = resource if isinstance(resource, dict) else {}
        name, digest = parts.get("name"), parts.get("digest")
        if (
            not isinstance(name, str)
            or not is_sha256(digest)
            or parts.get("algorithm") != "sha256"
            or name in promised
        ):
            raise IntegrityError(f"the signed list of files is malformed: {shown(resource)}")
        check_name(name)
        promised[name] = str(digest)
    subjects = at(statement, "subject", what)
    subject = (
        subjects[0]
        if isinstance(subjects, list) and len(subjects) == 1 and isinstance(subjects[0], dict)
        else {}
    )
    if table(subject, "digest", what).get("sha256") != _root(list(promised.values())):
        raise IntegrityError("the signed list of files does not give the digest that was signed")
    return promised, ignored


def _ignored(listed: object) -> tuple[str, ...]:
    """A signer's ignore list without the signature itself.

    Raises: IntegrityError: more on it than the files of git, or no list of names.
    """
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise IntegrityError(f"the signer's ignore list is no list of names: {shown(listed)}")
    ignored = tuple(sorted({name for name in listed if name != SIGNATURE}))
    beyond = [name for name in ignored if name not in GIT_FILES]
    if beyond:
        raise IntegrityError(
            "the signer asks to ignore "
            f"{', '.join(map(shown, beyond[:5]))}{' and more' if len(beyond) > 5 else ''}",
            hint="whatever is ignored can be changed unseen: ask the owner to sign every file",
        )
    return ignored


def is_sha256(value: object) -> bool:
    """Whether something is a SHA-256 in hex."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
