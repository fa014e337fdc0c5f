"""Records of networks: cells, and architectures of cells or known by name."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from lockforge.records._base import Record, Side


class Op(StrEnum):
    """What an edge of a cell does; the names are NAS-Bench-201's."""

    none = "none"
    skip = "skip_connect"
    conv1x1 = "nor_conv_1x1"
    conv3x3 = "nor_conv_3x3"
    pool3x3 = "avg_pool_3x3"


EDGES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


_CELL_PART = re.compile(r"([a-z_0-9]+)~(\d)")


class Cell(Record):
    """Four nodes, six edges: `ops[i]` is on the edge `EDGES[i]`, node 0 is the input, node 3 the
    output.

    >>> cell = Cell(ops=(Op.conv3x3, Op.none, Op.skip, Op.skip, Op.conv1x1, Op.pool3x3))
    >>> str(cell)
    '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|'
    >>> Cell.parse(str(cell)) == cell
    True
    """

    ops: tuple[Op, Op, Op, Op, Op, Op]

    def __str__(self) -> str:
        """NAS-Bench-201's own spelling."""
        named = [f"{op.value}~{start}" for op, (start, _) in zip(self.ops, EDGES, strict=True)]
        return f"|{named[0]}|+|{'|'.join(named[1:3])}|+|{'|'.join(named[3:])}|"

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read NAS-Bench-201's spelling.

        Raises: ValueError: not that spelling, or an unknown operation.
        """
        parts = _CELL_PART.findall(text)
        if len(parts) != len(EDGES):
            raise ValueError(
                f"not a cell: {text!r} has {len(parts)} edges where {len(EDGES)} are needed"
            )
        ops = tuple(Op(name) for name, _ in parts)
        cell = cls(ops=ops)  # type: ignore[arg-type]  # six were counted above
        if str(cell) != text:
            raise ValueError(f"not a cell: {text!r} would be spelt {str(cell)!r}")
        return cell


class Architecture(Record):
    """Enough to rebuild a network: cell + macro skeleton + head."""

    space: Literal["nasbench201", "transnas101"]
    cell: Cell
    stem_channels: Annotated[int, Field(ge=1)]
    cells_per_stage: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
    shape: tuple[int, int, int]

    def __str__(self) -> str:
        """Space and cell."""
        return f"{self.space} {self.cell}"


TIMM, PYTHON = "timm:", "python:"


class NamedArchitecture(Record):
    """Enough to rebuild a network that others published: its name, classes and images (c, h, w).

    The name is one of `models._named.NAMES`; or `timm:NAME`, which timm rebuilds; or
    `python:package.module:function@DIGEST`, which only says which function of its owner's made it,
    and the first hex digits of the SHA-256 of its module's text. `widths`: channels of the layers
    that filters were taken out of, by name and sorted. As long as there are none they are not
    written, so that a record without them keeps its digest.
    """

    space: Literal["named"] = "named"
    name: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9_-]{1,64}|timm:[a-z0-9_.-]{1,96}|python:[A-Za-z0-9_.]{1,160}:[A-Za-z0-9_]{1,80}@[0-9a-f]{12})$"
        ),
    ]
    classes: Annotated[int, Field(ge=2)]
    shape: tuple[Side, Side, Side]
    widths: tuple[tuple[str, Side], ...] = ()

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        names = [name for name, _ in self.widths]
        if names != sorted(set(names)):
            raise ValueError(f"widths must be sorted by name, each name once: {names[:8]}")
        return self

    @model_serializer(mode="wrap")
    def _without_no_widths(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if not self.widths:
            del written["widths"]
        return written

    def __str__(self) -> str:
        """The name, and how many layers have become narrower."""
        return (
            f"{self.name} with {len(self.widths)} narrower layer(s)" if self.widths else self.name
        )


def origin_of(architecture: Architecture | NamedArchitecture) -> Literal["ours", "timm", "python"]:
    """Whose code makes the network: ours, timm's, or a function of its owner's.

    >>> origin_of(NamedArchitecture(name="timm:resnet18.a1_in1k", classes=2, shape=(3, 32, 32)))
    'timm'
    """
    name = architecture.name if isinstance(architecture, NamedArchitecture) else ""
    return "timm" if name.startswith(TIMM) else "python" if name.startswith(PYTHON) else "ours"


BLACK_BOX = "black-box"


def is_black_box(architecture: Architecture | NamedArchitecture) -> bool:
    """Whether only its answers are known: a network named `BLACK_BOX` is an ONNX file, and nothing
    can be built from that name.
    """
    return isinstance(architecture, NamedArchitecture) and architecture.name == BLACK_BOX


AnyArchitecture = Annotated[Architecture | NamedArchitecture, Field(discriminator="space")]
