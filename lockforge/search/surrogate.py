"""What a few measured cells say of all others: a Gaussian process over the six edges of a cell.

Shapes: k cells of a space, m measured ones. Values are only compared, so measurements become normal
scores of their ranks: percent, losses and outliers all look alike. The covariance of two cells is
exp(-(edges on which they differ) / length); length and noise are those of a small grid with the
highest marginal likelihood (Rasmussen and Williams 2006, equations 2.25, 2.26 and 5.8), chosen anew
at every fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.linalg import solve_triangular
from scipy.special import ndtri

from lockforge.records import EDGES, Cell

_LENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0)
_NOISES = (0.01, 0.05, 0.2)
_LEAST_VARIANCE = 1e-6


def normal_scores(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Normal quantiles of the ranks, mean zero; equal values share the mean of their ranks.

    >>> normal_scores(np.array([3.0, 100.0, 3.0])).round(2).tolist()
    [-0.33, 0.66, -0.33]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    raw: Float[np.ndarray, " m"] = ndtri((middle[inverse] + 1) / (len(values) + 1))
    scores: Float[np.ndarray, " m"] = raw - raw.mean()
    return scores


@dataclass(frozen=True)
class Belief:
    """Mean and standard deviation of every cell's score, given the measured ones; `own`: deviation
    of what edges do not explain.
    """

    mean: Float[np.ndarray, " k"]
    deviation: Float[np.ndarray, " k"]
    own: float


class Surrogate:
    """The distances of a list of cells, ready for fits."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        names = sorted({op for cell in cells for op in cell.ops}, key=lambda op: op.name)
        self.codes = np.array([[names.index(op) for op in cell.ops] for cell in cells], np.int8)

    def fit(self, measured: Int64[np.ndarray, " m"], values: Float[np.ndarray, " m"]) -> Belief:
        """What the measurements say of all cells; at least two are needed."""
        scores = normal_scores(values)
        apart = (self.codes[:, None, :] != self.codes[measured][None]).sum(-1)
        near = apart[measured]
        best: tuple[float, float, Float[np.ndarray, "m m"], float, float] | None = None
        for length in _LENGTHS:
            kernel = np.exp(-np.arange(len(EDGES) + 1) / length)[near]
            for noise in _NOISES:
                root = np.linalg.cholesky(kernel + noise * np.eye(len(measured)))
                white = solve_triangular(root, scores, lower=True)
                variance = float(white @ white) / len(measured) + _LEAST_VARIANCE
                likelihood = -0.5 * len(measured) * np.log(variance) - float(
                    np.log(np.diag(root)).sum()
                )
                if best is None or likelihood > best[0]:
                    best = (likelihood, length, root, variance, noise)
        assert best is not None  # noqa: S101
        _, length, root, variance, noise = best
        across = np.exp(-np.arange(len(EDGES) + 1) / length)[apart]
        spread = solve_triangular(root, across.T, lower=True)
        mean = spread.T @ solve_triangular(root, scores, lower=True)
        deviation = np.sqrt(variance * np.maximum(1 - (spread**2).sum(0), _LEAST_VARIANCE))
        return Belief(mean, deviation, float(np.sqrt(variance * noise)))
