"""report.html: one file, no network, no script. Coordinates are worked out here, words and shapes are in the template.

Chart coordinates: a box of 640 x 300 units with a margin for the axes; x is the logarithm of the images the thief has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lockforge.recipe import Recipe, to_yaml
from lockforge.records import EDGES, Checkpoint, Estimate, LearningCurve, NamedArchitecture, Op, Report, TransferAudit

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 14, 44
COLOURS = {"release": "c1", "reference": "c2", "twin": "c3", "scratch": "c4", "dummy": "c5"}
NODES = ((40, 60), (150, 20), (150, 100), (260, 60))
EDGE_BENDS = ((95, 28), (95, 92), (162, 60), (150, 60), (205, 28), (205, 92))
SHORT = {Op.none: "none", Op.skip: "skip", Op.conv1x1: "1x1", Op.conv3x3: "3x3", Op.pool3x3: "pool"}


@dataclass(frozen=True)
class Line:
    """One curve of a chart: path of the mean, polygon of the range over seeds, dots of every seed."""

    name: str
    colour: str
    path: str
    band: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Lines, ticks of both axes as (place, label), and a sentence that says the same."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    text: str


def page(report: Report, vectors: Sequence[Sequence[float]]) -> str:
    """The whole page. Args: vectors: the Fisher diagonals, in the order of `report.embeddings`."""
    room = Environment(
        loader=PackageLoader("lockforge", "export"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {"short": short, "points": points, "percent": lambda value: f"{100 * value:.1f} %"}
    audits = [
        {
            "name": name,
            "audit": audit,
            "chart": transfer_chart(audit),
            "curves": audit.measures.envelopes,
            "chosen": [point for point in audit.points if point.test_accuracy is not None],
            "worst_area": worst_area(audit),
        }
        for name, audit in zip(report.roles.target_names, report.audits, strict=True)
    ]
    return room.get_template("report.html.j2").render(
        report=report,
        release=report.subjects.release,
        reference=report.subjects.reference,
        same_network=report.subjects.release.weights == report.subjects.reference.weights,
        audits=audits,
        roles=_roles(report),
        history=history_chart(report.subjects.release, report.subjects.reference),
        confusion=_confusion(report),
        cells={"release": drawing(report.subjects.release), "reference": drawing(report.subjects.reference)},
        strips=(strips := _strips(report, vectors)),
        strip_rows=list(zip(*(strip["means"] for strip in strips), strict=True)),
        epochs=_epochs(report.subjects.release, report.subjects.reference),
        attackers=len({point.attacker for audit in report.audits for point in audit.points if point.start == "release"}),
        names=_embedding_names(report),
        recipe=to_yaml(Recipe.model_validate(report.recipe)),
        box=(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
    )


def short(value: Estimate) -> str:
    """A figure with its interval; why there is none is said elsewhere.

    >>> short(Estimate(mean=0.5, low=0.25, high=0.75)), short(Estimate(mean=None, reason="nothing to protect"))
    ('0.50 [0.25, 0.75]', 'not defined')
    """
    if value.mean is None:
        return "not defined"
    if value.low is None or value.high is None:
        return f"{value.mean:.2f}"
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def points(value: Estimate) -> str:
    """A difference of accuracies in points.

    >>> points(Estimate(mean=-0.05, low=-0.1, high=0.01))
    '-5.0 points [-10.0, +1.0]'
    """
    if value.mean is None:
        return "not defined"
    if value.low is None or value.high is None:
        return f"{100 * value.mean:+.1f} points"
    return f"{100 * value.mean:+.1f} points [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def worst_area(audit: TransferAudit) -> Estimate:
    """The largest SLC-AUC among the attackers that start from the release."""
    areas = [row.area for row in audit.measures.slc if row.start == "release" and row.area.mean is not None]
    return max(areas, key=lambda area: area.mean or 0.0, default=Estimate(mean=None, reason="no attacker started from the release"))


def transfer_chart(audit: TransferAudit) -> Chart:
    """Accuracy over images, a line for each starting point the thief may choose from."""
    curves = {envelope.name: envelope.curve for envelope in audit.measures.envelopes}
    samples = audit.samples
    span = max(math.log(samples[-1] / samples[0]), 1e-9)

    def x(count: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(count / samples[0]) / span

    text = "; ".join(f"{name} from {_mean(curve, 0):.2f} to {_mean(curve, -1):.2f}" for name, curve in curves.items())
    return Chart(
        lines=tuple(_line(name, [x(count) for count in curve.samples], curve.accuracy) for name, curve in curves.items()),
        across=tuple((x(count), str(count)) for count in samples),
        up=_up(),
        text=f"Test accuracy of the best attack that validation chose, {samples[0]} to {samples[-1]} images: {text}.",
    )


def history_chart(release: Checkpoint, reference: Checkpoint) -> Chart:
    """Validation accuracy over the training of both networks; empty where no history is known."""
    found = {"release": release.history, "reference": reference.history}
    longest = max((len(history) for history in found.values()), default=0)
    lines = []
    for name, history in found.items():
        known = [(at, epoch.val_accuracy) for at, epoch in enumerate(history) if epoch.val_accuracy is not None]
        if known:
            xs = [LEFT + (WIDTH - LEFT - RIGHT) * at / max(longest - 1, 1) for at, _ in known]
            lines.append(_line(name, xs, [(value,) for _, value in known], dots=False))
    ticks = sorted({0, (longest - 1) // 2, longest - 1}) if longest else []
    across = tuple((LEFT + (WIDTH - LEFT - RIGHT) * at / max(longest - 1, 1), str(at + 1)) for at in ticks)
    text = f"Validation accuracy over {longest} epochs; release {release.val_accuracy:.3f}, reference {reference.val_accuracy:.3f}."
    return Chart(lines=tuple(lines), across=across, up=_up(), text=text)


def drawing(checkpoint: Checkpoint) -> dict[str, Any]:
    """A cell as four nodes and its edges; none edges are left out. A named network has no cell: its name alone."""
    if isinstance(checkpoint.architecture, NamedArchitecture):
        return {"nodes": (), "edges": [], "text": checkpoint.architecture.name}
    cell = checkpoint.architecture.cell
    edges = [
        {"from": NODES[start], "to": NODES[end], "bend": bend, "word": SHORT[op], "kind": op.name}
        for (start, end), op, bend in zip(EDGES, cell.ops, EDGE_BENDS, strict=True)
        if op is not Op.none
    ]
    return {"nodes": NODES, "edges": edges, "text": str(cell)}


def _y(accuracy: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy)


def _up() -> tuple[tuple[float, str], ...]:
    return tuple((_y(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1))


def _mean(curve: LearningCurve, at: int) -> float:
    return sum(curve.accuracy[at]) / len(curve.accuracy[at])


def _line(name: str, xs: Sequence[float], rows: Sequence[Sequence[float]], *, dots: bool = True) -> Line:
    means = [(x, _y(sum(row) / len(row))) for x, row in zip(xs, rows, strict=True)]
    edge = [(x, _y(max(row))) for x, row in zip(xs, rows, strict=True)]
    edge += [(x, _y(min(row))) for x, row in reversed(list(zip(xs, rows, strict=True)))]
    return Line(
        name=name,
        colour=COLOURS[name],
        path="M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in means),
        band=" ".join(f"{x:.1f},{y:.1f}" for x, y in edge) if dots else "",
        dots=tuple((x, _y(value)) for x, row in zip(xs, rows, strict=True) for value in row) if dots else (),
    )


def _roles(report: Report) -> list[dict[str, Any]]:
    sets = (report.roles.source, *report.roles.auxiliary, *report.roles.targets)
    words = ["source", *["auxiliary"] * len(report.roles.auxiliary), *["target"] * len(report.roles.targets)]
    return [{"role": word, "name": name, "images": images} for word, name, images in zip(words, report.roles.names, sets, strict=True)]


def _embedding_names(report: Report) -> list[str]:
    names = dict(zip([row["images"].digest for row in _roles(report)], report.roles.names, strict=True))
    return [names.get(embedding.images, embedding.images[:8]) for embedding in report.embeddings]


def _confusion(report: Report) -> list[list[tuple[int, float]]]:
    """Each count with its share of the row."""
    return [[(count, count / max(sum(row), 1)) for count in row] for row in report.subjects.release.confusion]


def _epochs(release: Checkpoint, reference: Checkpoint) -> list[tuple[int, tuple[float | None, float | None]]]:
    """Validation accuracy of both networks after each epoch, counted from 1."""
    rows = zip_longest((epoch.val_accuracy for epoch in release.history), (epoch.val_accuracy for epoch in reference.history))
    return list(enumerate(rows, start=1))


def _strips(report: Report, vectors: Sequence[Sequence[float]], bars: int = 96) -> list[dict[str, Any]]:
    """Each Fisher diagonal in at most `bars` bars: means of neighbouring filters, on a scale of their fourth root."""
    strips = []
    for name, vector in zip(_embedding_names(report), vectors, strict=True):
        step = max(1, math.ceil(len(vector) / bars))
        means = [sum(vector[at : at + step]) / len(vector[at : at + step]) for at in range(0, len(vector), step)]
        top = max(*means, 1e-30)
        strips.append({"name": name, "bars": [round((value / top) ** 0.25, 3) for value in means], "means": means})
    return strips
