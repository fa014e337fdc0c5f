"""Drawings of a pruning's rounds: residuals, loss terms, and the scatter of the auxiliary features;
x is the round, recovery follows.

Residuals and the penalty belong to the rounds alone: in the recovery the masks are fixed and there
is nothing left to agree on.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from lockforge.records import Pruning
from lockforge.report._charts import BOTTOM, LEFT, PANEL, RIGHT, TOP, Chart, Line

Values = Sequence[float | None]
Scale = Callable[[float], float]
Ticks = tuple[tuple[float, str], ...]
PANELS: Mapping[str, Mapping[str, str]] = {
    "residuals and sparsity": {
        "primal": "|W - Z| / |W|",
        "dual": "change of Z / |W|",
        "sparsity": "zeros",
        "val_accuracy": "source, val",
    },
    "loss terms, nats": {
        "source_loss": "source",
        "auxiliary_loss": "auxiliary, driven up",
        "penalty": "penalty",
    },
    "scatter of auxiliary features": {"between": "between classes", "within": "within classes"},
}
_OF_ROUNDS = {"primal", "dual", "penalty"}
_LOG = {"scatter of auxiliary features"}
_FLOOR = 1e-6  # share of the largest value below which a logarithmic axis does not go


def round_charts(pruning: Pruning) -> dict[str, Chart]:
    """A chart for each panel that has values, by its name; none where there were no rounds."""
    charts = {}
    for panel, keys in PANELS.items():
        lines = {words: _values(pruning, key) for key, words in keys.items()}
        shown = {
            words: values
            for words, values in lines.items()
            if any(value is not None for value in values)
        }
        if shown:
            charts[panel] = _chart(
                panel,
                shown,
                sum(one.phase == "rounds" for one in pruning.rounds),
                log=panel in _LOG,
            )
    return charts


def _values(pruning: Pruning, key: str) -> list[float | None]:
    return [
        None if key in _OF_ROUNDS and one.phase != "rounds" else getattr(one, key)
        for one in pruning.rounds
    ]


def _chart(panel: str, shown: Mapping[str, Values], rounds: int, *, log: bool) -> Chart:
    """Lines with a dot a round, and where the recovery begins a line from top to bottom."""
    count = max(map(len, shown.values()))
    values = [value for row in shown.values() for value in row if value is not None]
    y, up = _log_scale(values) if log else _linear_scale(values)

    def x(at: float) -> float:
        return LEFT + (PANEL[0] - LEFT - RIGHT) * at / max(count - 1, 1)

    lines = []
    for rank, (words, row) in enumerate(shown.items(), 1):
        dots = [(x(at), y(value)) for at, value in enumerate(row) if value is not None]
        lines.append(
            Line(
                words,
                f"a{rank}",
                "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in dots),
                dots=tuple(dots),
            )
        )
    edge = x(rounds - 0.5)
    recovery = (
        [Line("recovery begins", "base", f"M{edge:.1f} {TOP} L{edge:.1f} {PANEL[1] - BOTTOM}")]
        if 0 < rounds < count
        else []
    )
    return Chart(
        lines=(*recovery, *lines),
        key=(*lines, *recovery),
        across=tuple((x(at), str(at + 1)) for at in _some(count)),
        up=up,
        text=f"{panel[0].upper()}{panel[1:]} over {rounds} rounds and {count - rounds} lines of "
        "recovery: "
        f"{'; '.join(f'{words} {_ends(row)}' for words, row in shown.items())}.",
        box=PANEL,
    )


def _some(count: int, most: int = 8) -> list[int]:
    """Which of so many places get a tick: the first, the last, and evenly between."""
    wanted = min(count, most)
    return sorted({round(at * (count - 1) / max(wanted - 1, 1)) for at in range(wanted)})


def _linear_scale(values: Sequence[float]) -> tuple[Scale, Ticks]:
    """From 0, or the round value below the least, to the round value above the largest: at most six
    steps of 1, 2 or 5.
    """
    low, high = min(0.0, *values), max(0.0, *values) or 1.0
    exponent = math.floor(math.log10(high - low)) - 1
    step = next(
        mantissa * 10.0**power
        for power in (exponent, exponent + 1)
        for mantissa in (1, 2, 5)
        if (high - low) / (mantissa * 10.0**power) <= 5
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    y = _down(first * step, last * step)
    return y, tuple((y(at * step), f"{at * step:.6g}") for at in range(first, last + 1))


def _log_scale(values: Sequence[float]) -> tuple[Scale, Ticks]:
    """Powers of ten around the values; what is smaller than a millionth of the largest is drawn at
    the bottom.
    """
    high = max(*values, 0.0) or 1.0
    low = max(min([value for value in values if value > 0], default=high), _FLOOR * high)
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    place = _down(first, last)
    step = math.ceil((last - first) / 6)

    def y(value: float) -> float:
        return place(max(math.log10(max(value, low)), first))

    return y, tuple((place(at), f"{10.0**at:g}") for at in range(first, last + 1, step))


def _down(low: float, high: float) -> Scale:
    """A value's place below the top of the box."""
    return lambda value: TOP + (PANEL[1] - TOP - BOTTOM) * (high - value) / (high - low)


def _ends(row: Values) -> str:
    """First and last value of a line."""
    known = [value for value in row if value is not None]
    return f"from {known[0]:.3g} to {known[-1]:.3g}"
