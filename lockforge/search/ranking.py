"""Copeland ranking: ask the predictor about every pair of cells on every task, count wins.

Shapes: k cells, t tasks, d entries of an embedding. A question is one unordered pair on one task;
    rank 0 is best.
Differs: the paper's Algorithm 2, read literally, ranks the cell with the most wins last; best first
    is meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from lockforge.records import Cell
from lockforge.search.predictor import Predictor


@dataclass(frozen=True)
class Ranking:
    """`ranks[i]` of cell i (0 = best), the wins they follow from, and how many questions that
    took.
    """

    ranks: Int64[np.ndarray, " k"]
    wins: Int64[np.ndarray, " k"]
    questions: int


def rank(predictor: Predictor, cells: Sequence[Cell], vectors: Float[np.ndarray, "t d"]) -> Ranking:
    """Rank cells over one or several tasks: all pairs at once, the wins of all tasks added.

    A pair whose logit is exactly 0 (a cell beside itself) gives neither a win. Equal wins: the
    spelling of the cell decides, then its place in the list, so that the ranking of different cells
    does not depend on their order.
    """
    return from_logits(cells, predictor.ask_all(cells, vectors))


def from_logits(cells: Sequence[Cell], logits: Float[np.ndarray, "t k k"]) -> Ranking:
    """Copeland: a cell's wins over all others on all tasks, best first."""
    t, k, _ = logits.shape
    wins = (logits > 0).sum(axis=(0, 2)).astype(np.int64)
    order = sorted(range(k), key=lambda i: (-int(wins[i]), str(cells[i]), i))
    ranks = np.empty(k, dtype=np.int64)
    ranks[order] = np.arange(k)
    return Ranking(ranks, wins, t * k * (k - 1) // 2)


def standing(
    predictor: Predictor,
    cells: Sequence[Cell],
    panel: Sequence[Cell],
    vectors: Float[np.ndarray, "t d"] | None,
) -> Float[np.ndarray, " k"]:
    """How large a share of a reference panel each cell beats, over all tasks: a whole space is
    ranked in time linear in its size.

    Args: vectors: embeddings; None asks on the mean task of the training, without any embedding. A
        cell beside itself is half a win.
    """
    return predictor.wins_over(cells, panel, vectors) / (
        len(panel) * (1 if vectors is None else len(vectors))
    )
