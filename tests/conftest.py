"""What every test may use: real data where it is, named generators, one thread."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lockforge.randomness import numpy_generator

SHARED = Path(os.environ.get("LOCKFORGE_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def pytest_configure() -> None:
    """One thread: the tests are small, and the same number of threads gives the same bits."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """A test that ran a pipeline leaves its recipe's number of threads behind."""
    yield
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, networks and tables; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("no real data here: set LOCKFORGE_DATA to a folder with images/, nas/ and weights/")
    return SHARED


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, which proves the test itself; and a GPU where there is one."""
    import torch

    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    from lockforge.engine.device import choose_device

    return choose_device(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of the test's own."""
    return numpy_generator(0, request.node.name)
