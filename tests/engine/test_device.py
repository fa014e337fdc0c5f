"""Devices, threads and the description of a machine."""

import pytest
import torch

from lockforge.engine.device import choose_device, describe, set_threads
from lockforge.errors import ResourceError


@pytest.mark.parametrize(("gpus", "chosen"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpus: int, chosen: str
) -> None:
    """The same word on machines with and without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("wanted", ["cuda:2", "cuda:x", "tpu", "", "cpu:1"])
def test_a_device_that_is_not_there_is_a_resource_error(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """Of two GPUs the numbers 0 and 1 exist; the error names what was wanted."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ResourceError, match=f"no device '{wanted}'"):
        choose_device(wanted)


def test_float32_is_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would give convolutions ten bits of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    before = (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )  # properties of modules, which monkeypatch cannot undo
    try:
        for wanted in ("cuda", "auto"):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
            choose_device(wanted)
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_threads_are_set_and_described() -> None:
    """What was asked for is what torch uses and what provenance says."""
    before = torch.get_num_threads()
    try:
        set_threads(2)
        assert torch.get_num_threads() == 2
        assert describe()["threads"] == "2"
    finally:
        set_threads(before)


def test_a_description_is_words_only() -> None:
    """Every entry is a non-empty text; the versions are those of the running packages."""
    described = describe()
    assert described["torch"] == torch.__version__
    assert {"python", "numpy", "lockforge", "cpu", "cores", "memory", "gpu", "machine"} <= set(
        described
    )
    assert all(isinstance(text, str) and text for text in described.values())
