"""A task with a known answer, small networks that know it or do not, and one audit that several
tests read.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Attack,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    in_step,
    train_all,
)
from lockforge.audit.stage import audit_transfer
from lockforge.data.batches import Pool, load_pool
from lockforge.engine.fit import fit
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import AuditRecipe, FitRecipe
from lockforge.records import (
    Architecture,
    Cell,
    Checkpoint,
    ImageSet,
    Op,
    Splits,
    Subjects,
    TransferAudit,
)
from lockforge.runs import Work

SIDE = 6
PLAIN = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
OTHER = Cell(ops=(Op.none, Op.none, Op.none, Op.conv1x1, Op.none, Op.none))
QUICK = AuditRecipe(
    images_per_class=(2, 0), seeds=3, steps=6, probe_steps=6, batch_size=16, fine_tune_sgd_rates=()
)


def patterns(name: str, classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: each class is one fixed random pattern, half drowned in noise."""
    rng = numpy_generator(0, "patterns", name)
    labels = np.tile(np.arange(classes, dtype=np.int64), per_class)
    means = rng.choice([90.0, 160.0], size=(classes, 1, SIDE, SIDE))
    noisy = means[labels] + rng.normal(0, 45, size=(len(labels), 1, SIDE, SIDE))
    return noisy.clip(0, 255).astype(np.uint8), labels


def image_set(files: Files, name: str, classes: int, per_class: int = 40) -> ImageSet:
    """A data set of `patterns`: half for training, a quarter each for validation and test."""
    images, labels = patterns(name, classes, per_class)
    split = np.repeat(np.array([0, 0, 1, 2], dtype=np.uint8), classes)[
        np.arange(len(labels)) % (4 * classes)
    ]
    content = np.arange(len(labels) * 16, dtype=np.uint32).astype(np.uint8).reshape(-1, 16)
    pixels = files.put_arrays(
        {"images": images, "labels": labels, "content": content, "split": split}
    )
    shares = images[split == 0] / 255
    counts = Splits(
        train=int((split == 0).sum()), val=int((split == 1).sum()), test=int((split == 2).sum())
    )
    names = tuple(f"class {i}" for i in range(classes))
    return ImageSet(
        classes=names,
        shape=(1, SIDE, SIDE),
        mean=(float(shares.mean()),),
        std=(float(shares.std()),),
        counts=counts,
        pixels=pixels,
    )


def architecture_of(cell: Cell, classes: int) -> Architecture:
    """A narrow, shallow network around a cell."""
    return Architecture(
        space="nasbench201",
        cell=cell,
        stem_channels=4,
        cells_per_stage=1,
        classes=classes,
        shape=(1, SIDE, SIDE),
    )


Train = Callable[..., Checkpoint]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Where arrays and weights of these tests lie."""
    return Files(tmp_path_factory.mktemp("audit") / "files")


@pytest.fixture(scope="session")
def source(files: Files) -> ImageSet:
    """Five patterns."""
    return image_set(files, "source", 5)


@pytest.fixture(scope="session")
def target(files: Files) -> ImageSet:
    """Four other patterns: 120 images for the thief, 40 for the test."""
    return image_set(files, "target", 4)


@pytest.fixture(scope="session")
def train(files: Files) -> Train:
    """`train(cell, images, steps)`: a checkpoint of a network trained on these images so long; 0
    steps is a random network.
    """

    def trained(cell: Cell, images: ImageSet, steps: int) -> Checkpoint:
        architecture = architecture_of(cell, len(images.classes))
        network = build(architecture, torch_generator(0, "test network", cell, steps))
        if steps:
            recipe = FitRecipe(steps=steps, batch_size=32, optimizer="adam", learning_rate=0.01)
            pool, val = (load_pool(images, split, files) for split in ("train", "val"))
            fit(network, pool, recipe, generator=torch_generator(0, "test training"), val=val)
        size = len(images.classes)
        return Checkpoint(
            architecture=architecture,
            weights=files.put_tensors(state(network)),
            trained_on=images.digest,
            made_by="a test",
            val_accuracy=0.5,
            test_accuracy=0.5,
            test_samples=1,
            confusion=((0,) * size,) * size,
            history=(),
        )

    return trained


@pytest.fixture(scope="session")
def emptied(source: ImageSet, target: ImageSet, train: Train) -> Subjects:
    """A release that knows nothing, beside a reference that was trained on the target itself."""
    empty = train(PLAIN, source, 0)
    return Subjects(release=empty, twin=empty, reference=train(PLAIN, target, 80))


@pytest.fixture(scope="session")
def audited(
    files: Files,
    source: ImageSet,
    target: ImageSet,
    emptied: Subjects,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TransferAudit, Path]:
    """The audit of `emptied`, and the folder where its ledger lies."""
    folder = tmp_path_factory.mktemp("audited")
    return audit_transfer(
        emptied, source, target, QUICK, work=Work(files=files, folder=folder, seed=0)
    ), folder


@pytest.fixture
def data(files: Files, target: ImageSet) -> AttackerData:
    """Twenty training and twenty validation images of the target."""
    train, val = (load_pool(target, split, files) for split in ("train", "val"))
    return AttackerData(train=train.take(torch.arange(20)), val=val.take(torch.arange(20)))


@pytest.fixture
def labelled() -> Callable[[list[int]], Pool]:
    """A pool of black images with so many images of each class."""

    def pool(per_class: list[int]) -> Pool:
        labels = torch.repeat_interleave(torch.arange(len(per_class)), torch.tensor(per_class))
        images = torch.zeros(len(labels), 1, SIDE, SIDE, dtype=torch.uint8)
        return Pool(
            images=images,
            labels=labels,
            mean=torch.zeros(1),
            std=torch.ones(1),
            classes=len(per_class),
        )

    return pool


class Closed(torch.Tensor):
    """Labels that cannot be read."""

    @classmethod
    def __torch_function__(
        cls, func: object, _types: object, _args: object = (), _kwargs: object = None
    ) -> object:
        """Nothing may be done with them."""
        raise AssertionError(f"a closed label was read by {func}")


@pytest.fixture
def closed() -> Callable[[Pool], Pool]:
    """The same images with labels that raise when anything is done with them."""
    return lambda pool: replace(pool, labels=pool.labels.clone().as_subclass(Closed))


@pytest.fixture
def facts() -> Capabilities:
    """A target with other classes than the source, as many."""
    return Capabilities(same_classes=False, head_fits=True, source_images=True)


@pytest.fixture
def run_attack() -> Callable[..., Sequence[Attempt]]:
    """One attack on a network by itself, each training by itself."""

    def run(
        attack: Attack,
        network: CellNetwork | InitialModel,
        data: AttackerData,
        settings: Sequence[Setting],
        budget: Budget,
        draw: Draw,
    ) -> Sequence[Attempt]:
        given = network if isinstance(network, InitialModel) else InitialModel(network)
        (attempts,) = in_step(
            [attack(given, data, settings, budget, draw)], lambda wanted: train_all(wanted, budget)
        )
        return attempts

    return run
