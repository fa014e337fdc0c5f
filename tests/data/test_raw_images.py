"""Content hashes know images, not files."""

import numpy as np
import pytest

from lockforge.data._raw_images import content_hashes, refuse, wanted_shape
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe


def test_a_hash_depends_on_every_pixel_and_on_the_size() -> None:
    """Changing any one value changes the hash; the same bytes in another size are another image."""
    image = np.zeros((1, 3, 4, 3), np.uint8)
    seen = {
        content_hashes(image).tobytes(),
        content_hashes(image.reshape(1, 4, 3, 3)).tobytes(),
    }
    for at in range(image.size):
        other = image.copy()
        other.flat[at] = 1
        seen.add(content_hashes(other).tobytes())
    assert len(seen) == image.size + 2


def test_grey_stored_as_colour_is_the_same_image_and_tinted_grey_is_not() -> None:
    """Overlap is found across formats, per image."""
    grey = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    colour = grey.repeat(3, axis=3)
    colour[1, 0, 0, 2] += 1
    same = (content_hashes(grey) == content_hashes(colour)).all(1)
    assert same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("recipe", "like", "shape"),
    [
        (DataRecipe(), None, (3, 20, 30)),
        (DataRecipe(size=16), None, (3, 16, 16)),
        (DataRecipe(channels=1), None, (1, 20, 30)),
        (DataRecipe(size=16, channels=1), (3, 8, 8), (3, 8, 8)),
    ],
)
def test_the_shape_is_the_sources_or_the_recipes_or_its_own(
    recipe: DataRecipe, like: tuple[int, int, int] | None, shape: tuple[int, int, int]
) -> None:
    """In that order."""
    assert wanted_shape((3, 20, 30), recipe, like) == shape


def test_a_size_no_network_is_given_is_refused_with_a_way_out() -> None:
    """Photographs need data.size."""
    with pytest.raises(DataError, match=r"1080 x 1920.*\n.*data\.size"):
        wanted_shape((3, 1080, 1920), DataRecipe(), None)


def test_many_faults_are_counted_and_the_first_twenty_shown() -> None:
    """A thousand broken files do not flood a terminal."""
    with pytest.raises(DataError, match=r"45 fault\(s\)") as caught:
        refuse("here", [f"file {at}" for at in range(45)], "repair them")
    assert caught.value.faults[-1] == "and 25 more"
    assert len(caught.value.faults) == 21
