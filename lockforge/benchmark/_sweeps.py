"""How much the made-up targets matter: the row `paper TU` with other similarities (ArchLock, table
4) and other numbers of them (figure 3).

Every setting of a seed meets the same directions, first cells and mutations, so that settings
differ in nothing but themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lockforge.benchmark.embedded import SETTINGS, Known, evolve_away, open_views
from lockforge.benchmark.tables._published import Table, percentiles
from lockforge.randomness import numpy_generator

ROW = "paper TU"
COSINES = (0.1, 0.3, 0.5, 0.7, 0.9)
NUMBERS = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Point:
    """One setting on one source, over all seeds; percentiles in percent, the targets' averaged."""

    sweep: str
    value: float
    source: str
    targets: tuple[str, ...]
    source_percentile: tuple[float, ...]
    target_percentile: tuple[float, ...]


def sweep(
    table: Table,
    known: Known,
    seeds: int,
    seed: int,
    *,
    sources: Sequence[str] = (),
    tick: Callable[[int, int, str], None] | None = None,
) -> list[Point]:
    """Both sweeps, for every source with images; the authors' setting is a point of both, and is
    run once.

    >>> settings()[0], len(settings())
    ((0.1, 10), 9)
    """
    wanted = [source for source in sources or table.tasks if source in known.vectors]
    jobs = [(source, cosine, number) for source in wanted for cosine, number in settings()]
    found = {}
    for at, (source, cosine, number) in enumerate(jobs):
        found[source, cosine, number] = _places(table, known, source, (cosine, number), seeds, seed)
        if tick:
            tick(at + 1, len(jobs), f"{ROW}: {source}, {number} at cosine {cosine:g}")
    by_cosine = [
        _point(table, "cosine", c, source, found[source, c, SETTINGS.simulated])
        for source in wanted
        for c in COSINES
    ]
    by_number = [
        _point(table, "number", n, source, found[source, SETTINGS.cosine, n])
        for source in wanted
        for n in NUMBERS
    ]
    return by_cosine + by_number


def settings() -> list[tuple[float, int]]:
    """Every pair of a cosine and a number that is looked at."""
    pairs = [(cosine, SETTINGS.simulated) for cosine in COSINES] + [
        (SETTINGS.cosine, number) for number in NUMBERS
    ]
    return list(dict.fromkeys(pairs))


def _places(
    table: Table, known: Known, source: str, setting: tuple[float, int], seeds: int, seed: int
) -> list[int]:
    """Where the chosen cells stand in the table."""
    cosine, number = setting
    targets = tuple(task for task in table.tasks if task != source)
    views = open_views(table, ROW, source, targets)
    place = {cell: at for at, cell in enumerate(table.cells)}
    found = []
    for count in range(seeds):
        generator = numpy_generator(
            seed, "benchmark", ROW, source, *targets, count
        )  # that of the row itself
        cell = evolve_away(
            ROW,
            known.predictor,
            known.vectors[source],
            views,
            generator,
            simulated=number,
            cosine=cosine,
        )
        found.append(place[cell])
    return found


def _point(table: Table, kind: str, value: float, source: str, places: Sequence[int]) -> Point:
    targets = tuple(task for task in table.tasks if task != source)
    on_source = percentiles(table.final[source])[list(places)]
    on_targets = np.mean(
        [percentiles(table.final[target])[list(places)] for target in targets], axis=0
    )
    return Point(
        kind, value, source, targets, tuple(map(float, on_source)), tuple(map(float, on_targets))
    )
