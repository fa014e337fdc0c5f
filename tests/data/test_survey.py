"""The survey counts what was put there."""

import shutil
from pathlib import Path

import numpy as np

from lockforge.data.survey import shared, survey, survey_all
from lockforge.recipe import DataRecipe
from tests.data.conftest import put


def test_a_survey_counts_what_was_put_there(
    folder: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Repeats, an image in two splits, one with two labels, a broken file, another size, a
    licence.
    """
    root = tmp_path / "set"
    shutil.copytree(folder, root / "train")
    put(root / "test" / "cat" / "new.png", rng.integers(256, size=(20, 20, 3), dtype=np.uint8))
    shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "cat" / "again.png")
    shutil.copy(root / "train" / "cat" / "1.png", root / "test" / "cat" / "leak.png")
    shutil.copy(root / "train" / "cat" / "2.png", root / "train" / "dog" / "which.png")
    (root / "train" / "dog" / "broken.png").write_bytes(b"no")
    (root / "LICENSE.txt").write_text("all yours")

    found = survey(str(root), DataRecipe())
    assert (found.images, found.different, found.repeated) == (12, 9, 3)
    assert found.split == {"train": 10, "test": 2}
    assert found.classes == {"cat": 7, "dog": 5}
    assert found.sizes == {"3x9x7": 11, "3x20x20": 1}
    assert (found.across_splits, found.two_labels) == (1, 1)
    assert found.imbalance == 7 / 5
    assert [line.split(":")[0] for line in found.unreadable] == ["train/dog/broken.png"]
    assert found.licences == ("LICENSE.txt",)


def test_overlap_of_two_sets_is_counted() -> None:
    """Half of the digits 5 to 9 are among all digits; the halves share none."""
    whole, one, other = survey_all(["all=digits", "digits:5-9/a", "digits:5-9/b"])
    assert shared(whole, one) == one.different
    assert shared(one, other) == 0
    assert whole.licences == ()
