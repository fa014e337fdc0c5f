"""The commands that work: protect, embed, search, train, prune, audit, export."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lockforge.cli._releases import (
    Certificate,
    Key,
    Oci,
    OpenDigests,
    Services,
    Sign,
    Signing,
    Token,
    Unsigned,
    check_out,
    lay_out,
)
from lockforge.cli._runtime import Device, RunsFolder, Runtime, with_runtime
from lockforge.errors import RecipeError

if TYPE_CHECKING:
    from lockforge.cli._console import Terminal
    from lockforge.models.read import Place
    from lockforge.pipeline import Places
    from lockforge.recipe import Recipe
    from lockforge.records import Roles
    from lockforge.runs import Runs
    from lockforge.search.fit_predictor import FittedPredictor
    from lockforge.search.meta_bench import GatheredBench

Auxiliary = Annotated[
    list[str] | None,
    typer.Option(
        "--auxiliary",
        metavar="PLACE",
        help="A set the lock may learn from: [NAME=]PLACE. May be repeated.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="PLACE",
        help="A set only the audit may see: [NAME=]PLACE. May be repeated.",
    ),
]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", metavar="NAME|FILE", help="A shipped recipe's name or a YAML file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one recipe key: search.steps=80. May be repeated.",
    ),
]
Skip = Annotated[
    bool,
    typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and say which."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The release folder to write.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="The owner's data: an image folder, an .npz file or a built-in name."
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A release folder or its model.safetensors, or ARCHITECTURE=FILE with a bare state "
        "dict.",
    ),
]
Asked = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A release folder or its model.safetensors, ARCHITECTURE=FILE with a bare state "
        "dict, or an .onnx file.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="MODEL",
        help="The unlocked model to compare with: a release or ARCHITECTURE=FILE.",
    ),
]
Public = Annotated[
    list[str] | None,
    typer.Option(
        "--public",
        metavar="MODEL",
        help="Weights that anybody can have: [NAME=]MODEL or [NAME=]ARCHITECTURE=FILE. Repeatable.",
    ),
]
OwnModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Protect your own trained network: its architecture, timm:NAME, or "
        "python:MODULE:FUNCTION.",
    ),
]
OwnWeights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", help="Its weights: a bare state dict, safetensors or torch."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (protect, embed, search, train, prune, audit, export, metatrain, metabench):
        app.command()(with_runtime(command))
    app.command()(benchmark)


def protect(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="The owner's data; default: the built-in digits."),
    ] = None,
    auxiliary: Auxiliary = None,
    target: Targets = None,
    public: Public = None,
    model: OwnModel = None,
    weights: OwnWeights = None,
    recipe: RecipeName = "digits",
    out: Out = Path("release"),
    key: Key = None,
    certificate: Certificate = None,
    keyless: Sign = False,
    identity_token: Token = None,
    trust_config: Services = "",
    unsigned: Unsigned = False,
    open_digests: OpenDigests = False,
    oci: Oci = None,
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Lock a model to its own task, attack it as a thief would, export it signed with a report."""
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    own = own_model(model, weights)
    plan = check_out(
        out, oci, Signing(key, certificate, keyless, identity_token, trust_config, unsigned)
    )
    with terminal:
        roles = gathered(places_of(source, auxiliary, target), settings, do, terminal)
        from lockforge import pipeline

        artifact = pipeline.protect(settings, roles, do, tuple(public or ()), own)
        do.write_lock(Path(recipe).stem)
        folder, signer = lay_out(artifact, do, plan, open_digests=open_digests)
    show.release(folder, signer, as_json=json)


def embed(
    sets: Annotated[
        list[str],
        typer.Argument(metavar="SET...", help="Image folders, .npz files or built-in names."),
    ],
    probe: Annotated[
        Path | None,
        typer.Option(
            "--probe",
            metavar="FILE",
            help="Weights of embed.probe when it is not the packaged one (safetensors).",
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Draw the tasks as a map (SVG)."),
    ] = None,
    recipe: RecipeName = "digits",
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Embed tasks (diagonal Fisher, Task2Vec) and show how near they are to one another."""
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    if (probe is None) != (settings.embed.probe == "packaged"):
        raise RecipeError(
            f"embed.probe is {settings.embed.probe!r} and --probe is {probe}",
            hint="give both or neither: --set embed.probe=mobilenet_v2 --probe FILE.safetensors",
        )
    with terminal:
        from lockforge import pipeline

        embeddings = pipeline.embed(settings, sets, probe, do, tell=terminal.tell)
    show.embeddings(sets, embeddings, do.files, image, as_json=json)


def search(
    source: Source,
    auxiliary: Auxiliary = None,
    recipe: RecipeName = "digits",
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Search a cell that is good on the source and poor elsewhere; targets are not asked for,
    because a search must not see them.
    """
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    with terminal:
        roles = gathered(places_of(source, auxiliary, None), settings, do, terminal)
        from lockforge import pipeline

        found = pipeline.search(settings, roles, do)
    show.search(found, as_json=json)


def train(
    source: Source,
    auxiliary: Auxiliary = None,
    recipe: RecipeName = "digits",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The safetensors file to write.")
    ] = Path("model.safetensors"),
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Search a cell, train it, and write its weights."""
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    with terminal:
        roles = gathered(places_of(source, auxiliary, None), settings, do, terminal)
        from lockforge import pipeline
        from lockforge.files import write_whole
        from lockforge.models.weights import write_weights

        checkpoint = pipeline.train(settings, roles, do)
        write_whole(out, write_weights(checkpoint, roles.source, settings, do.files))
    show.checkpoint(checkpoint, out, as_json=json)


def prune(
    model: Model,
    source: Annotated[
        str, typer.Option("--source", metavar="PLACE", help="The data the model was trained on.")
    ],
    auxiliary: Auxiliary = None,
    reference: Reference = None,
    recipe: RecipeName = "digits",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The safetensors file to write.")
    ] = Path("pruned.safetensors"),
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Put a weight lock on a trained model: by ntp, unless prune.method says magnitude. Without
    --auxiliary, images are made up.
    """
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    if settings.prune.method == "none":
        settings = settings.model_copy(
            update={"prune": settings.prune.model_copy(update={"method": "ntp"})}
        )
    with terminal:
        roles = gathered(places_of(source, auxiliary, None), settings, do, terminal)
        from lockforge import pipeline
        from lockforge.files import write_whole
        from lockforge.models.weights import write_weights

        pruned = pipeline.prune(settings, roles, pipeline.Models(model, reference), do)
        write_whole(out, write_weights(pruned.checkpoint, roles.source, settings, do.files))
    show.pruned(pruned, out, as_json=json)


def audit(
    model: Asked,
    source: Annotated[
        str, typer.Option("--source", metavar="PLACE", help="The data the model was trained on.")
    ],
    target: Annotated[
        list[str],
        typer.Option(
            "--target", metavar="PLACE", help="What a thief wants: [NAME=]PLACE. May be repeated."
        ),
    ],
    reference: Reference = None,
    public: Public = None,
    recipe: RecipeName = "digits",
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Attack a model as a thief would; finding no protection is an answer, not an error."""
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    with terminal:
        roles = gathered(places_of(source, None, target), settings, do, terminal)
        from lockforge import pipeline

        subjects, audits = pipeline.audit(
            settings, roles, pipeline.Models(model, reference, tuple(public or ())), do
        )
    show.audits(roles, subjects, audits, as_json=json)


def export(
    model: Model,
    source: Annotated[
        str, typer.Option("--source", metavar="PLACE", help="The data the model was trained on.")
    ],
    target: Targets = None,
    reference: Reference = None,
    recipe: RecipeName = "digits",
    out: Out = Path("release"),
    key: Key = None,
    certificate: Certificate = None,
    keyless: Sign = False,
    identity_token: Token = None,
    trust_config: Services = "",
    unsigned: Unsigned = False,
    open_digests: OpenDigests = False,
    oci: Oci = None,
    set_: Overrides = None,
    skip_unreadable: Skip = False,
    json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Make a signed release of a model that is already trained."""
    from lockforge.cli import _console as show

    settings, do, terminal = begin(recipe, set_, runtime, skip=skip_unreadable)
    plan = check_out(
        out, oci, Signing(key, certificate, keyless, identity_token, trust_config, unsigned)
    )
    with terminal:
        roles = gathered(places_of(source, None, target), settings, do, terminal)
        from lockforge import pipeline

        artifact = pipeline.export(settings, roles, pipeline.Models(model, reference), do)
        folder, signer = lay_out(artifact, do, plan, open_digests=open_digests)
    show.release(folder, signer, as_json=json)


def metatrain(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...", help="Real data sets to learn from; keep your targets out."
        ),
    ],
    unseen: Annotated[
        list[str] | None,
        typer.Option("--unseen", metavar="PLACE", help="A set that only tests what was learnt."),
    ] = None,
    form: Annotated[
        Literal["pair", "score"],
        typer.Option(
            "--form",
            metavar="pair|score",
            help="Whether it sees both cells at once or gives each a score of its own.",
        ),
    ] = "pair",
    recipe: RecipeName = "digits",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The predictor's file to write.")
    ] = Path("predictor.safetensors"),
    set_: Overrides = None,
    *,
    runtime: Runtime,
) -> None:
    """Train the predictor of a space anew: embed many tasks, score untrained cells on each, fit.
    The card goes to standard output.
    """
    begun = begin(recipe, set_, runtime)
    from lockforge import pipeline

    plan = pipeline.MetaPlan(form=form)
    _make_file(
        begun,
        out,
        lambda settings, do: pipeline.metatrain(sets, tuple(unseen or ()), plan, settings, do),
    )


def metabench(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...", help="Data sets to train on; keep your sources and targets out."
        ),
    ],
    cells: Annotated[
        int,
        typer.Option(
            "--cells", metavar="N", help="Networks to train on each set, drawn at random."
        ),
    ] = 256,
    recipe: RecipeName = "digits",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The meta-bench's file to write.")
    ] = Path("metabench.safetensors"),
    set_: Overrides = None,
    *,
    runtime: Runtime,
) -> None:
    """Train random cells of a space briefly on several sets: the prior "good in general" of TU. The
    card goes to standard output.
    """
    begun = begin(recipe, set_, runtime)
    from lockforge import pipeline

    _make_file(begun, out, lambda settings, do: pipeline.metabench(sets, cells, settings, do))


def benchmark(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="nasbench201 or transnas101.")],
    table: Annotated[
        Path,
        typer.Option(
            "--table",
            metavar="FILE",
            help="The published table: CSV, an official file or folder, or a converted one.",
        ),
    ],
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="ROW", help="One way to choose; may be repeated. None: all."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", metavar="TASK", help="One source task; may be repeated. None: all."
        ),
    ] = None,
    measurements: Annotated[
        int,
        typer.Option(
            "--measurements", metavar="N", help="Cells of the source that may be measured."
        ),
    ] = 100,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Repetitions of every row.")
    ] = 10,
    good_enough: Annotated[
        float,
        typer.Option(
            "--good-enough",
            metavar="SHARE",
            help="Share of the space that the cell has to beat on its source.",
        ),
    ] = 0.98,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Every draw follows from it.")
    ] = 0,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="TASK=PLACE",
            help="A task's images, for the rows that need its embedding. May be repeated.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Draw heat maps and, with images, the sweeps."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write every seed of every row, as JSON."),
    ] = None,
    convert: Annotated[
        Path | None,
        typer.Option(
            "--convert",
            metavar="FILE",
            help="Only write the table as one small checked file (.safetensors).",
        ),
    ] = None,
    runs: RunsFolder = Path("runs"),
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """What the search would have found in a published table: beside the floor, chance and
    baselines.
    """
    from lockforge.benchmark.rows import (
        ROWS,
        Plan,
        as_json,
        jobs_of,
        not_run,
        read_table,
        run_rows,
        summary,
    )
    from lockforge.cli import _console as show
    from lockforge.cli._task_images import check_folder, embed_given, note_of, read_given
    from lockforge.files import write_whole

    if convert:
        _convert(table, space, convert, as_json=json)
        return
    if seeds < 1 or not 0 < good_enough < 1:
        raise RecipeError(
            f"--seeds {seeds} and --good-enough {good_enough}",
            hint="at least one seed, and a share between 0 and 1",
        )
    check_folder(figures)
    terminal = show.Terminal(f"benchmark {space}")
    read = read_table(table, space)
    plan = Plan(measurements, seeds, good_enough, least=100 * good_enough - 0.5)
    jobs = jobs_of(read, rows or ROWS, source or ())
    places = read_given(images or (), read.tasks)
    with terminal:
        known, shown = embed_given(places, space, runs, device, terminal)
        terminal.begin("rows")
        found = run_rows(
            read, rows or ROWS, plan, seed, sources=source or (), known=known, tick=terminal.step
        )
        drawn: dict[str, str] = {}
        if figures:
            from lockforge.benchmark.figures import draw_all

            terminal.begin("sweeps")
            drawn = draw_all(
                read, found, known, plan.seeds, seed, note=note_of(shown), tick=terminal.step
            )
            for name, text in drawn.items():
                write_whole(figures / name, text.encode())
    answer = {
        "space": space,
        "plan": plan.__dict__,
        "seed": seed,
        "tasks": list(read.tasks),
        "summary": summary(found, seed),
        "images": shown,
        "not_run": not_run(jobs, known),
        "figures": [str(figures / name) for name in drawn] if figures else [],
        "rows": as_json(found),
    }
    if out:
        import json as json_

        write_whole(out, (json_.dumps(answer, indent=1, sort_keys=True) + "\n").encode())
    show.benchmark(answer, as_json=json)


def _convert(table: Path, space: str, out: Path, *, as_json: bool) -> None:
    from lockforge.benchmark.rows import convert_table
    from lockforge.cli._console import answer
    from lockforge.files import write_whole

    if out.suffix != ".safetensors":
        raise RecipeError(
            f"{out} would not be read as a converted table", hint="end its name in .safetensors"
        )
    read, data = convert_table(table, space)
    write_whole(out, data)
    if as_json:
        best = {task: float(values.max()) for task, values in read.final.items()}
        answer(
            {
                "space": space,
                "cells": len(read.cells),
                "best": best,
                "early": sorted(read.early),
                "file": str(out),
                "bytes": len(data),
            }
        )
        return
    typer.echo(
        f"wrote {out}: {len(read.cells)} cells, {len(data)} bytes; tasks (best): "
        + ", ".join(f"{task} ({values.max():g})" for task, values in read.final.items())
    )


def begin(
    recipe: str, overrides: list[str] | None, runtime: Runtime, *, skip: bool = False
) -> "tuple[Recipe, Runs, Terminal]":
    """Faults of the recipe and the machine come before the seconds that torch takes to start."""
    from lockforge.cli._console import Terminal
    from lockforge.recipe import read_recipe

    settings = read_recipe(
        recipe, (*(overrides or ()), *(["data.skip_unreadable=true"] if skip else []))
    )
    terminal = Terminal(f"recipe {recipe}")
    executor = runtime.make_executor()
    from lockforge.pipeline import open_runs

    return (
        settings,
        open_runs(
            settings, runtime.runs, device=runtime.device, reporter=terminal, executor=executor
        ),
        terminal,
    )


def _make_file(
    begun: "tuple[Recipe, Runs, Terminal]",
    out: Path,
    sentence: "Callable[[Recipe, Runs], FittedPredictor | GatheredBench]",
) -> None:
    """Say a sentence that ends in one file and its card: the file to its place, the card to
    standard output.
    """
    from lockforge.cli._console import answer
    from lockforge.files import write_whole

    settings, do, terminal = begun
    with terminal:
        found = sentence(settings, do)
        write_whole(out, do.files.get(found.file))
    answer(found.card)


def places_of(
    source: str | None, auxiliary: list[str] | None, targets: list[str] | None
) -> "Places":
    """Where the data lie; without a source, the built-in digits."""
    from lockforge.data.builtin import DEFAULT
    from lockforge.pipeline import Places

    if source is None:
        if auxiliary or targets:
            raise RecipeError(
                "auxiliary or target sets were given, but no SOURCE",
                hint="lockforge protect SOURCE --target PLACE",
            )
        return Places(*DEFAULT)
    return Places(source, tuple(auxiliary or ()), tuple(targets or ()))


def own_model(model: str | None, weights: Path | None) -> "Place | None":
    """The owner's own network, where one was given."""
    from lockforge.models.read import own_place

    if model is None and weights is not None:
        raise RecipeError(
            f"--weights {weights} has no --model",
            hint=f"say which network it is: --model NAME --weights {weights}",
        )
    return None if model is None else own_place(model, weights)


def gathered(places: "Places", settings: "Recipe", do: "Runs", terminal: "Terminal") -> "Roles":
    """The data, read; who may see what is shown."""
    from lockforge.pipeline import gather

    roles = gather(places, settings, do.files, tell=terminal.tell)
    terminal.roles(roles)
    return roles
