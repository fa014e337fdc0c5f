"""Search by measuring: a budget of measurements, spent where the surrogate expects most, and a choice among what was measured.

A measurement is anything that says how good a cell is on a task: a short training on the owner's data, or, in `benchmark`, an entry of
the source's column. Nothing here can ask about a target.

    best       expected improvement (Jones et al. 1998): the cell that is best on the source
    specific   P(good enough on the source) x how much poorer elsewhere than the poorest good one so far

"Good enough" is a quantile of the space: the surrogate's draws for all cells say which score that is.

Shapes: k cells of the space, poorer elsewhere means a lower `elsewhere`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import ndtr

from lockforge.errors import RecipeError
from lockforge.records import Cell
from lockforge.search.surrogate import Belief, Surrogate

Measure = Callable[[Sequence[Cell]], Sequence[float]]
_FIRST = 24  # measured at random before anything is believed
_STEP = 4  # measurements between two fits, at least
_SHARE_FOR_SOURCE = 0.4  # of a budget, spent on what is good on the source before looking elsewhere


@dataclass(frozen=True)
class Found:
    """The choice, and everything measured, in order, with its place among the cells."""

    chosen: Cell
    measured: tuple[int, ...]
    values: tuple[float, ...]


class Explorer:
    """Measurements of one task over a list of cells, and what they say of the others.

    Raises: RecipeError: a budget of fewer than two, or larger than the space.
    """

    def __init__(
        self, cells: Sequence[Cell], measure: Measure, budget: int, generator: np.random.Generator, surrogate: Surrogate | None = None
    ) -> None:
        if not 2 <= budget <= len(cells):
            raise RecipeError(f"{budget} measurements of {len(cells)} cells", hint="measure at least 2 cells, and no cell twice")
        self.cells = cells
        self.measure = measure
        self.budget = budget
        self.surrogate = surrogate or Surrogate(cells)
        self.measured: list[int] = []
        self.values: list[float] = []
        self.take(generator.choice(len(cells), min(_FIRST, max(2, budget // 2)), replace=False).tolist())

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
        return self.surrogate.fit(np.array(self.measured, np.int64), np.array(self.values))

    def take_best(self, wanted: Float[np.ndarray, " k"]) -> bool:
        """Measure the cells that are wanted most and were not measured. Returns: whether there was any."""
        wanted = wanted.copy()
        wanted[self.measured] = -np.inf
        step = min(self.left, max(_STEP, self.budget // 24))
        order = np.argsort(-wanted, kind="stable")[:step]
        chosen = [int(at) for at in order if np.isfinite(wanted[at])]
        if chosen:
            self.take(chosen)
        return bool(chosen)

    def improve(self, until: int) -> None:
        """Expected improvement until so many are measured."""
        while len(self.measured) < until:
            belief = self.belief()
            if not self.take_best(_expected(belief.mean - belief.mean[self.measured].max(), belief.deviation)):
                return


def find_best(cells: Sequence[Cell], measure: Measure, budget: int, generator: np.random.Generator) -> Found:
    """The cell that is best on the measured task, by the surrogate's mean among those measured, which forgives a lucky measurement."""
    explorer = Explorer(cells, measure, budget, generator)
    explorer.improve(budget)
    at = explorer.measured[int(np.argmax(explorer.belief().mean[explorer.measured]))]
    return Found(cells[at], tuple(explorer.measured), tuple(explorer.values))


def find_specific(
    cells: Sequence[Cell],
    measure: Measure,
    elsewhere: Float[np.ndarray, " k"],
    budget: int,
    generator: np.random.Generator,
    *,
    good_enough: float,
) -> Found:
    """A cell that is good on the measured task and poor elsewhere.

    Args: elsewhere: how good each cell is on other tasks, in [0, 1]: a prior that was not learned from source or target. good_enough: the
        share of the space that the cell has to beat on the source, in (0, 1).
    """
    explorer = Explorer(cells, measure, budget, generator)
    luck = generator.standard_normal(len(cells))
    explorer.improve(max(len(explorer.measured), int(_SHARE_FOR_SOURCE * budget)))
    while explorer.left:
        belief = explorer.belief()
        bar = _bar(belief, luck, good_enough)
        so_far = min((float(elsewhere[at]) for at in explorer.measured if belief.mean[at] >= bar), default=1.0)
        if not explorer.take_best(ndtr((belief.mean - bar) / belief.deviation) * np.maximum(so_far + 0.02 - elsewhere, 0)):
            break
    at = _poorest(explorer, elsewhere, _bar(explorer.belief(), luck, good_enough))
    return Found(cells[at], tuple(explorer.measured), tuple(explorer.values))


def find_between(
    cells: Sequence[Cell], source: Measure, other: Measure, budgets: tuple[int, int], generator: np.random.Generator, *, good_enough: float
) -> tuple[Found, Found]:
    """The same with measurements of the other task (TK): first the source is explored, then both where the source seems good.

    Args: budgets: measurements of the source and of the other task.
    Returns: the choice with the source's measurements, and the same choice with the other's.
    """
    explorer = Explorer(cells, source, budgets[0], generator)
    luck = generator.standard_normal(len(cells))
    explorer.improve(max(len(explorer.measured), int(_SHARE_FOR_SOURCE * budgets[0])))
    there = Explorer(cells, other, budgets[1], generator, explorer.surrogate)
    while explorer.left or there.left:
        belief, beyond = explorer.belief(), there.belief()
        bar = _bar(belief, luck, good_enough)
        good = ndtr((belief.mean - bar) / belief.deviation)
        so_far = min((float(beyond.mean[at]) for at in there.measured if belief.mean[at] >= bar), default=float(beyond.mean.max()))
        wanted = good * _expected(so_far - beyond.mean, beyond.deviation)
        went = [side.take_best(wanted) for side in (explorer, there) if side.left]
        if not any(went):
            break
    beyond = there.belief()
    at = _poorest(explorer, _unit(beyond.mean), _bar(explorer.belief(), luck, good_enough))
    return tuple(Found(cells[at], tuple(side.measured), tuple(side.values)) for side in (explorer, there))  # type: ignore[return-value]  # two sides


def _expected(above: Float[np.ndarray, " k"], deviation: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Expected improvement of Gaussians that lie so far above what there is (Jones et al. 1998, equation 15)."""
    share = above / deviation
    gain: Float[np.ndarray, " k"] = above * ndtr(share) + deviation * np.exp(-(share**2) / 2) / np.sqrt(2 * np.pi)
    return gain


def _bar(belief: Belief, luck: Float[np.ndarray, " k"], good_enough: float) -> float:
    """The score that so great a share of the space does not reach, by one draw for every cell: means alone lie too close together."""
    return float(np.quantile(belief.mean + luck * belief.deviation, good_enough))


def _poorest(explorer: Explorer, elsewhere: Float[np.ndarray, " k"], bar: float) -> int:
    """Among the measured cells that are good enough the poorest elsewhere; where none is, the best on the source."""
    mean = explorer.belief().mean
    good = [at for at in explorer.measured if mean[at] >= bar]
    if not good:
        return max(explorer.measured, key=lambda at: mean[at])
    return min(good, key=lambda at: elsewhere[at])


def _unit(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    ranks: Int64[np.ndarray, " k"] = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return ranks / max(1, len(values) - 1)
