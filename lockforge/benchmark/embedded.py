"""Rows that choose by task embeddings alone, so that they need a task's images and measure nothing.

    paper S, TU, TK          ArchLock's recipe as its text has it: ageing evolution under the
                             packaged predictor, the fittest of the history
    paper+oracle S, TU, TK   the same as its authors' code runs it. READS THE ANSWERS: it is there
                             to show the difference, and is marked
    proxies                  every connected cell ranked by the predictor, which was trained on
                             zero-cost proxies: the first one, one run

S looks at the source's embedding, TU at made-up targets beside it, TK at the target's own (it plays
the auxiliary set's). The oracle refuses every cell under a true source accuracy, and of the
remembered cells takes the one with the lowest true accuracy on the target (in S: the highest on the
source, because each published S row is the table's own best cell).

Differs from the authors' code: 40 mutations follow the ten random cells, there they are among the
40 epochs; the embedding and the predictor are the packaged ones, the authors published neither;
their bars were set for single trainings, the table holds means.

Shapes: d entries of an embedding, k cells of the space, m made-up targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lockforge.benchmark._views import Column, Sealed
from lockforge.benchmark.tables._published import Table, percentiles
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.recipe import SearchRecipe
from lockforge.records import Cell, TaskEmbedding
from lockforge.search.evolution import Births, evolve, judge_by
from lockforge.search.measured import Measure
from lockforge.search.predictor import Predictor, load_predictor
from lockforge.search.ranking import standing
from lockforge.search.simulate import isotropic
from lockforge.spaces import all_cells, mutate, nasbench201, random_cell
from lockforge.spaces.cells import connected

SCHEMES = ("S", "TU", "TK")
PAPER = tuple(f"paper {scheme}" for scheme in SCHEMES)
ORACLE = tuple(f"paper+oracle {scheme}" for scheme in SCHEMES)
PROXIES = "proxies"
EMBEDDED = (*PAPER, *ORACLE, PROXIES)
EMBEDDED_PAIRS = frozenset(
    {"paper TK", "paper+oracle TU", "paper+oracle TK"}
)  # the oracle reads one target, so it needs one

SETTINGS = SearchRecipe(
    population=10,
    sample=10,
    history=30,
    steps=40,
    source_weight=2.0,
    simulated=10,
    cosine=0.9,
    construction="isotropic",
)
_BARS = {
    nasbench201.NAME: {"cifar10": 90.0, "cifar100": 71.0, "imagenet16_120": 45.0}
}  # true source accuracy, percent
_BAR_PERCENTILE = 97.0  # where the authors' code has no bar
_MUTATIONS = 16  # refused ones, after which the authors draw a random cell
_PANEL = 256

_EMBEDDINGS = {
    "S": "the source's embedding",
    "TU": f"the source's embedding and {SETTINGS.simulated} made-up ones "
    f"({SETTINGS.construction}, cosine {SETTINGS.cosine:g})",
    "TK": "the source's embedding and the target's, which plays the auxiliary set's",
}
_ANSWERS = "READS THE ANSWERS: refuses cells by their true source results, chooses by the true"
USED = {
    **{
        row: f"{_EMBEDDINGS[scheme]}; the packaged predictor; no measurement"
        for row, scheme in zip(PAPER, SCHEMES, strict=True)
    },
    **{
        row: f"{_ANSWERS} results on the {'source' if scheme == 'S' else 'target'}; "
        f"{_EMBEDDINGS[scheme]}; the packaged predictor"
        for row, scheme in zip(ORACLE, SCHEMES, strict=True)
    },
    PROXIES: "the source's embedding; the packaged predictor's ranking of every connected cell; "
    "no measurement",
}


@dataclass(frozen=True)
class Known:
    """What these rows know: the packaged predictor of the space, and the embedding of every task
    that has images.
    """

    predictor: Predictor
    vectors: Mapping[str, Float[np.ndarray, " d"]]


@dataclass(frozen=True)
class Views:
    """What a row may ask the table: sealed but for the oracle, whose reads are counted. `bar`: the
    least true source result it admits.
    """

    source: Measure
    target: Measure
    bar: float = -np.inf


def know(space: str, embeddings: Mapping[str, TaskEmbedding], files: Files) -> Known:
    """The predictor of a space, and the embeddings of tasks, checked to be of the kind it was
    trained on.

    Raises: DataError: two tasks were given the same images. IntegrityError: an embedding the
        predictor cannot read.
    """
    tasks_of: dict[str, list[str]] = {}
    for task, embedding in embeddings.items():
        tasks_of.setdefault(embedding.images, []).append(task)
    if faults := [
        f"{' and '.join(tasks)}: {digest[:12]}"
        for digest, tasks in tasks_of.items()
        if len(tasks) > 1
    ]:
        raise DataError(
            "different tasks were given the same images",
            faults=faults,
            hint="give each task its own, or leave one out",
        )
    predictor = load_predictor(space)
    return Known(
        predictor,
        {task: predictor.vector_of(embedding, files) for task, embedding in embeddings.items()},
    )


def lacking(row: str, source: str, targets: Sequence[str], known: Known | None) -> tuple[str, ...]:
    """The tasks without images that keep a row from running.

    >>> lacking("paper TU", "a", ("b",), None), lacking("S", "a", ("b",), None)
    (('a',), ())
    """
    if row not in EMBEDDED:
        return ()
    needed = (source, *targets) if row.endswith("TK") else (source,)
    return tuple(task for task in needed if known is None or task not in known.vectors)


def open_views(table: Table, row: str, source: str, targets: Sequence[str]) -> Views:
    """The columns for the oracle, refusals for every other row.

    Raises: DataError: no cell of the table reaches the oracle's bar.
    """
    if row not in ORACLE:
        return Views(Sealed(), Sealed())
    values = table.final[source]
    bar = _BARS.get(table.space, {}).get(
        source, float(values[percentiles(values) >= _BAR_PERCENTILE].min(initial=values.max()))
    )
    if values.max() < bar:
        raise DataError(
            f"the best cell reaches {values.max():g} on {source}, under the authors' bar of "
            f"{bar:g}",
            hint="leave out the rows paper+oracle",
        )
    everything = len(table.cells)
    target: Measure = (
        Sealed() if row.endswith(" S") else Column(table.cells, table.final[targets[0]], everything)
    )
    return Views(Column(table.cells, values, everything), target, bar)


def choose(
    row: str, known: Known, tasks: Sequence[str], views: Views, generator: np.random.Generator
) -> Cell:
    """The cell a row chooses.

    Args: row: of `EMBEDDED`. tasks: the source, then the targets; only TK looks at a target's
        embedding.
    """
    source = known.vectors[tasks[0]]
    if row == PROXIES:
        return _first(known.predictor, source)
    scheme = row.rsplit(" ", maxsplit=1)[1]
    if scheme == "TU":
        return evolve_away(row, known.predictor, source, views, generator)
    targets = known.vectors[tasks[1]][None] if scheme == "TK" else None
    return _evolve(row, known.predictor, source, targets, views, generator)


def evolve_away(
    row: str,
    predictor: Predictor,
    source: Float[np.ndarray, " d"],
    views: Views,
    generator: np.random.Generator,
    *,
    simulated: int = SETTINGS.simulated,
    cosine: float = SETTINGS.cosine,
) -> Cell:
    """TU: evolution away from made-up targets. Other numbers and cosines meet the same directions,
    the same first cells and mutations.
    """
    of_targets, of_cells = generator.spawn(2)
    return _evolve(
        row, predictor, source, isotropic(source, simulated, cosine, of_targets), views, of_cells
    )


def _evolve(
    row: str,
    predictor: Predictor,
    source: Float[np.ndarray, " d"],
    targets: Float[np.ndarray, "m d"] | None,
    views: Views,
    generator: np.random.Generator,
) -> Cell:
    judge = judge_by(predictor, source[None], targets, SETTINGS.source_weight)
    if row not in ORACLE:
        return evolve(judge, predictor.space, SETTINGS, generator).history[0]
    on_source, on_target = _once(views.source), _once(views.target)
    births = _admitted(predictor.space, lambda cell: on_source(cell) >= views.bar, generator)
    history = evolve(judge, predictor.space, SETTINGS, generator, births=births).history
    if targets is None:
        return max(history, key=on_source)
    return min(history, key=on_target)


def _once(measure: Measure) -> Callable[[Cell], float]:
    """One cell at a time, and none twice."""
    known: dict[Cell, float] = {}

    def value(cell: Cell) -> float:
        if cell not in known:
            (known[cell],) = measure([cell])
        return known[cell]

    return value


def _admitted(space: str, admit: Callable[[Cell], bool], generator: np.random.Generator) -> Births:
    """Cells are drawn again until one is admitted; a child is drawn anew from the whole space when
    all mutations were refused.
    """

    def first() -> Cell:
        while True:
            cell = random_cell(space, generator)
            if admit(cell):
                return cell

    def child_of(parent: Cell) -> Cell:
        for _ in range(_MUTATIONS):
            cell = mutate(space, parent, generator)
            if admit(cell):
                return cell
        return first()

    return first, child_of


def _first(predictor: Predictor, source: Float[np.ndarray, " d"]) -> Cell:
    """The connected cell that beats the largest share of a panel spread over the space."""
    cells = [cell for cell in all_cells(predictor.space) if connected(cell)]
    panel = [cells[at] for at in np.linspace(0, len(cells) - 1, _PANEL).round().astype(int)]
    return cells[int(np.argmax(standing(predictor, cells, panel, source[None])))]
