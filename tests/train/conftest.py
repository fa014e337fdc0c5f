"""The built-in digits in a runs folder, and a tiny architecture for them."""

from pathlib import Path

import pytest

from lockforge.data.roles import read_set
from lockforge.recipe import DataRecipe
from lockforge.records import Architecture, Cell, ImageSet, Op
from lockforge.runs import Runs


@pytest.fixture
def do(tmp_path: Path) -> Runs:
    """A runs folder of the test's own."""
    return Runs(tmp_path / "runs", seed=0)


@pytest.fixture
def digits(do: Runs) -> ImageSet:
    """Handwritten 0 to 2, at most 60 of each in a split."""
    return read_set("digits:0-2", DataRecipe(limit_per_class=60), do.files)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    """One 3 x 3 convolution a cell, four channels wide."""
    cell = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
    return Architecture(
        space="nasbench201",
        cell=cell,
        stem_channels=4,
        cells_per_stage=1,
        classes=3,
        shape=(1, 8, 8),
    )
