"""model.int8.onnx: the network in whole numbers of 8 bits, calibrated on images of the source,
and how often it is right.

Weights are quantised channel by channel and symmetrically, activations by their smallest and
largest value over the calibration images (ONNX's QuantizeLinear and DequantizeLinear, so that any
runtime reads it). What that costs is measured on the source's test split.
"""

import hashlib
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from lockforge.data.batches import Pool
from lockforge.engine.evaluate import accuracy
from lockforge.errors import ResourceError
from lockforge.export.onnx import cleaned, quiet
from lockforge.models.read_onnx import AT_ONCE, Runtime
from lockforge.randomness import torch_generator
from lockforge.records import FileRef, Quantised

INT8 = "model.int8.onnx"
CALIBRATION = 256  # images of the source's training split, drawn by the recipe's seed
_PART = 32


def check_int8() -> None:
    """Refuse before the work what could not be made after it.

    Raises: ResourceError: onnxruntime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise ResourceError(
            "export.int8 needs onnxruntime",
            hint="pip install 'lockforge[cpu]', or leave export.int8 out",
        )


def to_int8(data: bytes, train: Pool, seed: int) -> bytes:
    """Quantise an ONNX file. Args: data: its bytes. train: the source's training split, of which
    `CALIBRATION` images are looked at.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    generator = torch_generator(seed, "int8 calibration")
    drawn = torch.randperm(len(train), generator=generator)[:CALIBRATION]
    parts = iter(
        [{"pixels": train.pixels(rows).cpu().numpy()} for rows in torch.split(drawn, _PART)]
    )

    class Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> "dict[str, np.ndarray[Any, Any]] | None":
            return next(parts, None)

    with tempfile.TemporaryDirectory(prefix="lockforge-int8-") as folder, quiet():
        out = Path(folder) / INT8
        quantize_static(
            onnx.load_model_from_string(data),
            str(out),
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return cleaned(out.read_bytes())


def measured(data: bytes, train: Pool, test: Pool) -> Quantised:
    """How often the quantised network is right on the source's test split."""
    runtime = Runtime(data, INT8)
    logits = [
        torch.from_numpy(runtime.run(pixels.cpu().numpy()))
        for pixels, _ in test.batches(AT_ONCE, None)
    ]
    ref = FileRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    right = accuracy(torch.cat(logits), test.labels.cpu())
    return Quantised(
        file=ref, calibration=min(CALIBRATION, len(train)), accuracy=right, test_samples=len(test)
    )
