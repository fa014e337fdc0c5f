"""model.safetensors: the trained tensors, bit for bit, with everything needed to use them in the
header.

Metadata keys: `lockforge.architecture` (JSON record), `lockforge.classes` (JSON list),
`lockforge.mean`, `lockforge.std` (JSON lists, of pixels scaled to [0, 1]), `lockforge.recipe`
(digest). The architecture holds the input's (c, h, w).
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from lockforge.errors import DataError, IntegrityError
from lockforge.files import Files
from lockforge.recipe import Recipe
from lockforge.records import AnyArchitecture, Checkpoint, ImageSet, fault_lines

if TYPE_CHECKING:
    from torch import Tensor

NAME = "model.safetensors"
LARGEST_HEADER = 16 * 2**20  # bytes
LARGEST_MODEL = 8 * 2**30
_ARCHITECTURE: TypeAdapter[AnyArchitecture] = TypeAdapter(AnyArchitecture)


def write_weights(checkpoint: Checkpoint, source: ImageSet, recipe: Recipe, files: Files) -> bytes:
    """The bytes of model.safetensors."""
    metadata = {
        "lockforge.architecture": checkpoint.architecture.to_json(),
        "lockforge.classes": json.dumps(list(source.classes)),
        "lockforge.mean": json.dumps(list(source.mean)),
        "lockforge.std": json.dumps(list(source.std)),
        "lockforge.recipe": recipe.digest,
    }
    return with_metadata(files.get(checkpoint.weights), metadata)


def with_metadata(bare: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata in its header; the tensors' bytes stay as they are.

    safetensors itself (0.8) writes metadata in random order, so the same release would not give the
    same bytes.
    """
    length = struct.unpack("<Q", bare[:8])[0]
    tree = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(bare[8 : 8 + length])
    header = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bare[8 + length :]


def read_model(place: Path) -> "tuple[AnyArchitecture, dict[str, Tensor], dict[str, str]]":
    """Architecture, tensors and metadata of a release folder or of its model.safetensors; the
    header is bounded before it is read.

    Raises: DataError: no such file, or not one of ours. IntegrityError: damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = place / NAME if place.is_dir() else place
    if not path.is_file():
        raise DataError(
            f"{path} is not there",
            hint="give a release folder, its model.safetensors, or ARCHITECTURE=FILE",
        )
    try:
        metadata = _metadata(path)
    except PermissionError as error:
        raise DataError(
            f"{path} may not be read", hint="give yourself leave to read it (chmod u+r)"
        ) from error
    if "lockforge.architecture" not in metadata:
        raise DataError(
            f"{path} does not say which architecture it is",
            hint="say it, as in resnet18-cifar=FILE; LockForge's own weights do",
        )
    try:
        return (
            _ARCHITECTURE.validate_json(metadata["lockforge.architecture"]),
            dict(load(path.read_bytes())),
            metadata,
        )
    except ValidationError as error:
        raise IntegrityError(
            f"{path} names no architecture",
            faults=fault_lines(error),
            hint="another version wrote it, or it was edited",
        ) from error
    except SafetensorError as error:
        raise IntegrityError(f"{path} is damaged: {error}", hint="get the file again") from error


def _metadata(path: Path) -> dict[str, str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if size > LARGEST_MODEL or length > min(LARGEST_HEADER, size - 8):
            raise IntegrityError(
                f"{path} claims a header of {length} bytes in a file of {size}",
                hint="it is cut short or no safetensors file; weights of another make are given "
                "as ARCHITECTURE=FILE",
            )
        header = file.read(length)
    try:
        found = json.loads(header).get("__metadata__", {})
        return {str(key): str(value) for key, value in found.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{path} has an unreadable header: {error}", hint="it is no safetensors file"
        ) from error
