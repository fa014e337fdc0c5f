"""Models as they are given: ours, a bare state dict with the name of its network, or an ONNX file
of which only the answers are used.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lockforge.errors import RecipeError
from lockforge.files import Files
from lockforge.models._named import NAMES, known
from lockforge.models._python_functions import give
from lockforge.models._read_encoder import read_owned
from lockforge.models._read_external import read_foreign
from lockforge.models._read_state_dict import read_network
from lockforge.models.networks import load
from lockforge.models.read_onnx import read_black_box
from lockforge.models.weights import read_model
from lockforge.records import (
    BLACK_BOX,
    PYTHON,
    TIMM,
    AnyArchitecture,
    FileRef,
    ImageSet,
    NamedArchitecture,
)

_TIMM_NAME = re.compile(r"timm:[a-z0-9_.-]{1,96}")
_NOT_IN_A_NAME = re.compile(r"[^\w.-]+")


class Place(NamedTuple):
    """A model that was given: its file or folder, and the name of its network where that was said.

    The path is empty where a function of the owner's brings the weights.
    """

    path: Path
    network: str = ""

    @property
    def opaque(self) -> bool:
        """Whether it is an ONNX file."""
        return not self.network and self.path.suffix.lower() == ".onnx"


class Model(NamedTuple):
    """A model that was read; a black box's weights are its ONNX file, and a headless one's all but
    those of its head.
    """

    architecture: AnyArchitecture
    weights: FileRef
    headless: bool = False


def place_of(text: str) -> Place:
    """`PATH` or `ARCHITECTURE=FILE`; a path that is there is a path, whatever its name.

    Raises: RecipeError: no such architecture.

    >>> place_of("resnet18-cifar=a=b.pt")
    Place(path=PosixPath('a=b.pt'), network='resnet18-cifar')
    """
    name, mark, file = text.partition("=")
    if not mark or Path(text).exists():
        return Place(Path(text))
    if not _is_network(name):
        raise RecipeError(
            f"{text}: there is no network {name!r}",
            hint=f"give ARCHITECTURE=FILE with one of: {', '.join(NAMES)}",
        )
    return Place(Path(file), name)


def _is_network(name: str) -> bool:
    """Whether a name is one of ours, or timm may know it."""
    return name in NAMES or bool(_TIMM_NAME.fullmatch(name))


def own_place(model: str, weights: Path | None) -> Place:
    """The owner's network that `protect` is given: the name of its architecture and a file, or one
    text that `place_of` reads.

    A function of the owner's (`python:package.module:function`) is imported here and remembered;
    its weights are its own without a file.

    Raises: RecipeError: no such architecture or function, a name without a file, a file beside a
        text that names one, or an ONNX file.

    >>> own_place("resnet18-cifar", Path("a.pt")) == own_place("resnet18-cifar=a.pt", None)
    True
    """
    if model.startswith(PYTHON):
        return Place(weights or Path(), give(model))
    if weights is None and _is_network(model):
        raise RecipeError(
            f"--model {model} has no weights", hint=f"give them: --model {model} --weights FILE"
        )
    if weights is not None:
        if not _is_network(model):
            known(model)
        return Place(weights, model)
    place = place_of(model)
    if place.opaque:
        raise RecipeError(
            f"{model} is an ONNX file: there are no weights to lock",
            hint="give the weights, or use `lockforge audit`",
        )
    return place


def public_places(texts: Sequence[str]) -> dict[str, Place]:
    """Public models by name: `[NAME=]PATH` or `[NAME=]ARCHITECTURE=FILE`; the name is the file's or
    folder's, where none is given.

    Raises: RecipeError: a name that cannot be one, a name given twice, no such architecture, an
        ONNX file; all faults are listed.
    """
    found: dict[str, Place] = {}
    faults = []
    for text in texts:
        try:
            name, place = _named(text)
        except RecipeError as error:
            faults.append(error.message)
            continue
        if not name or _NOT_IN_A_NAME.search(name):
            faults.append(
                f"{text}: {name!r} is no name; letters, digits, '_', '-' and '.' make one"
            )
        if name in found:
            faults.append(f"{text}: {name!r} is the name of {found[name].path} already")
        if place.opaque:
            faults.append(f"{text}: an ONNX file, which has no weights that a thief could train")
        found[name] = place
    if faults:
        raise RecipeError(
            f"{len(faults)} public model(s) cannot be used",
            faults=faults,
            hint="give --public [NAME=]MODEL or [NAME=]ARCHITECTURE=FILE",
        )
    return found


def _named(text: str) -> tuple[str, Place]:
    name, mark, rest = text.partition("=")
    if mark and not _is_network(name) and not Path(text).exists():
        return name, place_of(rest)
    place = place_of(text)
    folder = place.path if place.path.is_dir() else None
    return _NOT_IN_A_NAME.sub("-", folder.resolve().name if folder else place.path.stem), place


def read_given(
    place: Place, source: ImageSet, files: Files, *, classes: int | None = None
) -> Model:
    """Read a model for images of the source's shape; that its weights fit is checked here.

    Args: classes: how many an owner's bare state dict must have, which may be an encoder without a
        head; None for anybody else's.
    Raises: DataError: unreadable, or another network than was said. RecipeError: timm has no such
    network. IntegrityError: damaged, or weights and architecture of ours differ. ResourceError: an
    ONNX file or a network of timm's, and onnxruntime or timm is not installed.
    """
    if place.opaque:
        box = read_black_box(place.path, source.shape)
        architecture = NamedArchitecture(name=BLACK_BOX, classes=box.classes, shape=box.shape)
        return Model(architecture, files.put(place.path.read_bytes()))
    if place.network.startswith((TIMM, PYTHON)):
        foreign, tensors = read_foreign(
            place.network, None if place.path == Path() else place.path, source.shape, classes
        )
        return Model(foreign, files.put_tensors(tensors))
    if place.network and classes is None:
        named, tensors = read_network(place.path, place.network, source.shape[1:])
        return Model(named, files.put_tensors(tensors))
    if place.network and classes is not None:
        named, tensors, headless = read_owned(place.path, place.network, source.shape[1:], classes)
        return Model(named, files.put_tensors(tensors), headless)
    ours, tensors, _ = read_model(place.path)
    load(ours, tensors)
    return Model(ours, files.put_tensors(tensors))
