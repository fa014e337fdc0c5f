"""Read a folder with one subfolder a class, optionally inside train, val and test.

    photos/cat/1.png                       no split given
    photos/train/cat/1.png, photos/test/cat/9.png     given splits are kept

Every file in a class folder must be an image (PNG, JPEG, BMP, GIF, WebP, TIFF, PPM); hidden files
are passed over.
"""

from collections.abc import Callable
from pathlib import Path

from lockforge.data._raw_images import (
    TEST,
    TRAIN,
    UNDECIDED,
    VAL,
    Images,
    Shape,
    class_faults,
    refuse,
)
from lockforge.data.decode import Item, read_many
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe

SPLITS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
_PASSED_OVER = frozenset({"thumbs.db", "desktop.ini"})


def read_folder(root: Path, recipe: DataRecipe, like: Shape | None) -> Images:
    """Read a folder of class folders.

    Raises: DataError: every fault of the folder at once. ResourceError: the images do not fit on
        the disk.
    """
    classes, items = _look(root)
    return read_many(str(root), items, classes, recipe, like)


def _look(root: Path) -> tuple[tuple[str, ...], list[Item]]:
    """Classes and files of a folder, the files in the order of split, class and name.

    Raises: DataError: no class folders, empty ones, folders or images where none belong.
    """
    faults: list[str] = []
    below = _folders(root)
    names = {folder.name.lower() for folder in below}
    given = "train" in names and names <= set(SPLITS)
    tops = (
        [(folder, SPLITS[folder.name.lower()]) for folder in below]
        if given
        else [(root, UNDECIDED)]
    )
    found: list[tuple[Path, int, str]] = []
    for top, split in tops:
        inside = _folders(top)
        faults += [
            f"{file.relative_to(root)}: an image outside any class folder"
            for file in _files(top)
            if file.suffix.lower() in _ENDINGS
        ]
        if not inside:
            faults.append(
                f"{top.relative_to(root) if given else root.name}: no class folders in it"
            )
        for folder in inside:
            faults += [
                f"{inner.relative_to(root)}: a folder inside a class folder"
                for inner in _folders(folder)
            ]
            files = _files(folder)
            if not files:
                faults.append(f"{folder.relative_to(root)}: no images")
            found += [(file, split, folder.name) for file in files]
    classes = tuple(sorted({name for _, _, name in found}))
    if not faults or classes:
        faults += class_faults(classes)
    refuse(
        str(root),
        faults,
        "a folder holds one subfolder a class, at least two, with images in each: "
        f"{root.name}/CLASS/IMAGE.png",
    )
    ordered = sorted((split, name, str(file)) for file, split, name in found)
    return classes, [
        Item(str(Path(file).relative_to(root)), split, classes.index(name), _opener(Path(file)))
        for split, name, file in ordered
    ]


def _opener(path: Path) -> Callable[[], Path]:
    """How a file is opened when its turn comes.

    Raises: ValueError (when called): not a plain file, as a pipe is, which would never end.
    """

    def give() -> Path:
        if not path.is_file():
            raise ValueError("not a file")
        return path

    return give


def _folders(top: Path) -> list[Path]:
    return [path for path in _listed(top) if path.is_dir()]


def _files(top: Path) -> list[Path]:
    return [
        path for path in _listed(top) if not path.is_dir() and path.name.lower() not in _PASSED_OVER
    ]


def _listed(top: Path) -> list[Path]:
    try:
        return sorted(path for path in top.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{top} cannot be read: {error.strerror}", hint="give a folder that you may read"
        ) from error
