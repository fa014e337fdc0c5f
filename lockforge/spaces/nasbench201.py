"""NAS-Bench-201: five operations on six edges, 15,625 cells. Dong & Yang 2020, arXiv:2001.00326.

Skeleton: 3x3 stem with 16 channels, three stages of five cells at 16, 32 and 64 channels, a
residual block that halves the image before the second and the third stage, batch norm, ReLU,
global average pooling, linear head.
"""

import numpy as np

from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.cells import change_one_edge, draw, every

NAME = "nasbench201"
OPS: tuple[Op, ...] = (Op.none, Op.skip, Op.conv1x1, Op.conv3x3, Op.pool3x3)
WIDTHS: tuple[int, ...] = (1, 2, 4)  # channels of each stage, in stem channels


def random_cell(generator: np.random.Generator) -> Cell:
    """A cell drawn uniformly from all 15,625."""
    return draw(OPS, generator)


def mutate(cell: Cell, generator: np.random.Generator) -> Cell:
    """The cell with one edge given another operation."""
    return change_one_edge(OPS, cell, generator)


def all_cells() -> tuple[Cell, ...]:
    """All 15,625 cells, in the order of `OPS` with the last edge changing fastest."""
    return every(OPS)


def published(classes: int, shape: tuple[int, int, int], cell: Cell) -> Architecture:
    """The cell in the published skeleton: 16 stem channels, 5 cells a stage (the benchmark's
    images are 3 x 32 x 32 or 3 x 16 x 16).
    """
    return Architecture(
        space="nasbench201",
        cell=cell,
        stem_channels=16,
        cells_per_stage=5,
        classes=classes,
        shape=shape,
    )
