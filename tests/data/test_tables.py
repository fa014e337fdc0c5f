"""Parquet tables in the Hugging Face layout: the same as a folder of the same images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockforge.data import _tables as tables
from lockforge.data._raw_images import TEST, TRAIN
from lockforge.data.images import read_images
from lockforge.errors import DataError, ResourceError
from lockforge.recipe import DataRecipe

pa = pytest.importorskip("pyarrow", reason="the extra `tables` is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra `tables` is not installed")
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


def table(
    path: Path, rows: list[tuple[Any, Any]], features: dict[str, Any] | None = None, **options: Any
) -> Path:
    """Write (bytes, label) rows as `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.table(
        {
            "image": [{"bytes": data, "path": None} for data, _ in rows],
            "label": [label for _, label in rows],
        }
    )
    if features is not None:
        made = made.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(made, path, **options)
    return path


@pytest.fixture
def rows(folder: Path) -> list[tuple[bytes, int]]:
    """The images of the folder, encoded, with the number of their class."""
    return [
        (path.read_bytes(), int(path.parent.name == "dog"))
        for path in sorted(folder.rglob("*.png"))
    ]


def test_a_table_is_the_folder_of_its_images(
    folder: Path, tmp_path: Path, rows: list[tuple[bytes, int]]
) -> None:
    """Several row groups, class names from the metadata; pixels, labels and content are the
    same.
    """
    place = table(tmp_path / "set.parquet", rows, FEATURES, row_group_size=3)
    one, other = (
        read_images(str(folder), DataRecipe(size=8)),
        read_images(str(place), DataRecipe(size=8)),
    )
    assert other.classes == ("cat", "dog")
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.content, other.content)


def test_splits_are_in_the_names_of_files(tmp_path: Path, rows: list[tuple[bytes, int]]) -> None:
    """As on the hub: data/train-00000-of-00001.parquet."""
    table(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", rows, FEATURES)
    table(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows[:2], FEATURES)
    assert np.bincount(read_images(str(tmp_path / "hub"), DataRecipe()).split).tolist() == [
        8,
        0,
        2,
    ]
    assert (TRAIN, TEST) == (0, 2)


def test_words_are_labels_and_metadata_may_be_missing(
    tmp_path: Path, rows: list[tuple[bytes, int]]
) -> None:
    """Classes in alphabetical order."""
    place = table(
        tmp_path / "words.parquet", [(data, ["dog", "ant"][label]) for data, label in rows]
    )
    assert read_images(str(place), DataRecipe()).classes == ("ant", "dog")


def test_unreadable_rows_are_named_or_skipped(
    tmp_path: Path, rows: list[tuple[bytes, int]]
) -> None:
    """Bytes that are no image, and none at all."""
    place = table(tmp_path / "bad.parquet", [*rows, (b"no image", 0), (None, 1)], FEATURES)
    with pytest.raises(
        DataError,
        match=r"2 fault(.|\n)*row 8: not an image(.|\n)*row 9: no bytes(.|\n)*--skip-unreadable",
    ):
        read_images(str(place), DataRecipe())
    found = read_images(str(place), DataRecipe(skip_unreadable=True))
    assert len(found) == 8
    assert [line.split(":")[0] for line in found.skipped] == [
        "bad.parquet row 8",
        "bad.parquet row 9",
    ]


@pytest.mark.parametrize(
    ("labels", "features", "told"),
    [
        ([0, 5], FEATURES, "row 1: the label 5"),
        ([0, None], FEATURES, "row 1: the label None"),
        ([0, -1], None, "row 1: the label -1"),
        ([1, 1], FEATURES, "1 class"),
        ([0.5, 1.5], None, "no column of labels among image, label"),
    ],
)
def test_faulty_tables_are_refused(
    tmp_path: Path, rows: list[tuple[bytes, int]], labels: list[Any], features: Any, told: str
) -> None:
    """Labels out of range, missing, negative, of one class, of no kind."""
    place = table(
        tmp_path / "bad.parquet",
        [(rows[at][0], label) for at, label in enumerate(labels)],
        features,
    )
    with pytest.raises(DataError, match=told):
        read_images(str(place), DataRecipe())


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    """A file that only has the name."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_images(str(tmp_path / "a.parquet"), DataRecipe())


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core does not need it."""
    (tmp_path / "a.parquet").touch()
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"lockforge\[tables\]"):
        read_images(str(tmp_path / "a.parquet"), DataRecipe())
