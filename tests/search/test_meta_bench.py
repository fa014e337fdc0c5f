"""The meta-bench: made from real short trainings, read back, refused when it is not one, and what
it says of cells.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from lockforge.errors import IntegrityError
from lockforge.randomness import numpy_generator
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import ImageSet
from lockforge.runs import Work
from lockforge.search.meta_bench import gather_bench, load_meta_bench, measure_cells
from lockforge.search.tasks import draw_cells
from lockforge.spaces.isomorphism import different_networks

NETWORK = NetworkRecipe(space="transnas101", stem_channels=4, cells_per_stage=1)
FIT = FitRecipe(steps=3, batch_size=32, select="last")
CARD = {"card": '{"space": "transnas101"}'}


def packed(accuracy: np.ndarray, codes: np.ndarray, card: dict[str, str] | None = None) -> bytes:
    """A file with these arrays."""
    return save({"cells": codes, "accuracy": accuracy.astype(np.float32)}, card or CARD)


@pytest.fixture
def codes() -> np.ndarray:
    """Sixty different cells as numbers."""
    every = np.stack(np.meshgrid(*[np.arange(4)] * 6), -1).reshape(-1, 6)
    return numpy_generator(0, "codes").permutation(every)[:60].astype(np.int8)


def test_trained_cells_come_back(digits: ImageSet, other_digits: ImageSet, work: Work) -> None:
    """Two tasks, ten cells: what was measured is what the file holds, and a second run trains
    nothing.
    """
    cells = draw_cells("transnas101", 10, (), numpy_generator(0, "bench"))
    measured = tuple(
        measure_cells(images, NETWORK, cells, FIT, work=work) for images in (digits, other_digits)
    )
    gathered = gather_bench(measured, ("one", "two"), NETWORK, FIT, work=work)
    bench = load_meta_bench("transnas101", work.files.get(gathered.file))
    assert bench.cells == cells
    assert bench.card["tasks"] == ["one", "two"]
    for row, task in zip(bench.accuracy, measured, strict=True):
        assert np.allclose(row, work.files.get_arrays(task.accuracy)["accuracy"], atol=1e-6)
    assert len(list(work.folder.glob("measured-*.json"))) == 20


def test_tasks_on_different_cells_are_refused(digits: ImageSet, work: Work) -> None:
    """A mean over tasks needs the same cells."""
    drawn = [draw_cells("transnas101", 8, (), numpy_generator(seed, "bench")) for seed in range(2)]
    measured = tuple(measure_cells(digits, NETWORK, cells, FIT, work=work) for cells in drawn)
    with pytest.raises(IntegrityError, match="different cells"):
        gather_bench(measured, ("one", "two"), NETWORK, FIT, work=work)


def test_good_in_general_follows_the_measurements(codes: np.ndarray) -> None:
    """On a landscape of edges unseen cells are ordered by it; the values are shares of the cells
    that are asked about.
    """
    weights = np.array([1.0, -2.0, 0.5, 3.0, 0.2, -1.0])
    truth = codes @ weights
    accuracy = np.stack(
        [(truth - truth.min()) / np.ptp(truth), ((truth - truth.min()) / np.ptp(truth)) ** 3]
    )
    bench = load_meta_bench("transnas101", packed(accuracy, codes))
    cells = different_networks("transnas101")[::7]
    said = bench.good_in_general(cells)
    names = {
        op: number
        for cell, row in zip(bench.cells, codes, strict=True)
        for op, number in zip(cell.ops, row, strict=True)
    }
    real = np.array([[names[op] for op in cell.ops] for cell in cells]) @ weights
    assert np.corrcoef(said, real)[0, 1] > 0.8
    assert said.min() == 0
    assert said.max() <= 1


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda a, c: (a[:, :-1], c), "does not fit 60 cells"),
        (lambda a, c: (a + 1, c), "outside 0 to 1"),
        (lambda a, c: (a, np.where(c == 3, 4, c).astype(np.int8)), "0 to 3 are known"),
        (lambda a, c: (a, np.repeat(c[:1], 60, 0)), "a cell twice"),
        (lambda a, c: (a, c.astype(np.int64)), "int8"),
        (lambda a, c: (a[:, :4], c[:4]), "8 or more"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    break_it: Callable[..., Any], fault: str, codes: np.ndarray
) -> None:
    """Shapes, operations, values, copies: each is named."""
    accuracy, cells = break_it(np.full((2, 60), 0.5), codes)
    with pytest.raises(IntegrityError) as caught:
        load_meta_bench("transnas101", packed(accuracy, cells))
    assert fault in str(caught.value) + " ".join(caught.value.faults)


def test_other_files_are_refused(codes: np.ndarray) -> None:
    """Another space's, no safetensors at all, and one without a card."""
    data = packed(np.full((1, 60), 0.5), codes)
    with pytest.raises(IntegrityError, match="not for nasbench201"):
        load_meta_bench("nasbench201", data)
    for bad in (b"", b"x" * 40, save(load(data))):
        with pytest.raises(IntegrityError, match="not a meta-bench"):
            load_meta_bench("transnas101", bad)


@pytest.mark.parametrize("space", ["nasbench201", "transnas101"])
def test_the_packaged_one_knows_more_than_nothing(space: str) -> None:
    """Its tasks agree with one another on what is good, all values are there, and its card says how
    it was made.
    """
    bench = load_meta_bench(space)
    assert len(bench.cells) >= 100
    assert np.isfinite(bench.accuracy).mean() > 0.9
    agreement = np.array(bench.card["agreement"])
    assert len(agreement) >= 3
    assert agreement[np.triu_indices(len(agreement), 1)].mean() > 0.2
    assert bench.card["fit"]["steps"] >= 60
