"""The door of the room, and the two spaces."""

import math

import pytest

from lockforge.errors import RecipeError
from lockforge.recipe import NetworkRecipe
from lockforge.records import Architecture, Op
from lockforge.spaces import NAMES, nasbench201, ops_of, space, transnas101
from lockforge.spaces.cells import cell_of


def test_the_names_are_those_that_recipes_and_records_know() -> None:
    """No space can be asked for that is not here, and none is here that cannot be asked for."""
    assert (
        NetworkRecipe.model_fields["space"].annotation
        == Architecture.model_fields["space"].annotation
    )
    for name in NAMES:
        assert NetworkRecipe(space=name).space == name  # type: ignore[arg-type]
        assert name == space(name).NAME
        assert ops_of(name) == space(name).OPS


def test_an_unknown_space_is_refused_by_name() -> None:
    """The message names it and lists the others."""
    with pytest.raises(RecipeError, match="no search space 'darts'") as caught:
        space("darts")
    assert "nasbench201, transnas101" in caught.value.hint


def test_the_published_skeletons_have_the_published_sizes() -> None:
    """16 channels and 5 cells a stage; 64 channels and 2 cells a module."""
    cell = cell_of([Op.skip] * 6)
    first = nasbench201.published(10, (3, 32, 32), cell)
    second = transnas101.published(63, (3, 256, 256), cell)
    assert (first.space, first.stem_channels, first.cells_per_stage) == ("nasbench201", 16, 5)
    assert (second.space, second.stem_channels, second.cells_per_stage) == ("transnas101", 64, 2)


def test_the_stem_halves_large_images_twice_and_small_ones_never() -> None:
    """Published strides from 65 pixels on; what reaches the modules is never below 17 pixels unless
    the image is.
    """
    for side in range(4, 300):
        first, second = transnas101.stem_strides((3, side, side))
        after = math.ceil(math.ceil(side / first) / second)
        assert (first, second) == ((2, 2) if side > 64 else (2, 1) if side > 32 else (1, 1))
        assert after >= min(side, 17)
