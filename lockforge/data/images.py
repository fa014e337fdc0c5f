"""Read a data set from a place: a folder, a file, or a built-in name.

Shapes: n images, c channels, h x w pixels.
"""

from pathlib import Path

from lockforge.data._arrays import read_arrays
from lockforge.data._binary import binary_files, is_cifar, is_idx, read_cifar, read_idx
from lockforge.data._raw_images import Images, Shape, finish
from lockforge.data._tables import read_tables, table_files
from lockforge.data.builtin import is_builtin, read_builtin
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

__all__ = ["Images", "check_place", "read_images"]

_HINT = (
    "give a folder with one subfolder a class, an .npz, IDX, CIFAR .bin or .parquet file, or a "
    "built-in name such as digits"
)


def check_place(place: str) -> None:
    """Refuse a place that is not there, before anything is read.

    Raises: DataError: no folder, no file that is read, no built-in name.
    """
    if is_builtin(place):
        return
    try:
        path = Path(place).expanduser()
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{place!r} is not a path: {error}", hint=_HINT) from error
    if not there:
        raise DataError(f"there is no {place!r}", hint=_HINT)
    if (
        not folder
        and path.suffix.lower() not in {".npz", ".parquet"}
        and not is_idx(path)
        and not is_cifar(path)
    ):
        packed = path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".zip"))
        raise DataError(
            f"{place!r} is not a kind of file that is read",
            hint="unpack it and give the folder" if packed else _HINT,
        )


def read_images(place: str, recipe: DataRecipe, *, like: Shape | None = None) -> Images:
    """Read a data set and bring it to one shape: `like`, the recipe's, or its own.

    Args: place: see `docs/data.md`. recipe: size and channels. like: the (c, h, w) of the source,
        for every other set.
    Raises: DataError: every fault of the data at once. ResourceError: it does not fit on the disk,
        or an extra is missing.
    """
    check_place(place)
    if is_builtin(place):
        return finish(read_builtin(place), recipe, like)
    path = Path(place).expanduser()
    try:
        return _read_path(path, recipe, like)
    except PermissionError as error:
        raise DataError(
            f"{error.filename or path} may not be read",
            hint="give yourself leave to read it (chmod u+r)",
        ) from error


def _read_path(path: Path, recipe: DataRecipe, like: Shape | None) -> Images:
    if not path.is_dir():
        if path.suffix.lower() == ".parquet":
            return read_tables(path, [path], recipe, like)
        if is_idx(path):
            return finish(read_idx(path, [path]), recipe, like)
        return finish(
            read_cifar(path, [path]) if is_cifar(path) else read_arrays(path), recipe, like
        )
    if tables := table_files(path):
        return read_tables(path, tables, recipe, like)
    kind, files = binary_files(path)
    if kind:
        return finish(
            read_idx(path, files) if kind == "idx" else read_cifar(path, files), recipe, like
        )
    from lockforge.data._folders import read_folder

    return read_folder(path, recipe, like)
