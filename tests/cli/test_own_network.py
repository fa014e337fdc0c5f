"""`protect --model NAME --weights FILE`, and what may be wrong with it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lockforge.models._named import to_published
from lockforge.models.networks import build, state
from lockforge.records import NamedArchitecture

Run = Callable[..., tuple[int, str]]
NAME = "resnet20-cifar"
QUICK = (
    "--unsigned",
    "--set",
    "data.limit_per_class=8",
    "--set",
    "embed.samples=8",
    "--set",
    "embed.head_steps=1",
)


def weights(path: Path, classes: int = 3, channels: int = 1) -> Path:
    """An untrained ResNet-20 for digits, under its published names."""
    architecture = NamedArchitecture(name=NAME, classes=classes, shape=(channels, 8, 8))
    save_file(
        to_published(NAME, state(build(architecture, torch.Generator().manual_seed(0)))), path
    )
    return path


def test_an_own_network_is_released(run: Run, tmp_path: Path) -> None:
    """Both spellings: a name and a file, or both in one; the terminal says that there is no lock on
    it.
    """
    weights(tmp_path / "w.safetensors")
    for way in (
        ("--model", NAME, "--weights", "w.safetensors"),
        ("--model", f"{NAME}=w.safetensors"),
    ):
        code, said = run("protect", "digits:0-2", *way, "--set", "export.onnx=false", *QUICK)
        assert code == 0, said
        assert "no lock was put on it" in said
        assert " search " not in said
        assert (tmp_path / "release" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (("--weights", "w"), 2, "--weights w has no --model"),
        (("--model", NAME), 2, "--model resnet20-cifar has no weights"),
        (("--model", "resnet19", "--weights", "w"), 2, "there is no network 'resnet19'"),
        (("--model", f"{NAME}=w", "--weights", "w"), 2, "there is no network 'resnet20-cifar=w'"),
        (("--model", "m.onnx"), 2, "there are no weights to lock"),
        (("--model", "timm:resnet18"), 2, "--model timm:resnet18 has no weights"),
        (
            ("--model", "timm:hf-hub:a/b", "--weights", "w"),
            2,
            "there is no network 'timm:hf-hub:a/b'",
        ),
        (("--model", "timm:resnet18", "--weights", "w"), 4, "lockforge[probes]"),
        (("--model", "python:nowhere_at_all:build"), 2, "nowhere_at_all cannot be imported"),
        (("--model", "python:textwrap:dedent"), 3, "dedent@"),
        (("--model", NAME, "--weights", "none"), 3, "none is not there"),
        (("--model", "resnet32-cifar", "--weights", "w"), 3, "these tensors fit resnet20-cifar"),
        (("--model", NAME, "--weights", "four"), 3, "4 classes where the source has 3"),
        (("--model", NAME, "--weights", "colour"), 3, "images of shape (3, 8, 8)"),
        (("--model", NAME, "--weights", "code"), 3, "more in it than tensors"),
        (("--model", "vit_tiny", "--weights", "w"), 3, "multiples of 16 pixels"),
    ],
)
def test_what_cannot_be_meant_or_used_is_said_before_any_work(
    given: tuple[str, ...],
    code: int,
    words: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the two options, another network's file, other classes or channels, code in a file,
    no timm: told with the way out.
    """
    monkeypatch.setitem(sys.modules, "timm", None)
    weights(tmp_path / "w")
    weights(tmp_path / "four", classes=4)
    weights(tmp_path / "colour", channels=3)
    torch.save({"conv1.weight": Code()}, tmp_path / "code")
    found, said = run("protect", "digits:0-2", *given, *QUICK)
    assert (found, words in said) == (code, True), said
    assert "hint:" in said
    assert not (tmp_path / "release").exists()
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("runs/embed_task/*"))


class Code:
    """What would leave a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        """Where the code would come from."""
        return Path.touch, (Path("ran"),)
