"""The commands `keys`: make a signing key, show its public part, show its fingerprint. A private
key is never shown.

A passphrase is typed at the terminal or comes from LOCKFORGE_KEY_PASSPHRASE; never from the command
line, which others can read.
"""

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockforge.errors import RecipeError

if TYPE_CHECKING:
    from lockforge.evidence.signing import PrivateKey, PublicKey

keys_app = typer.Typer(
    help="Signing keys: make one, show its public part.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
VARIABLE = "LOCKFORGE_KEY_PASSPHRASE"
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")]
KeyFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]", help="A key file (PEM); none is your own.", show_default=False
    ),
]


@keys_app.command()
def new(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write it; none is your config folder."
        ),
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help=f"Lock it with a passphrase, typed or from {VARIABLE}; it is never an argument.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Make a signing key (EC P-256), readable by you only; its public part lies beside it as
    FILE.pub.
    """
    from lockforge.evidence.signing import default_key_path, fingerprint, new_key

    path = out or default_key_path()
    if path.exists():
        raise RecipeError(
            f"{path} is there already",
            hint="a key is never overwritten: give another --out or move it away",
        )
    made = fingerprint(
        new_key(
            path, read_passphrase(f"passphrase for {path.name}", again=True) if passphrase else None
        ).public_key()
    )
    if json:
        from lockforge.cli._console import answer

        answer({"key": str(path), "public": f"{path}.pub", "fingerprint": made})
        return
    typer.echo(
        f"private  {path}  keep it to yourself\npublic   {path}.pub  give it to your "
        f"readers\nfingerprint {made}"
    )


@keys_app.command()
def public(file: KeyFile = None) -> None:
    """Print the public part of a key."""
    from lockforge.evidence.signing import public_pem

    typer.echo(public_pem(_read_either(file)), nl=False)


@keys_app.command()
def fingerprint(file: KeyFile = None) -> None:
    """Print a key's fingerprint: SHA-256 of its public part (DER), the same for both parts."""
    from lockforge.evidence import signing

    typer.echo(signing.fingerprint(_read_either(file)))


def _read_either(file: Path | None) -> "PublicKey":
    """The public part of a file that holds one or the other."""
    from lockforge.evidence.signing import default_key_path, load_public

    path = file or default_key_path()
    try:
        private = b"PRIVATE KEY" in path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}",
            hint="give a key file, or make one: lockforge keys new",
        ) from error
    return open_key(path).public_key() if private else load_public(path)


def open_key(path: Path) -> "PrivateKey":
    """A private key, its passphrase asked for where it has one.

    Raises: RecipeError: no key, a wrong passphrase, or nobody to ask.
    """
    from lockforge.evidence.signing import is_locked, load_private

    return load_private(
        path, read_passphrase(f"passphrase of {path.name}") if is_locked(path) else None
    )


def read_passphrase(prompt: str, *, again: bool = False) -> bytes:
    """From the environment, else typed. Args: again: ask twice.

    Raises: RecipeError: nobody to ask, nothing given, or two different ones.
    """
    given = os.environ.get(VARIABLE, "")
    if not given and not sys.stdin.isatty():
        raise RecipeError(
            "the key needs a passphrase and there is no terminal to ask at", hint=f"set {VARIABLE}"
        )
    typed = given or getpass.getpass(f"{prompt}: ")
    if not typed or (again and not given and getpass.getpass("once more: ") != typed):
        raise RecipeError("no passphrase, or two different ones", hint="type the same one twice")
    return typed.encode()
