"""Cells as graphs."""

from itertools import product

import numpy as np
import pytest

from lockforge.records import EDGES, Op
from lockforge.spaces import NAMES, all_cells, mutate, ops_of, random_cell
from lockforge.spaces.cells import cell_of, connected, edge_uses


@pytest.mark.parametrize(("space", "count"), [("nasbench201", 5**6), ("transnas101", 4**6)])
def test_every_cell_of_a_space_is_listed_once(space: str, count: int) -> None:
    """As many distinct cells as operations to the sixth power."""
    cells = all_cells(space)
    assert len(cells) == len({cell.ops for cell in cells}) == count


@pytest.mark.parametrize("space", NAMES)
def test_a_mutation_changes_exactly_one_edge_and_reaches_every_neighbour(
    space: str, rng: np.random.Generator
) -> None:
    """All 6 x (operations - 1) neighbours come up, and nothing else."""
    cell = random_cell(space, rng)
    seen = {mutate(space, cell, rng).ops for _ in range(600)}
    neighbours = {
        (*cell.ops[:edge], op, *cell.ops[edge + 1 :])
        for edge, op in product(range(6), ops_of(space))
        if op != cell.ops[edge]
    }
    assert seen == neighbours


@pytest.mark.parametrize("space", NAMES)
def test_random_cells_are_uniform_over_operations(space: str, rng: np.random.Generator) -> None:
    """Each operation on each edge within 5 standard deviations of its share, over 3,000 cells; the
    same seed draws the same cell.
    """
    drawn = [random_cell(space, rng) for _ in range(3000)]
    share = 1 / len(ops_of(space))
    bound = 5 * np.sqrt(share * (1 - share) / len(drawn))
    for edge, op in product(range(6), ops_of(space)):
        assert abs(np.mean([cell.ops[edge] == op for cell in drawn]) - share) < bound
    assert random_cell(space, np.random.default_rng(3)) == random_cell(
        space, np.random.default_rng(3)
    )


def test_a_cell_is_connected_exactly_when_one_of_its_four_paths_is_open() -> None:
    """Paths 0>3, 0>1>3, 0>2>3, 0>1>2>3, for all 64 patterns of open edges."""
    paths = [[(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]]
    for pattern in product((Op.none, Op.skip), repeat=6):
        open_edges = {edge for edge, op in zip(EDGES, pattern, strict=True) if op != Op.none}
        assert connected(cell_of(pattern)) == any(open_edges.issuperset(path) for path in paths)


def test_the_use_of_every_edge_is_known() -> None:
    """An edge into a node without way out is dead, a convolution of a zero node is constant, a skip
    of it is dead.
    """
    into_dead_end = cell_of([Op.conv3x3, Op.skip, Op.conv1x1, Op.skip, Op.none, Op.none])
    assert edge_uses(into_dead_end) == ("dead", "dead", "dead", "live", "dead", "dead")
    from_zero = cell_of([Op.none, Op.none, Op.skip, Op.conv3x3, Op.conv1x1, Op.pool3x3])
    assert edge_uses(from_zero) == ("dead", "dead", "dead", "live", "constant", "dead")
    assert edge_uses(cell_of([Op.conv1x1] * 6)) == ("live",) * 6
