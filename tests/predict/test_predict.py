"""What a release says of images: the same from ONNX, from the weights and from the serving
example, and nothing from a changed one.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.evidence.manifest import write_manifest
from lockforge.export.stage import _preprocessing
from lockforge.files import Files
from lockforge.models.networks import load
from lockforge.models.weights import write_weights
from lockforge.predict import predict
from lockforge.recipe import Recipe
from lockforge.records import Checkpoint, ImageSet

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "serve_onnx.py"


@pytest.fixture(scope="module")
def release(
    checkpoint: Checkpoint, source: ImageSet, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release of the fixture's untrained network; ONNX by the old exporter, which is ten times
    faster.
    """
    folder = tmp_path_factory.mktemp("predict") / "release"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(write_weights(checkpoint, source, Recipe(), files))
    (folder / "preprocessing.json").write_bytes(_preprocessing(source, Recipe()))
    (folder / "labels.json").write_text(json.dumps(list(source.classes)))
    network = load(checkpoint.architecture, files.get_tensors(checkpoint.weights)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 1, 8, 8),), str(folder / "model.onnx"), dynamo=False,
            input_names=["pixels"], output_names=["logits"], dynamic_axes={"pixels": {0: "n"}},
        )  # fmt: skip
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """A grey image of the right size, and a colour one of another."""
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / "a.png")
    Image.fromarray(rng.integers(0, 256, (20, 13, 3), dtype=np.uint8)).save(place / "b.png")
    return place / "a.png", place / "b.png"


def test_onnx_and_weights_say_the_same(release: Path, images: tuple[Path, ...]) -> None:
    """Probabilities add up to one and agree within parity; the label is the most probable; the file
    that answered is named.
    """
    by_onnx, by_weights = predict(release, images), predict(release, images, "weights")
    alone = predict(release / "model.safetensors", images)
    assert (by_onnx[0], by_weights[0], alone[0]) == (
        "model.onnx",
        "model.safetensors",
        "model.safetensors",
    )
    assert alone == by_weights
    for one, other in zip(by_onnx[1], by_weights[1], strict=True):
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert one.probability == max(one.probabilities.values())


def test_a_image_is_prepared_as_the_release_says(
    release: Path, images: tuple[Path, ...], checkpoint: Checkpoint, files: Files
) -> None:
    """Worked out by hand for the image that needs no resizing: softmax of the network's logits of
    (pixel / 255 - mean) / std.
    """
    pixels = (torch.from_numpy(np.asarray(Image.open(images[0])).copy()).float() / 255 - 0.5) / 0.2
    network = load(checkpoint.architecture, files.get_tensors(checkpoint.weights)).eval()
    with torch.inference_mode():
        wanted = network(pixels[None, None]).softmax(1)[0]
    (found,) = predict(release, images[:1], "weights")[1]
    assert list(found.probabilities) == ["no", "yes"]
    assert list(found.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_changed_release_is_not_asked(
    release: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    """A changed network, a missing manifest and a file that the release does not have are named."""
    place = Path(shutil.copytree(release, tmp_path / "release"))
    with pytest.raises(RecipeError, match=r"has no model\.int8\.onnx"):
        predict(place, images, "int8")
    (place / "model.onnx").write_bytes(b"evil")
    with pytest.raises(IntegrityError, match="not what its manifest says") as caught:
        predict(place, images)
    assert "model.onnx was changed" in caught.value.faults[0]
    (place / "manifest.json").unlink()
    with pytest.raises(DataError, match="no release"):
        predict(place, images)


def test_all_unreadable_images_are_listed(
    release: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    """Text, nothing at all and a folder: three faults in one answer."""
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError) as caught:
        predict(release, (images[0], tmp_path / "text.png", tmp_path / "none.png", tmp_path))
    assert len(caught.value.faults) == 3
    assert "--" not in caught.value.hint


def test_without_onnxruntime_the_weights_answer(
    release: Path, images: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core works without the extra."""
    monkeypatch.setattr("lockforge.predict.find_spec", lambda _name: None)
    assert predict(release, images)[0] == "model.safetensors"


def test_the_command_prints_labels_or_json(
    release: Path,
    images: tuple[Path, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line an image, most probable first; JSON with every probability."""
    from lockforge import cli

    def said(*more: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["lockforge", "predict", str(release), *map(str, images), *more]
        )
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    file, answers = predict(release, images)
    lines = said().splitlines()
    assert len(lines) == 2
    assert all(
        answer.label in line and answer.image in line
        for answer, line in zip(answers, lines, strict=True)
    )
    tree = json.loads(said("--json"))
    assert tree["file"] == file
    assert tree["images"][1]["label"] == answers[1].label
    assert tree["images"][1]["probabilities"] == pytest.approx(answers[1].probabilities)


@pytest.fixture
def served(release: Path) -> Iterator[int]:
    """The example, serving the release at a free port; stopped afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(release), str(port)], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                with closing(HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
                    connection.connect()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_the_example_serves_the_same_answers(
    served: int, release: Path, images: tuple[Path, ...]
) -> None:
    """onnxruntime, numpy and Pillow alone, over HTTP, give what `predict` gives; nothing of
    LockForge or torch is imported.
    """
    for image, answer in zip(images, predict(release, images)[1], strict=True):
        with closing(HTTPConnection("127.0.0.1", served, timeout=20)) as connection:
            connection.request("POST", "/", image.read_bytes())
            assert json.load(connection.getresponse()) == pytest.approx(
                answer.probabilities, abs=1e-4
            )
    assert not [word for word in ("lockforge", "torch") if f"import {word}" in EXAMPLE.read_text()]
