"""What the tests of the search share: a predictor with random weights, embeddings made by hand, and
the built-in digits.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockforge.data.roles import read_set
from lockforge.files import Files
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import DataRecipe
from lockforge.records import ImageSet, TaskEmbedding
from lockforge.runs import Work
from lockforge.search.predictor import (
    PairNetwork,
    Predictor,
    code_width,
    load_predictor,
    save_predictor,
)

DIMENSION = 12
PROBE = "ab" * 32
DEFINITION = "made up; toy at 8 px"

MakePredictor = Callable[..., Predictor]
MakeEmbedding = Callable[..., TaskEmbedding]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A stage's surroundings in an empty folder."""
    folder = tmp_path / "search_cell" / "key.partial"
    folder.mkdir(parents=True)
    return Work(files=Files(tmp_path / "files"), folder=folder, seed=0)


@pytest.fixture
def digits(work: Work) -> ImageSet:
    """Handwritten 0 to 4, few of them."""
    return read_set("digits:0-4", DataRecipe(limit_per_class=16), work.files)


@pytest.fixture
def other_digits(work: Work) -> ImageSet:
    """Handwritten 5 to 9, few of them."""
    return read_set("digits:5-9/a", DataRecipe(limit_per_class=16), work.files)


def toy_file(space: str = "nasbench201", form: str = "pair", seed: int = 0) -> bytes:
    """The file of a predictor with random weights, for embeddings of twelve numbers."""
    network = PairNetwork(code_width(space), DIMENSION, form, torch_generator(seed, "toy", form))  # type: ignore[arg-type]
    tasks = numpy_generator(seed, "toy tasks").exponential(size=(9, DIMENSION)) ** 2
    return save_predictor(
        network,
        tasks,
        {
            "space": space,
            "probe": PROBE,
            "definition": f"{DEFINITION}; head 300 steps",
            "form": form,
        },
    )


@pytest.fixture
def toy() -> MakePredictor:
    """Load `toy_file`."""

    def make(space: str = "nasbench201", form: str = "pair", seed: int = 0) -> Predictor:
        return load_predictor(space, toy_file(space, form, seed))

    return make


@pytest.fixture
def vectors() -> np.ndarray:
    """Four embeddings."""
    return numpy_generator(0, "vectors").exponential(size=(4, DIMENSION))


@pytest.fixture
def embedding(work: Work) -> MakeEmbedding:
    """A record around a vector, of some images, as the toy predictor's probe would give it."""

    def make(
        vector: np.ndarray,
        images: str = "cd" * 32,
        probe: str = PROBE,
        definition: str = DEFINITION,
    ) -> TaskEmbedding:
        return TaskEmbedding(
            images=images,
            probe=probe,
            definition=f"{definition}; head 200 steps",
            dimension=len(vector),
            samples=10,
            probe_accuracy=0.5,
            vector=work.files.put_arrays({"fisher": np.asarray(vector, np.float32)}),
        )

    return make


@pytest.fixture
def toy_data() -> bytes:
    """The file of the toy predictor for nasbench201."""
    return toy_file()
