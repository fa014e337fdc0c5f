"""Parameters and multiply-adds: the tables, and built networks."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lockforge.models.networks import build
from lockforge.records import Architecture, Cell
from lockforge.spaces import NAMES, nasbench201, random_cell, transnas101
from lockforge.spaces.codecs import parse
from lockforge.spaces.counts import count, flops, parameters

Rows = list[dict[str, str]]
Make = Callable[..., Architecture]
ONE_CONVOLUTION = {28_000, 243_040}  # weights of one 1x1 or 3x3 edge in all 15 cells


def millions(text: str) -> int:
    """A figure of the tables, in ones."""
    return round(float(text) * 1e6)


@pytest.mark.parametrize(
    ("data", "classes", "side"),
    [("cifar10", 10, 32), ("cifar100", 100, 32), ("imagenet16_120", 120, 16)],
)
def test_nasbench201_counts_are_the_published_ones(
    nasbench201_rows: Rows, data: str, classes: int, side: int
) -> None:
    """All 15,625 operation counts; all parameter counts but the 150 whose record is off by one
    convolution.
    """
    off = Counter[int]()
    for row in nasbench201_rows:
        found = count(nasbench201.published(classes, (3, side, side), Cell.parse(row["arch_str"])))
        assert found.operations == millions(row[f"flops_M_{data}"]), row["arch_str"]
        off[abs(found.parameters - millions(row[f"params_M_{data}"]))] += 1
    assert set(off) == {0} | ONE_CONVOLUTION
    assert off[0] == 15_625 - 150


def test_transnas101_counts_are_the_published_ones(transnas101_rows: Rows) -> None:
    """All 4,096 of both; the table's task has 63 classes and images of 256 pixels."""
    for row in transnas101_rows:
        found = count(
            transnas101.published(63, (3, 256, 256), parse(row["arch_str"], "transnas101"))
        )
        assert found == (
            millions(row["params_M_class_scene"]),
            millions(row["flops_M_class_scene"]),
        ), row["arch_str"]


@pytest.mark.parametrize("space", NAMES)
@pytest.mark.parametrize(
    ("shape", "channels", "cells"), [((1, 8, 8), 8, 1), ((3, 16, 16), 5, 2), ((3, 9, 7), 1, 3)]
)
def test_the_closed_form_counts_the_weights_of_a_built_network(
    space: str,
    shape: tuple[int, int, int],
    channels: int,
    cells: int,
    rng: np.random.Generator,
    tiny: Make,
    generator: torch.Generator,
) -> None:
    """Sum of the sizes of all weights, for random cells and odd skeletons."""
    for _ in range(4):
        architecture = tiny(
            space, random_cell(space, rng), shape=shape, channels=channels, cells=cells
        )
        assert parameters(architecture) == sum(
            weight.numel() for weight in build(architecture, generator).parameters()
        )


def test_a_class_costs_one_row_of_the_head(rng: np.random.Generator) -> None:
    """64 multiply-adds and 65 parameters in NAS-Bench-201; nothing else depends on the number of
    classes.
    """
    cell = random_cell("nasbench201", rng)
    ten, eleven = (nasbench201.published(classes, (3, 32, 32), cell) for classes in (10, 11))
    assert flops(eleven) - flops(ten) == 64
    assert parameters(eleven) - parameters(ten) == 65
