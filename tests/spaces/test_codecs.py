"""Official spellings."""

import pytest

from lockforge.errors import RecipeError
from lockforge.records import Cell, Op
from lockforge.spaces import NAMES, all_cells
from lockforge.spaces.cells import cell_of
from lockforge.spaces.codecs import parse, spell

Rows = list[dict[str, str]]


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_survives_a_round_trip(name: str) -> None:
    """parse(spell(c)) == c for all cells, and no two are spelt the same."""
    cells = all_cells(name)
    spellings = [spell(cell, name) for cell in cells]
    assert len(set(spellings)) == len(cells)
    assert tuple(parse(text, name) for text in spellings) == cells


def test_the_published_spellings_are_exactly_ours(
    nasbench201_rows: Rows, transnas101_rows: Rows
) -> None:
    """The tables' strings, all 15,625 and 4,096 of them; the index of a TransNAS row is not
    used.
    """
    for name, rows in (("nasbench201", nasbench201_rows), ("transnas101", transnas101_rows)):
        assert {row["arch_str"] for row in rows} == {spell(cell, name) for cell in all_cells(name)}


def test_digits_stand_for_operations_in_the_order_of_the_edges() -> None:
    """0 none, 1 skip, 2 conv1x1, 3 conv3x3; edges 0>1 | 0>2, 1>2 | 0>3, 1>3, 2>3."""
    cell = parse("64-41414-3_02_101", "transnas101")
    assert cell == cell_of([Op.conv3x3, Op.none, Op.conv1x1, Op.skip, Op.none, Op.skip])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("64-41414-4_00_000", "transnas101"),
        ("64-41414-0_00_00", "transnas101"),
        ("64-41414-0_00_000\n", "transnas101"),
        ("64-41414-٣_00_000", "transnas101"),
        ("32-41414-0_00_000", "transnas101"),
        ("", "nasbench201"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "nasbench201"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "nasbench201"),
        ("|sep_conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "nasbench201"),
    ],
)
def test_anything_else_is_refused_with_the_right_spelling(text: str, name: str) -> None:
    """Wrong digits, edges, prefixes, operations, trailing characters."""
    with pytest.raises(RecipeError, match=f"no cell of {name}") as caught:
        parse(text, name)
    assert "spell it" in caught.value.hint


def test_a_cell_with_pooling_has_no_transnas_spelling() -> None:
    """The message names the operation."""
    cell = Cell.parse("|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    with pytest.raises(RecipeError, match="avg_pool_3x3"):
        spell(cell, "transnas101")
