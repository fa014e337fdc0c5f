"""Equal networks under different spellings."""

from itertools import permutations

import numpy as np
import pytest

from lockforge.records import EDGES, Cell, Op
from lockforge.spaces import NAMES, all_cells
from lockforge.spaces.cells import cell_of
from lockforge.spaces.isomorphism import network_key, published_key

ORDERS = np.array(
    list(permutations(range(6)))
).T  # 6 edges x 720 ways to hand six sets of weights to them


def test_the_published_notion_has_the_published_number_of_classes() -> None:
    """6,466 unique cells (Dong & Yang 2020, section 2.2)."""
    assert len({published_key(cell) for cell in all_cells("nasbench201")}) == 6466


def outputs(cell: Cell, space: str) -> tuple[float, ...]:
    """What the cell makes of one number when edges carry six different weights, under every way to
    hand those out, sorted.

    Two cells agree exactly when renaming weights turns one into the other. Operations are stand-in
    functions of one number.
    """
    weight = np.array([0.31, 0.47, 0.59, 0.67, 0.73, 0.89])[ORDERS]
    nodes = [np.full(ORDERS.shape[1], 0.7)]
    zero = [False]
    for node in (1, 2, 3):
        total = np.zeros(ORDERS.shape[1])
        empty = True
        for edge, ((start, end), op) in enumerate(zip(EDGES, cell.ops, strict=True)):
            if end != node or op == Op.none or (zero[start] and op in {Op.skip, Op.pool3x3}):
                continue
            empty = False
            x, w = nodes[start], weight[edge]
            match op:
                case Op.skip:
                    total = total + (
                        np.arctan(2.1 * x + w) if space == "transnas101" and start == 0 else x
                    )
                case Op.pool3x3:
                    total = total + np.tanh(x)
                case _ if zero[start]:
                    total = total + 0.11 + w
                case Op.conv1x1:
                    total = total + np.sin(1.3 * x + w)
                case Op.conv3x3:
                    total = total + np.cos(1.7 * x - w)
        nodes.append(total)
        zero.append(empty)
    return tuple(np.round(np.sort(nodes[-1]), 9))


@pytest.mark.parametrize(("space", "classes"), [("nasbench201", 5485), ("transnas101", 1484)])
def test_the_key_parts_cells_exactly_as_their_outputs_do(
    space: str, classes: int, rng: np.random.Generator
) -> None:
    """1,500 cells fall into the same classes by key and by numbers; over the whole space there are
    as many classes as ever.
    """
    cells = all_cells(space)
    assert len({network_key(cell, space) for cell in cells}) == classes
    drawn = [cells[place] for place in rng.choice(len(cells), 1500, replace=False)]
    by_key = [network_key(cell, space) for cell in drawn]
    by_outputs = [outputs(cell, space) for cell in drawn]
    assert (
        len(set(by_key)) == len(set(by_outputs)) == len(set(zip(by_key, by_outputs, strict=True)))
    )


def test_a_convolution_used_twice_is_not_two_convolutions() -> None:
    """The published key takes them for the same; ours does not: one network has more weights."""
    once = cell_of([Op.conv3x3, Op.none, Op.skip, Op.none, Op.skip, Op.skip])
    twice = cell_of([Op.conv3x3, Op.none, Op.none, Op.conv3x3, Op.skip, Op.none])
    assert (
        published_key(twice).count("(0)@nor_conv_3x3")
        == published_key(once).count("(0)@nor_conv_3x3")
        == 2
    )
    assert network_key(once, "nasbench201") != network_key(twice, "nasbench201")


def test_a_skip_from_the_input_has_weights_in_transnas_only() -> None:
    """A convolution behind an identity is that convolution; behind a factorised reduction it is
    not.
    """
    direct = cell_of([Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none])
    behind = cell_of([Op.skip, Op.none, Op.none, Op.none, Op.conv3x3, Op.none])
    keys = {space: (network_key(direct, space), network_key(behind, space)) for space in NAMES}
    assert keys["nasbench201"][0] == keys["nasbench201"][1]
    assert keys["transnas101"][0] != keys["transnas101"][1]
