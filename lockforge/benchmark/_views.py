"""What a search may see of a table: counted measurements of the source, and nothing of a target
until it has chosen.
"""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from lockforge.errors import IntegrityError
from lockforge.records import Cell


class Column:
    """One task's column as measurements: each cell that is asked for counts, and the budget is not
    passed.

    Raises (when called): IntegrityError: more measurements than the budget.
    """

    def __init__(self, cells: Sequence[Cell], values: Float[np.ndarray, " k"], budget: int) -> None:
        self._place = {cell: at for at, cell in enumerate(cells)}
        self._values = values
        self._budget = budget
        self.asked = 0

    def __call__(self, cells: Sequence[Cell]) -> list[float]:
        """The values of some cells."""
        self.asked += len(cells)
        if self.asked > self._budget:
            raise IntegrityError(
                f"{self.asked} measurements were asked for, {self._budget} are the budget"
            )
        return [float(self._values[self._place[cell]]) for cell in cells]


class Sealed:
    """A target's column before the choice: it answers nothing.

    Raises (whatever is asked): IntegrityError: a search asked for a target.
    """

    def __call__(self, _cells: Sequence[Cell]) -> NoReturn:
        """Refuse to measure."""
        raise IntegrityError("a search asked for a target's results before it had chosen")

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse everything else."""
        raise IntegrityError(f"a search asked for `{name}` of a target before it had chosen")
