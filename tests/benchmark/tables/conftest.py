"""The published tables, and small architectures."""

from tests.network_fixtures import generator, nasbench201_rows, tiny, transnas101_rows

__all__ = ["generator", "nasbench201_rows", "tiny", "transnas101_rows"]
