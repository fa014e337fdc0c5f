"""The commands around the work: data, verify, gate, predict, report, keys, init, runs, doctor."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lockforge.cli._gate import Chain, Key, Name, Provider, Services, gate, keyless_signer
from lockforge.cli._keys import keys_app
from lockforge.errors import DataError, RecipeError, ResourceError

runs_app = typer.Typer(
    help="The runs folder: what is finished, what was interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RunsFolder = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The runs folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(data)
    app.command()(verify)
    app.command()(gate)
    app.command()(predict)
    app.command()(report)
    app.add_typer(keys_app, name="keys")
    app.add_typer(runs_app, name="runs")
    app.command()(init)
    app.command()(doctor)


def data(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...",
            help="Image folders, files or built-in names, each optionally NAME=PLACE.",
        ),
    ],
    json: AsJson = False,
) -> None:
    """Describe data sets before they are used: counts, sizes, balance, repeats, unreadable files,
    overlap, licence files.
    """
    from lockforge.cli import _console as show
    from lockforge.data.survey import survey_all

    show.surveys(survey_all(sets), as_json=json)


def verify(
    release: Annotated[
        Path,
        typer.Argument(
            metavar="RELEASE", help="The release folder, a bare report.json, or a .csv of curves."
        ),
    ],
    key: Key = None,
    certificate_chain: Chain = None,
    identity: Name = "",
    identity_provider: Provider = "",
    trust_config: Services = "",
    parity: Annotated[
        bool,
        typer.Option(
            "--parity/--no-parity", help="Compare ONNX and weights on seeded inputs (needs torch)."
        ),
    ] = True,
    rerun: Annotated[
        int,
        typer.Option(
            "--rerun", metavar="N", min=0, help="Fit N randomly drawn attack points again."
        ),
    ] = 0,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="PLACE", help="For --rerun: the source's images."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="PLACE", help="For --rerun: a target's. Repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="For --rerun: draws the points; default: a new random seed."
        ),
    ] = None,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--no-exact",
            help="For --rerun: tolerate nothing; the default where the machine is of the same "
            "kind.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option("--device", metavar="auto|cpu|cuda", help="For --rerun: where tensors live."),
    ] = "auto",
    json: AsJson = False,
) -> None:
    """Check that a release is what was signed and that its figures follow from its raw points; fit
    some of these again.
    """
    from lockforge.cli import _verifying as verifying

    who = keyless_signer(identity, identity_provider, trust_config)
    verdict, curves = verifying.look(
        release, key, trusted=certificate_chain, identity=who, parity=parity
    )
    if rerun:
        asked = verifying.Asked(rerun, seed, source, tuple(target or ()), device, exact)
        verdict = verifying.rerun(release, verdict, asked)
    elif source or target or seed is not None:
        raise RecipeError(
            "--source, --target and --seed are for --rerun N",
            hint="give --rerun N too, or drop them",
        )
    verifying.show(verdict, curves, as_json=json)
    raise typer.Exit(0 if verdict.passed else 5)


def predict(
    release: Annotated[
        Path, typer.Argument(metavar="RELEASE", help="The release folder, or a model.safetensors.")
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Images: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM."),
    ],
    using: Annotated[
        Literal["auto", "onnx", "int8", "weights"],
        typer.Option(
            "--using",
            metavar="auto|onnx|int8|weights",
            help="Which file answers; auto is ONNX where it can be run.",
        ),
    ] = "auto",
    json: AsJson = False,
) -> None:
    """Classify images with a release: label and probability of each."""
    from lockforge import predict as room

    file, answers = room.predict(release, images, using)
    if json:
        from lockforge.cli._console import answer

        told = [
            {"image": one.image, "label": one.label, "probabilities": one.probabilities}
            for one in answers
        ]
        answer({"file": file, "images": told})
        return
    for one in answers:
        typer.echo(f"{one.probability:6.1%}  {one.label}  {one.image}")


def report(
    first: Annotated[Path, typer.Argument(metavar="A", help="A release folder, or a report.json.")],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[B]", help="Another one, to put beside it.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page too.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show a report again, or two of them side by side: verdicts, figures, differences, and which
    inputs differ.
    """
    from lockforge.cli import _reports as reports
    from lockforge.files import write_whole
    from lockforge.report import comparison as compare
    from lockforge.report import page as pages

    if html:
        compare.check_page_place(html)
    a = compare.read_report(first)
    if second is None:
        if html:
            write_whole(html, pages.page(a, None).encode())
        reports.one(a, html, as_json=json)
        return
    b = compare.read_report(second)
    found = compare.compare(a, b, (str(first), str(second)))
    if html:
        write_whole(html, compare.page_of(found, a, b).encode())
    reports.two(found, html, as_json=json)
    if not found.comparable:
        raise DataError(
            "no figures of the two stand beside one another",
            hint="audit both with the same targets, suite and grid",
        )


@runs_app.command("list")
def list_(runs: RunsFolder = Path("runs"), json: AsJson = False) -> None:
    """List finished and interrupted stages."""
    from dataclasses import asdict

    from lockforge.cli._run_store import list_runs

    entries = list_runs(runs)
    if json:
        from lockforge.cli._console import answer

        answer([asdict(entry) for entry in entries])
        return
    for entry in entries:
        state = f"{entry.seconds:8.1f} s" if entry.finished else "interrupted"
        typer.echo(f"{entry.stage:<16} {entry.key}  {state:>11}  {entry.bytes:>10} bytes")
    typer.echo(f"{len(entries)} question(s) in {runs}")


@runs_app.command()
def clean(
    runs: RunsFolder = Path("runs"),
    everything: Annotated[
        bool, typer.Option("--all", help="Finished stages and files too.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove what was interrupted; with --all remove everything."""
    from lockforge.cli._run_store import clean_runs

    removed, freed = clean_runs(runs, everything=everything)
    if json:
        from lockforge.cli._console import answer

        answer({"removed": removed, "bytes": freed})
        return
    typer.echo(f"removed {removed} item(s), {freed} bytes, from {runs}")


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "lockforge.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a recipe with every key, its default and its meaning."""
    from lockforge.files import write_whole
    from lockforge.recipe import template

    if file.exists() and not force:
        raise ResourceError(f"{file} exists", hint="give another name, or --force to replace it")
    if file.suffix not in {".yaml", ".yml"}:
        raise RecipeError(f"{file} would not be read as a recipe", hint="end its name in .yaml")
    write_whole(file, template().encode())
    typer.echo(f"wrote {file}: edit it, then run lockforge protect SOURCE --recipe {file}")


def doctor(runs: RunsFolder = Path("runs"), json: AsJson = False) -> None:
    """Show versions, devices, extras, known conflicts and free disk."""
    from lockforge.cli._doctor import examine

    findings = examine(runs)
    if json:
        from lockforge.cli._console import answer

        answer([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.state:<5} {finding.name:<18} {finding.said}")
    raise typer.Exit(4 if any(finding.state == "FAULT" for finding in findings) else 0)
