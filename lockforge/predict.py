"""What a release says of images: decoded within bounds, prepared as the release prepares them,
asked of its ONNX file or of its weights.

Shapes: n images, c channels, h x w pixels, k classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64

from lockforge.data.batches import Pool
from lockforge.data.decode import Item, read_many
from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.evidence.manifest import (
    MANIFEST,
    SIGNATURE,
    check_manifest,
    hash_folder,
    read_manifest,
)
from lockforge.export.int8 import INT8
from lockforge.models.networks import load
from lockforge.models.read_onnx import AT_ONCE, Runtime
from lockforge.models.weights import read_model
from lockforge.recipe import DataRecipe

ONNX = "model.onnx"
Using = Literal["auto", "onnx", "int8", "weights"]


@dataclass(frozen=True)
class Answer:
    """One image: the most probable class, and the softmax of all logits in the order of the
    release's classes.
    """

    image: str
    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]


def predict(
    place: Path, images: Sequence[Path], using: Using = "auto"
) -> tuple[str, tuple[Answer, ...]]:
    """Classify images.

    Args: place: a release folder, or a model.safetensors, which has no ONNX file beside it. using:
    which of its files answers; auto takes ONNX where it is there and onnxruntime is installed.
    Returns: the file that answered, and an answer for each image in order.
    Raises: DataError: images that cannot be read (all are listed), or no model. IntegrityError:
        the folder is not what its manifest says.
    RecipeError: no such file in the release. ResourceError: onnxruntime is not installed.
    """
    _check_folder(place)
    architecture, tensors, metadata = read_model(place)
    try:
        classes = tuple(str(name) for name in json.loads(metadata["lockforge.classes"]))
        mean, std = (
            torch.tensor(json.loads(metadata[f"lockforge.{name}"]), dtype=torch.float32)
            for name in ("mean", "std")
        )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place} does not say its classes, mean and deviation: {error}",
            hint="give a LockForge release",
        ) from error
    if len(classes) != architecture.classes or not len(mean) == len(std) == architecture.shape[0]:
        raise IntegrityError(
            f"{place} gives {len(classes)} classes and {len(mean)} means for a network of "
            "another kind"
        )
    file = _file(place, using)
    # mypy knows no default in a lambda
    items = [Item(str(path), 2, 0, lambda path=path: path) for path in images]  # type: ignore[misc]
    try:
        read = read_many("what was given", items, classes, DataRecipe(), architecture.shape)
    except DataError as error:
        raise DataError(
            error.message,
            faults=error.faults,
            hint="repair what is not a sound image, or leave it out",
        ) from error
    pool = Pool(
        torch.from_numpy(read.images), torch.from_numpy(read.labels), mean, std, len(classes)
    )
    if file == "model.safetensors":
        network = load(architecture, tensors).eval()
        with torch.inference_mode():
            parts = [network(pixels).numpy() for pixels, _ in pool.batches(AT_ONCE, None)]
    else:
        runtime = Runtime((place / file).read_bytes(), file)
        parts = [runtime.run(pixels.numpy()) for pixels, _ in pool.batches(AT_ONCE, None)]
    found = _softmax(np.concatenate(parts).astype(np.float64))
    if found.shape[1] != len(classes) or not np.isfinite(found).all():
        raise IntegrityError(
            f"{file} answers with {found.shape[1]} numbers for {len(classes)} classes, or with none"
        )
    rows = [dict(zip(classes, map(float, row), strict=True)) for row in found]
    return file, tuple(
        Answer(str(path), classes[int(values.argmax())], row)
        for path, values, row in zip(images, found, rows, strict=True)
    )


def _check_folder(place: Path) -> None:
    """Refuse a folder that is not what its manifest says: it would be run. Who made it is for
    `verify` to say.
    """
    if not place.is_dir():
        return
    if not (place / MANIFEST).is_file():
        raise DataError(
            f"{place} is no release: it has no {MANIFEST}",
            hint="give a release folder, or its model.safetensors alone",
        )
    faults = check_manifest(
        read_manifest(place),
        {name: ref for name, ref in hash_folder(place).items() if name != SIGNATURE},
    )
    if faults:
        raise IntegrityError(
            f"{place} is not what its manifest says", faults=faults, hint="get the release again"
        )


def _file(place: Path, using: Using) -> str:
    wanted = {"auto": ONNX, "onnx": ONNX, "int8": INT8, "weights": "model.safetensors"}[using]
    there = place.is_dir() and (place / wanted).is_file()
    if using == "auto" and (not there or find_spec("onnxruntime") is None):
        return "model.safetensors"
    if using in {"onnx", "int8"} and not there:
        raise RecipeError(
            f"{place} has no {wanted}", hint="leave --using out, or give a release that has it"
        )
    return wanted


def _softmax(logits: Float64[np.ndarray, "n k"]) -> "np.ndarray[Any, Any]":
    """exp(z_k) / sum_j exp(z_j), row by row."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray[Any, Any] = raised / raised.sum(axis=1, keepdims=True)
    return shares
