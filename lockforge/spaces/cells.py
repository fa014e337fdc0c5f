"""Cells as graphs: drawing, mutating and listing them, and which of their edges matter. No torch.

A cell has four nodes and six edges (`records.EDGES`); a node is the sum of its incoming edges.
`none` gives zeros.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from lockforge.records import EDGES, Cell, Op

NODES = 4
CONVOLUTIONS = frozenset({Op.conv1x1, Op.conv3x3})


def cell_of(ops: Sequence[Op]) -> Cell:
    """A cell from six operations in the order of `EDGES`.

    >>> print(cell_of([Op.skip] * 6))
    |skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|
    """
    a, b, c, d, e, f = ops
    return Cell(ops=(a, b, c, d, e, f))


def draw(ops: Sequence[Op], generator: np.random.Generator) -> Cell:
    """A cell with every edge drawn uniformly from `ops`."""
    return cell_of([ops[index] for index in generator.integers(len(ops), size=len(EDGES))])


def change_one_edge(ops: Sequence[Op], cell: Cell, generator: np.random.Generator) -> Cell:
    """The cell with one edge, drawn uniformly, given another operation, drawn uniformly among the
    others.
    """
    edge = int(generator.integers(len(EDGES)))
    others = [op for op in ops if op != cell.ops[edge]]
    changed = list(cell.ops)
    changed[edge] = others[int(generator.integers(len(others)))]
    return cell_of(changed)


def every(ops: Sequence[Op]) -> tuple[Cell, ...]:
    """All cells over `ops`; the last edge changes fastest."""
    return tuple(cell_of(chosen) for chosen in itertools.product(ops, repeat=len(EDGES)))


class Step(NamedTuple):
    """One edge that is computed: edge index, source node, operation, and whether the source is
    exactly zero.
    """

    edge: int
    source: int
    op: Op
    of_zeros: bool


Plan = tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]


def plan(cell: Cell) -> Plan:
    """The edges that must be computed, for the nodes 1, 2 and 3; the rest cannot change the output.

    Left out: `none`; edges into a node that does not reach the output; skip and pooling of a node
    that is exactly zero. A convolution of a zero node stays, because the batch norm behind it has a
    bias.

    >>> plan(cell_of([Op.none, Op.skip, Op.conv1x1, Op.none, Op.pool3x3, Op.skip]))[2]
    (Step(edge=5, source=2, op=<Op.skip: 'skip_connect'>, of_zeros=False),)
    """
    reaches = {NODES - 1}
    for (start, end), op in sorted(zip(EDGES, cell.ops, strict=True), reverse=True):
        if end in reaches and op != Op.none:
            reaches.add(start)
    zero: set[int] = set()
    steps: list[tuple[Step, ...]] = []
    for node in range(1, NODES):
        found = tuple(
            Step(index, start, op, start in zero)
            for index, ((start, end), op) in enumerate(zip(EDGES, cell.ops, strict=True))
            if end == node
            and node in reaches
            and op != Op.none
            and (start not in zero or op in CONVOLUTIONS)
        )
        if not found:
            zero.add(node)
        steps.append(found)
    return steps[0], steps[1], steps[2]


def connected(cell: Cell) -> bool:
    """Whether the cell's output depends on its input: some path from node 0 to node 3 has no
    `none`.

    >>> (
    ...     connected(cell_of([Op.none] * 6)),
    ...     connected(cell_of([Op.none] * 3 + [Op.skip] + [Op.none] * 2)),
    ... )
    (False, True)
    """
    reached = {0}
    for (start, end), op in zip(EDGES, cell.ops, strict=True):
        if start in reached and op != Op.none:
            reached.add(end)
    return NODES - 1 in reached


EdgeUse = Literal["live", "constant", "dead"]


def edge_uses(cell: Cell) -> tuple[EdgeUse, ...]:
    """For each edge: `live`, `constant` (its source is exactly zero, so it only adds its batch
    norm's bias) or `dead`.
    """
    uses: list[EdgeUse] = ["dead"] * len(EDGES)
    for steps in plan(cell):
        for step in steps:
            uses[step.edge] = "constant" if step.of_zeros else "live"
    return tuple(uses)
