"""A network of which only the answers are known: an ONNX file, run by onnxruntime on the CPU. The
one door to onnxruntime.

A file is looked through before it is run: it must hold all its own numbers, so that running it
reads no other file. It may still ask for much memory or time: nothing bounds what a graph computes.

Shapes: n images, c channels, h x w pixels, k classes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from jaxtyping import Float32
from torch import Tensor

from lockforge.errors import DataError, ResourceError

LARGEST_FILE = 2**31 - 1  # bytes: protobuf's own limit
AT_ONCE = 256  # images in one question, where the file leaves that free
FLOAT = "tensor(float)"


class Port(NamedTuple):
    """An input or output: its name, its kind in onnxruntime's words, and its axes, a name or None
    where they are free.
    """

    name: str
    kind: str
    axes: tuple[Any, ...]


class Runtime:
    """An ONNX file that onnxruntime holds."""

    def __init__(self, data: bytes, what: str) -> None:
        """Read it.

        Args: what: the file's name, for errors.
        Raises: DataError: no ONNX, refers to other files, or cannot be run. ResourceError:
            onnxruntime is not installed.
        """
        if find_spec("onnxruntime") is None:
            raise ResourceError(
                f"{what} cannot be run without onnxruntime", hint="pip install 'lockforge[cpu]'"
            )
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as said

        self.what = what
        self._refusals = (
            *(
                said.Fail,
                said.InvalidArgument,
                said.InvalidGraph,
                said.InvalidProtobuf,
                said.NoSuchFile,
                said.NoModel,
                said.NotFound,
            ),
            *(
                said.NotImplemented,
                said.RuntimeException,
                said.EPFail,
                said.EngineError,
                ValueError,
            ),
        )
        _look_through(data, what)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            self.inputs = tuple(
                Port(one.name, one.type, tuple(one.shape)) for one in self.session.get_inputs()
            )
            self.outputs = tuple(
                Port(one.name, one.type, tuple(one.shape)) for one in self.session.get_outputs()
            )
        except self._refusals as error:
            raise self._fault(error) from error

    def run(self, inputs: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """The first output for the first input.

        Raises: DataError: the runtime refuses them.
        """
        if not self.inputs or not self.outputs:
            raise DataError(
                f"{self.what} cannot be run: it has no input or no output",
                hint="export the network to ONNX again",
            )
        try:
            output: np.ndarray[Any, Any] = self.session.run(
                [self.outputs[0].name], {self.inputs[0].name: inputs}
            )[0]
        except self._refusals as error:
            raise self._fault(error) from error
        return output

    def _fault(self, error: Exception) -> DataError:
        return DataError(
            f"{self.what} cannot be run: {(str(error).splitlines() or [''])[0][:200]}",
            hint="export the network to ONNX again",
        )


@dataclass(frozen=True)
class BlackBox:
    """Answers, and nothing else. Images are normalised as the file's maker had them; `batch` is
    the fixed number of images, or None.
    """

    runtime: Runtime
    shape: tuple[int, int, int]
    classes: int
    batch: int | None
    digest: str

    def __deepcopy__(self, _memo: dict[int, Any]) -> "BlackBox":
        """Itself: nothing in it changes, and the runtime's session cannot be copied."""
        return self

    def logits(self, images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n k"]:
        """What the file answers, on the CPU: logits, if that is what it was exported to give.

        Raises: DataError: images of another shape, or an answer that is no number.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise DataError(
                f"{self.runtime.what} takes images of shape {self.shape}, not "
                f"{tuple(images.shape[1:])}",
                hint="read the images in its shape: `data.size` and `data.channels` do that",
            )
        size = self.batch or AT_ONCE
        answers = [np.zeros((0, self.classes), np.float32)]
        for part in torch.split(images.detach().to("cpu", torch.float32), size):
            asked = (
                part
                if self.batch is None
                else torch.cat([part, part.new_zeros(size - len(part), *self.shape)])
            )
            answers.append(self.runtime.run(asked.numpy())[: len(part)])
        found = torch.from_numpy(np.concatenate(answers))
        wrong = int((~found.isfinite()).any(dim=1).sum())
        if wrong:
            raise DataError(
                f"{self.runtime.what} answers with NaN or infinity for {wrong} of {len(images)} "
                "images",
                hint="check how its images are to be normalised, and export it in single precision",
            )
        return found


def read_black_box(
    path: Path, shape: tuple[int, int, int] | None = None, what: str = ""
) -> BlackBox:
    """An ONNX classifier: one input (images, c, h, w) and one output (images, classes), both in
    single precision.

    Args: shape: (c, h, w) of the images, for the axes that the file leaves free; fixed axes stay
    what they are. what: what errors call it, where that is not the file's own name.
    Raises: DataError: no such file, too large, no such classifier (all faults are listed).
        ResourceError: onnxruntime is not installed.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_FILE:
            raise DataError(
                f"{path} is no file of at most {LARGEST_FILE} bytes",
                hint="give an ONNX file that holds its own weights",
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", hint="give an ONNX file"
        ) from error
    runtime = Runtime(data, what or path.name)
    batch, found = _input(runtime, shape)
    asked = runtime.run(np.zeros((batch or 1, *found), np.float32))
    if (
        asked.dtype != np.float32
        or asked.ndim != 2
        or len(asked) != (batch or 1)
        or asked.shape[1] < 2
    ):
        raise DataError(
            f"{path} answers {batch or 1} image(s) with {asked.dtype} of shape {asked.shape}",
            hint="a classifier's output is float32 (images, classes), two classes or more: "
            "export it up to its logits",
        )
    return BlackBox(runtime, found, asked.shape[1], batch, hashlib.sha256(data).hexdigest())


def _input(
    runtime: Runtime, shape: tuple[int, int, int] | None
) -> tuple[int | None, tuple[int, int, int]]:
    """How many images at once (None: any) and their shape."""
    inputs, outputs = runtime.inputs, runtime.outputs
    faults = [
        f"{len(found)} {kind}s where one is needed: "
        f"{', '.join(one.name for one in found) or 'none'}"
        for kind, found in (("input", inputs), ("output", outputs))
        if len(found) != 1
    ]
    faults += [
        f"{one.name} is {one.kind} where {FLOAT} is needed"
        for one in (*inputs, *outputs)
        if one.kind != FLOAT
    ]
    axes = inputs[0].axes if len(inputs) == 1 else ()
    if len(axes) == 4:
        free = [
            name
            for name, axis in zip(("channels", "height", "width"), axes[1:], strict=True)
            if not _fixed(axis)
        ]
        if free and shape is None:
            faults.append(
                f"{', '.join(free)} of {inputs[0].name} {list(axes)} are free: say which shape "
                "the images have"
            )
        if _fixed(axes[1]) and axes[1] > 4 and axes[3] in {1, 3, 4}:
            faults.append(
                f"{inputs[0].name} {list(axes)} has its channels last: export it with (images, "
                "channels, height, width)"
            )
    elif len(inputs) == 1:
        faults.append(
            f"{inputs[0].name} has {len(axes)} axes where (images, channels, height, width) are "
            "needed"
        )
    if faults:
        raise DataError(
            f"{runtime.what} is no image classifier that can be asked",
            faults=faults,
            hint="export it from images to logits alone",
        )
    c, h, w = (
        axis if _fixed(axis) else given
        for axis, given in zip(axes[1:], shape or (0, 0, 0), strict=True)
    )
    return (axes[0] if _fixed(axes[0]) else None), (c, h, w)


def _fixed(axis: object) -> bool:
    return isinstance(axis, int) and axis > 0


def _look_through(data: bytes, what: str) -> None:
    """Nothing, where the file is ONNX and holds all its own numbers."""
    try:
        tensors = _tensors(onnx.load_model_from_string(data))
        elsewhere = [
            tensor.name or "(no name)"
            for tensor in tensors
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
    except (DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{what} cannot be run: it is no ONNX file",
            hint="give a file that an ONNX exporter wrote",
        ) from error
    if elsewhere:
        raise DataError(
            f"{what} keeps {len(elsewhere)} tensor(s) in other files, which are not opened: "
            f"{', '.join(elsewhere[:3])}",
            hint="export it into one file (external_data=False)",
        )


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor anywhere in a protobuf message."""
    if isinstance(message, onnx.TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if isinstance(value, Message) else value:
                yield from _tensors(part)
