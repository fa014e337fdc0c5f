"""The digits: real, complete, and their halves share nothing."""

import numpy as np
import pytest

from lockforge.data._raw_images import Decoded, content_hashes
from lockforge.data.builtin import DEFAULT, is_builtin, read_builtin
from lockforge.errors import DataError


def keys(decoded: Decoded) -> set[bytes]:
    """Content hashes as a set."""
    return {row.tobytes() for row in content_hashes(decoded.images)}


def test_the_digits_are_the_published_ones() -> None:
    """1,797 different images, counts per digit as in the data set's description, darkest 0 and
    lightest 255.
    """
    digits = read_builtin("digits")
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(keys(digits)) == 1797
    assert digits.images.shape == (1797, 8, 8, 1)
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def test_the_default_roles_share_no_image_and_leave_none_out() -> None:
    """Source, auxiliary and target are disjoint, together all digits, and the halves differ by at
    most one image a class.
    """
    source, (auxiliary,), (target,) = DEFAULT
    sets = [read_builtin(place) for place in (source, auxiliary, target)]
    assert [decoded.classes for decoded in sets] == [
        ("0", "1", "2", "3", "4"),
        *[("5", "6", "7", "8", "9")] * 2,
    ]
    assert sum(len(keys(decoded)) for decoded in sets) == len(set.union(*map(keys, sets))) == 1797
    assert np.abs(np.bincount(sets[1].labels) - np.bincount(sets[2].labels)).max() <= 1


@pytest.mark.parametrize(
    "place", ["digits:4-0", "digits:3-3", "digits:5-9/c", "digits:", "digits:0-10", "drawings:size"]
)
def test_an_unknown_name_is_refused_with_those_that_exist(place: str) -> None:
    """A typo in a built-in name is not taken for a path."""
    assert is_builtin(place)
    with pytest.raises(DataError, match="use one of digits, digits:0-4"):
        read_builtin(place)


def test_a_path_is_no_builtin_name() -> None:
    """A folder called digits is given as ./digits."""
    assert not is_builtin("./digits")
    assert not is_builtin("digits.npz")


def test_drawings_are_always_the_same_and_each_name_has_its_own() -> None:
    """Three different tasks, no image in two of them."""
    names = ["drawings:figure", "drawings:colour", "drawings:texture"]
    sets = [read_builtin(name) for name in names]
    assert [len(decoded.classes) for decoded in sets] == [5, 6, 4]
    assert {decoded.images.shape for decoded in sets} == {(2000, 32, 32, 3)}
    assert len(set.union(*map(keys, sets))) == 6000
    assert (read_builtin("drawings:figure").images == sets[0].images).all()
