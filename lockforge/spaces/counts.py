"""Parameters and multiply-adds of an architecture in closed form, counted as the published tables
count them. No torch.

One operation is one of: a multiply-add of a convolution or of the head, a ReLU of one value, half a
batch norm of one value (it counts 2), one value under the window of an average. Global pooling
counts a window one pixel longer than the map on both sides, (h + 1)(w + 1) a channel: not what it
does, but with it every published figure of both benchmarks comes out exactly. Additions of nodes
count nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lockforge.records import EDGES, Architecture, Op
from lockforge.spaces import nasbench201, transnas101


class Count(NamedTuple):
    """Parameters and operations."""

    parameters: int
    operations: int


class Map(NamedTuple):
    """The size of an activation: channels, height, width in pixels."""

    c: int
    h: int
    w: int

    def halved(self, channels: int) -> "Map":
        """After a stride of 2, sizes rounded up."""
        return Map(channels, (self.h + 1) // 2, (self.w + 1) // 2)

    @property
    def pixels(self) -> int:
        """Pixels of one channel."""
        return self.h * self.w

    @property
    def size(self) -> int:
        """All values."""
        return self.c * self.pixels


def _conv(before: Map, after: Map, kernel: int) -> Count:
    weights = before.c * after.c * kernel * kernel
    return Count(weights, weights * after.pixels)


def _norm(at: Map) -> Count:
    return Count(2 * at.c, 2 * at.size)


def _relu(at: Map) -> Count:
    return Count(0, at.size)


def _conv_bn(before: Map, after: Map, kernel: int) -> Iterator[Count]:
    yield _relu(before)
    yield _conv(before, after, kernel)
    yield _norm(after)


def _edge(op: Op, before: Map, after: Map) -> Iterator[Count]:
    match op:
        case Op.conv1x1:
            yield from _conv_bn(before, after, 1)
        case Op.conv3x3:
            yield from _conv_bn(before, after, 3)
        case Op.pool3x3:
            yield Count(0, 9 * after.size)
        case Op.skip if before != after:
            yield from _conv_bn(before, after, 1)


def _cell(ops: tuple[Op, ...], before: Map, after: Map) -> Iterator[Count]:
    for (start, _), op in zip(EDGES, ops, strict=True):
        yield from _edge(op, after if start else before, after)


def _times(factor: int, parts: Iterator[Count]) -> Iterator[Count]:
    return (Count(factor * part.parameters, factor * part.operations) for part in parts)


def _nasbench201(architecture: Architecture) -> Iterator[Count]:
    image = Map(*architecture.shape)
    here = Map(architecture.stem_channels, image.h, image.w)
    yield _conv(image, here, 3)
    yield _norm(here)
    for stage, factor in enumerate(nasbench201.WIDTHS):
        if stage:
            after = here.halved(factor * architecture.stem_channels)
            yield from _conv_bn(here, after, 3)
            yield from _conv_bn(after, after, 3)
            yield Count(0, 4 * here.c * after.pixels)
            yield _conv(here, after, 1)
            here = after
        yield from _times(architecture.cells_per_stage, _cell(architecture.cell.ops, here, here))
    yield _norm(here)
    yield _relu(here)
    yield from _head(here, architecture.classes)


def _transnas101(architecture: Architecture) -> Iterator[Count]:
    here = Map(*architecture.shape)
    first, second = transnas101.stem_strides(architecture.shape)
    half = max(1, architecture.stem_channels // 2)
    after = here.halved(half) if first == 2 else here._replace(c=half)
    yield _conv(here, after, 3)
    yield _norm(after)
    yield _relu(after)
    here = (
        after.halved(architecture.stem_channels)
        if second == 2
        else after._replace(c=architecture.stem_channels)
    )
    yield _conv(after, here, 3)
    yield _norm(here)
    for factor, kind in zip(transnas101.WIDTHS, transnas101.MACRO, strict=True):
        after = here.halved(factor * architecture.stem_channels) if kind == "4" else here
        yield from _cell(architecture.cell.ops, here, after)
        yield from _times(
            architecture.cells_per_stage - 1, _cell(architecture.cell.ops, after, after)
        )
        here = after
    yield from _head(here, architecture.classes)


def _head(here: Map, classes: int) -> Iterator[Count]:
    yield Count(0, here.c * (here.h + 1) * (here.w + 1))
    yield Count((here.c + 1) * classes, here.c * classes)


def count(architecture: Architecture) -> Count:
    """Parameters and operations of one forward pass over one image."""
    parts = list(
        _nasbench201(architecture)
        if architecture.space == nasbench201.NAME
        else _transnas101(architecture)
    )
    return Count(sum(part.parameters for part in parts), sum(part.operations for part in parts))


def parameters(architecture: Architecture) -> int:
    """Weights of the whole network, edges that cannot change the output included, as the tables
    count them.

    >>> from lockforge.spaces.cells import cell_of
    >>> parameters(nasbench201.published(10, (3, 32, 32), cell_of([Op.conv3x3] * 6)))
    1531546
    """
    return count(architecture).parameters


def flops(architecture: Architecture) -> int:
    """Operations (see above) of one forward pass over one image, as the tables count them.

    >>> from lockforge.spaces.cells import cell_of
    >>> flops(nasbench201.published(10, (3, 32, 32), cell_of([Op.conv3x3] * 6)))
    222860992
    """
    return count(architecture).operations
