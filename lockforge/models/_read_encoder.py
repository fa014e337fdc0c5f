"""Encoders as self-supervised training leaves them: the body of a network, under a prefix, beside
parts that only the training needed.

MoCo (He et al. 2020, arXiv:1911.05722) stores `encoder_q.*`, `encoder_k.*` and a queue, SimCLR
(Chen et al. 2020, arXiv:2002.05709) and its kin `encoder.*` or `backbone.*` and a projector. The
projection that such an encoder ends in is no head: its outputs are no classes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lockforge.errors import DataError
from lockforge.models._named import check_sides, from_published, known
from lockforge.models._read_state_dict import network_of, read_tensors, torchvision_names, wanted_by
from lockforge.models.backbones import finite, misfits, with_counters
from lockforge.records import NamedArchitecture

PAIRED = (
    "encoder_q.",
    "base_encoder.",
    "online_encoder.",
)  # trained against a second one: what they end in is a projection
PREFIXES = ("", *PAIRED, "encoder.", "backbone.", "model.")
LEFT_OUT = (
    "encoder_k.",
    "momentum_encoder.",
    "target_encoder.",
    "queue",
    "projector.",
    "projection.",
    "projection_head.",
    "predictor.",
    "prototypes.",
    "contrastive_head.",
)
HEADS = ("fc.", "linear.", "classifier.", "head.")


class Owned(NamedTuple):
    """A network as its owner has it; of a headless one the tensors are the body's alone, and the
    classes are those it is to have.
    """

    architecture: NamedArchitecture
    tensors: dict[str, Tensor]
    headless: bool


class _Body(NamedTuple):
    prefix: str
    under: dict[str, Tensor]
    channels: int


def read_owned(path: Path, name: str, size: tuple[int, int], classes: int) -> Owned:
    """The network in a file: as `read_network` reads it, or the body of an encoder without a head,
    under one of `PREFIXES`.

    A prefix is taken off where the network's whole body lies under it, and everything else in the
    file is known not to belong to it.

    Args: name: one of `named.NAMES`. size: h and w of the images in pixels. classes: of the
        source.
    Raises: RecipeError: no such name. DataError: see `read_network`; or tensors beside an encoder
        that no part we know has.
    """
    check_sides(name, size)
    stored = read_tensors(path)
    body = next(_bodies(stored, name, size, classes), None)
    if body is None:
        return Owned(*network_of(stored, path, name, size, classes), headless=False)
    if _has_head(body, name):
        own = body.under
        beside = {key for key in stored if not key.startswith(body.prefix)}
        _refuse(
            [key for key in sorted(beside) if not key.startswith(LEFT_OUT)], path, name, body.prefix
        )
        return Owned(*network_of(own, path, name, size, classes), headless=False)
    architecture = NamedArchitecture(name=name, classes=classes, shape=(body.channels, *size))
    wanted = _body_of(architecture)
    strange = [
        body.prefix + key
        for key in sorted(body.under.keys() - wanted.keys())
        if not key.startswith((*HEADS, *LEFT_OUT))
    ]
    strange += sorted(key for key in stored if not key.startswith((body.prefix, *LEFT_OUT)))
    _refuse(strange, path, name, body.prefix)
    given = with_counters(body.under, wanted)
    broken = [
        f"{body.prefix}{key}: not all finite" for key in sorted(wanted) if not finite(given[key])
    ]
    if broken:
        raise DataError(
            f"{path} holds a {name} that cannot be used",
            faults=broken,
            hint="its training diverged: give another file",
        )
    return Owned(
        architecture,
        from_published(name, {key: given[key].to(like.dtype) for key, like in wanted.items()}),
        headless=True,
    )


def _bodies(
    stored: Mapping[str, Tensor], name: str, size: tuple[int, int], classes: int
) -> Iterator[_Body]:
    """Every prefix under which the whole body lies, in the order of `PREFIXES`."""
    for prefix in PREFIXES:
        under = torchvision_names(
            name,
            {
                key.removeprefix(prefix): tensor
                for key, tensor in stored.items()
                if key.startswith(prefix)
            },
        )
        first = under.get(f"{known(name).first}.weight")
        if first is None or first.ndim != 4 or 0 in first.shape:
            continue
        wanted = _body_of(
            NamedArchitecture(name=name, classes=classes, shape=(first.shape[1], *size))
        )
        if not misfits(
            {key: tensor for key, tensor in with_counters(under, wanted).items() if key in wanted},
            wanted,
        ):
            yield _Body(prefix, under, first.shape[1])


def _body_of(architecture: NamedArchitecture) -> dict[str, Tensor]:
    head = f"{known(architecture.name).head}."
    return {
        key: tensor for key, tensor in wanted_by(architecture).items() if not key.startswith(head)
    }


def _has_head(body: _Body, name: str) -> bool:
    weight = body.under.get(f"{known(name).head}.weight")
    return weight is not None and body.prefix not in PAIRED


def _refuse(strange: list[str], path: Path, name: str, prefix: str) -> None:
    """Raise a DataError where there are tensors of which nobody knows what they are."""
    if strange:
        where = f" under {prefix!r}" if prefix else ""
        raise DataError(
            f"{path} holds the body of {name}{where}, and {len(strange)} tensor(s) beside it "
            "that belong to no part we know",
            faults=[f"{key}: unknown" for key in strange[:12]],
            hint="save the network's state dict alone, or take these tensors out",
        )
