"""Read image tables in Parquet, laid out as Hugging Face data sets are: encoded images in one
column, labels in another.

    set/train-00000-of-00001.parquet, test-00000-of-00001.parquet      also below data/

The column of images holds structs with `bytes`; which columns they are, and the class names, is
read from the schema's `huggingface` metadata where it is there. Images are decoded as those of a
folder are; one row group of encoded bytes is in memory at a time.

Needs the extra `tables` (pyarrow).
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockforge.data._folders import SPLITS
from lockforge.data._raw_images import UNDECIDED, Images, Shape, class_faults, refuse
from lockforge.data.decode import Item, read_many
from lockforge.errors import DataError, ResourceError
from lockforge.recipe import DataRecipe

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_IMAGES = ("image", "img", "image")
_LABELS = ("label", "labels", "fine_label", "class")
_HINT = (
    "give tables with a column of encoded images (image) and one of whole numbers or words (label)"
)


def table_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of `data` in it."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def read_tables(
    place: Path, files: Sequence[Path], recipe: DataRecipe, like: Shape | None
) -> Images:
    """Read all rows of some tables; the split is in a file's name (train, validation, test).

    Raises: ResourceError: pyarrow is not installed. DataError: every fault of the files at once,
        then every unreadable image.
    """
    if find_spec("pyarrow") is None:
        raise ResourceError(
            f"{place} is a Parquet table, and pyarrow is not installed",
            hint="pip install 'lockforge[tables]'",
        )
    import pyarrow as pa

    faults: list[str] = []
    tables: list[_Table] = []
    for path in files:
        try:
            tables.append(_look(path))
        except (pa.ArrowException, OSError, DataError, ValueError) as error:
            faults.append(f"{path.name}: {str(error).splitlines()[0]}")
    refuse(str(place), faults, _HINT)
    names = next((table.names for table in tables if table.names), ())
    if any(table.names not in {(), names} for table in tables):
        refuse(str(place), ["the tables name different classes"], _HINT)
    values: list[Any] = []
    for table in tables:
        values += table.labels
    bad = [
        f"row {row}: the label {value!r}"
        for row, value in enumerate(values)
        if not _is_label(value, len(names))
    ]
    refuse(str(place), bad, _HINT)
    kinds = sorted(
        set(values), key=str if any(isinstance(value, str) for value in values) else None
    )
    classes = tuple(
        names[value] if names and isinstance(value, int) else str(value) for value in kinds
    )
    refuse(str(place), list(class_faults(classes)), _HINT)
    number = {value: at for at, value in enumerate(kinds)}
    items, row = [], 0
    for table in tables:
        for at in range(len(table.labels)):
            items.append(
                Item(
                    f"{table.path.name} row {at}",
                    table.split,
                    number[values[row]],
                    partial(table.image, at),
                )
            )
            row += 1
    return read_many(str(place), items, classes, recipe, like)


def _is_label(value: Any, count: int) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, int) and value >= 0 and (not count or value < count)


@dataclass(frozen=True)
class _Table:
    """One file: its column of images, class names, the first row of each row group, and every
    label.
    """

    path: Path
    split: int
    column: str
    names: tuple[str, ...]
    starts: tuple[int, ...]
    labels: tuple[Any, ...]

    def image(self, row: int) -> io.BytesIO:
        """The encoded bytes of one row.

        Raises: ValueError: there are none.
        """
        import pyarrow as pa

        group = max(at for at, start in enumerate(self.starts) if start <= row)
        try:
            value = _group(self.path, self.column, group)[row - self.starts[group]].as_py()
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            # - a fault of the data, listed with the others
            raise ValueError("no bytes of an image")  # noqa: TRY004
        return io.BytesIO(data)


def _open(path: Path) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, memory_map=True)


@lru_cache(maxsize=4)
def _group(path: Path, column: str, group: int) -> Any:
    return _open(path).read_row_group(group, columns=[column]).column(0)


def _look(path: Path) -> _Table:
    """What a file holds, from its footer.

    Raises: DataError: no column of images or of labels.
    """
    import pyarrow as pa

    opened = _open(path)
    schema = opened.schema_arrow
    features = _features(schema)

    def is_encoded(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(at).name == "bytes" for at in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    images = [name for name in schema.names if is_encoded(schema.field(name).type)]
    images.sort(
        key=lambda name: (features.get(name, {}).get("_type") != "Image", name not in _IMAGES)
    )
    plain = [
        name
        for name in schema.names
        if pa.types.is_integer(schema.field(name).type)
        or pa.types.is_string(schema.field(name).type)
    ]
    labels = [name for name in plain if features.get(name, {}).get("_type") == "ClassLabel"] or [
        name for name in _LABELS if name in plain
    ]
    if not images or not labels:
        raise DataError(
            f"no column of {'labels' if images else 'encoded images'} among "
            f"{', '.join(schema.names)}",
            hint=_HINT,
        )
    label = min(labels, key=lambda name: _LABELS.index(name) if name in _LABELS else len(_LABELS))
    names = tuple(str(name) for name in features.get(label, {}).get("names") or ())
    counts = [opened.metadata.row_group(at).num_rows for at in range(opened.num_row_groups)]
    starts = tuple(sum(counts[:at]) for at in range(len(counts)))
    split = SPLITS.get(path.name.split("-")[0].split(".")[0].lower(), UNDECIDED)
    values = tuple(opened.read(columns=[label]).column(0).to_pylist())
    return _Table(path, split, images[0], names, starts, values)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What Hugging Face wrote about the columns; nothing where it is absent or not what it should
    be.
    """
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return (
        {str(name): entry for name, entry in found.items() if isinstance(entry, dict)}
        if isinstance(found, dict)
        else {}
    )
