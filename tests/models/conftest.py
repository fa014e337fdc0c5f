"""The published tables, small architectures, and a small network as a checkpoint."""

from tests.network_fixtures import generator, nasbench201_rows, tiny, transnas101_rows
from tests.release_fixtures import checkpoint, files, place, source

__all__ = [
    "checkpoint",
    "files",
    "generator",
    "nasbench201_rows",
    "place",
    "source",
    "tiny",
    "transnas101_rows",
]
