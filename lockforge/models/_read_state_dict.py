"""An owner's own weights: a bare state dict in a safetensors or torch file, and the name of its
network.

Nothing in a file is run: torch files are read with `weights_only`, which builds tensors and plain
containers and refuses all else.
"""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

# raised by torch.load; pickle is never imported
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]

from lockforge.errors import DataError
from lockforge.models._named import KNOWN, NAMES, check_sides, from_published, known
from lockforge.models.backbones import finite, misfits, with_counters
from lockforge.records import NamedArchitecture

LARGEST_FILE = 4 * 2**30  # bytes
LARGEST_HEADER = 16 * 2**20
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)  # where training scripts put the state dict beside other things
_BROKEN = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    struct.error,
)
_OTHERWISE = {
    "shortcut.": "downsample.",
    "linear.": "fc.",
}  # how many files for CIFAR stems call what torchvision calls otherwise


def read_network(
    path: Path, name: str, size: tuple[int, int], classes: int | None = None
) -> tuple[NamedArchitecture, dict[str, Tensor]]:
    """The network that a file's tensors make, under the names a `NamedNetwork` has; numbers in half
    or double precision become single.

    Args: name: one of `named.NAMES`. size: h and w of the images in pixels. classes: how many
        there must be, where that is known.
    Returns: its architecture, with classes and channels read off the tensors, and all its tensors.
    Raises: RecipeError: no such name. DataError: no such file, unreadable, or not this network's
        tensors; all differences are listed.
    """
    check_sides(name, size)
    return network_of(read_tensors(path), path, name, size, classes)


def network_of(
    stored: Mapping[str, Tensor],
    path: Path,
    name: str,
    size: tuple[int, int],
    classes: int | None = None,
) -> tuple[NamedArchitecture, dict[str, Tensor]]:
    """The same from the tensors of a file that was read; see `read_network`."""
    found = known(name)
    tensors = torchvision_names(name, stored)
    head, first = tensors.get(f"{found.head}.weight"), tensors.get(f"{found.first}.weight")
    missing = [
        f"{place}.weight: missing, or no {rank}-axis weight"
        for place, tensor, rank in ((found.head, head, 2), (found.first, first, 4))
        if tensor is None or tensor.ndim != rank or 0 in tensor.shape
    ]
    if head is None or first is None or missing or len(head) < 2:
        faults = missing or [
            (
                f"{found.head}.weight: {0 if head is None else len(head)} class, where a "
                "classifier "
                "has two or more"
            )
        ]
        raise DataError(f"{path} holds no {name}", faults=faults, hint=_other_name(stored, size))
    architecture = NamedArchitecture(name=name, classes=len(head), shape=(first.shape[1], *size))
    wanted = wanted_by(architecture)
    given = with_counters(tensors, wanted)
    faults = misfits(given, wanted)
    hint = (
        _other_name(stored, size) if faults else "give the weights that were trained on this source"
    )
    faults += [
        f"{key}: not all finite"
        for key in sorted(wanted.keys() & given.keys())
        if not finite(given[key])
    ]
    if classes is not None and classes != architecture.classes:
        faults.append(
            f"{found.head}.weight: {architecture.classes} classes where the source has {classes}"
        )
    if faults:
        raise DataError(
            f"{path} holds other tensors than {name} has for {size[0]} x {size[1]} pixels",
            faults=faults,
            hint=hint,
        )
    return architecture, from_published(
        name, {key: given[key].to(tensor.dtype) for key, tensor in wanted.items()}
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, as they are; those of a torch file may lie under `state_dict`,
    `model_state_dict`, `model` or `net`.

    A `module.` before every name, which training on several devices leaves behind, is taken off.

    Raises: DataError: no such file, too large, cut short, neither format, or more than tensors by
        name.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_FILE:
            raise DataError(
                f"{path} is no file of at most {LARGEST_FILE} bytes",
                hint="give a safetensors or torch file with a state dict",
            )
        with path.open("rb") as file:
            start = file.read(9)
        found: Any = _safetensors(path, start, size) if start[8:] == b"{" else _torch(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is not there", hint="give a safetensors or torch file with a state dict"
        ) from error
    except (SafetensorError, UnpicklingError, *_BROKEN) as error:
        told = (
            "not a torch file, or more in it than tensors"
            if isinstance(error, UnpicklingError)
            else str(error)
        )
        raise DataError(
            f"{path} cannot be read as safetensors or as plain torch weights: "
            f"{(told.splitlines() or [type(error).__name__])[0][:160]}",
            hint="save the state dict alone: safetensors.torch.save_file(network.state_dict(), "
            "FILE)",
        ) from error
    return _named_tensors(path, found)


def _safetensors(path: Path, start: bytes, size: int) -> dict[str, Tensor]:
    length = struct.unpack("<Q", start[:8])[0]
    if length > min(LARGEST_HEADER, size - 8):
        raise DataError(
            f"{path} claims a header of {length} bytes in a file of {size}",
            hint="it is cut short: get it again",
        )
    return safetensors.load_file(path)


def _torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch warns of unusual files; those it cannot read are errors
        return torch.load(path, map_location="cpu", weights_only=True)


def _named_tensors(path: Path, found: Any) -> dict[str, Tensor]:
    inner = (
        next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), found)
        if isinstance(found, Mapping)
        else {}
    )
    strange = [
        f"{key!r}: {type(value).__name__}"
        for key, value in inner.items()
        if not (isinstance(key, str) and _plain(value))
    ]
    if strange or not inner:
        raise DataError(
            f"{path} holds no state dict, which is dense tensors by name",
            faults=strange or [f"found: {type(found).__name__}"],
            hint="save the state dict alone: safetensors.torch.save_file(network.state_dict(), "
            "FILE)",
        )
    cut = "module." if all(key.startswith("module.") for key in inner) else ""
    return {key.removeprefix(cut): value.detach() for key, value in inner.items()}


def _plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_meta)
    )


def torchvision_names(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with torchvision's names for a ResNet's shortcuts and head, where a file has
    the others for CIFAR stems.
    """
    if known(name).head != "fc":
        return dict(tensors)
    renamed = {}
    for key, tensor in tensors.items():
        for theirs, ours in _OTHERWISE.items():
            if key.startswith(theirs) or f".{theirs}" in key:
                key = key.replace(theirs, ours)  # noqa: PLW2901
        renamed[key] = tensor
    return renamed if len(renamed) == len(tensors) else dict(tensors)


def wanted_by(architecture: NamedArchitecture) -> dict[str, Tensor]:
    """The tensors that a network has under their published names, without values."""
    with torch.device("meta"):
        wanted: dict[str, Tensor] = (
            KNOWN[architecture.name].make(architecture.classes, architecture.shape).state_dict()
        )
    return wanted


def _other_name(tensors: Mapping[str, Tensor], size: tuple[int, int]) -> str:
    """What to do next: give the name of the network that does fit, where there is one."""
    fits = []
    for name in NAMES:
        found, renamed = KNOWN[name], torchvision_names(name, tensors)
        head, first = renamed.get(f"{found.head}.weight"), renamed.get(f"{found.first}.weight")
        if (
            head is None
            or first is None
            or first.ndim != 4
            or head.ndim != 2
            or len(head) < 2
            or any(side % found.patch for side in size)
        ):
            continue
        wanted = wanted_by(
            NamedArchitecture(name=name, classes=len(head), shape=(first.shape[1], *size))
        )
        if not misfits(with_counters(renamed, wanted), wanted):
            fits.append(name)
    if fits:
        return f"these tensors fit {' and '.join(fits)}: give that name"
    return (
        "give the weights of this very network, with torchvision's parameter names; known are: "
        f"{', '.join(NAMES)}"
    )
