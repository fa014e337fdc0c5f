"""Certificates (X.509) that say whose key signed a release: read, put into a bundle, checked up to
certificates the reader trusts.

A chain is the signing certificate, then those that were issued by the next one. RFC 5280's rules
that matter for signing files are checked: every issuer's signature, name and right to issue, path
length, validity today, and the leaf's right to sign. A certificate with a critical extension that
is not looked at here is refused.
Differs: the stock tool takes the first day of the signing certificate for today, so that an expired
one stays good. Nothing in a bundle that is made with a certificate proves when it was signed; here
an expired certificate fails.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence._dsse import decoded

T = TypeVar("T", bound=x509.ExtensionType)
Certificates = tuple[x509.Certificate, ...]
LONGEST = 8  # certificates of a chain
_PROVIDER = x509.ObjectIdentifier(
    "1.3.6.1.4.1.57264.1.1"
)  # Fulcio's extension: the URL of who vouched for the name (oid-info.md)
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
)  # what a malformed certificate raises
_LOOKED_AT = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)


def read_certificates(path: Path) -> Certificates:
    """The certificates of a PEM file, in its order.

    Raises: RecipeError: unreadable, or none in it.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}", hint="give a file of certificates (PEM)"
        ) from error
    except ValueError:
        raise RecipeError(
            f"{path} holds no certificates in PEM",
            hint="give a file with -----BEGIN CERTIFICATE-----",
        ) from None


def read_signing_chain(path: Path, key: ec.EllipticCurvePublicKey) -> Certificates:
    """The certificates to put beside a signature: the first is of the signing key.

    Raises: RecipeError: unreadable, of another key, too many, or not made for signing.
    """
    chain = read_certificates(path)
    faults = [] if _same_key(chain[0], key) else ["the first certificate is not of the signing key"]
    faults += ["its certificate may not be used for signing"] if not _may_sign(chain[0]) else []
    faults += [f"{len(chain)} certificates, more than {LONGEST}"] if len(chain) > LONGEST else []
    if faults:
        raise RecipeError(
            f"{path} cannot be put beside a signature",
            faults=faults,
            hint="give the key's own certificate first, then its issuers'",
        )
    return chain


def to_bundle(chain: Certificates) -> dict[str, object]:
    """A chain as a Sigstore bundle holds it."""
    raw = [one.public_bytes(serialization.Encoding.DER) for one in chain]
    return {"certificates": [{"rawBytes": base64.b64encode(data).decode()} for data in raw]}


def from_bundle(tree: object, what: str) -> Certificates:
    """The chain in a bundle.

    Raises: IntegrityError: it is none.
    """
    rows = (
        tree.get("certificates")
        if isinstance(tree, dict) and tree.keys() == {"certificates"}
        else None
    )
    if not isinstance(rows, list) or not 0 < len(rows) <= LONGEST:
        raise IntegrityError(f"{what} holds no chain of 1 to {LONGEST} certificates")
    chain = []
    for row in rows:
        data = decoded(
            row.get("rawBytes") if isinstance(row, dict) and row.keys() == {"rawBytes"} else None,
            what,
        )
        try:
            chain.append(x509.load_der_x509_certificate(data))
        except ValueError:
            raise IntegrityError(f"{what} holds a certificate that cannot be read") from None
    return tuple(chain)


def key_of(chain: Certificates) -> ec.EllipticCurvePublicKey:
    """The signing key that a chain is about.

    Raises: IntegrityError: no elliptic curve key.
    """
    try:
        key = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IntegrityError(
            "the signing certificate is not of an EC key", hint="the format has no other keys"
        )
    return key


def identity_in(leaf: x509.Certificate) -> str:
    """What the certificate of a keyless signature says: a mail address or URI, and who vouched for
    it. Nothing is checked here.
    """
    try:
        names = [str(one.value) for one in _extension(leaf, x509.SubjectAlternativeName) or ()]
        provider = leaf.extensions.get_extension_for_oid(_PROVIDER).value
    except UNREADABLE:
        return "nobody"
    url = (
        provider.value.decode(errors="replace")
        if isinstance(provider, x509.UnrecognizedExtension)
        else ""
    )
    text = f"{' '.join(names)} ({url})"
    return text if text.isprintable() else ascii(text)


def check_chain(
    chain: Certificates, trusted: Sequence[x509.Certificate], today: datetime | None = None
) -> str:
    """Follow a chain up to a trusted certificate. Returns: the name in the signing certificate.

    Args: trusted: what the reader trusts, from somewhere else than the release. today: the moment
        to check validity at; None is now.
    Raises: IntegrityError: no way leads to a trusted certificate, or the signing certificate is not
        for signing.
    """
    leaf = chain[0]
    if not _may_sign(leaf):
        raise IntegrityError(
            "the signing certificate may not be used for signing",
            hint="its issuer gave it another purpose",
        )
    if not _leads_up(leaf, chain[1:], trusted, today or datetime.now(UTC), below=0):
        raise IntegrityError(
            f"no valid chain leads from {_name(leaf)!r} to a certificate you trust",
            hint="one has expired, was issued by somebody else, or its issuer is missing",
        )
    return _name(leaf)


def _leads_up(
    one: x509.Certificate,
    others: Certificates,
    trusted: Sequence[x509.Certificate],
    today: datetime,
    *,
    below: int,
) -> bool:
    """Whether a certificate is good today and trusted, or issued by one that is. Args: below:
    certificates between it and the leaf.
    """
    if not one.not_valid_before_utc <= today <= one.not_valid_after_utc or not _is_understood(one):
        return False
    if one in trusted:
        return True
    return any(
        _issued(issuer, one, below)
        and _leads_up(
            issuer,
            tuple(other for other in others if other != issuer),
            trusted,
            today,
            below=below + 1,
        )
        for issuer in (*trusted, *others)
        if issuer != one
    )


def _issued(issuer: x509.Certificate, one: x509.Certificate, below: int) -> bool:
    """Whether it did, and was allowed to. Args: below: issuers between the two and the leaf, which
    the path length bounds.
    """
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = _extension(issuer, x509.KeyUsage)
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    short_enough = constraints.path_length is None or below <= constraints.path_length
    return constraints.ca and short_enough and (usage is None or usage.key_cert_sign)


def _extension(one: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return one.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_understood(one: x509.Certificate) -> bool:
    try:
        return all(
            isinstance(extension.value, _LOOKED_AT)
            for extension in one.extensions
            if extension.critical
        )
    except (ValueError, x509.DuplicateExtension):
        return False


def _may_sign(leaf: x509.Certificate) -> bool:
    """By its key usage, or by its extended key usage: code signing."""
    try:
        usage, extended = _extension(leaf, x509.KeyUsage), _extension(leaf, x509.ExtendedKeyUsage)
    except (ValueError, x509.DuplicateExtension):
        return False
    code_signing = extended is not None and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in extended
    return code_signing if usage is None else usage.digital_signature


def _same_key(certificate: x509.Certificate, key: ec.EllipticCurvePublicKey) -> bool:
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        return certificate.public_key().public_bytes(der, info) == key.public_bytes(der, info)
    except (ValueError, UnsupportedAlgorithm):
        return False


def _name(certificate: x509.Certificate) -> str:
    text = certificate.subject.rfc4514_string()
    return text if text.isprintable() else ascii(text)
