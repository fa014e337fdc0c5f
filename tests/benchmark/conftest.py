"""A made-up table whose answers are known, and embeddings for its tasks."""

import numpy as np
import pytest

from lockforge.benchmark.embedded import Known
from lockforge.benchmark.tables._published import Table
from lockforge.search.predictor import load_predictor
from lockforge.spaces import all_cells


@pytest.fixture
def table(rng: np.random.Generator) -> Table:
    """Three tasks over the small space: a shared part by edges, a part of each task's own, a little
    noise.
    """
    cells = all_cells("transnas101")
    codes = np.array([[list(type(cell.ops[0])).index(op) for op in cell.ops] for cell in cells])
    shared = rng.normal(size=(6, 8))

    def values(own: float) -> np.ndarray:
        parts = shared + own * rng.normal(size=(6, 8))
        return (
            50
            + sum(parts[edge, codes[:, edge]] for edge in range(6))
            + 0.1 * rng.normal(size=len(cells))
        )

    return Table("transnas101", cells, {"a": values(0.3), "b": values(1.0), "c": values(1.0)}, {})


@pytest.fixture(scope="session")
def known() -> Known:
    """The packaged predictor, and three of its own training tasks as the embeddings of a, b and
    c.
    """
    predictor = load_predictor("transnas101")
    return Known(
        predictor, {name: predictor.tasks[at] for name, at in (("a", 0), ("b", 7), ("c", 14))}
    )
