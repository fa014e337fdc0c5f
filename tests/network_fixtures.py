"""The published tables, and small architectures."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell

Rows = list[dict[str, str]]
Make = Callable[..., Architecture]


@pytest.fixture(scope="session")
def nasbench201_rows(shared_data: Path) -> Rows:
    """One row for each of the 15,625 cells."""
    return _rows(shared_data / "nas" / "nasbench201.csv.gz")


@pytest.fixture(scope="session")
def transnas101_rows(shared_data: Path) -> Rows:
    """One row for each of the 4,096 cells."""
    return _rows(shared_data / "nas" / "transnasbench101_micro.csv.gz")


def _rows(path: Path) -> Rows:
    if not path.is_file():
        pytest.skip(f"no published table {path.name} here")
    with gzip.open(path, "rt", newline="") as text:
        return list(csv.DictReader(text))


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """A torch generator of the test's own."""
    return torch_generator(0, request.node.name)


@pytest.fixture
def tiny() -> Make:
    """A small architecture: `tiny(space, cell, shape=..., ...)`."""

    def make(
        space: str,
        cell: Cell,
        *,
        shape: tuple[int, int, int] = (1, 8, 8),
        channels: int = 4,
        cells: int = 1,
        classes: int = 5,
    ) -> Architecture:
        return Architecture.model_validate(
            {
                "space": space,
                "cell": cell,
                "stem_channels": channels,
                "cells_per_stage": cells,
                "classes": classes,
                "shape": shape,
            }
        )

    return make
