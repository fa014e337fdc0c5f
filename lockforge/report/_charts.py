"""The drawings of the report: coordinates are worked out here, colours and strokes are in the
template's style.

x is the logarithm of the images the thief has (or the epoch), y is accuracy in [0, 1]. A box is its
width and height in SVG units with a margin for the axes. Every chart carries a sentence that says
the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockforge.evidence.statistics import mean
from lockforge.records import (
    EDGES,
    Checkpoint,
    Estimate,
    LearningCurve,
    NamedArchitecture,
    Op,
    TransferAudit,
)

WIDE, PANEL = (560, 300), (480, 320)
LEFT, RIGHT, TOP, BOTTOM = 78, 30, 14, 50
COLOURS = {
    "release": "c1",
    "reference": "c2",
    "twin": "c3",
    "scratch": "c4",
    "dummy": "c5",
    "outside": "c6",
}
EDGE, ROW = 24, 46  # margin of figures with intervals, and the height of each
STRONGEST = 5  # attackers with a colour of their own
NODES = ((40, 60), (150, 20), (150, 100), (260, 60))
EDGE_BENDS = ((95, 28), (95, 92), (150, 50), (100, 64), (205, 28), (205, 92))
SHORT = {Op.none: "none", Op.skip: "skip", Op.conv1x1: "1x1", Op.conv3x3: "3x3", Op.pool3x3: "pool"}


@dataclass(frozen=True)
class Line:
    """One curve: path of the mean, polygon of the range over seeds, dots of every seed; `style` is
    a class of the style sheet.
    """

    name: str
    style: str
    path: str
    band: str = ""
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines in the order of drawing, ticks of both axes as (place, label), a sentence that says the
    same; `key` names lines below it.
    """

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    text: str
    key: tuple[Line, ...]
    others: int = 0
    box: tuple[int, int] = WIDE


@dataclass(frozen=True)
class Span:
    """A figure with its interval: its name above a line from `low` to `high` at height `y`, a dot
    at `at`; None: not defined.
    """

    name: str
    style: str
    y: float
    at: float | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Spans:
    """Figures with intervals one below the other, ticks across, a sentence that says the same."""

    rows: tuple[Span, ...]
    across: tuple[tuple[float, str], ...]
    text: str
    box: tuple[int, int]


@dataclass(frozen=True)
class Field:
    """Where a number of images and an accuracy lie in a box."""

    box: tuple[int, int]
    samples: tuple[int, ...]
    low: float
    high: float

    def x(self, count: float) -> float:
        """Across, by the logarithm."""
        span = max(math.log(self.samples[-1] / self.samples[0]), 1e-9)
        return LEFT + (self.box[0] - LEFT - RIGHT) * math.log(count / self.samples[0]) / span

    def y(self, accuracy: float) -> float:
        """Down from the top."""
        return TOP + (self.box[1] - TOP - BOTTOM) * (self.high - accuracy) / (self.high - self.low)

    def across(self) -> tuple[tuple[float, str], ...]:
        """Ticks at the grid's values; one that would touch its neighbour is left out, the last
        never.
        """
        kept: list[tuple[float, str]] = []
        for count in reversed(self.samples):
            place, word = self.x(count), f"{count:,}"
            if not kept or kept[-1][0] - place >= 5 * (len(word) + len(kept[-1][1])) + 6:
                kept.append((place, word))
        return tuple(reversed(kept))

    def up(self) -> tuple[tuple[float, str], ...]:
        """Ticks at round accuracies."""
        step = next(step for step in (0.05, 0.1, 0.25) if (self.high - self.low) / step <= 6)
        count = round((self.high - self.low) / step)
        return tuple(
            (self.y(value), f"{value:g}")
            for value in (round(self.low + step * at, 4) for at in range(count + 1))
        )

    def line(
        self, name: str, style: str, curve: LearningCurve, *, band: bool = True, dots: bool = False
    ) -> Line:
        """A learning curve in this field."""
        xs = [self.x(count) for count in curve.samples]
        means = [(x, self.y(mean(row))) for x, row in zip(xs, curve.accuracy, strict=True)]
        edge = [(x, self.y(max(row))) for x, row in zip(xs, curve.accuracy, strict=True)]
        edge += [
            (x, self.y(min(row))) for x, row in reversed(list(zip(xs, curve.accuracy, strict=True)))
        ]
        return Line(
            name=name,
            style=style,
            path="M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in means),
            band=" ".join(f"{x:.1f},{y:.1f}" for x, y in edge) if band else "",
            dots=tuple(
                (x, self.y(value))
                for x, row in zip(xs, curve.accuracy, strict=True)
                for value in row
            )
            if dots
            else (),
        )


def field(box: tuple[int, int], curves: Sequence[LearningCurve]) -> Field:
    """The least field between round accuracies that holds every value of the curves, which are on
    one grid.
    """
    values = [value for curve in curves for row in curve.accuracy for value in row]
    low, high = math.floor(min(values) * 10 + 1e-9) / 10, math.ceil(max(values) * 10 - 1e-9) / 10
    high = max(high, round(low + 0.1, 1))
    if high - low > 0.6:
        low, high = math.floor(low * 4) / 4, math.ceil(high * 4) / 4
    return Field(box=box, samples=curves[0].samples, low=low, high=high)


def transfer_chart(audit: TransferAudit) -> Chart:
    """Accuracy over images, a line for each envelope: what the thief gets who may use these
    starts.
    """
    curves = {
        envelope.name: envelope.curve
        for envelope in audit.measures.envelopes
        if envelope.name not in audit.same_as
    }
    place = field(WIDE, list(curves.values()))
    text = "; ".join(f"{name} {ends(curve)}" for name, curve in curves.items())
    lines = tuple(
        place.line(
            " = ".join([name, *(twin for twin, own in audit.same_as.items() if own == name)]),
            COLOURS[name],
            curve,
            dots=True,
        )
        for name, curve in curves.items()
    )
    return Chart(
        lines=lines[::-1],
        key=lines,
        across=place.across(),
        up=place.up(),
        text=f"Test accuracy of the best attack that validation chose, {audit.samples[0]} to "
        f"{audit.samples[-1]} images: {text}.",
    )


def attacker_charts(
    audit: TransferAudit, found: Mapping[str, Mapping[str, LearningCurve]]
) -> dict[str, Chart]:
    """Accuracy over images, a chart for each start and in it a line for each attacker, on one
    scale.

    The attackers that are strongest on the first start have a colour, the same in each chart; the
    others are grey. Both envelopes that a curve should be held against are there: the start's own
    and scratch.

    Args: found: by start, each attacker's curve, strongest first.
    """
    envelopes = {envelope.name: envelope.curve for envelope in audit.measures.envelopes}
    shown = [curve for curves in found.values() for curve in curves.values()]
    place = field(PANEL, [*shown, *(envelopes[start] for start in found), envelopes["scratch"]])
    ranks = {
        name: rank for rank, name in enumerate(next(iter(found.values())), 1) if rank <= STRONGEST
    }
    charts = {}
    for start, curves in found.items():
        grey = [
            place.line(name, "other", curve, band=False)
            for name, curve in curves.items()
            if name not in ranks
        ]
        best = [
            place.line(name, f"a{ranks[name]}", curves[name]) for name in ranks if name in curves
        ]
        below = place.line(
            "the thief's choice (envelope)", "envelope", envelopes[start], band=False
        )
        base = place.line("scratch, the best", "base", envelopes["scratch"], band=False)
        text = "; ".join(f"{name} {ends(curve)}" for name, curve in curves.items())
        charts[start] = Chart(
            lines=(*grey, below, *best, base),
            key=(*best, below, base),
            others=len(grey),
            across=place.across(),
            up=place.up(),
            text=f"Test accuracy of each attacker from the {start}, strongest first: {text}. "
            f"Envelope {ends(envelopes[start])}; scratch {ends(envelopes['scratch'])}.",
            box=PANEL,
        )
    return charts


def pair_chart(pair: Sequence[TransferAudit]) -> Chart:
    """Two audits of one target on one grid: the envelopes of release, reference and scratch of
    both.
    """
    wanted = {"release": "", "reference": " dash", "scratch": " far"}
    curves = [
        {envelope.name: envelope.curve for envelope in audit.measures.envelopes} for audit in pair
    ]
    place = field(WIDE, [one[name] for one in curves for name in wanted])
    named = [
        (f"{letter}: {name}", f"c{rank}{dash}", one[name], not dash)
        for rank, (letter, one) in enumerate(zip("AB", curves, strict=True), 1)
        for name, dash in wanted.items()
    ]
    text = "; ".join(f"{name} {ends(curve)}" for name, _, curve, _ in named)
    lines = tuple(place.line(name, style, curve, band=band) for name, style, curve, band in named)
    return Chart(
        lines=lines,
        key=lines,
        across=place.across(),
        up=place.up(),
        text=f"Test accuracy of the best attack that validation chose, in both reports: {text}.",
    )


def removed_chart(found: Sequence[tuple[str, str, Estimate]]) -> Spans:
    """Advantage removed with its interval, a line for each (name, style, figure); drawn from -.25
    to 1.25 at the most.
    """
    values = [
        0.0,
        1.0,
        *(
            value
            for *_, figure in found
            for value in (figure.mean, figure.low, figure.high)
            if value is not None
        ),
    ]
    low, high = max(min(values), -0.25), min(max(values), 1.25)

    def x(value: float) -> float:
        return EDGE + (PANEL[0] - 2 * EDGE) * (min(max(value, low), high) - low) / (high - low)

    rows = []
    for at, (name, style, figure) in enumerate(found, 1):
        y = TOP + ROW * at - 14
        if figure.mean is None:
            rows.append(Span(name, style, y))
        else:
            first, last = (figure.mean if end is None else end for end in (figure.low, figure.high))
            rows.append(Span(name, style, y, x(figure.mean), x(first), x(last)))
    words = "; ".join(
        f"{name} {'not defined' if figure.mean is None else f'{figure.mean:.2f}'}"
        for name, _, figure in found
    )
    return Spans(
        rows=tuple(rows),
        across=tuple((x(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)),
        text=f"Advantage removed: {words}.",
        box=(PANEL[0], TOP + ROW * len(found) + BOTTOM),
    )


def history_chart(release: Checkpoint, reference: Checkpoint) -> Chart:
    """Validation accuracy over the training of both networks; empty where no history is known."""
    found = {"release": release.history, "reference": reference.history}
    longest = max((len(history) for history in found.values()), default=0)
    place = Field(box=WIDE, samples=(1, 2), low=0, high=1)

    def x(at: int) -> float:
        return LEFT + (WIDE[0] - LEFT - RIGHT) * at / max(longest - 1, 1)

    lines = []
    for name, history in found.items():
        known = [
            (at, epoch.val_accuracy)
            for at, epoch in enumerate(history)
            if epoch.val_accuracy is not None
        ]
        if known:
            path = "M" + " L".join(f"{x(at):.1f} {place.y(value):.1f}" for at, value in known)
            lines.append(Line(name=name, style=COLOURS[name], path=path))
    ticks = sorted({0, (longest - 1) // 2, longest - 1}) if longest else []
    text = (
        f"Validation accuracy over {longest} epochs; release {release.val_accuracy:.3f}, "
        f"reference {reference.val_accuracy:.3f}."
    )
    return Chart(
        lines=tuple(lines),
        key=tuple(lines),
        across=tuple((x(at), str(at + 1)) for at in ticks),
        up=place.up(),
        text=text,
    )


def drawing(checkpoint: Checkpoint) -> dict[str, Any]:
    """A cell as four nodes and its edges; none edges are left out. A named network has no cell: its
    name alone.
    """
    if isinstance(checkpoint.architecture, NamedArchitecture):
        return {"nodes": (), "edges": [], "text": checkpoint.architecture.name}
    cell = checkpoint.architecture.cell
    edges = [
        {"from": NODES[start], "to": NODES[end], "bend": bend, "word": SHORT[op], "kind": op.name}
        for (start, end), op, bend in zip(EDGES, cell.ops, EDGE_BENDS, strict=True)
        if op is not Op.none
    ]
    return {"nodes": NODES, "edges": edges, "text": str(cell)}


def ends(curve: LearningCurve) -> str:
    """First and last mean of a curve, in words.

    >>> ends(LearningCurve(samples=(1, 10), accuracy=((0.25, 0.75), (1.0, 1.0))))
    'from 0.50 to 1.00'
    """
    return f"from {mean(curve.accuracy[0]):.2f} to {mean(curve.accuracy[-1]):.2f}"
