"""Where a release goes and who signs it: asked before the work, done after it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockforge.errors import RecipeError

if TYPE_CHECKING:
    from lockforge.evidence.certificates import Certificates
    from lockforge.evidence.keyless import Keyless
    from lockforge.evidence.signing import PrivateKey
    from lockforge.records import Artifact
    from lockforge.runs import Runs

Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Private key (EC P-256 PEM) to sign with; default: create one in your config folder.",
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="The key's certificate, then its issuers' (PEM), to put beside the signature.",
    ),
]
Unsigned = Annotated[
    bool, typer.Option("--unsigned", help="Leave the release unsigned, and say so in it.")
]
Sign = Annotated[
    bool,
    typer.Option(
        "--keyless", help="Sign keyless (Sigstore): your name and a hash go into a public log."
    ),
]
Token = Annotated[
    Path | None,
    typer.Option(
        "--identity-token",
        metavar="FILE",
        help="For --keyless: holds an identity token; none takes the CI job's own.",
    ),
]
Services = Annotated[
    str,
    typer.Option(
        "--trust-config",
        metavar="FILE",
        help="For --keyless: your own Sigstore instance (client trust config), not the public one.",
    ),
]
OpenDigests = Annotated[
    bool,
    typer.Option(
        "--open-digests",
        help="Plain digests of the data, which anybody can test, instead of ones made with a key "
        "of yours.",
    ),
]
Oci = Annotated[
    Path | None,
    typer.Option("--oci", metavar="DIR", help="Write the release as an OCI image layout too."),
]


@dataclass(frozen=True)
class Signing:
    """By whom, as it was asked for: with a key and perhaps its certificate, keyless with a token,
    or by nobody.
    """

    key: Path | None = None
    certificate: Path | None = None
    keyless: bool = False
    token: Path | None = None
    services: str = ""
    unsigned: bool = False


@dataclass(frozen=True)
class Plan:
    """Where and by whom; neither `key` nor `keyless`: nobody. The user's own key is made only when
    it is called.
    """

    out: Path
    oci: Path | None
    key: "Callable[[], PrivateKey] | None" = None
    chain: "Certificates" = ()
    keyless: "Keyless | None" = None


def _check_together(signing: Signing) -> None:
    """Refuse options that exclude each other.

    Raises: RecipeError: they do.
    """
    key, certificate = signing.key, signing.certificate
    if (key or certificate) and signing.unsigned:
        raise RecipeError(
            "--key or --certificate and --unsigned exclude each other", hint="drop one of them"
        )
    if certificate and not key:
        raise RecipeError(
            "--certificate without --key", hint="give the private key that the certificate is for"
        )
    if signing.keyless and (key or signing.unsigned):
        raise RecipeError(
            "--keyless excludes --key and --unsigned",
            hint="drop one of them: a release has one signature",
        )
    if (signing.token or signing.services) and not signing.keyless:
        raise RecipeError(
            "--identity-token and --trust-config are for --keyless",
            hint="give --keyless too, or drop them",
        )


def check_out(out: Path, oci: Path | None, signing: Signing) -> Plan:
    """Refuse before the work what would be refused after it; a passphrase is asked for now, a token
    is looked at.

    Raises: RecipeError: options that exclude each other, no key, or no certificate of it.
    ResourceError: something else lies at the places, or keyless signing lacks something.
    """
    _check_together(signing)
    from lockforge.export.oci import check_layout_place
    from lockforge.export.stage import check_place

    check_place(out)
    if oci:
        one, other = out.absolute(), oci.absolute()
        if one == other or one in other.parents or other in one.parents:
            raise RecipeError(
                f"--oci {oci} and --out {out} lie in one another",
                hint="give each a folder of its own",
            )
        check_layout_place(oci)
    if signing.unsigned:
        return Plan(out, oci)
    if signing.keyless:
        from lockforge.evidence.keyless import Keyless

        keyless = Keyless(signing.token, signing.services)
        keyless.check()
        return Plan(out, oci, keyless=keyless)
    from lockforge.cli._keys import open_key
    from lockforge.evidence.certificates import read_signing_chain
    from lockforge.evidence.signing import default_key_path, own_key

    path = signing.key or default_key_path()
    if not signing.key and not path.exists():
        return Plan(out, oci, own_key)
    private = open_key(path)
    chain = (
        read_signing_chain(signing.certificate, private.public_key()) if signing.certificate else ()
    )
    return Plan(out, oci, lambda: private, chain)


def lay_out(
    artifact: "Artifact", do: "Runs", plan: Plan, *, open_digests: bool
) -> tuple[Path, str]:
    """Write the release. Returns: its folder and the signer: a fingerprint, or a name where it was
    signed keyless; empty: nobody.
    """
    from lockforge.evidence.keyed import own_digest_key
    from lockforge.evidence.signing import fingerprint, verify_folder
    from lockforge.export import stage
    from lockforge.export.oci import write_layout
    from lockforge.export.seal import Seal, sealing
    from lockforge.pipeline import provenance

    circumstances = provenance(do)
    private = plan.key() if plan.key else None
    seal = Seal(private, plan.chain, None if open_digests else own_digest_key(), plan.keyless)
    folder = stage.lay_out(
        artifact, do.files, plan.out, circumstances, sealing(seal, do.files, circumstances)
    )
    if plan.oci:
        write_layout(folder, plan.oci)
    if plan.keyless:
        return folder, verify_folder(folder).claimed
    return folder, fingerprint(private.public_key()) if private else ""
