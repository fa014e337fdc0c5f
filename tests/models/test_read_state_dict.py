"""Weights from elsewhere: read by name, every difference said at once, nothing run."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lockforge.errors import DataError, RecipeError
from lockforge.models import _read_state_dict as state_dicts
from lockforge.models._named import to_published
from lockforge.models._read_state_dict import read_network, read_tensors
from lockforge.models.networks import build, load, state
from lockforge.records import NamedArchitecture

Tensors = dict[str, Tensor]
NAME = "resnet20-cifar"


def published(name: str, classes: int, shape: tuple[int, int, int]) -> Tensors:
    """A state dict as its owner would have it."""
    architecture = NamedArchitecture(name=name, classes=classes, shape=shape)
    return to_published(name, state(build(architecture, torch.Generator().manual_seed(0))))


@pytest.fixture
def thin() -> Tensors:
    """A ResNet-20 for three classes of grey images."""
    return published(NAME, 3, (1, 16, 16))


@pytest.mark.parametrize("ending", ["safetensors", "pt", "old.pt"])
def test_a_file_gives_back_the_owners_network(ending: str, thin: Tensors, tmp_path: Path) -> None:
    """Safetensors, torch's zip and torch's old format: classes and channels are read off the
    tensors, all values are the file's.
    """
    path = tmp_path / f"w.{ending}"
    if ending == "safetensors":
        save_file(thin, path)
    else:
        torch.save(thin, path, _use_new_zipfile_serialization=ending == "pt")
    architecture, tensors = read_network(path, NAME, (16, 16), classes=3)
    assert architecture == NamedArchitecture(name=NAME, classes=3, shape=(1, 16, 16))
    again = to_published(NAME, state(load(architecture, tensors)))
    assert all(torch.equal(again[key], thin[key]) for key in thin)


@pytest.mark.parametrize(
    "name", ["resnet18-cifar", "vgg11_bn-cifar", "mobilenet_v3_small", "vit_tiny-cifar"]
)
def test_every_family_is_read(name: str, tmp_path: Path) -> None:
    """Five classes of grey images come back as such."""
    save_file(published(name, 5, (1, 32, 32)), tmp_path / "w")
    assert read_network(tmp_path / "w", name, (32, 32))[0] == NamedArchitecture(
        name=name, classes=5, shape=(1, 32, 32)
    )


def test_half_precision_and_missing_counters_are_made_good(thin: Tensors, tmp_path: Path) -> None:
    """Numbers become single precision; batch norm's counters may be left out."""
    save_file(
        {
            key: value.half()
            for key, value in thin.items()
            if not key.endswith("num_batches_tracked")
        },
        tmp_path / "w",
    )
    _, tensors = read_network(tmp_path / "w", NAME, (16, 16))
    assert tensors["body.conv1.weight"].dtype == torch.float32
    assert torch.equal(tensors["body.conv1.weight"], thin["conv1.weight"].half().float())
    assert tensors["body.bn1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
def test_what_training_scripts_wrap_around_is_taken_off(
    key: str, thin: Tensors, tmp_path: Path
) -> None:
    """A dictionary beside an epoch, and `module.` before every name."""
    torch.save(
        {key: {f"module.{name}": value for name, value in thin.items()}, "epoch": 7}, tmp_path / "w"
    )
    assert read_network(tmp_path / "w", NAME, (16, 16))[0].classes == 3


def test_other_names_of_cifar_resnets_are_known(tmp_path: Path) -> None:
    """`shortcut` and `linear`, as many CIFAR files have them, are `downsample` and `fc`."""
    tensors = published("resnet18-cifar", 4, (3, 32, 32))
    theirs = {
        key.replace("downsample.", "shortcut.").replace("fc.", "linear."): value
        for key, value in tensors.items()
    }
    save_file(theirs, tmp_path / "w")
    _, found = read_network(tmp_path / "w", "resnet18-cifar", (32, 32))
    assert torch.equal(found["head.weight"], tensors["fc.weight"])
    assert torch.equal(
        found["body.layer2.0.downsample.0.weight"], tensors["layer2.0.downsample.0.weight"]
    )


def test_every_difference_is_listed_at_once(thin: Tensors, tmp_path: Path) -> None:
    """Missing, unknown, misshapen and NaN tensors and another number of classes: five faults in one
    error.
    """
    del thin["bn1.weight"]
    thin["stranger"] = torch.zeros(1)
    thin["layer1.0.conv1.weight"] = torch.zeros(16, 16, 5, 5)
    thin["bn1.bias"] = torch.full((16,), float("nan"))
    save_file(thin, tmp_path / "w")
    with pytest.raises(DataError) as caught:
        read_network(tmp_path / "w", NAME, (16, 16), classes=10)
    assert caught.value.faults == (
        "bn1.weight: missing",
        "stranger: unknown",
        "layer1.0.conv1.weight: shape (16, 16, 5, 5) where (16, 16, 3, 3) is needed",
        "bn1.bias: not all finite",
        "linear.weight: 3 classes where the source has 10",
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("resnet32-cifar", "layer1.3.conv1.weight: missing"),
        ("vit_tiny-cifar", "head.weight: missing"),
    ],
)
def test_the_name_that_fits_is_told(wrong: str, says: str, thin: Tensors, tmp_path: Path) -> None:
    """Where another network fits the tensors, the way out is its name."""
    save_file(thin, tmp_path / "w")
    with pytest.raises(DataError, match=says) as caught:
        read_network(tmp_path / "w", wrong, (16, 16))
    assert caught.value.hint == f"these tensors fit {NAME}: give that name"


def test_classes_of_another_source_are_told_as_such(thin: Tensors, tmp_path: Path) -> None:
    """The name was right, so the way out is not another name."""
    save_file(thin, tmp_path / "w")
    with pytest.raises(DataError, match="3 classes where the source has 4") as caught:
        read_network(tmp_path / "w", NAME, (16, 16), classes=4)
    assert "trained on this source" in caught.value.hint


class Evil:
    """What would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Where the code would come from."""
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in a pickle is called, and torch's advice to read it unguarded is not passed on."""
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Evil()}, tmp_path / "w")
    with pytest.raises(DataError, match="more in it than tensors") as caught:
        read_tensors(tmp_path / "w")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"\x80\x02",
        b"# words\n" * 9,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        b"\0" * 99,
    ],
)
def test_what_is_no_weights_file_is_refused(data: bytes, tmp_path: Path) -> None:
    """Empty, cut short, other formats, and a header that claims more than the file: one error,
    before anything large is read.
    """
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read|claims a header"):
        read_tensors(tmp_path / "w")


@pytest.mark.parametrize("ending", ["safetensors", "pt", "old.pt"])
def test_damaged_files_are_data_errors_or_read(
    ending: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """60 files with a few changed bytes or a cut end: either tensors come out or a DataError, never
    anything else.
    """
    small = {"a": torch.zeros(3, 2), "b": torch.ones(2, dtype=torch.int64)}
    path = tmp_path / "w"
    if ending == "safetensors":
        save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=ending == "pt")
    whole = path.read_bytes()
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        path.write_bytes(
            bytes(data[: rng.integers(1, len(data))]) if rng.random() < 0.3 else bytes(data)
        )
        try:
            read_tensors(path)
        except DataError:
            refused += 1
    assert refused > 10


def test_other_contents_are_told(thin: Tensors, tmp_path: Path) -> None:
    """A list, an empty dictionary, values that are no dense tensors, no file, too large a file, an
    unknown name.
    """
    for value, says in (
        ([1], "found: list"),
        ({}, "found: dict"),
        ({"a": 1, "b": torch.ones(2).to_sparse()}, r"'a': int(.|\n)*'b': Tensor"),
    ):
        torch.save(value, tmp_path / "w")
        with pytest.raises(DataError, match=says):
            read_tensors(tmp_path / "w")
    with pytest.raises(DataError, match="is not there"):
        read_tensors(tmp_path / "none")
    with pytest.raises(DataError, match="no file of at most"):
        read_tensors(tmp_path)
    with pytest.raises(RecipeError, match="no network 'resnet21'"):
        read_network(tmp_path / "w", "resnet21", (16, 16))
    thin["linear.weight"] = torch.zeros(1, 64)
    save_file(thin, tmp_path / "w")
    with pytest.raises(DataError, match="1 class, where a classifier has two or more"):
        read_network(tmp_path / "w", NAME, (16, 16))


def test_a_file_over_the_limit_is_not_read(
    thin: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is looked at first."""
    save_file(thin, tmp_path / "w")
    monkeypatch.setattr(state_dicts, "LARGEST_FILE", 1000)
    with pytest.raises(DataError, match="at most 1000 bytes"):
        read_tensors(tmp_path / "w")
