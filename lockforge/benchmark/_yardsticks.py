"""What a choice is held against: the floor, matched random cells, chance.

Shapes: k cells, m of them matched. All values are percentiles: the share of cells strictly worse,
    in percent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_DRAWS = 20_000
_BAND = 1.0  # percentiles


@dataclass(frozen=True)
class Run:
    """One choice: its source percentile, its mean target percentile, and the same of every cell of
    the space.
    """

    source: float
    target: float
    sources: Float[np.ndarray, " k"]
    targets: Float[np.ndarray, " k"]

    @property
    def matched(self) -> Float[np.ndarray, " m"]:
        """The target percentiles of all cells at least as good on the source: what a lucky random
        choice would get.
        """
        return self.targets[self.sources >= self.source]

    @property
    def alike(self) -> Float[np.ndarray, " m"]:
        """Those of cells about as good on the source, within a percentile either way.

        `matched` is for choices that are good on their source: one at the 80th percentile is held
        against all above, and "gains" unlocked.
        """
        return self.targets[np.abs(self.sources - self.source) <= _BAND]

    @property
    def floor(self) -> float:
        """The lowest of them: what an oracle would get."""
        return float(self.matched.min())


def floor_at(
    sources: Float[np.ndarray, " k"], targets: Float[np.ndarray, " k"], least: float
) -> float:
    """The lowest target percentile among cells with at least that source percentile."""
    return float(targets[sources >= least].min())


def p_value(runs: Sequence[Run], generator: np.random.Generator) -> float:
    """How often random cells, each matched to a run's source percentile, have together as low a
    mean target percentile; one-sided.

    A draw replaces every run's cell by a random one at least as good on its source; (1 + as low) /
    (1 + draws).
    """
    ours = float(np.mean([run.target for run in runs]))
    totals = np.zeros(_DRAWS)
    for run in runs:
        matched = run.matched
        totals += matched[generator.integers(len(matched), size=_DRAWS)]
    return float((1 + (totals / len(runs) <= ours + 1e-9).sum()) / (1 + _DRAWS))
