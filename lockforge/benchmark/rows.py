"""The rows of the benchmark: each is a way to choose a cell, with what it may read.

    S          source measurements
    TU table   source measurements; a prior over cells from the columns of tasks that are neither
               source nor target
    TU shipped source measurements; the packaged meta-bench (real short trainings on other data): no
    table
    TK         source measurements, and counted measurements of the target's column, which plays the
               auxiliary data
    random     source measurements of random cells, the best of them
    evolution  source measurements of ageing evolution (Real et al. 2019: population 16, sample 4),
               the best of them

The rows that need a task's images are in `embedded`.

Shapes: k cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lockforge.benchmark import embedded
from lockforge.benchmark._views import Column, Sealed
from lockforge.benchmark._yardsticks import Run, floor_at, p_value
from lockforge.benchmark.embedded import (
    EMBEDDED,
    EMBEDDED_PAIRS,
    ORACLE,
    PROXIES,
    Known,
    lacking,
    open_views,
)
from lockforge.benchmark.tables._published import Table, convert_table, percentiles, read_table
from lockforge.errors import RecipeError
from lockforge.randomness import numpy_generator
from lockforge.records import Cell
from lockforge.search.measured import TRUST, Measure, beats, find_best, find_between, find_specific
from lockforge.search.meta_bench import load_meta_bench
from lockforge.spaces import mutate
from lockforge.spaces.cells import connected

__all__ = [
    "ROWS",
    "Line",
    "Plan",
    "as_json",
    "convert_table",
    "jobs_of",
    "not_run",
    "read_table",
    "run_rows",
    "summary",
]

ROWS = ("S", "TU table", "TU shipped", "TK", "random", "evolution", *EMBEDDED)
PAIRED = (
    frozenset({"TU table", "TK"}) | EMBEDDED_PAIRS
)  # one choice for each pair of source and target; the others choose once a source
_POPULATION, _SAMPLE = 16, 4


@dataclass(frozen=True)
class Plan:
    """What the rows may spend: measurements of the source (and in TK of the other task), seeds;
    what counts as good enough.
    """

    measurements: int
    seeds: int = 10
    good_enough: float = 0.985
    least: float = 98.0


@dataclass(frozen=True)
class Line:
    """One row for one source and one or all targets, over all seeds. Percentiles in percent; points
    are percent of accuracy, or loss.
    """

    row: str
    source: str
    targets: tuple[str, ...]
    chosen: tuple[str, ...]
    source_percentile: tuple[float, ...]
    target_percentile: tuple[float, ...]
    matched: tuple[float, ...]
    floor: tuple[float, ...]
    floor_at_least: float
    source_points_lost: tuple[float, ...]
    target_points_lost: tuple[float, ...]
    source_measurements: int
    other_measurements: int
    used: str
    reads_answers: bool = False


Job = tuple[str, str, tuple[str, ...]]  # row, source, targets


def jobs_of(table: Table, rows: Sequence[str], sources: Sequence[str] = ()) -> list[Job]:
    """What there is to run: a job for each row and source, or for each row, source and target.
    `paper` is its three schemes.

    Raises: RecipeError: unknown rows and tasks, all at once; or a prior without a task to come
        from.
    """
    rows = list(
        dict.fromkeys(
            name
            for row in rows
            for name in ([one for one in EMBEDDED if one.startswith(f"{row} ")] or [row])
        )
    )
    unknown = [name for name in rows if name not in ROWS] + [
        name for name in sources if name not in table.tasks
    ]
    if unknown:
        raise RecipeError(
            f"unknown: {', '.join(unknown)}",
            hint=f"rows: {', '.join(ROWS)}; tasks: {', '.join(table.tasks)}",
        )
    if "TU table" in rows and len(table.tasks) < 3:
        raise RecipeError(
            "a prior from other tasks needs a third task in the table",
            hint="leave out the row `TU table`",
        )
    jobs: list[Job] = []
    for row in rows:
        for source in dict.fromkeys(sources or table.tasks):
            others = tuple(task for task in table.tasks if task != source)
            jobs += (
                [(row, source, (target,)) for target in others]
                if row in PAIRED
                else [(row, source, others)]
            )
    return jobs


def not_run(jobs: Sequence[Job], known: Known | None) -> list[dict[str, Any]]:
    """The jobs that cannot be run, with the reason: tasks without images."""
    absent = [(job, lacking(*job, known)) for job in jobs]
    return [
        {
            "row": row,
            "source": source,
            "targets": list(targets),
            "why": "not run: no images",
            "no_images_of": list(tasks),
        }
        for (row, source, targets), tasks in absent
        if tasks
    ]


def run_rows(
    table: Table,
    rows: Sequence[str],
    plan: Plan,
    seed: int,
    *,
    sources: Sequence[str] = (),
    known: Known | None = None,
    tick: Callable[[int, int, str], None] | None = None,
) -> list[tuple[Line, list[Run]]]:
    """Run every row for every source (and target), all seeds. What needs images that are not known
    is left out, see `not_run`.

    Raises: RecipeError: see `jobs_of`, or a budget that does not fit the space.
    """
    jobs = [job for job in jobs_of(table, rows, sources) if not lacking(*job, known)]
    found = []
    for at, (row, source, targets) in enumerate(jobs):
        found.append(_one(table, row, source, targets, plan, seed, known))
        if tick:
            tick(at + 1, len(jobs), f"{row}: {source}")
    return found


def _one(
    table: Table,
    row: str,
    source: str,
    targets: tuple[str, ...],
    plan: Plan,
    seed: int,
    known: Known | None,
) -> tuple[Line, list[Run]]:
    sources = percentiles(table.final[source])
    there = np.mean([percentiles(table.final[target]) for target in targets], axis=0)
    place = {cell: at for at, cell in enumerate(table.cells)}
    trust = TRUST if source in table.early else 1.0  # a final column is exact
    prior = _elsewhere(table, row, source, targets)
    runs, chosen, asked, other = [], [], 0, 0
    for number in range(1 if row == PROXIES else plan.seeds):
        measure: Measure = Column(
            table.cells, table.early.get(source, table.final[source]), plan.measurements
        )
        sealed: Measure = Sealed()
        if row == "TK":
            (target,) = targets
            sealed = Column(
                table.cells, table.early.get(target, table.final[target]), plan.measurements
            )
        generator = numpy_generator(seed, "benchmark", row, source, *targets, number)
        if known and row in EMBEDDED:
            views = open_views(table, row, source, targets)
            measure, sealed = views.source, views.target
            cell = embedded.choose(row, known, (source, *targets), views, generator)
        else:
            cell = _choose(table, row, trust, measure, sealed, prior, plan, generator)
        at = place[cell]
        chosen.append(at)
        runs.append(Run(float(sources[at]), float(there[at]), sources, there))
        asked = max(asked, measure.asked if isinstance(measure, Column) else 0)
        other = max(other, sealed.asked if isinstance(sealed, Column) else 0)
    best = [table.final[target].max() for target in targets]
    line = Line(
        row=row,
        source=source,
        targets=targets,
        chosen=tuple(str(table.cells[at]) for at in chosen),
        source_percentile=tuple(run.source for run in runs),
        target_percentile=tuple(run.target for run in runs),
        matched=tuple(float(run.matched.mean()) for run in runs),
        floor=tuple(run.floor for run in runs),
        floor_at_least=floor_at(sources, there, plan.least),
        source_points_lost=tuple(
            float(table.final[source].max() - table.final[source][at]) for at in chosen
        ),
        target_points_lost=tuple(
            float(
                np.mean(
                    [
                        top - table.final[target][at]
                        for top, target in zip(best, targets, strict=True)
                    ]
                )
            )
            for at in chosen
        ),
        source_measurements=asked,
        other_measurements=other,
        used=_USED[row],
        reads_answers=row in ORACLE,
    )
    return line, runs


_USED = {
    "S": "source measurements",
    "TU table": "source measurements; other tasks' columns, source and target left out",
    "TU shipped": "source measurements; the packaged meta-bench: short trainings on other data, "
    "no table",
    "TK": "source measurements; measurements of the target's column in place of auxiliary data",
    "random": "source measurements",
    "evolution": "source measurements",
    **embedded.USED,
}


def _elsewhere(
    table: Table, row: str, source: str, targets: tuple[str, ...]
) -> Float[np.ndarray, " k"] | None:
    """The prior over cells, in [0, 1]."""
    if row == "TU table":
        columns = [
            percentiles(table.final[task])
            for task in table.tasks
            if task != source and task not in targets
        ]
        return np.asarray(np.mean(columns, axis=0) / 100)
    if row == "TU shipped":
        return load_meta_bench(table.space).good_in_general(table.cells)
    return None


def _choose(
    table: Table,
    row: str,
    trust: float,
    measure: Measure,
    other: Measure,
    elsewhere: Float[np.ndarray, " k"] | None,
    plan: Plan,
    generator: np.random.Generator,
) -> Cell:
    if row == "S":
        return find_best(table.cells, measure, plan.measurements, generator, trust=trust).chosen
    if row == "random":
        return _random(table, measure, plan.measurements, generator)
    if row == "evolution":
        return _evolution(table, measure, plan.measurements, generator)
    bar = beats(plan.good_enough, len(table.cells), generator)
    if row == "TK":
        return find_between(
            table.cells, measure, other, plan.measurements, generator, bar=bar, trust=trust
        )[0].chosen
    if elsewhere is None:
        raise ValueError(f"no prior for the row {row!r}")
    return find_specific(
        table.cells, measure, elsewhere, plan.measurements, generator, bar=bar, trust=trust
    ).chosen


def _random(table: Table, measure: Measure, budget: int, generator: np.random.Generator) -> Cell:
    cells = [table.cells[at] for at in generator.choice(len(table.cells), budget, replace=False)]
    best: Cell = cells[int(np.argmax(measure(cells)))]
    return best


def _evolution(table: Table, measure: Measure, budget: int, generator: np.random.Generator) -> Cell:
    known: dict[Cell, float] = {}

    def value(cell: Cell) -> float:
        if cell not in known:
            (known[cell],) = measure([cell])
        return known[cell]

    alive = [
        table.cells[at]
        for at in generator.choice(len(table.cells), min(_POPULATION, budget), replace=False)
    ]
    for cell in alive:
        value(cell)
    for _ in range(
        50 * budget
    ):  # a child that is known already costs nothing, so the steps are bounded too
        if len(known) == budget:
            break
        drawn = [alive[int(at)] for at in generator.integers(len(alive), size=_SAMPLE)]
        child = mutate(table.space, max(drawn, key=value), generator)
        if connected(child):
            value(child)
            alive = [*alive[1:], child]
    return max(known, key=lambda cell: known[cell])


def summary(found: Sequence[tuple[Line, list[Run]]], seed: int) -> list[dict[str, Any]]:
    """A row for each source (all its targets together), and one for each way over all sources:
    means, gain over chance, p, regret.
    """
    groups: dict[tuple[str, str], list[tuple[Line, list[Run]]]] = {}
    for line, runs in found:
        groups.setdefault((line.row, line.source), []).append((line, runs))
        groups.setdefault((line.row, "all"), []).append((line, runs))
    rows = []
    for (row, source), items in groups.items():
        runs = [run for _, some in items for run in some]
        lines = [line for line, _ in items]
        mean = {
            name: float(np.mean([value for line in lines for value in getattr(line, name)]))
            for name in (
                "source_percentile",
                "target_percentile",
                "matched",
                "floor",
                "source_points_lost",
                "target_points_lost",
            )
        }
        spread = float(np.mean([run.matched.std() for run in runs]))
        rows.append(
            {
                "row": row,
                "source": source,
                "reads_answers": row in ORACLE,
                **mean,
                "matched_sd": spread,
                "gain": mean["matched"] - mean["target_percentile"],
                "gain_alike": float(np.mean([run.alike.mean() - run.target for run in runs])),
                "p": p_value(runs, numpy_generator(seed, "benchmark", "p", row, source)),
                "floor_at_least": float(np.mean([line.floor_at_least for line in lines])),
                "regret": float(
                    np.mean(
                        [
                            value - line.floor_at_least
                            for line in lines
                            for value in line.target_percentile
                        ]
                    )
                ),
                "runs": len(runs),
            }
        )
    return rows


def as_json(found: Sequence[tuple[Line, list[Run]]]) -> list[dict[str, Any]]:
    """Every line with all its seeds."""
    return [asdict(line) for line, _ in found]
