"""The predictors that ship with the package: they fit the packaged probe, and their cards say what
they can do.
"""

import hashlib
from importlib.resources import files as package_files

import pytest

from lockforge.search.predictor import load_predictor, packaged_name

SHIPPED = ("nasbench201", "transnas101")


@pytest.mark.parametrize("space", SHIPPED)
def test_the_shipped_predictor_was_trained_on_the_shipped_probe(space: str) -> None:
    """It loads, is at most a megabyte, and reads embeddings of the probe that is packaged beside
    it.
    """
    predictor = load_predictor(space)
    data = package_files("lockforge.search").joinpath(packaged_name(space)).read_bytes()
    probe = package_files("lockforge.embed").joinpath("probe.safetensors").read_bytes()
    assert len(data) <= 1_000_000
    assert predictor.mark.probe == hashlib.sha256(probe).hexdigest()
    assert predictor.digest == hashlib.sha256(data).hexdigest()
    assert (predictor.tasks >= 0).all()


@pytest.mark.parametrize("space", SHIPPED)
def test_the_shipped_predictor_does_better_than_chance_on_cells_it_never_saw(space: str) -> None:
    """Its card says so for every kind of task, with each task's difference between the real and
    another's embedding.
    """
    accuracy = load_predictor(space).card["pair_accuracy"]
    assert set(accuracy) == {"training", "new classes", "new set"}
    for scores in accuracy.values():
        assert scores["held_out_cells"]["real"] > 0.65
        assert len(scores["real_minus_shuffled"]) >= 4
