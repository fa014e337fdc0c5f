"""The benchmark's images: heat maps of percentiles (ArchLock, figure 2) and the two sweeps (table
4, figure 3).

SVG without script, and the numbers beside it. Darker is lower: what a thief gets is worse. The
diagonal, outlined, is the source itself and should stay light.

Shapes: s sources, t tasks; percentiles in percent, NaN where nothing was run.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from lockforge.benchmark._sweeps import ROW, Point, sweep
from lockforge.benchmark._yardsticks import Run
from lockforge.benchmark.embedded import ORACLE, PAPER, SETTINGS, Known
from lockforge.benchmark.rows import Line
from lockforge.benchmark.tables._published import Table, percentiles

_FAMILIES = {
    "heatmap": (("S", "TU shipped", "TU table", "TK"), "Percentile of the chosen cell"),
    "heatmap-paper": (PAPER, "Percentile of the chosen cell, the paper's recipe without an oracle"),
    "heatmap-oracle": (
        ORACLE,
        "Percentile of the chosen cell, the paper's recipe with its oracle: IT READS THE ANSWERS",
    ),
}
_SWEEPS = {
    "sweep-cosine": (
        "cosine",
        f"{ROW}: similarity of {SETTINGS.simulated} made-up targets",
        "cosine to the source",
    ),
    "sweep-number": (
        "number",
        f"{ROW}: number of made-up targets at cosine {SETTINGS.cosine:g}",
        "made-up targets",
    ),
}
_STYLE = (
    ":root{color-scheme:light dark}svg{background:#fcfcfb;font:13px "
    "system-ui,sans-serif}text{fill:#1b1f24}"
    ".soft{fill:#5b6470;font-size:12px}.title{font-size:16px;font-weight:600}.own{fill:none;stroke:#d9730d;stroke-width:3}.grid{stroke:#5b6470;stroke-opacity:.25}"
    ".source{color:#0b62a8}.target{color:#b8540b}.line{fill:none;stroke:currentColor;stroke-width:2}"
    ".target .line{stroke-dasharray:6 4}"
    ".seed{fill:currentColor;fill-opacity:.35}.mean{fill:currentColor}"
    "@media(prefers-color-scheme:dark){svg{background:#14171b}text{fill:#e8eaed}.soft{fill:#9aa4b2}"
    ".source{color:#6cb6ff}.target{color:#ffab70}}"
)
_LIGHT, _DARK = np.array([236, 243, 250.0]), np.array([8, 48, 107.0])
_CELL_WIDTH, _CELL_HEIGHT, _LABEL, _GAP = 100, 46, 120, 36
_PLOT_WIDTH, _PLOT_HEIGHT = 250, 240
_LEAST_WIDTH = 860  # the longest title


@dataclass(frozen=True)
class Panel:
    """One row of the benchmark: its percentile on every task, for each source; the mean over seeds
    (and, on the diagonal, over pairs).
    """

    row: str
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    values: Float[np.ndarray, "s t"]


def draw_all(
    table: Table,
    found: Sequence[tuple[Line, list[Run]]],
    known: Known | None,
    seeds: int,
    seed: int,
    *,
    note: str = "",
    tick: Callable[[int, int, str], None] | None = None,
) -> dict[str, str]:
    """The files by name: an SVG and its numbers as JSON for every family of rows that ran, and the
    sweeps for the sources of `paper TU`.

    Args: known: None where no images were given, then nothing is swept. note: a line under every
        image that rests on embeddings. tick: told of every setting of the sweeps.
    """
    lines = [line for line, _ in found]
    sources = [line.source for line in lines if line.row == ROW]
    points = (
        sweep(table, known, seeds, seed, sources=sources, tick=tick) if known and sources else []
    )
    files = {}
    for name, (rows, title) in _FAMILIES.items():
        if panels := [
            panel_of(table, [line for line in lines if line.row == row])
            for row in rows
            if any(line.row == row for line in lines)
        ]:
            under = note if rows in {PAPER, ORACLE} else ""
            files[f"{name}.svg"] = draw_heat(panels, title, seeds, under)
            numbers = [asdict(panel) | {"values": _numbers(panel.values)} for panel in panels]
            marks = {"reads_answers": rows == ORACLE, "note": under}
            files[f"{name}.json"] = _text(
                {"what": title, "seeds": seeds, "panels": numbers} | marks
            )
    for name, (kind, title, axis) in _SWEEPS.items():
        if some := [point for point in points if point.sweep == kind]:
            files[f"{name}.svg"] = draw_sweep(some, title, axis, note)
            files[f"{name}.json"] = _text(
                {
                    "what": title,
                    "seeds": seeds,
                    "points": [asdict(point) for point in some],
                    "note": note,
                }
            )
    return files


def panel_of(table: Table, lines: Sequence[Line]) -> Panel:
    """The percentiles of one row's chosen cells; a row that chooses for a pair is asked about that
    pair only.
    """
    place = {str(cell): at for at, cell in enumerate(table.cells)}
    ranked = {task: percentiles(table.final[task]) for task in table.tasks}
    sources = tuple(task for task in table.tasks if any(line.source == task for line in lines))
    values = np.full((len(sources), len(table.tasks)), np.nan)
    for i, source in enumerate(sources):
        for j, task in enumerate(table.tasks):
            chosen = [
                cell
                for line in lines
                if line.source == source and task in {source, *line.targets}
                for cell in line.chosen
            ]
            if chosen:
                values[i, j] = ranked[task][[place[cell] for cell in chosen]].mean()
    return Panel(lines[0].row, sources, table.tasks, values)


def draw_heat(panels: Sequence[Panel], title: str, seeds: int, note: str = "") -> str:
    """Heat maps side by side, on one scale; `note` at the bottom."""
    low = _lowest(np.concatenate([panel.values.ravel() for panel in panels]))
    wide = [_CELL_WIDTH * len(panel.tasks) for panel in panels]
    width = max(_LEAST_WIDTH, _LABEL + sum(wide) + _GAP * len(panels))
    deep = max(len(panel.sources) for panel in panels) * _CELL_HEIGHT
    height = 104 + deep + 74
    parts = [f'<text class="title" x="16" y="28">{escape(title)}</text>']
    for at, panel in enumerate(panels):
        parts += _heat(panel, _LABEL + sum(wide[:at]) + _GAP * at, low, named=at == 0)
    parts += _scale(_LABEL, 104 + deep + 26, low)
    told = (
        f"across: the task the cell is trained on; outlined: its own source; mean of {seeds} "
        "seeds; darker: worse for a thief"
    )
    parts.append(f'<text class="soft" x="{_LABEL}" y="{height - 12}">{escape(told)}</text>')
    return _page(width, height, f"{title}: {', '.join(panel.row for panel in panels)}", parts, note)


def _heat(panel: Panel, left: float, low: float, *, named: bool) -> list[str]:
    top = 104
    mark = " (reads the answers)" if panel.row in ORACLE else ""
    parts = [f'<text x="{left}" y="62" font-weight="600">{escape(panel.row + mark)}</text>']
    for j, task in enumerate(panel.tasks):
        parts.append(
            f'<text class="soft" x="{left + (j + 0.5) * _CELL_WIDTH}" y="{top - 10}" '
            f'text-anchor="middle">{escape(task)}</text>'
        )
    for i, source in enumerate(panel.sources):
        y = top + i * _CELL_HEIGHT
        if named:
            parts.append(
                f'<text class="soft" x="{left - 8}" y="{y + _CELL_HEIGHT / 2 + 4}" '
                f'text-anchor="end">{escape(source)}</text>'
            )
        for j, task in enumerate(panel.tasks):
            x, value = left + j * _CELL_WIDTH, float(panel.values[i, j])
            colour, ink = _colours(value, low)
            box = f'x="{x + 1}" y="{y + 1}" width="{_CELL_WIDTH - 2}" height="{_CELL_HEIGHT - 2}"'
            parts.append(
                f'<rect {box} fill="{colour}"/>'
                + (f'<rect class="own" {box}/>' if task == source else "")
            )
            text = "not run" if np.isnan(value) else f"{value:.1f}"
            middle = (
                f'x="{x + _CELL_WIDTH / 2}" y="{y + _CELL_HEIGHT / 2 + 5}" text-anchor="middle"'
            )
            parts.append(f'<text {middle} style="fill:{ink}">{text}</text>')
    return parts


def _scale(left: float, top: float, low: float) -> list[str]:
    """The colours and what they mean."""
    steps = np.linspace(low, 100, 11)
    parts = [
        f'<rect x="{left + 16 * i}" y="{top - 10}" width="16" height="12" '
        f'fill="{_colours(float(v), low)[0]}"/>'
        for i, v in enumerate(steps)
    ]
    return [
        *parts,
        f'<text class="soft" x="{left - 8}" y="{top}" text-anchor="end">{low:.0f}</text>',
        (
            f'<text class="soft" x="{left + 16 * len(steps) + 8}" y="{top}">100: percentile, the '
            "share of all cells that are worse</text>"
        ),
    ]


def _colours(value: float, low: float) -> tuple[str, str]:
    """The cell's colour, and one that can be read on it."""
    if np.isnan(value):
        return "#d9d9d6", "#1b1f24"
    share = float(np.clip((100 - value) / (100 - low), 0, 1))
    red, green, blue = (int(v) for v in np.rint(_LIGHT + share * (_DARK - _LIGHT)))
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if share > 0.5 else "#1b1f24"


def draw_sweep(points: Sequence[Point], title: str, axis: str, note: str = "") -> str:
    """A plot for each source: percentile on the source and on its targets; a seed is a dot, the
    mean a line; even spacing.
    """
    sources = tuple(dict.fromkeys(point.source for point in points))
    low = _lowest(
        np.array(
            [
                value
                for point in points
                for value in (*point.source_percentile, *point.target_percentile)
            ]
        )
    )
    width, height = (
        max(_LEAST_WIDTH, 70 + len(sources) * (_PLOT_WIDTH + _GAP)),
        84 + _PLOT_HEIGHT + 60,
    )
    parts = [f'<text class="title" x="16" y="28">{escape(title)}</text>']
    for at, (kind, words) in enumerate(
        (("source", "on the source"), ("target", "on its targets, averaged"))
    ):
        x = 60 + 170 * at
        parts.append(
            f'<g class="{kind}"><path class="line" d="M{x} 48h34"/>{_mark(kind, x + 17, 48)}</g>'
        )
        parts.append(f'<text class="soft" x="{x + 42}" y="52">{words}</text>')
    for at, source in enumerate(sources):
        left = 60 + at * (_PLOT_WIDTH + _GAP)
        parts += _plot(
            [point for point in points if point.source == source], left, low, named=at == 0
        )
        parts.append(f'<text x="{left}" y="76" font-weight="600">source {escape(source)}</text>')
        parts.append(
            f'<text class="soft" x="{left + _PLOT_WIDTH / 2}" y="{height - 14}" '
            f'text-anchor="middle">{escape(axis)}</text>'
        )
    return _page(width, height, f"{title}; sources: {', '.join(sources)}", parts, note)


def _plot(points: Sequence[Point], left: float, low: float, *, named: bool) -> list[str]:
    top, bottom = 84, 84 + _PLOT_HEIGHT
    parts = []

    def height_of(value: float) -> float:
        return bottom - (value - low) / (100 - low) * _PLOT_HEIGHT

    for value in np.arange(100, low - 1, -10 if low >= 40 else -20):
        y = height_of(float(value))
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{_PLOT_WIDTH}"/>')
        if named:
            parts.append(
                f'<text class="soft" x="{left - 8}" y="{y + 4:.1f}" '
                f'text-anchor="end">{value:.0f}</text>'
            )
    across = [left + (at + 0.5) * _PLOT_WIDTH / len(points) for at in range(len(points))]
    for x, point in zip(across, points, strict=True):
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 20}" '
            f'text-anchor="middle">{point.value:g}</text>'
        )
    for kind, shift in (("source", -4.0), ("target", 4.0)):
        series = [getattr(point, f"{kind}_percentile") for point in points]
        seeds = [
            f'<circle class="seed" cx="{x + shift:.1f}" cy="{height_of(value):.1f}" r="2.5"/>'
            for x, values in zip(across, series, strict=True)
            for value in values
        ]
        means = [
            (x, height_of(float(np.mean(values)))) for x, values in zip(across, series, strict=True)
        ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in means)
        marks = "".join(_mark(kind, x, y) for x, y in means)
        parts.append(
            f'<g class="{kind}">{"".join(seeds)}<path class="line" d="M{path}"/>{marks}</g>'
        )
    parts.append(f'<path class="grid" d="M{left} {top}v{_PLOT_HEIGHT}"/>')
    return parts


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "source":
        return f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    return f'<rect class="mean" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'


def _lowest(values: Float[np.ndarray, " n"]) -> float:
    """The end of a scale: the ten below the least value, and never 100.

    >>> _lowest(np.array([71.3, 99.0, np.nan])), _lowest(np.array([100.0]))
    (70.0, 90.0)
    """
    return min(90.0, 10.0 * float(np.floor(np.nanmin(values) / 10)))


def _page(width: float, height: float, told: str, parts: Sequence[str], note: str) -> str:
    if note:
        height += 22
        parts = [*parts, f'<text class="soft" x="16" y="{height - 10}">{escape(note)}</text>']
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img"><title>{escape(told)}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _numbers(values: Float[np.ndarray, "s t"]) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]


def _text(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
