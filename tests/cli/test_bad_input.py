"""An owner's mistakes, as the command line meets them: the right exit code, what and where and what
next, nothing left behind.
"""

import errno
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str]]


def photos(root: Path, rng: np.random.Generator, **classes: int) -> Path:
    """A folder with so many random images a class."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for at in range(count):
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(
                root / name / f"{at}.png"
            )
    return root


def bomb() -> bytes:
    """A PNG header of 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A sound set: 30 images, three classes."""
    return {"x": rng.integers(256, size=(30, 8, 8), dtype=np.uint8), "y": np.arange(30) % 3}


def spoilt(kind: str, sound: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The set with one fault."""
    x, y = sound["x"], sound["y"]
    match kind:
        case "nan":
            return sound | {"x": np.where(np.arange(30)[:, None, None] == 7, np.nan, x / 255)}
        case "range":
            return sound | {"x": x.astype(np.int16) * 3}
        case "length":
            return sound | {"y": y[:-1]}
        case "labels":
            return sound | {"classes": np.array(["a", "b"])}
        case "pickle":
            return sound | {"x": np.array([{"a": 1}] * 30, dtype=object)}
    raise ValueError(kind)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, "no class folders"),
        ({"cat": 9}, "1 class(es) with images ('cat')"),
        ({"cat": 9, "dog": 0}, "dog: no images"),
        ({"cat": 9, "dog": 1}, "class 'dog' has 1 different image"),
    ],
)
def test_a_folder_that_is_too_little_is_a_data_fault(
    classes: dict[str, int], words: str, run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Empty, one class, an empty class, a class with one image."""
    (tmp_path / "set").mkdir()
    code, said = run("protect", str(photos(tmp_path / "set", rng, **classes)), "--unsigned")
    assert code == 3
    assert words in said
    assert "hint:" in said
    assert not (tmp_path / "release").exists()


def test_all_unreadable_images_are_listed_and_can_be_skipped(
    run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Truncated, no image, a bomb, an empty file; skipped, they are named on the terminal and
    counted in the survey.
    """
    root = photos(tmp_path / "set", rng, cat=9, dog=9)
    whole = (root / "cat" / "0.png").read_bytes()
    for name, data in (
        ("cut.png", whole[:60]),
        ("text.jpg", b"hello"),
        ("bomb.png", bomb()),
        ("empty.png", b""),
    ):
        (root / "dog" / name).write_bytes(data)
    code, said = run("embed", "set", "--set", "embed.samples=4", "--set", "embed.head_steps=1")
    assert code == 3
    assert all(
        name in said
        for name in (
            "4 fault(s)",
            "cut.png",
            "text.jpg",
            "decompression bomb",
            "empty.png",
            "--skip-unreadable",
        )
    )
    code, said = run(
        "embed",
        "set",
        "--set",
        "embed.samples=4",
        "--set",
        "embed.head_steps=1",
        "--skip-unreadable",
    )
    assert code == 0
    assert all(name in said for name in ("cut.png", "text.jpg", "bomb.png", "empty.png"))
    code, said = run("data", "set", "--json")
    assert code == 0
    assert len(json.loads(said)["sets"][0]["unreadable"]) == 4


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "1 image(s) with NaN or infinite pixels, the first at index 7"),
        ("range", "pixels from 0 to 765"),
        ("length", "30 images, y has 29 labels"),
        ("labels", "labels from 0 to 2, but `classes` names 2"),
        ("pickle", "an object array"),
    ],
)
def test_faulty_arrays_are_data_faults(
    kind: str, words: str, run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    """NaN, wrong range, mismatched lengths, labels out of range, a pickle."""
    np.savez(tmp_path / "set.npz", **spoilt(kind, arrays(rng)))
    code, said = run("protect", "set.npz", "--unsigned")
    assert code == 3
    assert words in said


def test_overlap_between_roles_is_a_data_fault(
    run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Two images of the source are in the target too; the survey of both counts them as well."""
    one, other = arrays(rng), arrays(rng)
    other["x"][:2] = one["x"][5:7]
    np.savez(tmp_path / "a.npz", **one)
    np.savez(tmp_path / "b.npz", **other)
    code, said = run("protect", "a.npz", "--target", "b.npz", "--unsigned")
    assert code == 3
    assert "2 different image(s) in both" in said
    assert json.loads(run("data", "a.npz", "b.npz", "--json")[1])["shared"] == [[30, 2], [2, 30]]


def test_all_faults_of_a_recipe_are_said_at_once(run: Run, tmp_path: Path) -> None:
    """Unknown key, wrong type, out of range; a key given twice; code instead of a value."""
    (tmp_path / "bad.yaml").write_text(
        "network: {stem: 8, cells_per_stage: many}\ntrain: {epochs: 0}\n"
    )
    code, said = run("protect", "--recipe", "bad.yaml")
    assert code == 2
    assert all(key in said for key in ("network.stem", "network.cells_per_stage", "train.epochs"))
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    code, said = run("protect", "--recipe", "twice.yaml")
    assert (code, "seed" in said, "Traceback" in said) == (2, True, False)
    (tmp_path / "code.yaml").write_text("seed: !!python/object/apply:os.system ['touch ran']\n")
    assert run("protect", "--recipe", "code.yaml")[0] == 2
    (tmp_path / "space.yaml").write_text("network: {space: 'python:os.system'}\n")
    assert run("protect", "--recipe", "space.yaml")[0] == 2
    assert not (tmp_path / "ran").exists()


def test_a_newer_runs_folder_is_a_data_fault_and_left_alone(run: Run, tmp_path: Path) -> None:
    """It says which version wrote it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "format.json").write_text('{"version": 99}')
    code, said = run("protect", "--unsigned")
    assert (code, "layout 99" in said) == (3, True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["format.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "may write to"),
        (errno.EROFS, "may write to"),
    ],
)
def test_a_disk_that_refuses_is_a_resource_fault(
    number: int, words: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Full, forbidden, read-only; what was begun does not look finished."""

    def refuse(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    assert run("embed", "digits", "--set", "embed.samples=4", "--set", "embed.head_steps=1")[0] == 0
    monkeypatch.setattr(os, "fsync", refuse)
    code, said = run("embed", "digits", "--set", "embed.samples=5", "--set", "embed.head_steps=1")
    assert code == 4
    assert words in said
    assert len(list((tmp_path / "runs" / "embed_task").glob("*[0-9a-f]"))) == 1


DIGITS = (
    "--source",
    "digits:0-4/a",
    "--target",
    "digits:5-9/b",
    "--set",
    "data.limit_per_class=16",
)
THIN = "resnet20-cifar"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("audit", "resnet19-cifar=a.pt"), 2, ("no network 'resnet19-cifar'", "resnet20-cifar")),
        (("audit", "a.onnx", "--reference", "b.onnx"), 3, ("reference b.onnx is an ONNX file",)),
        (
            ("audit", "a.onnx", "--reference", f"{THIN}=b.pt"),
            3,
            ("2 models cannot be used", "a.onnx", "b.pt"),
        ),
        (
            ("audit", "bare.safetensors"),
            3,
            ("does not say which architecture", "resnet18-cifar=FILE"),
        ),
        (("audit", f"{THIN}=bare.safetensors"), 3, ("7 classes where the source has 5",)),
        (
            ("audit", f"{THIN}=five.safetensors", "--public", f"{THIN}=bare.safetensors"),
            3,
            ("another shape than (1, 8, 8)", "(3, 8, 8)"),
        ),
        (
            ("audit", f"{THIN}=five.safetensors", "--public", "x.onnx", "--public", "a b=c"),
            2,
            ("2 public model(s)", "x.onnx", "a b=c"),
        ),
        (("export", "a.onnx", "--unsigned"), 3, ("no weights to release", "lockforge audit")),
    ],
)
def test_models_that_cannot_be_audited_are_faults(
    arguments: tuple[str, ...], code: int, words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    """A network that is not known, answers where weights are needed, no architecture, other
    classes, other channels.
    """
    from safetensors.torch import save_file

    from lockforge.models._named import to_published
    from lockforge.models.networks import build, state
    from lockforge.randomness import torch_generator
    from lockforge.records import NamedArchitecture

    for name, classes, channels in (("bare", 7, 3), ("five", 5, 1)):
        network = build(
            NamedArchitecture(name=THIN, classes=classes, shape=(channels, 8, 8)),
            torch_generator(0),
        )
        save_file(to_published(THIN, state(network)), tmp_path / f"{name}.safetensors")
    found, said = run(*arguments, *DIGITS)
    assert found == code
    assert all(word in said for word in (*words, "hint:"))
    assert "Traceback" not in said
