"""report.html and the page that holds two reports side by side: one file each, no network, no
script.

What is drawn is worked out in `charts`, what is tabled in `findings`; words and shapes are in the
templates.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lockforge.evidence.curves import ENOUGH
from lockforge.recipe import Recipe, to_yaml
from lockforge.records import HEADLESS, Checkpoint, Estimate, Report, TransferAudit
from lockforge.report._charts import (
    BOTTOM,
    COLOURS,
    LEFT,
    RIGHT,
    STRONGEST,
    TOP,
    Chart,
    Spans,
    attacker_charts,
    drawing,
    history_chart,
    removed_chart,
    transfer_chart,
)
from lockforge.report._round_charts import PANELS, round_charts
from lockforge.report.findings import (
    ROWS,
    Standing,
    attacker_rows,
    standings,
    starts_of,
    worst_area,
)
from lockforge.report.lock_rows import GENERATED, PAPERS_ATTACKER, LockRow, lock_rows, told

if TYPE_CHECKING:
    from lockforge.report.comparison import Comparison


def page(report: Report, vectors: Sequence[Sequence[float]] | None) -> str:
    """The whole page. Args: vectors: the Fisher diagonals, in the order of `report.embeddings`;
    None where only report.json is at hand.
    """
    strips = None if vectors is None else _strips(report, vectors)
    return (
        _room()
        .get_template("report.html.j2")
        .render(
            report=report,
            release=report.subjects.release,
            reference=report.subjects.reference,
            quick=any(audit.suite == "quick" for audit in report.audits),
            headless=report.subjects.reference.made_by == HEADLESS,
            same_network=report.subjects.release.weights == report.subjects.reference.weights,
            targets=[
                _target(name, audit)
                for name, audit in zip(report.roles.target_names, report.audits, strict=True)
            ],
            enough=ENOUGH,
            row_words=ROWS,
            matrix_rows=_matrix_rows(report),
            roles=_roles(report),
            prune=_prune(report),
            history=history_chart(report.subjects.release, report.subjects.reference),
            confusion=_confusion(report),
            cells={
                "release": drawing(report.subjects.release),
                "reference": drawing(report.subjects.reference),
            },
            strips=strips,
            strip_rows=list(zip(*(strip["means"] for strip in strips or ()), strict=True)),
            epochs=_epochs(report.subjects.release, report.subjects.reference),
            attackers=sorted(
                {
                    point.attacker
                    for audit in report.audits
                    for point in audit.points
                    if point.start == "release"
                }
            ),
            names=_embedding_names(report),
            recipe=to_yaml(Recipe.model_validate(report.recipe)),
        )
    )


def comparison_page(
    found: "Comparison", charts: Sequence[Chart | None], said: Callable[..., str]
) -> str:
    """Two reports side by side. Args: charts: one a target, None where it was refused. said: words
    for a figure, by its unit.
    """
    return (
        _room()
        .get_template("compare.html.j2")
        .render(found=found, targets=list(zip(found.targets, charts, strict=True)), said=said)
    )


def _room() -> Environment:
    room = Environment(
        loader=PackageLoader("lockforge", "report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters["short"], room.filters["points"], room.filters["large"] = short, points, large
    room.filters["percent"], room.filters["small"], room.filters["start_words"] = (
        percent,
        small,
        start_words,
    )
    room.globals |= {"margin": (LEFT, RIGHT, TOP, BOTTOM)}
    return room


def short(value: Estimate) -> str:
    """A figure with its interval; why there is none is said elsewhere.

    >>> (
    ...     short(Estimate(mean=0.5, low=0.25, high=0.75)),
    ...     short(Estimate(mean=None, reason="nothing to protect")),
    ... )
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


def small(value: float) -> str:
    """A p value: three digits after the point, and the bound below which they are not told.

    >>> small(0.0421), small(0.00002)
    ('0.042', 'below 0.001')
    """
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def percent(value: float) -> str:
    """A share in percent.

    >>> percent(0.125)
    '12.5 %'
    """
    return f"{100 * value:.1f} %"


def large(value: float) -> str:
    """A count of operations in words of a thousand.

    >>> large(2.5e12), large(940.0)
    ('2.5 T', '940')
    """
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def start_words(start: str) -> str:
    """A start as a person would say it.

    >>> start_words("scratch_release"), start_words("twin")
    ('an empty network of the released architecture', 'the twin')
    """
    kind, _, name = start.partition(":")
    if kind in ("public", "ablation"):
        return f"the {'public weights' if kind == 'public' else kind} {name}"
    return {
        "scratch_release": "an empty network of the released architecture",
        "scratch_reference": "an empty network of the reference's architecture",
        "dummy": "an empty network passed off as the release",
    }.get(start, f"the {start}")


def _target(name: str, audit: TransferAudit) -> dict[str, Any]:
    """Everything the page says of one target."""
    rows = attacker_rows(audit)
    shown = {
        start: {row.attacker: row.curve for row in rows[start]}
        for start in starts_of(audit, ("release", "reference"))
    }
    return {
        "name": name,
        "audit": audit,
        "chart": transfer_chart(audit),
        "attackers": rows,
        "panels": attacker_charts(audit, shown),
        "strongest": {
            name: rank
            for rank, name in enumerate(next(iter(shown.values()), {}), 1)
            if rank <= STRONGEST
        },
        "standings": dict.fromkeys(ROWS) | standings(audit),
        "shades": _shades(standings(audit)),
        "chosen": [
            point for point in audit.points if point.test_accuracy is not None and point.budget == 1
        ],
        "worst_area": worst_area(audit),
    }


def _prune(report: Report) -> dict[str, Any]:
    """Everything the page says of the weight lock: of the release's pruning in full, of the others
    how they were pruned.
    """
    locked = report.pruned.get("release")
    audits = zip(report.roles.target_names, report.audits, strict=True)
    rows = [(name, lock_rows(report.subjects, report.pruned, audit)) for name, audit in audits]
    return {
        "locked": locked,
        "told": [line for line in told(locked, report.roles.auxiliary_names) if line != GENERATED]
        if locked
        else [],
        "generated": GENERATED if locked and locked.auxiliary == "generated" else "",
        "charts": round_charts(locked) if locked else {},
        "columns": {key: words for keys in PANELS.values() for key, words in keys.items()},
        "targets": [(name, found, _spans(found)) for name, found in rows if found],
        "papers": PAPERS_ATTACKER,
        "others": [
            (start, told(one, report.roles.auxiliary_names))
            for start, one in report.pruned.items()
            if start != "release"
        ],
    }


def _spans(rows: Sequence[LockRow]) -> Spans | None:
    """The advantage that each row removes, drawn; nothing where there is none to remove."""
    found = [
        (row.words, COLOURS.get(row.start, "c4"), row.removed)
        for row in rows
        if row.removed is not None
    ]
    return removed_chart(found) if any(figure.defined for *_, figure in found) else None


def _shades(found: Mapping[str, Standing]) -> dict[str, float]:
    """How dark a field of the matrix is, 0 to .5: twice the distance of its mean from scratch's."""
    base = found["scratch"].over_grid.mean or 0.0
    return {
        name: min(max(2 * ((standing.over_grid.mean or 0.0) - base), 0.0), 0.5)
        for name, standing in found.items()
    }


def _matrix_rows(report: Report) -> list[tuple[str, str, Checkpoint | None]]:
    """Rows of the matrix: name of the envelope, words, and the network whose own task is said
    first.
    """
    known = {envelope.name for audit in report.audits for envelope in audit.measures.envelopes}
    subjects = {
        "release": report.subjects.release,
        "twin": report.subjects.twin,
        "reference": report.subjects.reference,
    }
    return [(name, words, subjects.get(name)) for name, words in ROWS.items() if name in known]


def _roles(report: Report) -> list[dict[str, Any]]:
    sets = (report.roles.source, *report.roles.auxiliary, *report.roles.targets)
    words = [
        "source",
        *["auxiliary"] * len(report.roles.auxiliary),
        *["target"] * len(report.roles.targets),
    ]
    return [
        {"role": word, "name": name, "images": images}
        for word, name, images in zip(words, report.roles.names, sets, strict=True)
    ]


def _embedding_names(report: Report) -> list[str]:
    names = dict(
        zip([row["images"].digest for row in _roles(report)], report.roles.names, strict=True)
    )
    return [names.get(embedding.images, embedding.images[:8]) for embedding in report.embeddings]


def _confusion(report: Report) -> list[list[tuple[int, float]]]:
    """Each count with its share of the row."""
    return [
        [(count, count / max(sum(row), 1)) for count in row]
        for row in report.subjects.release.confusion
    ]


def _epochs(
    release: Checkpoint, reference: Checkpoint
) -> list[tuple[int, tuple[float | None, float | None]]]:
    """Validation accuracy of both networks after each epoch, counted from 1."""
    rows = zip_longest(
        (epoch.val_accuracy for epoch in release.history),
        (epoch.val_accuracy for epoch in reference.history),
    )
    return list(enumerate(rows, start=1))


def _strips(
    report: Report, vectors: Sequence[Sequence[float]], bars: int = 96
) -> list[dict[str, Any]]:
    """Each Fisher diagonal in at most `bars` bars: means of neighbouring filters, on a scale of
    their fourth root.
    """
    strips = []
    for name, vector in zip(_embedding_names(report), vectors, strict=True):
        step = max(1, math.ceil(len(vector) / bars))
        means = [
            sum(vector[at : at + step]) / len(vector[at : at + step])
            for at in range(0, len(vector), step)
        ]
        top = max(*means, 1e-30)
        strips.append(
            {
                "name": name,
                "bars": [round((value / top) ** 0.25, 3) for value in means],
                "means": means,
            }
        )
    return strips
