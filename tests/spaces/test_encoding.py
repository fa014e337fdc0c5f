"""One-hot codes."""

import numpy as np
import pytest

from lockforge.errors import RecipeError
from lockforge.records import Op
from lockforge.spaces import NAMES, all_cells, ops_of
from lockforge.spaces.cells import cell_of
from lockforge.spaces.encoding import one_hot


@pytest.mark.parametrize(("space", "width"), [("nasbench201", 30), ("transnas101", 24)])
def test_the_code_of_every_cell_reads_back_as_that_cell(space: str, width: int) -> None:
    """Six ones a row, one for each edge, and their places give the operations back, for all cells
    of the space.
    """
    cells, ops = all_cells(space), ops_of(space)
    code = one_hot(cells, space)
    assert code.shape == (len(cells), width)
    assert code.dtype == np.float32
    blocks = code.reshape(len(cells), 6, len(ops))
    assert (blocks.sum(axis=2) == 1).all()
    assert [tuple(ops[place] for place in row) for row in blocks.argmax(axis=2)] == [
        cell.ops for cell in cells
    ]


def test_no_cells_give_an_empty_table() -> None:
    """Zero rows, the same width."""
    assert [one_hot([], space).shape for space in NAMES] == [(0, 30), (0, 24)]


def test_a_cell_of_another_space_is_refused() -> None:
    """TransNAS has no pooling, and the message says so."""
    with pytest.raises(RecipeError, match="avg_pool_3x3"):
        one_hot([cell_of([Op.pool3x3] * 6)], "transnas101")
