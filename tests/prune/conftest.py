"""Two tasks of patterns, one to keep and one to keep out, and a small convolutional network that
knows the first.
"""

from pathlib import Path

import pytest

from lockforge.recipe import FitRecipe, PruneRecipe
from lockforge.records import Checkpoint, ImageSet
from lockforge.runs import Runs
from lockforge.train.stage import train_cell
from tests.audit.conftest import PLAIN, architecture_of, image_set

SHORT = FitRecipe(
    steps=6,
    batch_size=24,
    optimizer="adam",
    learning_rate=0.003,
    schedule="constant",
    select="last",
)
QUICK = PruneRecipe(
    method="ntp", sparsity=0.5, rounds=3, fit=SHORT, recovery=SHORT, max_source_drop=1.0
)


@pytest.fixture(scope="session")
def do(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One runs folder for the networks that several tests read."""
    return Runs(tmp_path_factory.mktemp("prune") / "runs", seed=0)


@pytest.fixture(scope="session")
def source(do: Runs) -> ImageSet:
    """Five patterns."""
    return image_set(do.files, "source", 5)


@pytest.fixture(scope="session")
def auxiliary(do: Runs) -> ImageSet:
    """Four other patterns."""
    return image_set(do.files, "auxiliary", 4)


@pytest.fixture(scope="session")
def model(do: Runs, source: ImageSet) -> Checkpoint:
    """A network trained on the source until it knows it."""
    recipe = FitRecipe(steps=60, batch_size=24, optimizer="adam", learning_rate=0.01)
    return do(train_cell, architecture_of(PLAIN, 5), source, recipe)


@pytest.fixture
def own_runs(tmp_path: Path, do: Runs) -> Runs:
    """A runs folder of the test's own, with the files of the shared one in it."""
    runs = Runs(tmp_path / "runs", seed=0)
    runs.files.root.mkdir(parents=True, exist_ok=True)
    for path in do.files.root.iterdir():
        (runs.files.root / path.name).hardlink_to(path)
    return runs
