"""Where a release goes and who signs it: asked before the work, done after it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockforge.errors import RecipeError

if TYPE_CHECKING:
    from lockforge.evidence.certificates import Certificates
    from lockforge.evidence.signing import PrivateKey
    from lockforge.records import Artifact
    from lockforge.runs import Runs

Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Private key (EC P-256 PEM) to sign with; none makes one in your config folder."),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="The key's certificate, then its issuers' (PEM), to put beside the signature."),
]
Unsigned = Annotated[bool, typer.Option("--unsigned", help="Leave the release unsigned, and say so in it.")]
OpenDigests = Annotated[
    bool,
    typer.Option("--open-digests", help="Plain digests of the data, which anybody can test, instead of ones made with a key of yours."),
]


@dataclass(frozen=True)
class Plan:
    """Where and by whom. `key` is None where the release stays unsigned; the user's own is made only when it is called."""

    out: Path
    key: "Callable[[], PrivateKey] | None"
    chain: "Certificates" = ()
    open_digests: bool = False


def check_out(out: Path, key: Path | None, certificate: Path | None, *, unsigned: bool, open_digests: bool) -> Plan:
    """Refuse before the work what would be refused after it; a passphrase is asked for now.

    Raises: RecipeError: options that exclude each other, no key, or no certificate of it. ResourceError: something else lies at `out`.
    """
    if (key or certificate) and unsigned:
        raise RecipeError("--key or --certificate and --unsigned exclude each other", hint="drop one of them")
    if certificate and not key:
        raise RecipeError("--certificate without --key", hint="give the private key that the certificate is for")
    from lockforge.export.stage import check_place

    check_place(out)
    if unsigned:
        return Plan(out, None, open_digests=open_digests)
    from lockforge.cli.keys import open_key
    from lockforge.evidence.certificates import read_signing_chain
    from lockforge.evidence.signing import default_key_path, own_key

    path = key or default_key_path()
    if not key and not path.exists():
        return Plan(out, own_key, open_digests=open_digests)
    private = open_key(path)
    chain = read_signing_chain(certificate, private.public_key()) if certificate else ()
    return Plan(out, lambda: private, chain, open_digests)


def lay_out(artifact: "Artifact", do: "Runs", plan: Plan) -> tuple[Path, str]:
    """Write the release. Returns: its folder and the signer's fingerprint, empty where nobody signed."""
    from lockforge.evidence.keyed import own_digest_key
    from lockforge.evidence.signing import fingerprint
    from lockforge.export import stage
    from lockforge.export.seal import Seal, sealing
    from lockforge.pipeline import provenance

    circumstances = provenance(do)
    private = plan.key() if plan.key else None
    seal = Seal(private, plan.chain, None if plan.open_digests else own_digest_key())
    folder = stage.lay_out(artifact, do.files, plan.out, circumstances, sealing(seal, do.files, circumstances))
    return folder, fingerprint(private.public_key()) if private else ""
