"""What a person sees: progress while it works, a table at the end. JSON for machines."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lockforge.cli._task_images import note_of

if TYPE_CHECKING:
    from lockforge.data.survey import Survey
    from lockforge.files import Files
    from lockforge.records import (
        Checkpoint,
        Estimate,
        PrunedModel,
        Report,
        Roles,
        SearchResult,
        Subjects,
        TaskEmbedding,
        TransferAudit,
    )

_CLASSES_SHOWN = 20


class Terminal:
    """Tells of progress on standard error: a bar with the time left on a terminal, one line a stage
    elsewhere.
    """

    def __init__(self, about: str) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.about = about
        self.started = time.perf_counter()

    def __enter__(self) -> Self:
        """Show the bar."""
        self.console.print(f"[bold]LockForge[/]  {self.about}")
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self.progress.stop()
        if kind is None:
            self.console.print(f"[dim]{time.perf_counter() - self.started:.0f} s in all[/]")

    def begin(self, stage: str) -> None:
        """A stage starts."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        from lockforge.runs import WORDS

        self.task = self.progress.add_task(WORDS.get(stage, stage), total=None, note="")

    def step(self, done: float, total: float, note: str) -> None:
        """It has come so far."""
        if self.task is not None:
            self.progress.update(self.task, completed=done, total=total, note=note)

    def end(self, stage: str, seconds: float, *, cached: bool, note: str) -> None:
        """It is done, or was found done."""
        from lockforge.runs import WORDS

        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        took = "[dim]found done[/]" if cached else f"{seconds:6.1f} s"
        said = note if stage == "train_cell" else ""
        self.console.print(f"  [green]✓[/] {WORDS.get(stage, stage):<8} {took}  [dim]{said}[/]")

    def tell(self, line: str) -> None:
        """A line of its own, as it is."""
        self.console.print(line, style="yellow", markup=False, soft_wrap=True)

    def roles(self, roles: "Roles") -> None:
        """Who may see what, before anything is worked out."""
        table = table_of("role", "data", "classes", "pixels", "train", "val", "test")
        sets = (roles.source, *roles.auxiliary, *roles.targets)
        words = (
            "source",
            *("auxiliary" for _ in roles.auxiliary),
            *("target" for _ in roles.targets),
        )
        for word, name, images in zip(words, roles.names, sets, strict=True):
            c, h, w = images.shape
            counts = images.counts
            table.add_row(
                word,
                name,
                str(len(images.classes)),
                f"{c}x{h}x{w}",
                str(counts.train),
                str(counts.val),
                str(counts.test),
            )
        self.console.print(table)
        for name, count in roles.dropped.items():
            self.console.print(
                f"[yellow]{count} image(s) of {name} were dropped: another role or split holds "
                "them too[/]"
            )
        for name, count in roles.unreadable.items():
            self.console.print(
                f"[yellow]{count} image(s) of {name} could not be read and were left out (named "
                "above)[/]"
            )
        if not roles.targets:
            self.console.print(
                "[yellow]no target: the release will say that it was not audited (--target "
                "PLACE)[/]"
            )


def table_of(*columns: str) -> Table:
    """A table without lines: the first column is left, the others right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def console_of(least: int = 0) -> Console:
    """Standard output, taken to be `least` characters wide where it is narrower."""
    return Console(width=max(Console().width, least), highlight=False)


def answer(value: Any) -> None:
    """JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def estimate(value: "Estimate", *, percent: bool = False) -> str:
    """A figure with its interval; why there is none is said by the verdict."""
    if value.mean is None:
        return "not defined"
    scale, unit = (100, " points") if percent else (1, "")
    text = f"{scale * value.mean:+.2f}" if not percent else f"{scale * value.mean:+.1f}"
    if value.low is None or value.high is None:
        return text + unit
    return f"{text}{unit} [{scale * value.low:+.2f}, {scale * value.high:+.2f}]"


def embeddings(
    places: Sequence[str],
    found: Sequence["TaskEmbedding"],
    files: "Files",
    image: Path | None,
    *,
    as_json: bool,
) -> None:
    """How near tasks are: cosine below, Task2Vec's symmetric distance above the diagonal. image:
    where to draw them, as SVG.
    """
    from lockforge.embed.stage import cosine, distance

    names = [place.partition("=")[0] if "=" in place else Path(place).stem for place in places]
    cosines = [[cosine(a, b, files) for b in found] for a in found]
    distances = [[distance(a, b, files) for b in found] for a in found]
    if image:
        import numpy as np

        from lockforge.embed.map import draw_map
        from lockforge.files import write_whole

        write_whole(image, draw_map(names, np.array(distances)).encode())
    if as_json:
        rows = [
            embedding.model_dump(mode="json") | {"name": name}
            for name, embedding in zip(names, found, strict=True)
        ]
        answer({"embeddings": rows, "cosine": cosines, "distance": distances})
        return
    table = table_of("cosine \\ distance", *names, "probe accuracy")
    for i, name in enumerate(names):
        cells = [
            f"{cosines[i][j]:.3f}" if j < i else "·" if i == j else f"[dim]{distances[i][j]:.3f}[/]"
            for j in range(len(names))
        ]
        table.add_row(name, *cells, f"{found[i].probe_accuracy:.3f}")
    wide = (
        40 + 2 * max(map(len, names)) + sum(4 + max(6, len(name)) for name in names)
    )  # names are not folded
    Console(width=max(Console().width, wide), highlight=False).print(table)


def surveys(found: Sequence["Survey"], *, as_json: bool) -> None:
    """What there is to know of some sets, side by side; then the balance of their classes, and what
    two of them share.
    """
    from lockforge.data.survey import shared

    overlap = [[shared(one, other) for other in found] for one in found]
    if as_json:
        rows = [
            {key: value for key, value in asdict(one).items() if key != "keys"}
            | {"different": one.different}
            for one in found
        ]
        answer({"sets": rows, "shared": overlap})
        return
    console = Console(highlight=False)
    table = table_of("", *(Path(one.place).stem or one.place for one in found))
    lines: dict[str, Callable[[Survey], str]] = {
        "images": lambda one: f"{one.images:,}",
        "splits": lambda one: ", ".join(f"{name} {count:,}" for name, count in one.split.items()),
        "classes": lambda one: str(len(one.classes)),
        "largest : smallest class": lambda one: f"{one.imbalance:.2f}",
        "pixels (c x h x w)": lambda one: _some(
            [f"{size} ({count:,})" for size, count in one.sizes.items()], 3
        ),
        "different images": lambda one: f"{one.different:,}",
        "repeated": lambda one: f"{one.repeated:,}",
        "in two splits": lambda one: f"{one.across_splits:,}",
        "with two labels": lambda one: f"{one.two_labels:,}",
        "unreadable": lambda one: f"{len(one.unreadable):,}",
        "licence file": lambda one: ", ".join(one.licences) or "none",
    }
    for name, words in lines.items():
        table.add_row(name, *(words(one) for one in found))
    console.print(table)
    for one in found:
        console.print(f"\n[bold]{Path(one.place).stem or one.place}[/], images a class")
        most = max(one.classes.values())
        width = max(map(len, list(one.classes)[:_CLASSES_SHOWN]))
        for name, count in list(one.classes.items())[:_CLASSES_SHOWN]:
            console.print(
                f"  {name:<{width}}  {count:>7,}  {'█' * max(1, round(30 * count / most))}",
                markup=False,
            )
        if len(one.classes) > _CLASSES_SHOWN:
            console.print(f"  and {len(one.classes) - _CLASSES_SHOWN} more classes")
        for line in one.unreadable:
            console.print(f"  unreadable: {line}", style="yellow", markup=False)
    pairs = [(a, b) for a in range(len(found)) for b in range(a) if overlap[a][b]]
    for a, b in pairs:
        console.print(
            f"{found[b].place} and {found[a].place} share {overlap[a][b]:,} different images",
            style="yellow",
            markup=False,
        )


def _some(words: Sequence[str], most: int) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def benchmark(answer_: dict[str, Any], *, as_json: bool) -> None:
    """One line for each row and source, the mean over all sources last; what each row read; what is
    not said.
    """
    if as_json:
        answer(answer_)
        return
    console = Console(width=max(Console().width, 185), highlight=False)
    columns = (
        "row",
        "source",
        "source pct",
        "target pct",
        "random, matched (sd)",
        "gain",
        "p",
        "gain, alike",
        "floor",
        "regret",
    )
    table = table_of(*columns, "points lost: source", "target")
    for column in (0, 1, 4):
        table.columns[column].no_wrap = True
    for row in sorted(
        answer_["summary"], key=lambda row: (row["row"], row["source"] == "all", row["source"])
    ):
        style = ("bold " if row["source"] == "all" else "") + (
            "yellow" if row["reads_answers"] else ""
        )
        table.add_row(
            row["row"] + (" (reads the answers)" if row["reads_answers"] else ""),
            row["source"],
            f"{row['source_percentile']:.2f}",
            f"{row['target_percentile']:.2f}",
            f"{row['matched']:.2f} ({row['matched_sd']:.2f})",
            f"{row['gain']:+.2f}",
            f"{row['p']:.3f}",
            f"{row['gain_alike']:+.2f}",
            f"{row['floor_at_least']:.2f}",
            f"{row['regret']:.2f}",
            f"{row['source_points_lost']:.2f}",
            f"{row['target_points_lost']:.2f}",
            style=style.strip(),
        )
    for name, source, why in _left_out(answer_):
        table.add_row(name, source, "", "", why, style="dim")
    console.print(table)
    used = {line["row"]: (line["used"], line["reads_answers"]) for line in answer_["rows"]}
    for name, (words, marked) in used.items():
        console.print(
            f"{name:<16} read: {words}", style="yellow" if marked else "dim", markup=False
        )
    for task, images in answer_["images"].items():
        console.print(
            f"{task}: embedding of {images['samples']} images of {images['set']}",
            style="dim",
            markup=False,
        )
    if note := note_of(answer_["images"]):
        console.print(note, style="yellow", markup=False)
    plan = answer_["plan"]
    console.print(
        f"[dim]{plan['seeds']} seeds, {plan['measurements']} measurements; floor: the lowest "
        "target percentile at source percentile "
        f">= {plan['least']:g}; gain: over random cells at least as good on the source; p: "
        "chance that they do as well; gain, alike: over "
        "cells within one percentile on the source, which is the one to read where the source "
        f"percentile is under {plan['least']:g}.[/]"
    )
    for file in answer_["figures"]:
        console.print(f"written to {file}", markup=False, soft_wrap=True)


def _left_out(answer_: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Row, source and reason of what could not be run: a line a row where nothing of it ran,
    otherwise a line a source or pair.
    """
    ran = {row["row"] for row in answer_["summary"]}
    lines = []
    for one in answer_["not_run"]:
        pair = (
            "" if one["source"] in one["no_images_of"] else f" > {', '.join(one['no_images_of'])}"
        )
        lines.append((one["row"], one["source"] + pair if one["row"] in ran else "all", one["why"]))
    return list(dict.fromkeys(lines))


def search(found: "SearchResult", *, as_json: bool) -> None:
    """The short list, what was measured, and what was chosen."""
    if as_json:
        answer(found.model_dump(mode="json"))
        return
    table = table_of("cell", "source rank", "target rank", "gap", "source accuracy", "")
    for candidate in found.candidates:
        marks = [
            name for name in ("chosen", "reference") if getattr(found, name).cell == candidate.cell
        ]
        target = "-" if candidate.target_rank is None else str(candidate.target_rank)
        accuracy = "-" if candidate.source_accuracy is None else f"{candidate.source_accuracy:.3f}"
        table.add_row(
            str(candidate.cell),
            str(candidate.source_rank),
            target,
            f"{candidate.rank_gap:+.0f}",
            accuracy,
            " ".join(marks),
        )
    console = Console(width=max(Console().width, 150))
    console.print(table)
    console.print(
        f"scheme {found.scheme}, {found.questions} questions asked; used: {'; '.join(found.used)}",
        highlight=False,
    )


def checkpoint(trained: "Checkpoint", out: Path, *, as_json: bool) -> None:
    """How good the trained network is."""
    if as_json:
        answer({"checkpoint": trained.model_dump(mode="json"), "file": str(out)})
        return
    Console().print(
        f"{trained.architecture}\nsource accuracy {trained.val_accuracy:.3f} val, "
        f"{trained.test_accuracy:.3f} test "
        f"({trained.test_samples} images)\nwritten to {out}",
        highlight=False,
    )


def pruned(model: "PrunedModel", out: Path, *, as_json: bool) -> None:
    """Zeros of every layer, the rounds in a few lines, what it cost on the source, how large the
    file is.
    """
    from lockforge.cli._locks import print_rounds
    from lockforge.report.lock_rows import GENERATED, size_words

    pruning, network = model.pruning, model.checkpoint
    if as_json:
        answer(
            {
                "pruned": model.model_dump(mode="json"),
                "sparsity": pruning.sparsity,
                "file": str(out),
            }
        )
        return
    console = console_of()
    table = table_of("layer", "weights", "zeros", "")
    for layer in pruning.layers:
        share = layer.zeros / layer.weights
        table.add_row(layer.name, f"{layer.weights:,}", f"{layer.zeros:,}", f"{share:.1%}")
    total = [sum(getattr(layer, key) for layer in pruning.layers) for key in ("weights", "zeros")]
    table.add_row("all", f"{total[0]:,}", f"{total[1]:,}", f"{pruning.sparsity:.1%}", style="bold")
    console.print(table)
    if pruning.rounds:
        console.print()
        print_rounds(pruning.rounds)
    term = (
        ""
        if pruning.method == "magnitude"
        else f", {'with' if pruning.fisher else 'without'} the Fisher term"
    )
    console.print(f"\n{pruning.method}{term}; stand-in for the thief's task: {pruning.auxiliary}")
    if pruning.auxiliary == "generated":
        console.print(GENERATED, style="yellow", markup=False)
    console.print(
        f"source accuracy {network.val_accuracy:.3f} val (the lock cost "
        f"{100 * pruning.source_drop:.1f} points), "
        f"{network.test_accuracy:.3f} test ({network.test_samples} images)"
    )
    console.print(
        f"weights {size_words(pruning.dense_bytes)}, in the compact form "
        f"{size_words(pruning.sparse_bytes)}"
    )
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def audits(
    roles: "Roles", subjects: "Subjects", found: Sequence["TransferAudit"], *, as_json: bool
) -> None:
    """What a thief gets, target by target."""
    if as_json:
        rows = [
            audit.model_dump(mode="json") | {"name": name}
            for name, audit in zip(roles.target_names, found, strict=True)
        ]
        answer({"audits": rows, "subjects": subjects.model_dump(mode="json")})
        return
    from lockforge.cli._locks import print_parts

    console = Console()
    for name, audit in zip(roles.target_names, found, strict=True):
        _audit(console, name, audit)
        print_parts(name, subjects, {}, audit)


def _audit(console: Console, name: str, audit: "TransferAudit") -> None:
    measures = audit.measures
    table = table_of(f"target {name}", "")
    table.add_row("verdict", f"[bold]{audit.verdict.word}[/]")
    table.add_row("advantage removed (against reference)", estimate(measures.removed_vs_reference))
    table.add_row("  by the weight lock (against twin)", estimate(measures.removed_vs_twin))
    table.add_row("  by an empty network (must be 1)", estimate(measures.removed_by_dummy))
    areas = [
        row.area for row in measures.slc if row.start == "release" and row.area.mean is not None
    ]
    if areas:
        table.add_row(
            "SLC-AUC of the worst attacker (natural log)",
            estimate(max(areas, key=lambda area: area.mean or 0.0)),
        )
    table.add_row("accuracy gap at most data", estimate(measures.accuracy_gap, percent=True))
    table.add_row("worst attacker", measures.worst_attacker)
    if measures.worth_beyond_public is not None:
        table.add_row(
            "worth of the unlocked model beyond public weights",
            estimate(measures.worth_beyond_public, percent=True),
        )
    for line in audit.skipped:
        table.add_row("skipped", line)
    console.print(table)
    console.print(f"[dim]{audit.verdict.reason}[/]\n", highlight=False)


def release(folder: Path, signer: str, *, as_json: bool) -> None:
    """The summary at the end of `protect` and `export`, and where the report lies."""
    from lockforge.records import Report

    report = Report.from_json((folder / "report.json").read_bytes())
    if as_json:
        answer(
            summary(report)
            | {
                "release": str(folder),
                "report": str(folder / "report.html"),
                "signer": signer or None,
            }
        )
        return
    console = Console(highlight=False)
    figures(console, report)
    console.print(f"signed by  {signer or 'nobody (--unsigned)'}", soft_wrap=True)
    console.print(f"report     {folder / 'report.html'}", soft_wrap=True)
    console.print(f"next       lockforge verify {folder}", soft_wrap=True)


def figures(console: Console, report: "Report") -> None:
    """Accuracies on the source, cells, and what a thief gets, target by target."""
    from lockforge.records import HEADLESS

    subjects = report.subjects
    table = table_of("", "release", "reference (no lock)")
    table.add_row(
        "source accuracy, test",
        f"{subjects.release.test_accuracy:.3f}",
        f"{subjects.reference.test_accuracy:.3f}",
    )
    table.add_row(
        "source accuracy, val",
        f"{subjects.release.val_accuracy:.3f}",
        f"{subjects.reference.val_accuracy:.3f}",
    )
    console.print()
    console.print(table)
    console.print(
        f"[dim]release   {subjects.release.architecture}\nreference "
        f"{subjects.reference.architecture}[/]\n",
        soft_wrap=True,
    )
    if subjects.reference.made_by == HEADLESS:
        console.print(
            "the network came without a head: a linear one was trained on the source, its body "
            "left as it was\n"
        )
    if subjects.release.weights == subjects.reference.weights:
        why = "the architecture lock removed nothing" if report.search else "no lock was put on it"
        console.print(f"[yellow]release and reference are the same network: {why}[/]\n")
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        _audit(console, name, audit)
    from lockforge.cli._locks import print_lock

    print_lock(report)
    console.print(f"ONNX       {report.parity}")


def summary(report: "Report") -> dict[str, Any]:
    """The same for machines."""
    subjects = report.subjects
    return {
        "verdict": report.verdict,
        "parity": report.parity,
        "source_accuracy": {
            name: {
                "val": found.val_accuracy,
                "test": found.test_accuracy,
                "test_samples": found.test_samples,
            }
            for name, found in (("release", subjects.release), ("reference", subjects.reference))
        },
        "pruned": {
            start: {
                "sparsity": how.sparsity,
                **how.model_dump(mode="json", exclude={"layers", "rounds"}),
            }
            for start, how in report.pruned.items()
        },
        "targets": {
            name: {
                "verdict": audit.verdict.model_dump(mode="json"),
                "measures": audit.measures.model_dump(mode="json"),
            }
            for name, audit in zip(report.roles.target_names, report.audits, strict=True)
        },
    }
