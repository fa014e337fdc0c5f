"""Search spaces: their cells, their networks, their codes.

`ops_of`, `random_cell`, `mutate` and `all_cells` take the space's name; networks are in
`lockforge.models.networks` (needs torch).
"""

from types import ModuleType

import numpy as np

from lockforge.errors import RecipeError
from lockforge.records import Cell, Op
from lockforge.spaces import nasbench201, transnas101
from lockforge.spaces.cells import change_one_edge, draw, every

NAMES: tuple[str, ...] = (nasbench201.NAME, transnas101.NAME)

__all__ = ["NAMES", "all_cells", "mutate", "ops_of", "random_cell", "space"]


def space(name: str) -> ModuleType:
    """The module of a space: `OPS`, `random_cell`, `mutate`, `all_cells`, `published`.

    Raises: RecipeError: no such space.

    >>> space("transnas101").MACRO
    '41414'
    """
    match name:
        case nasbench201.NAME:
            return nasbench201
        case transnas101.NAME:
            return transnas101
    raise RecipeError(f"there is no search space {name!r}", hint=f"use one of: {', '.join(NAMES)}")


def ops_of(name: str) -> tuple[Op, ...]:
    """The operations of a space, in the order of its one-hot code."""
    ops: tuple[Op, ...] = space(name).OPS
    return ops


def random_cell(name: str, generator: np.random.Generator) -> Cell:
    """A cell drawn uniformly from the space."""
    return draw(ops_of(name), generator)


def mutate(name: str, cell: Cell, generator: np.random.Generator) -> Cell:
    """The cell with one edge, drawn uniformly, given another operation of the space."""
    return change_one_edge(ops_of(name), cell, generator)


def all_cells(name: str) -> tuple[Cell, ...]:
    """Every cell of the space."""
    return every(ops_of(name))
