"""The benchmarks' own spellings of a cell, both ways.

nasbench201: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|` (`Cell` itself spells this).
transnas101: `64-41414-a_bc_def`, one digit an edge in the order of `EDGES`: 0 none, 1 skip, 2
conv1x1, 3 conv3x3.
"""

import re

from lockforge.errors import RecipeError
from lockforge.records import Cell
from lockforge.spaces import nasbench201, space, transnas101
from lockforge.spaces.cells import cell_of

PREFIX = f"64-{transnas101.MACRO}-"
_TRANSNAS = re.compile(rf"{PREFIX}([0-3])_([0-3]{{2}})_([0-3]{{3}})")


def spell(cell: Cell, name: str) -> str:
    """The spelling that the benchmark of this name uses.

    Raises: RecipeError: the cell holds an operation that the space does not have, or there is no
        such space.

    >>> cell = parse("64-41414-0_12_333", "transnas101")
    >>> spell(cell, "nasbench201")
    '|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|'
    >>> spell(cell, "transnas101")
    '64-41414-0_12_333'
    """
    ops = space(name).OPS
    foreign = sorted({op.value for op in cell.ops if op not in ops})
    if foreign:
        raise RecipeError(
            f"{cell} is no cell of {name}: it has no {', '.join(foreign)}",
            hint=f"{name} has: {', '.join(ops)}",
        )
    if name == nasbench201.NAME:
        return str(cell)
    digits = "".join(str(ops.index(op)) for op in cell.ops)
    return f"{PREFIX}{digits[0]}_{digits[1:3]}_{digits[3:]}"


def parse(text: str, name: str) -> Cell:
    """Read the spelling that the benchmark of this name uses.

    Raises: RecipeError: not that spelling, or there is no such space.
    """
    if space(name) is nasbench201:
        try:
            return Cell.parse(text)
        except ValueError as error:
            raise RecipeError(
                f"no cell of {name}: {error}", hint="spell it |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
            ) from error
    match = _TRANSNAS.fullmatch(text)
    if match is None:
        raise RecipeError(
            f"no cell of {name}: {text!r}", hint=f"spell it {PREFIX}a_bc_def with digits 0 to 3"
        )
    return cell_of([transnas101.OPS[int(digit)] for digit in "".join(match.groups())])
