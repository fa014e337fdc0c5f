"""Cells that are the same network under another spelling.

`published_key` is the benchmark's own notion, with its 6,466 classes. `network_key` is ours: two
cells with the same key are the same network up to names, weights included. They differ both ways;
see `network_key`.
"""

import itertools
from collections import defaultdict

from lockforge.records import EDGES, Cell, Op
from lockforge.spaces import all_cells, nasbench201, space
from lockforge.spaces.cells import CONVOLUTIONS, NODES, connected


def published_key(cell: Cell) -> str:
    """NAS-Bench-201's expression of the output node, skip taken as identity and `none` as zero;
    6,466 different ones in the space.

    Dong & Yang 2020, arXiv:2001.00326, section 2.2: the expression of a node is the sorted sum of
    the expressions of its edges.
    """
    nodes = ["0"]
    for node in range(1, NODES):
        terms = []
        for (start, end), op in zip(EDGES, cell.ops, strict=True):
            if end == node:
                zero = op == Op.none or nodes[start] == "#"
                terms.append(
                    "#"
                    if zero
                    else nodes[start]
                    if op == Op.skip
                    else f"({nodes[start]})@{op.value}"
                )
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def network_key(cell: Cell, name: str) -> str:
    """An expression of the output that two cells share exactly when they are the same network up to
    the names of nodes and weights.

    Every operation with weights carries a label, so that a convolution used twice (`c0(x)+c0(x)`)
    is not taken for two convolutions (`c0(x)+c1(x)`); labels are given so that the expression comes
    first in the alphabet. Zeros vanish from sums, and sums of sums are flattened. A convolution of
    zeros is the bias of its batch norm.

    Differs: the published key takes the two for the same, calls a convolution of zeros zero, and
        keeps zeros inside sums.

    Args: name: the space; in transnas101 a skip from the input has weights, in the cells that
        change the image's size.
    """
    weighted = CONVOLUTIONS if space(name) is nasbench201 else CONVOLUTIONS | {Op.skip}
    groups: dict[str, list[int]] = defaultdict(list)
    _, plain = _expand(cell, weighted, {})
    for edge, text in plain.items():
        groups[text].append(edge)
    choices = [list(itertools.permutations(range(len(edges)))) for edges in groups.values()]
    keys = []
    for chosen in itertools.product(*choices):
        labels: dict[int, int] = {}
        for edges, given in zip(groups.values(), chosen, strict=True):
            labels.update(zip(edges, given, strict=True))
        keys.append(_expand(cell, weighted, labels)[0])
    return min(keys)


def _expand(
    cell: Cell, weighted: frozenset[Op], labels: dict[int, int]
) -> tuple[str, dict[int, str]]:
    """The output's expression, and the expression of every edge with weights."""
    nodes: list[tuple[str, ...]] = [("x",)]
    terms: dict[int, str] = {}
    for node in range(1, NODES):
        found: list[str] = []
        for edge, ((start, end), op) in enumerate(zip(EDGES, cell.ops, strict=True)):
            if end != node or op == Op.none:
                continue
            inner = "+".join(nodes[start])
            if op in weighted and (op != Op.skip or start == 0):
                terms[edge] = f"{op.value if inner else 'bias'}{labels.get(edge, '')}({inner})"
                found.append(terms[edge])
            elif op == Op.skip:
                found.extend(nodes[start])
            elif inner:
                found.append(f"{op.value}({inner})")
        nodes.append(tuple(sorted(found)))
    return "+".join(nodes[-1]), terms


def different_networks(space: str) -> tuple[Cell, ...]:
    """The cells whose output depends on their input, one spelling of each network."""
    kept: dict[str, Cell] = {}
    for cell in all_cells(space):
        if connected(cell):
            kept.setdefault(network_key(cell, space), cell)
    return tuple(kept.values())
