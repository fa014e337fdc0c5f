"""Keyless signatures (Sigstore): made and checked with the `sigstore` library, which only this file
opens, and only when it is asked to.

Instead of a key of his own the signer has a name that a provider vouches for: a token says so,
Sigstore's authority (Fulcio) gives a certificate in that name to a key that serves once, and a
public log (Rekor) says when it was used. So name and provider, the certificate and a hash of what
was signed become public for good. What is written is a Sigstore bundle v0.3, as the stock tool
(`model_signing`) writes and reads it.

Tokens are secrets: they are read when they are used, and put into no message, no log and no file.
Sources: Sigstore bundle format v0.3; Sigstore client specification.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lockforge.errors import IntegrityError, RecipeError, ResourceError
from lockforge.evidence.manifest import SIGNATURE, write_manifest
from lockforge.evidence.signing import release_statement
from lockforge.files import write_whole

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

OFFLINE = "offline"
LARGEST_TOKEN = 2**16  # bytes
_USE_KEY = "sign with --key, which needs nobody else"


@dataclass(frozen=True)
class Identity:
    """Who must have signed. Args: name: mail address or URI. provider: URL of who vouched for it.
    services: as for `services_of`.
    """

    name: str
    provider: str
    services: str = ""

    def __str__(self) -> str:
        """Name and provider."""
        return f"{self.name} ({self.provider})"


@dataclass(frozen=True)
class Keyless:
    """How to sign. Args: token_file: holds an identity token; None takes the one that a CI job has.
    services: as for `services_of`.
    """

    token_file: Path | None = None
    services: str = ""

    def check(self) -> None:
        """Whether it can be done at all, as far as that is known beforehand: the extra, a token
        that is valid now, the services' addresses.

        Raises: RecipeError: the token's file cannot be read. ResourceError: one of them is missing.
        """
        if self.services == OFFLINE:
            raise RecipeError(
                "keyless signatures cannot be made offline",
                hint=f"drop --trust-config {OFFLINE}, or {_USE_KEY}",
            )
        _need_extra()
        _token(self.token_file)
        with _said_plainly("signing keyless"):
            _ = services_of(self.services).signing_config

    def sign_folder(self, folder: Path) -> str:
        """Sign everything in a folder, as `signing.sign_folder` does with a key: `manifest.json`
        names no signer.

        Returns: what the certificate says of the signer.
        Raises: IntegrityError: a link or a forbidden name in the folder. ResourceError: no token,
            no services, or they refuse.
        """
        _need_extra()
        from sigstore.dsse import Statement
        from sigstore.sign import SigningContext

        from lockforge.evidence.certificates import identity_in

        (folder / SIGNATURE).unlink(missing_ok=True)
        write_manifest(folder)
        statement = Statement(release_statement(folder))
        token = _token(self.token_file)
        with _said_plainly("signing keyless"):
            context = SigningContext.from_trust_config(services_of(self.services))
            with context.signer(token) as signer:
                bundle = signer.sign_dsse(statement)
        write_whole(folder / SIGNATURE, bundle.to_json().encode())
        return identity_in(bundle.signing_certificate)


@lru_cache(maxsize=4)
def services_of(place: str) -> "ClientTrustConfig":
    """Where Sigstore's services are and which keys they have; asked once in a process, since one
    release is looked at several times.

    Args: place: a file (a Sigstore client trust config, as the stock tool takes it); `OFFLINE` for
    the copy that came with the library or was fetched last; nothing asks Sigstore's servers.
    Raises: RecipeError: the file is none. ResourceError: the servers cannot be reached.
    """
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig

    if place and place != OFFLINE:
        try:
            return ClientTrustConfig.from_json(Path(place).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(
                f"{place} cannot be read: {error.strerror}",
                hint="give a Sigstore client trust config (JSON)",
            ) from error
        except (ValueError, Error):
            raise RecipeError(
                f"{place} is no Sigstore client trust config",
                hint="give the JSON file of your Sigstore instance",
            ) from None
    try:
        return ClientTrustConfig.production(offline=place == OFFLINE)
    except (Error, OSError, ValueError) as error:
        raise ResourceError(
            f"Sigstore's keys cannot be fetched from its servers: {_first_line(error)}",
            hint="keyless needs Sigstore's services: connect to the network; to sign without, "
            f"{_USE_KEY}; to verify without, "
            f"--trust-config {OFFLINE} takes the keys that came with the library",
        ) from error


def check_identity(data: bytes, payload: bytes, identity: Identity) -> str:
    """Check that a bundle was signed keyless by somebody: certificate, both logs' entries and the
    time of signing.

    Args: data: the bundle. payload: what it was found to sign, which must be what Sigstore's
        library finds too.
    Returns: the identity in words.
    Raises: IntegrityError: not by him, or not shown to be. RecipeError, ResourceError: as
        `services_of`.
    """
    _need_extra()
    services = services_of(identity.services)
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity as Policy

    from lockforge.evidence.certificates import UNREADABLE

    try:
        verifier = Verifier(trusted_root=services.trusted_root)
        _, found = verifier.verify_dsse(
            Bundle.from_json(data), Policy(identity=identity.name, issuer=identity.provider)
        )
    except (
        Error,
        *UNREADABLE,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        OSError,
    ) as error:
        raise IntegrityError(
            f"it is not shown that {identity} signed: {_first_line(error)}",
            hint="somebody else did, it was edited, or Sigstore's keys that were looked at are "
            "older than the signature",
        ) from error
    if found != payload:
        raise IntegrityError(f"{SIGNATURE} can be read in two ways", hint="it was edited")
    return str(identity)


def _token(file: Path | None) -> "IdentityToken":
    """The token in a file, or else the one that a CI job has, if it is valid now.

    Raises: RecipeError: the file cannot be read. ResourceError: there is none, or it is not valid.
    """
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential
    from urllib3.exceptions import HTTPError

    where = str(file) if file else "the CI job's own credential"
    try:
        raw = _read_token(file) if file else detect_credential()
    except (IdentityError, HTTPError) as error:
        raise ResourceError(
            f"{where} cannot be had: {_first_line(error)}",
            hint="in GitHub Actions the job needs `permissions: id-token: write`",
        ) from None
    if raw is None:
        raise ResourceError(
            "keyless needs an identity token: there is no --identity-token FILE, and no CI job "
            "that has a credential",
            hint=f"write one to a file (python -m sigstore get-identity-token), or {_USE_KEY}",
        )
    try:
        return IdentityToken(raw)
    except IdentityError:
        raise ResourceError(
            f"{where} is no identity token that is valid now: malformed, expired, or not made "
            "for Sigstore",
            hint=f"tokens last minutes: get a new one, or {_USE_KEY}",
        ) from None


def _read_token(file: Path) -> str:
    try:
        with file.open(encoding="ascii", errors="replace") as lines:
            return lines.read(LARGEST_TOKEN).strip()
    except OSError as error:
        raise RecipeError(
            f"{file} cannot be read: {error.strerror}",
            hint="give a file that holds an identity token",
        ) from error


def _need_extra() -> None:
    if find_spec("sigstore") is None:
        raise ResourceError(
            "keyless signatures need the extra `sign`",
            hint=f"pip install 'lockforge[sign]'; or {_USE_KEY}",
        )


@contextmanager
def _said_plainly(doing: str) -> Iterator[None]:
    """Turn what the library and its services raise into what was tried and what to do."""
    from requests import RequestException
    from sigstore._internal.fulcio.client import (  # the library has no public names for these
        ExpiredCertificate,
        FulcioClientError,
    )
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error
    from sigstore.oidc import ExpiredIdentity

    refused = (
        ExpiredCertificate,
        ExpiredIdentity,
        FulcioClientError,
        RekorClientError,
        RequestException,
    )
    try:
        yield
    except (*refused, Error, ValueError, LookupError) as error:
        raise ResourceError(
            f"{doing} failed: {type(error).__name__}: {_first_line(error)}",
            hint="it needs a fresh token and Sigstore's services; what was worked out is kept: "
            f"run the same command again, or {_USE_KEY}",
        ) from None


def _first_line(error: Exception) -> str:
    """What an error says, on one short line."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else line[:197] + "..."
