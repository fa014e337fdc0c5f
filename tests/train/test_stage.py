"""The stage `train_cell`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.errors import DataError
from lockforge.models.networks import load
from lockforge.recipe import FitRecipe, TrainRecipe
from lockforge.records import Architecture, Checkpoint, ImageSet, NamedArchitecture, Splits
from lockforge.runs import Runs, Work
from lockforge.train.stage import adopt_model, train_cell

RECIPE = FitRecipe(epochs=6, batch_size=32, learning_rate=0.1, crop=1)


def test_a_checkpoint_says_what_its_weights_do(
    do: Runs, digits: ImageSet, architecture: Architecture
) -> None:
    """The stored weights, loaded again, have the stored accuracies; they have learned to read three
    digits.
    """
    checkpoint = do(train_cell, architecture, digits, RECIPE)
    network = load(architecture, do.files.get_tensors(checkpoint.weights))
    for split, stated in (("val", checkpoint.val_accuracy), ("test", checkpoint.test_accuracy)):
        assert accuracy(*logits_of(network, load_pool(digits, split, do.files))) == stated
    assert checkpoint.test_accuracy > 0.9
    assert checkpoint.val_accuracy == max(line.val_accuracy for line in checkpoint.history)
    assert (checkpoint.trained_on, checkpoint.made_by, len(checkpoint.history)) == (
        digits.digest,
        "train_cell/1",
        6,
    )


def test_a_named_network_is_trained_adopted_and_recorded_alike(do: Runs, digits: ImageSet) -> None:
    """ResNet-20 on the digits: its checkpoint comes back from JSON as what it was, and adopting its
    weights measures the same.
    """
    architecture = NamedArchitecture(name="resnet20-cifar", classes=3, shape=(1, 8, 8))
    checkpoint = do(train_cell, architecture, digits, RECIPE.model_copy(update={"epochs": 2}))
    assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint
    assert checkpoint.architecture == architecture
    adopted = do(adopt_model, architecture, checkpoint.weights, digits)
    assert (adopted.test_accuracy, adopted.confusion) == (
        checkpoint.test_accuracy,
        checkpoint.confusion,
    )


def test_the_confusion_table_is_of_the_test_split(
    do: Runs, digits: ImageSet, architecture: Architecture
) -> None:
    """Rows are the classes' test images, the diagonal the right answers, and all are counted
    once.
    """
    checkpoint = do(train_cell, architecture, digits, RECIPE)
    table = torch.tensor(checkpoint.confusion)
    labels = load_pool(digits, "test", do.files).labels
    assert table.sum(1).equal(torch.bincount(labels, minlength=3))
    assert int(table.diag().sum()) / len(labels) == pytest.approx(checkpoint.test_accuracy)
    assert checkpoint.test_samples == len(labels) == digits.counts.test


def test_the_log_has_the_history(do: Runs, digits: ImageSet, architecture: Architecture) -> None:
    """log.jsonl of the finished question holds a line an epoch."""
    checkpoint = do(train_cell, architecture, digits, RECIPE)
    (log,) = do.folder.glob("train_cell/*/log.jsonl")
    assert [json.loads(line)["loss"] for line in log.read_text().splitlines()] == [
        line.loss for line in checkpoint.history
    ]


def test_an_interrupted_training_gives_the_same_checkpoint(
    do: Runs,
    digits: ImageSet,
    architecture: Architecture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped after the third epoch and asked again in the same folder: equal to one asked once,
    and the epochs done are not done again.
    """
    monkeypatch.setattr("lockforge.train.stage.RunContext", _eager)
    whole = do(train_cell, architecture, digits, RECIPE)
    told: list[float] = []

    def stop(done: float, _total: float, _note: str) -> None:
        told.append(done)
        if done == 3 and told.count(3) == 1:
            raise KeyboardInterrupt

    work = Work(files=do.files, folder=tmp_path / "partial", seed=0, report=stop)
    with pytest.raises(KeyboardInterrupt):
        train_cell(architecture, digits, RECIPE, work=work)
    told.append(3)
    assert train_cell(architecture, digits, RECIPE, work=work) == whole
    assert told[5:] == [3, 4, 5, 6]


@pytest.mark.slow
def test_two_processes_train_a_cell(do: Runs, digits: ImageSet, architecture: Architecture) -> None:
    """Started afresh, they leave a checkpoint that says what its weights do; it is another than one
    process's, and found again.
    """
    recipe = TrainRecipe(**RECIPE.model_dump(), processes=2)
    checkpoint = do(train_cell, architecture, digits, recipe)
    network = load(architecture, do.files.get_tensors(checkpoint.weights))
    for split, stated in (("val", checkpoint.val_accuracy), ("test", checkpoint.test_accuracy)):
        assert accuracy(*logits_of(network, load_pool(digits, split, do.files))) == stated
    assert checkpoint.test_accuracy > 0.8
    assert len(checkpoint.history) == 6
    assert do(train_cell, architecture, digits, recipe) == checkpoint
    assert (
        do(train_cell, architecture, digits, recipe.model_copy(update={"processes": 1})).weights
        != checkpoint.weights
    )


def _eager(**given: object) -> object:
    """A context that stores every epoch."""
    from lockforge.engine.fit import RunContext

    return replace(RunContext(**given), save_every=0)  # type: ignore[arg-type]


def test_two_seeds_are_two_networks(
    digits: ImageSet, do: Runs, architecture: Architecture, tmp_path: Path
) -> None:
    """The seed decides the weights; the same seed gives the same record."""
    quick = FitRecipe(steps=3)
    first, again, other = (
        train_cell(
            architecture,
            digits,
            quick,
            work=Work(files=do.files, folder=tmp_path / str(number), seed=seed),
        )
        for number, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first.weights != other.weights


def test_an_architecture_for_other_images_is_refused(
    do: Runs, digits: ImageSet, architecture: Architecture
) -> None:
    """Wrong size, wrong number of classes, or a source without test images: a DataError before
    any work.
    """
    for wrong in ({"shape": (3, 8, 8)}, {"classes": 4}):
        with pytest.raises(DataError, match="the source has"):
            do(train_cell, architecture.model_copy(update=wrong), digits, RECIPE)
    untested = digits.model_copy(update={"counts": Splits(train=10, val=10, test=0)})
    with pytest.raises(DataError, match="no images in: test"):
        do(train_cell, architecture, untested, RECIPE)
