"""Read a data set from a place: a folder of class folders, a .npz file, or a built-in name.

Shapes: n pictures, c channels, h x w pixels.
"""

from pathlib import Path

from lockforge.data.arrays import read_arrays
from lockforge.data.builtin import is_builtin, read_builtin
from lockforge.data.pictures import Pictures, Shape, finish
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

__all__ = ["Pictures", "check_place", "read_pictures"]


def check_place(place: str) -> None:
    """Refuse a place that is not there, before anything is read.

    Raises: DataError: no folder, .npz file or built-in name.
    """
    if is_builtin(place):
        return
    try:
        path = Path(place).expanduser()
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{place!r} is not a path: {error}", hint="give a folder, a .npz file or a built-in name such as digits") from error
    if not there:
        raise DataError(f"there is no {place!r}", hint="give a folder, a .npz file or a built-in name such as digits")
    if not folder and path.suffix.lower() != ".npz":
        raise DataError(f"{place!r} is neither a folder nor a .npz file", hint="give a folder with one subfolder a class, or a .npz file")


def read_pictures(place: str, recipe: DataRecipe, *, like: Shape | None = None) -> Pictures:
    """Read a data set and bring it to one shape: `like`, the recipe's, or its own.

    Args: place: folder, .npz or built-in name. recipe: size and channels. like: the (c, h, w) of the source, for every other set.
    Raises: DataError: every fault of the data at once. ResourceError: it does not fit in memory.
    """
    check_place(place)
    if is_builtin(place):
        return finish(read_builtin(place), recipe, like)
    path = Path(place).expanduser()
    if path.is_dir():
        from lockforge.data.folders import read_folder

        return read_folder(path, recipe, like)
    return finish(read_arrays(path), recipe, like)
