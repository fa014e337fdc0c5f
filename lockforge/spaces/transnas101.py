"""TransNAS-Bench-101, micro space `64-41414`: four operations on six edges, 4,096 cells. Duan et
al. 2021, arXiv:2105.11871.

Skeleton: a stem of two 3x3 convolutions (32 and 64 channels, stride 2 each), five modules of two
cells; the first cell of a module of kind 4 doubles the channels and halves the image, kind 1
changes neither; global average pooling, linear head.
"""

import numpy as np

from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.cells import change_one_edge, draw, every

NAME = "transnas101"
OPS: tuple[Op, ...] = (Op.none, Op.skip, Op.conv1x1, Op.conv3x3)
MACRO = "41414"
WIDTHS: tuple[int, ...] = (2, 2, 4, 4, 8)  # channels of each module, in stem channels
STEM_FULL = 32  # a stem convolution halves images larger than this


def random_cell(generator: np.random.Generator) -> Cell:
    """A cell drawn uniformly from all 4,096."""
    return draw(OPS, generator)


def mutate(cell: Cell, generator: np.random.Generator) -> Cell:
    """The cell with one edge given another operation."""
    return change_one_edge(OPS, cell, generator)


def all_cells() -> tuple[Cell, ...]:
    """All 4,096 cells, in the order of `OPS` with the last edge changing fastest (the order of the
    official codes).
    """
    return every(OPS)


def published(classes: int, shape: tuple[int, int, int], cell: Cell) -> Architecture:
    """The cell in the published skeleton: 64 stem channels, 2 cells a module (the benchmark's
    images are 3 x 256 x 256).
    """
    return Architecture(
        space="transnas101",
        cell=cell,
        stem_channels=64,
        cells_per_stage=2,
        classes=classes,
        shape=shape,
    )


def stem_strides(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Strides of the two stem convolutions for images of this shape.

    Differs: the published stem always halves twice. Here a stem convolution halves only while the
    longer side is above 32 pixels, so that small images keep something for the modules, which
    halve three times themselves. From 65 pixels on both are the same.

    >>> stem_strides((3, 256, 256)), stem_strides((3, 64, 64)), stem_strides((1, 8, 8))
    ((2, 2), (2, 1), (1, 1))
    """
    side = max(shape[1:])
    first = 2 if side > STEM_FULL else 1
    second = 2 if -(-side // first) > STEM_FULL else 1
    return first, second
