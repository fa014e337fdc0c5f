"""The compact form of sparse tensors as a safetensors file: where the values are that are not zero,
and those values, bit for bit.

A tensor `name` of n values, k of which have a bit set (-0.0 and NaN have), becomes `name/values`
(k,) in its own dtype, row by row, and the shorter of two: `name/mask` u8 (ceil(n / 8),), a bit for
each value, the first one in the highest bit; or `name/gaps` u8 (g,), how many zeros come before
each value, 255 for 255 zeros and no value yet. Tensors that would not become smaller stay as they
are. The only metadata key, `lockforge.sparse`, is a JSON object: name -> shape.

Both forms grow with n: a byte stands for 255 values at most, so that a small file cannot ask for
much memory.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lockforge.errors import IntegrityError

KEY = "lockforge.sparse"
LARGEST_HEADER = 16 * 2**20  # bytes
MOST_AXES = 16
ENTRY = 160  # bytes that one more tensor and its shape take in the header, beside its name
_PARTS = ("values", "mask", "gaps")
_ESCAPE = 255
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_HINT = "it was edited or cut short: take the dense weights"


class Packed(NamedTuple):
    """Tensors and metadata of a compact safetensors file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


class Sizes(NamedTuple):
    """Bytes of the same tensors as a safetensors file: zeros written out, and in the compact
    form.
    """

    dense: int
    sparse: int


def pack(tensors: Mapping[str, Tensor]) -> Packed:
    """The compact form; `unpack` gives the same tensors back, bit for bit, on the CPU.

    >>> packed = pack({"a": torch.eye(100)})
    >>> {name: len(part) for name, part in packed.tensors.items()}, packed.metadata
    ({'a/values': 100, 'a/gaps': 100}, {'lockforge.sparse': '{"a":[100,100]}'})
    """
    kept: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, given in tensors.items():
        tensor = given.detach().cpu().contiguous()
        parts = {f"{name}/{part}": made for part, made in _parts(tensor).items()}
        saved = _bytes(tensor) - sum(_bytes(part) for part in parts.values())
        taken = any(f"{name}/{part}" in tensors for part in _PARTS)
        if saved > ENTRY + 2 * len(name) and tensor.ndim <= MOST_AXES and not taken:
            kept |= parts
            shapes[name] = list(tensor.shape)
        else:
            kept[name] = tensor
    return Packed(kept, {KEY: json.dumps(shapes, sort_keys=True, separators=(",", ":"))})


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that were packed. What is claimed is held against the bytes that are there before
    anything is made of it.

    Raises: IntegrityError: no compact form, or mask, gaps, values and shape contradict one another;
        every fault is listed.
    """
    rest = dict(tensors)
    found: dict[str, Tensor] = {}
    faults: list[str] = []
    for name, shape in _shapes(metadata).items():
        parts = {part: rest.pop(f"{name}/{part}") for part in _PARTS if f"{name}/{part}" in rest}
        fault = f"{name}: there twice" if name in tensors else _fault(name, shape, parts)
        if fault:
            faults.append(fault)
            continue
        values = parts["values"]
        dense = torch.zeros(math.prod(shape), dtype=_BITS[values.element_size()])
        dense[_places(parts, len(dense))] = values.view(dense.dtype)
        found[name] = dense.view(values.dtype).reshape(shape)
    if faults:
        raise IntegrityError("this is no sound compact form", faults=faults[:20], hint=_HINT)
    return found | rest


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of the compact form; the same tensors give the same bytes."""
    packed = pack(tensors)
    return save(packed.tensors, packed.metadata)


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file that `to_bytes` made.

    Raises: IntegrityError: another file, damaged, or contradicting itself.
    """
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else LARGEST_HEADER
    if length > min(LARGEST_HEADER, len(data) - 8):
        raise IntegrityError(
            f"a header of {length} bytes in a file of {len(data)}: this is no safetensors file",
            hint=_HINT,
        )
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__", {})
        return unpack(load(data), {str(key): str(value) for key, value in metadata.items()})
    except (SafetensorError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"this is no sound safetensors file: {error}", hint=_HINT) from error


def sizes(tensors: Mapping[str, Tensor]) -> Sizes:
    """Bytes of the two files, headers included.

    >>> sizes({"a": torch.eye(100)})
    Sizes(dense=40072, sparse=692)
    """
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return Sizes(len(save(dense)), len(to_bytes(dense)))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _parts(tensor: Shaped[Tensor, "..."]) -> dict[str, Tensor]:
    flat = tensor.reshape(-1)
    whole = flat.view(_BITS[flat.element_size()])
    used: Bool[Tensor, " n"] = whole != 0
    mask = torch.from_numpy(np.packbits(used.numpy()))
    gaps = _gaps(used)
    return {"values": whole[used].view(flat.dtype)} | (
        {"gaps": gaps} if len(gaps) < len(mask) else {"mask": mask}
    )


def _gaps(used: Bool[Tensor, " n"]) -> UInt8[Tensor, " g"]:
    places = used.nonzero().squeeze(1)
    before = torch.tensor([-1])
    gaps = torch.diff(places, prepend=before) - 1
    last = places[-1:] if len(places) else before
    after = int(len(used) - 1 - last) // _ESCAPE
    ends = (gaps // _ESCAPE + 1).cumsum(0)
    codes = torch.full((int(ends[-1]) + after if len(ends) else after,), _ESCAPE, dtype=torch.uint8)
    codes[ends - 1] = (gaps % _ESCAPE).to(torch.uint8)
    return codes


def _reach(gaps: UInt8[Tensor, " g"]) -> Shaped[Tensor, " g"]:
    """How many values of the dense tensor each byte and those before it account for."""
    steps = gaps.to(torch.int64)
    return torch.where(steps == _ESCAPE, steps, steps + 1).cumsum(0)


def _places(parts: Mapping[str, Tensor], n: int) -> Tensor:
    """Where the values go: a mask of (n,), or their indices."""
    if "mask" in parts:
        return torch.from_numpy(np.unpackbits(parts["mask"].numpy(), count=n).astype(np.bool_))
    return _reach(parts["gaps"])[parts["gaps"] != _ESCAPE] - 1


def _fault(name: str, shape: tuple[int, ...], parts: Mapping[str, Tensor]) -> str:
    """What is wrong with the parts of a tensor, or nothing; takes memory for the parts alone,
    whatever the shape claims.
    """
    if parts.keys() not in ({"values", "mask"}, {"values", "gaps"}):
        return (
            f"{name}: has {', '.join(parts) or 'neither values nor a mask'}, where values and "
            "one of mask and gaps are needed"
        )
    values, where = parts["values"], parts.get("mask", parts.get("gaps"))
    if values.ndim != 1 or where is None or where.ndim != 1 or where.dtype != torch.uint8:
        return f"{name}: values, mask and gaps must have one axis, mask and gaps 8 bits"
    n = math.prod(shape)
    if "mask" in parts:
        if len(where) != -(-n // 8):
            return (
                f"{name}: a mask of {len(where)} bytes for a shape {shape} that needs {-(-n // 8)}"
            )
        bits = np.unpackbits(where.numpy())
        if bits[n:].any():
            return f"{name}: the mask goes on behind the {n} values of its shape"
        count = int(bits.sum())
    else:
        count = int((where != _ESCAPE).sum())
        reach = int(_reach(where)[-1]) if len(where) else 0
        if not reach <= n < reach + _ESCAPE:
            return f"{name}: gaps that end at {reach} for a shape {shape} of {n} values"
    return "" if count == len(values) else f"{name}: {len(values)} values where {count} are marked"


def _shapes(metadata: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    if KEY not in metadata:
        raise IntegrityError(
            f"no compact form: {KEY} is not in the metadata",
            hint="read it as a plain safetensors file",
        )
    try:
        found = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{KEY} cannot be read: {error}", hint=_HINT) from error
    strange = (
        [f"{name}: {shape!r:.60}" for name, shape in found.items() if not _is_shape(shape)]
        if isinstance(found, dict)
        else ["no table"]
    )
    if strange:
        raise IntegrityError(f"{KEY} holds what are no shapes", faults=strange[:20], hint=_HINT)
    return {name: tuple(shape) for name, shape in found.items()}


def _is_shape(value: object) -> bool:
    """Whether it is a list of a few positive whole numbers: tensors without values are never
    sparse.
    """
    return (
        isinstance(value, list)
        and len(value) <= MOST_AXES
        and all(type(side) is int and side >= 1 for side in value)
    )
