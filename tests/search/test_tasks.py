"""Tasks made of some classes of a set, and cells to score on them."""

import numpy as np
import pytest

from lockforge.data.batches import load_pool
from lockforge.errors import DataError
from lockforge.randomness import numpy_generator
from lockforge.records import ImageSet
from lockforge.runs import Work
from lockforge.search.tasks import class_subset, draw_cells, meta_tasks
from lockforge.spaces.cells import connected


def test_a_subset_holds_the_images_of_its_classes(digits: ImageSet, work: Work) -> None:
    """The digits 4 and 1 become labels 0 and 1; every image is one of the set's own, in its own
    split.
    """
    task = class_subset(digits, (4, 1), 1000, work.files, numpy_generator(0))
    assert task.classes == ("4", "1")
    whole, part = (work.files.get_arrays(images.pixels) for images in (digits, task))
    told = {
        key.tobytes(): (label, split)
        for key, label, split in zip(whole["content"], whole["labels"], whole["split"], strict=True)
    }
    for key, label, split in zip(part["content"], part["labels"], part["split"], strict=True):
        assert told[key.tobytes()] == ((4, 1)[label], split)
    assert len(part["labels"]) == np.isin(whole["labels"], (1, 4)).sum() == task.counts.total


def test_mean_and_deviation_are_of_the_subset(digits: ImageSet, work: Work) -> None:
    """Normalised training pixels have mean 0 and deviation 1."""
    task = class_subset(digits, (0, 2, 3), 12, work.files, numpy_generator(0))
    assert task.counts.train == task.counts.val == 12
    pixels = load_pool(task, "train", work.files).pixels()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("classes", [(0,), (0, 0), (0, 9), (-1, 2)])
def test_classes_that_make_no_task_are_refused(
    digits: ImageSet, work: Work, classes: tuple[int, ...]
) -> None:
    """One class, one twice, one that is not there."""
    with pytest.raises(DataError, match="no two or more different classes of 5"):
        class_subset(digits, classes, 10, work.files, numpy_generator(0))


def test_a_limit_that_loses_a_class_is_refused(digits: ImageSet, work: Work) -> None:
    """Two images cannot show five digits; the lost ones are named."""
    with pytest.raises(DataError, match="no training image of"):
        class_subset(digits, (0, 1, 2, 3, 4), 2, work.files, numpy_generator(0))


def test_tasks_of_a_set_differ_and_repeat(digits: ImageSet, work: Work) -> None:
    """The first has all classes; the same seed gives the same tasks."""
    found = meta_tasks(digits, 4, 40, 0, work.files)
    assert len(found[0].classes) == 5
    assert len({task.digest for task in found}) == 4
    assert [task.digest for task in meta_tasks(digits, 4, 40, 0, work.files)] == [
        task.digest for task in found
    ]


def test_cells_to_score_are_connected_and_new() -> None:
    """No cell twice, none of those to leave out, none that ignores its input."""
    first = draw_cells("transnas101", 200, (), numpy_generator(0, "a"))
    second = draw_cells("transnas101", 200, first, numpy_generator(0, "b"))
    assert len({*first, *second}) == 400
    assert all(connected(cell) for cell in (*first, *second))
