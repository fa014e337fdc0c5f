"""Search by measuring: a budget of measurements, spent where the surrogate expects most, and a
choice among what was measured.

A measurement is anything that says how good a cell is on a task: a short training on the owner's
data, or, in `benchmark`, an entry of the source's column. Nothing here can ask about a target.

    best       expected improvement (Jones et al. 1998): the cell that is best on the source
    specific   P(good enough on the source) x how much poorer elsewhere than the poorest good one so
               far

"Good enough" is a bar, one of

    beats    a quantile of the space: the surrogate's draws for all cells say which score that is
    within   so much under the best measurement so far

How far a measurement is believed against the surrogate is `trust`: 1 where it is exact, 0 where it
says nothing that its neighbours do not.

Shapes: k cells of the space, poorer elsewhere means a lower `elsewhere`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from lockforge.errors import RecipeError
from lockforge.records import Cell
from lockforge.search.surrogate import Belief, Surrogate, normal_scores

Measure = Callable[[Sequence[Cell]], Sequence[float]]
Bar = Callable[["Explorer", Belief], float]
TRUST = 0.5  # in a short training: half of what the surrogate cannot explain is luck
FIRST = 24  # measured at random before anything is believed
STEP = 4  # measurements between two fits, at least
_LEAST_DOUBT = 0.05  # of the surrogate's deviation, left of a measured cell
# deviations that a choice lies above the bar: the poorest elsewhere of many is else the luckiest
# here
_SURE = 1.0
_SHARE_FOR_SOURCE = 0.4  # of a budget, spent on what is good on the source before looking elsewhere


@dataclass(frozen=True)
class Found:
    """Everything measured, with its place among the cells: in the order of measuring, the fittest
    first, the best on the source first.
    """

    cells: Sequence[Cell]
    measured: tuple[int, ...]
    values: tuple[float, ...]
    fittest: tuple[int, ...]
    best: tuple[int, ...]

    @property
    def chosen(self) -> Cell:
        """The fittest."""
        return self.cells[self.fittest[0]]


def believe(
    surrogate: Surrogate, measured: Sequence[int], values: Sequence[float], trust: float
) -> Belief:
    """The surrogate's word on every cell, moved towards the measurement where there is one.

    What edges do not explain is the cell's own as far as measurements are trusted: an unmeasured
    cell may have as much of it.
    """
    at = np.array(measured, np.int64)
    found = surrogate.fit(at, np.array(values))
    mean = found.mean.copy()
    mean[at] += trust * (normal_scores(np.array(values)) - mean[at])
    deviation = np.hypot(found.deviation, trust * found.own)
    deviation[at] = np.hypot(
        found.deviation[at] * max(1 - trust, _LEAST_DOUBT), found.own * np.sqrt(trust * (1 - trust))
    )
    return Belief(mean, deviation, found.own)


class Explorer:
    """Measurements of one task over a list of cells, and what they say of the others.

    Raises: RecipeError: a budget of fewer than two, or larger than the space.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        measure: Measure,
        budget: int,
        generator: np.random.Generator,
        *,
        surrogate: Surrogate | None = None,
        trust: float = TRUST,
    ) -> None:
        if not 2 <= budget <= len(cells):
            raise RecipeError(
                f"{budget} measurements of {len(cells)} cells",
                hint="measure at least 2 cells, and no cell twice",
            )
        self.cells = cells
        self.measure = measure
        self.budget = budget
        self.trust = trust
        self.surrogate = surrogate or Surrogate(cells)
        self.measured: list[int] = []
        self.values: list[float] = []
        self.take(
            generator.choice(len(cells), min(FIRST, max(2, budget // 2)), replace=False).tolist()
        )

    @property
    def left(self) -> int:
        """Measurements that may still be made."""
        return self.budget - len(self.measured)

    def take(self, places: Sequence[int]) -> None:
        """Measure some cells."""
        self.values += [float(value) for value in self.measure([self.cells[at] for at in places])]
        self.measured += places

    def belief(self) -> Belief:
        """What is believed of every cell now."""
        return believe(self.surrogate, self.measured, self.values, self.trust)

    def take_best(self, wanted: Float[np.ndarray, " k"]) -> bool:
        """Measure the cells that are wanted most and were not measured. Returns: whether there was
        any.
        """
        wanted = wanted.copy()
        wanted[self.measured] = -np.inf
        step = min(self.left, max(STEP, self.budget // 24))
        order = np.argsort(-wanted, kind="stable")[:step]
        chosen = [int(at) for at in order if np.isfinite(wanted[at])]
        if chosen:
            self.take(chosen)
        return bool(chosen)

    def improve(self, until: int) -> None:
        """Expected improvement until so many are measured."""
        while len(self.measured) < until:
            belief = self.belief()
            if not self.take_best(
                _expected(belief.mean - belief.mean[self.measured].max(), belief.deviation)
            ):
                return


def beats(share: float, cells: int, generator: np.random.Generator) -> Bar:
    """Better than such a share of the space, in (0, 1), by one draw for every cell: means alone lie
    too close together.
    """
    luck = generator.standard_normal(cells)
    return lambda _explorer, belief: float(
        np.quantile(belief.mean + luck * belief.deviation, share)
    )


def within(guard: float) -> Bar:
    """At most so much under the best measurement, in the measurements' own unit."""

    def bar(explorer: Explorer, _belief: Belief) -> float:
        values = np.array(explorer.values)
        order = np.argsort(values, kind="stable")
        return float(np.interp(values.max() - guard, values[order], normal_scores(values)[order]))

    return bar


def find_best(
    cells: Sequence[Cell],
    measure: Measure,
    budget: int,
    generator: np.random.Generator,
    *,
    trust: float = TRUST,
) -> Found:
    """The cell that is believed to be best among those measured."""
    explorer = Explorer(cells, measure, budget, generator, trust=trust)
    explorer.improve(budget)
    best = _best(explorer, explorer.belief())
    return Found(cells, tuple(explorer.measured), tuple(explorer.values), best, best)


def find_specific(
    cells: Sequence[Cell],
    measure: Measure,
    elsewhere: Float[np.ndarray, " k"],
    budget: int,
    generator: np.random.Generator,
    *,
    bar: Bar,
    trust: float = TRUST,
) -> Found:
    """A cell that is good on the measured task and poor elsewhere.

    Args: elsewhere: how good each cell is on other tasks, in [0, 1]: a prior that was not learned
        from source or target. bar: what is good enough on the source.
    """
    explorer = Explorer(cells, measure, budget, generator, trust=trust)
    explorer.improve(max(len(explorer.measured), int(_SHARE_FOR_SOURCE * budget)))
    while explorer.left:
        belief = explorer.belief()
        least = bar(explorer, belief)
        so_far = min((float(elsewhere[at]) for at in _surely(explorer, belief, least)), default=1.0)
        if not explorer.take_best(
            ndtr((belief.mean - least) / belief.deviation)
            * np.maximum(so_far + 0.02 - elsewhere, 0)
        ):
            break
    return _ordered(explorer, elsewhere, bar)


def find_between(
    cells: Sequence[Cell],
    source: Measure,
    other: Measure,
    budget: int,
    generator: np.random.Generator,
    *,
    bar: Bar,
    trust: float = TRUST,
) -> tuple[Found, Found]:
    """The same with measurements of the other task (TK): first the source is explored, then both
    where the source seems good.

    Args: budget: measurements of the source, and as many of the other task.
    Returns: the choice with the source's measurements, and the same choice with the other's.
    """
    explorer = Explorer(cells, source, budget, generator, trust=trust)
    explorer.improve(max(len(explorer.measured), int(_SHARE_FOR_SOURCE * budget)))
    there = Explorer(cells, other, budget, generator, surrogate=explorer.surrogate, trust=trust)
    while explorer.left or there.left:
        belief, beyond = explorer.belief(), there.belief()
        least = bar(explorer, belief)
        good = ndtr((belief.mean - least) / belief.deviation)
        both = set(there.measured) & _surely(explorer, belief, least)
        so_far = min((float(beyond.mean[at]) for at in both), default=float(beyond.mean.max()))
        wanted = good * _expected(so_far - beyond.mean, beyond.deviation)
        went = [side.take_best(wanted) for side in (explorer, there) if side.left]
        if not any(went):
            break
    found = _ordered(explorer, there.belief().mean, bar)
    return found, Found(
        cells, tuple(there.measured), tuple(there.values), found.fittest, found.best
    )


def _expected(
    above: Float[np.ndarray, " k"], deviation: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Expected improvement of Gaussians that lie so far above what there is (Jones et al. 1998,
    equation 15).
    """
    share = above / deviation
    gain: Float[np.ndarray, " k"] = above * ndtr(share) + deviation * np.exp(
        -(share**2) / 2
    ) / np.sqrt(2 * np.pi)
    return gain


def _ordered(explorer: Explorer, elsewhere: Float[np.ndarray, " k"], bar: Bar) -> Found:
    """Of the measured cells first those that are good enough, the poorest elsewhere first; then the
    others, best first.
    """
    belief = explorer.belief()
    least = bar(explorer, belief)
    best = _best(explorer, belief)
    sure = _surely(explorer, belief, least)
    good = sorted((at for at in best if at in sure), key=lambda at: elsewhere[at])
    rest = [at for at in best if at not in sure]
    return Found(
        explorer.cells, tuple(explorer.measured), tuple(explorer.values), (*good, *rest), best
    )


def _surely(explorer: Explorer, belief: Belief, least: float) -> set[int]:
    """The measured cells that lie above the bar by some of their doubt."""
    return {
        at for at in explorer.measured if belief.mean[at] - _SURE * belief.deviation[at] >= least
    }


def _best(explorer: Explorer, belief: Belief) -> tuple[int, ...]:
    """The measured cells, best on the source first."""
    return tuple(sorted(explorer.measured, key=lambda at: -belief.mean[at]))
