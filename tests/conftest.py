"""What every test may use: real data where it is, named generators, one thread."""

import gc
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lockforge.randomness import numpy_generator

if TYPE_CHECKING:
    from tests.evidence.own_sigstore import OwnSigstore

SHARED = Path(
    os.environ.get("LOCKFORGE_DATA", Path(__file__).parent.parent.parent / "shared" / "data")
)


def pytest_configure() -> None:
    """One thread, as the tests are small and the same number of threads gives the same bits;
    hypothesis without chance or clock.
    """
    import torch
    from hypothesis import HealthCheck, settings

    torch.set_num_threads(1)
    settings.register_profile(
        "calm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("calm")  # the same examples each time, and no clock: machines are shared
    os.environ["RAY_TQDM_PATCH_PRINT"] = (
        "0"  # as `executors._ray` does, before a test imports Ray itself
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: files are handed out whole, and a long one at the end would
    have the other process wait.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """A test that ran a pipeline leaves its recipe's number of threads behind."""
    yield
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, networks and tables; the test is skipped where there is
    none.
    """
    if not SHARED.is_dir():
        pytest.skip(
            "no real data here: set LOCKFORGE_DATA to a folder with images/, nas/ and weights/"
        )
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray cluster of this machine with two workers, whose cache is nobody's; the test is skipped
    where Ray is not installed.
    """
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # Ray drops its own processes without waiting for them
        ray.shutdown()
        gc.collect()


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


# Keyless signatures

CI = (
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "BUILDKITE",
    "GOOGLE_SERVICE_ACCOUNT_NAME",
    "SIGSTORE_ID_TOKEN",
)


@pytest.fixture
def sigstore() -> "OwnSigstore":
    """A Sigstore of our own; skips where the library that talks to it is not installed."""
    pytest.importorskip(
        "sigstore", reason="keyless signatures are an extra: pip install 'lockforge[sign]'"
    )
    from tests.evidence.own_sigstore import OwnSigstore

    return OwnSigstore()


@pytest.fixture
def trust_config(
    sigstore: "OwnSigstore", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Its addresses and keys, while it answers; no CI job, no cache of the user's, and no other
    machine can be found.
    """
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("NO_PROXY", "*")
    found = socket.getaddrinfo

    def near(host: str, *args: int, **kwargs: int) -> object:
        if host != "127.0.0.1":
            raise socket.gaierror(f"the network is refused: {host}")
        return found(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", near)
    with sigstore.serving(tmp_path / "sigstore.json"):
        yield tmp_path / "sigstore.json"


@pytest.fixture
def token_file(tmp_path: Path, sigstore: "OwnSigstore") -> Path:  # noqa: ARG001
    """A valid identity token in a file."""
    from tests.evidence.own_sigstore import token

    (tmp_path / "token").write_text(token() + "\n")
    return tmp_path / "token"
