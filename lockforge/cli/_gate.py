"""The command that CI runs: a release and a policy in, an exit code and the files of other tools
out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockforge.errors import RecipeError

if TYPE_CHECKING:
    from lockforge.evidence.keyless import Identity
    from lockforge.records import Verdict

WIDEST = 60  # characters of a column; what is longer pushes the rest of its line to the right

Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The signer's public key (PEM).")
]
Chain = Annotated[
    Path | None,
    typer.Option(
        "--certificate-chain",
        metavar="FILE",
        help="Certificates you trust (PEM): the signer's must lead to one of them.",
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--identity",
        metavar="EMAIL|URI",
        help="Who must have signed keyless (needs the extra sign).",
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--identity-provider",
        metavar="URL",
        help="Who must have vouched for that name: the OpenID Connect provider.",
    ),
]
Services = Annotated[
    str,
    typer.Option(
        "--trust-config",
        metavar="FILE|offline",
        help="For --identity: Sigstore's keys from a client trust config, or those that came "
        "with the library; default: ask Sigstore's servers.",
    ),
]
Sarif = Annotated[
    Path | None,
    typer.Option(
        "--sarif", metavar="FILE", help="Write what failed as SARIF 2.1.0, for code scanning."
    ),
]


def gate(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release folder.")],
    policy: Annotated[
        Path, typer.Option("--policy", metavar="FILE", help="What the release must show (YAML).")
    ],
    key: Key = None,
    certificate_chain: Chain = None,
    identity: Name = "",
    identity_provider: Provider = "",
    trust_config: Services = "",
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the checks as JUnit XML.")
    ] = None,
    sarif: Sarif = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary", metavar="FILE", help="Append a Markdown table, as job summaries are."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The answer as JSON on standard output.")
    ] = False,
) -> None:
    """Hold a release against a policy: exit 0 when every check passes, 1 with a table of those that
    do not.
    """
    from lockforge.gate import gate_release
    from lockforge.policy import read_policy

    who = keyless_signer(identity, identity_provider, trust_config)
    verdict = gate_release(
        release, read_policy(policy), key, trusted=certificate_chain, identity=who
    )
    if junit or sarif or summary:
        _write(verdict, release.name, junit, (sarif, policy), summary)
    if json:
        from lockforge.cli._console import answer

        answer(
            {"passed": verdict.passed, "checks": [check.model_dump() for check in verdict.checks]}
        )
    else:
        typer.echo("\n".join(_lines(verdict)))
    raise typer.Exit(0 if verdict.passed else 1)


def keyless_signer(name: str, provider: str, services: str) -> "Identity | None":
    """Who must have signed keyless, where that was asked for.

    Raises: RecipeError: one without the other.
    """
    if bool(name) != bool(provider):
        raise RecipeError(
            "--identity and --identity-provider go together",
            hint="a name means something only with who vouches for it, for instance "
            "https://token.actions.githubusercontent.com",
        )
    if not name:
        if services:
            raise RecipeError(
                "--trust-config is for --identity",
                hint="give --identity and --identity-provider too, or drop it",
            )
        return None
    from lockforge.evidence.keyless import Identity

    return Identity(name, provider, services)


def _lines(verdict: "Verdict") -> list[str]:
    """What failed, with the bound, as a table; a release's words are shown as they are."""
    if verdict.passed:
        return [f"passed: {len(verdict.checks)} checks"]
    failed = [
        (check.name, check.value, check.bound) for check in verdict.checks if not check.passed
    ]
    rows = [("failed", "found", "wanted"), *failed]
    widths = [min(max(len(row[column]) for row in rows), WIDEST) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {bound}" for name, value, bound in rows]
    return [*lines, f"NOT PASSED: {len(failed)} of {len(verdict.checks)} checks failed"]


def _write(
    verdict: "Verdict",
    name: str,
    junit: Path | None,
    sarif: tuple[Path | None, Path],
    summary: Path | None,
) -> None:
    """The files of other tools; `sarif` is where it goes, and the policy that it points at."""
    from importlib.metadata import version

    from lockforge.cli import _ci_files as ci_files
    from lockforge.files import write_whole, writing

    if junit:
        write_whole(junit, ci_files.junit(verdict, name).encode())
    if sarif[0]:
        write_whole(sarif[0], ci_files.sarif(verdict, sarif[1], version("lockforge")).encode())
    if summary:
        with writing("the summary", summary.parent):
            summary.parent.mkdir(parents=True, exist_ok=True)
            with summary.open("a", encoding="utf-8") as out:
                out.write(ci_files.summary(verdict, name))
