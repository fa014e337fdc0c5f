"""A small network as a checkpoint in a runs folder."""

from pathlib import Path

import pytest

from lockforge.files import Files
from lockforge.models.networks import build, state
from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell, Checkpoint, FileRef, ImageSet, Op, Splits

ARCHITECTURE = Architecture(
    space="nasbench201",
    cell=Cell(ops=(Op.conv3x3, Op.none, Op.skip, Op.skip, Op.conv1x1, Op.pool3x3)),
    stem_channels=4,
    cells_per_stage=1,
    classes=2,
    shape=(1, 8, 8),
)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A store of its own."""
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def checkpoint(files: Files) -> Checkpoint:
    """An untrained network, said to be right half of the time."""
    return Checkpoint(
        architecture=ARCHITECTURE,
        weights=files.put_tensors(state(build(ARCHITECTURE, torch_generator(0, "export fixture")))),
        trained_on="a" * 64,
        made_by="a test",
        val_accuracy=0.5,
        test_accuracy=0.5,
        test_samples=4,
        confusion=((1, 1), (1, 1)),
        history=(),
    )


@pytest.fixture(scope="session")
def source() -> ImageSet:
    """Two classes of grey images."""
    counts = Splits(train=4, val=2, test=4)
    return ImageSet(
        classes=("no", "yes"),
        shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.2,),
        counts=counts,
        pixels=FileRef(sha256="b" * 64, size=1),
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a release would go."""
    return tmp_path / "release"
