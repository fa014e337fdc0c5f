"""Cells as vectors, for predictors."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lockforge.errors import RecipeError
from lockforge.records import EDGES, Cell
from lockforge.spaces import ops_of


def one_hot(cells: Sequence[Cell], space: str) -> Float[np.ndarray, "k e"]:
    """One row a cell: for each edge in the order of `EDGES`, a one at the place of its operation in
    `ops_of(space)`; float32.

    Returns: k cells x e = 30 (nasbench201) or 24 (transnas101).
    Raises: RecipeError: a cell holds an operation that the space does not have.

    >>> from lockforge.spaces.cells import cell_of
    >>> from lockforge.records import Op
    >>> one_hot([cell_of([Op.skip] * 6)], "transnas101")[0, :8].tolist()
    [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    place = {op: index for index, op in enumerate(ops_of(space))}
    rows = np.zeros((len(cells), len(EDGES), len(place)), dtype=np.float32)
    edges = np.arange(len(EDGES))
    for row, cell in zip(rows, cells, strict=True):
        foreign = [op.value for op in cell.ops if op not in place]
        if foreign:
            raise RecipeError(
                f"{cell} is no cell of {space}: {', '.join(foreign)}",
                hint=f"{space} has: {', '.join(place)}",
            )
        row[edges, [place[op] for op in cell.ops]] = 1.0
    return rows.reshape(len(cells), len(EDGES) * len(place))
