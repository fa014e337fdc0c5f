"""Filters that can be taken out of a network by name: which layers make a channel, and which read
it.

A *group* is a row of channels that one chain of layers makes and that known layers alone read:
inner channels of residual blocks, the widened ones of inverted residuals with their depthwise
filters and their factors, squeezed channels, all channels of a VGG, hidden units of classifiers and
of a transformer's two layers. Channels that are summed from block to block stay: one less there is
one less everywhere.

Shapes: c channels, r that are kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from lockforge.errors import IntegrityError
from lockforge.models import _mobilenet_v3 as mobilenet_v3
from lockforge.models import _vgg as vgg
from lockforge.models import _vit as vit
from lockforge.models._resnet_cifar import ThinBlock
from lockforge.models.backbones import BasicBlock, Bottleneck, InvertedResidual, MobileNetV2

Layer = nn.Conv2d | nn.Linear


class Step(NamedTuple):
    """A layer, the norm behind it, and what is done to each value then; it gives zero for zero."""

    layer: Layer
    norm: nn.BatchNorm2d | None
    act: Callable[[Tensor], Tensor]


class Reader(NamedTuple):
    """A layer that takes the channels in, the norm behind it, and how many of its inputs one
    channel is.
    """

    layer: Layer
    norm: nn.BatchNorm2d | None = None
    pixels: int = 1


class Group(NamedTuple):
    """Channels that go together. The first step makes them, those after it are depthwise; `gate`
    gives each one its factor.
    """

    steps: tuple[Step, ...]
    readers: tuple[Reader, ...]
    gate: nn.Conv2d | None = None

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.steps[0].layer.weight)


def groups_of(network: nn.Module, head: nn.Linear) -> dict[str, Group]:
    """Every group, under the name of the layer that makes its channels, in the network's order.

    Args: head: reads the features of `network`; it is one of its modules.
    """
    made: dict[nn.Module, Group] = {
        group.steps[0].layer: group
        for module in network.modules()
        for group in _groups_in(module, head)
    }
    return {name: made[module] for name, module in network.named_modules() if module in made}


def narrow(
    network: nn.Module, head: nn.Linear, widths: Iterable[tuple[str, int]], what: str
) -> None:
    """Leave so many channels in each group named, the first ones; in place.

    Raises: IntegrityError: no such group, or not fewer channels than it has; all are listed.
    """
    groups = groups_of(network, head)
    wanted = dict(widths)
    faults = [f"{name}: no filters that can be taken out" for name in wanted if name not in groups]
    faults += [
        f"{name}: {width} filters where there are {groups[name].channels}"
        for name, width in wanted.items()
        if name in groups and not 1 <= width < groups[name].channels
    ]
    if faults:
        raise IntegrityError(
            f"{what} cannot be made this narrow",
            faults=faults[:20],
            hint="its record was edited or is of another version",
        )
    for name, width in wanted.items():
        keep(groups[name], torch.arange(width, device="cpu"))


def keep(group: Group, kept: Int64[Tensor, " r"]) -> None:
    """Take all other channels out of the layers that make them and of those that read them; in
    place.
    """
    for step in group.steps:
        _cut(step.layer, 0, kept)
        if step.norm is not None:
            _cut_norm(step.norm, kept)
    for reader in group.readers:
        inside = torch.arange(reader.pixels, device="cpu")
        _cut(reader.layer, 1, (kept[:, None] * reader.pixels + inside).flatten())
    if group.gate is not None:
        _cut(group.gate, 0, kept)


def _cut(layer: Layer, axis: int, kept: Tensor) -> None:
    layer.weight = _picked(layer.weight, axis, kept)
    if axis == 0 and layer.bias is not None:
        layer.bias = _picked(layer.bias, 0, kept)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
        return
    if layer.groups > 1:
        layer.groups = len(layer.weight)
    layer.out_channels, layer.in_channels = len(layer.weight), layer.weight.shape[1] * layer.groups


def _cut_norm(norm: nn.BatchNorm2d, kept: Tensor) -> None:
    norm.weight, norm.bias = _picked(norm.weight, 0, kept), _picked(norm.bias, 0, kept)
    for name in ("running_mean", "running_var"):
        held = norm.get_buffer(name)
        setattr(norm, name, held.index_select(0, kept.to(held.device)))
    norm.num_features = len(kept)


def _picked(weight: Tensor, axis: int, kept: Tensor) -> nn.Parameter:
    return nn.Parameter(
        weight.detach().index_select(axis, kept.to(weight.device)),
        requires_grad=weight.requires_grad,
    )


def _groups_in(module: nn.Module, head: nn.Linear) -> Iterator[Group]:
    """The groups that a module of this kind has between its own layers."""
    match module:
        case BasicBlock() | ThinBlock():
            yield from _chain(
                _steps((module.conv1, module.bn1, nn.ReLU())), Reader(module.conv2, module.bn2)
            )
        case Bottleneck():
            inner = _steps(
                (module.conv1, module.bn1, nn.ReLU(), module.conv2, module.bn2, nn.ReLU())
            )
            yield from _chain(inner, Reader(module.conv3, module.bn3))
        case InvertedResidual():
            yield from _widened(module.conv.modules(), None)
        case mobilenet_v3.Block():
            squeeze = next(
                (part for part in module.block if isinstance(part, mobilenet_v3.SqueezeExcite)),
                None,
            )
            yield from _widened(
                (part for row in module.block if row is not squeeze for part in row.modules()),
                squeeze,
            )
        case mobilenet_v3.SqueezeExcite():
            yield from _chain(_steps((module.fc1, nn.ReLU())), Reader(module.fc2))
        case MobileNetV2():
            yield from _chain(_steps(module.features[-1].modules()), Reader(head))
        case mobilenet_v3.MobileNetV3():
            yield from _chain(
                _steps([*module.features[-1].modules(), *module.classifier]), Reader(head)
            )
        case vgg.VGG():
            hidden = _steps(module.classifier.modules())
            first = Reader(hidden[0].layer, None, vgg.POOLED**2) if hidden else Reader(head)
            yield from _chain(_steps(module.features), first)
            yield from _chain(hidden, Reader(head))
        case vit.Mlp():
            yield from _chain(_steps((module.fc1, nn.GELU())), Reader(module.fc2))


def _steps(modules: Iterable[nn.Module]) -> list[Step]:
    """Layers in their order, each with the norm and the function that follow it; poolings are
    passed over.
    """
    found: list[Step] = []
    for module in modules:
        match module:
            case nn.Conv2d() | nn.Linear():
                found.append(Step(module, None, nn.Identity()))
            case nn.BatchNorm2d():
                found[-1] = found[-1]._replace(norm=module)
            case nn.ReLU() | nn.ReLU6() | nn.Hardswish() | nn.GELU():
                found[-1] = found[-1]._replace(act=module)
    return found


def _chain(steps: Sequence[Step], last: Reader) -> Iterator[Group]:
    """One group for each layer: the next one reads it."""
    readers = [*(Reader(step.layer, step.norm) for step in steps[1:]), last]
    for step, reader in zip(steps, readers, strict=True) if steps else ():
        yield Group((step,), (reader,))


def _widened(
    modules: Iterable[nn.Module], squeeze: mobilenet_v3.SqueezeExcite | None
) -> Iterator[Group]:
    """The widened channels of an inverted residual; where nothing widens, its channels are those
    that are summed from block to block.
    """
    *made, narrowing = _steps(modules)
    if len(made) == 2:
        reads = (
            Reader(narrowing.layer, narrowing.norm),
            *((Reader(squeeze.fc1),) if squeeze else ()),
        )
        yield Group(tuple(made), reads, squeeze.fc2 if squeeze else None)
