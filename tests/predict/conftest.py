"""A small network as a checkpoint in a runs folder."""

from tests.release_fixtures import checkpoint, files, place, source

__all__ = ["checkpoint", "files", "place", "source"]
