"""Ranking a whole space: 15,625 cells on 11 embeddings against a panel of 256 (44 million
questions). The aim is 20 s on 2 cores.

Same answers first: on a sample of cells the shares are those of asking each pair.
"""

import numpy as np

from lockforge.randomness import numpy_generator
from lockforge.search.predictor import load_predictor
from lockforge.search.ranking import standing
from lockforge.spaces import all_cells
from tests.benchmarks.line import arguments, by_turns, write_line

TASKS, PANEL, SAMPLE = 11, 256, 20


def main() -> None:
    """Compare, time, print the line."""
    given = arguments(__doc__, repeats=1)
    predictor = load_predictor("nasbench201")
    generator = numpy_generator(0, "benchmark", "rank space")
    cells = all_cells("nasbench201")
    panel = [cells[at] for at in generator.choice(len(cells), PANEL, replace=False)]
    sample = [cells[at] for at in generator.choice(len(cells), SAMPLE, replace=False)]
    vectors = generator.dirichlet(np.ones(len(predictor.tasks)), size=TASKS) @ predictor.tasks
    asked = [
        np.mean(
            [
                (
                    np.sign(predictor.ask([cell] * PANEL, panel, np.repeat(vector[None], PANEL, 0)))
                    + 1
                )
                / 2
                for vector in vectors
            ]
        )
        for cell in sample
    ]
    difference = float(np.abs(np.array(asked) - standing(predictor, sample, panel, vectors)).max())
    if difference > 2 / (TASKS * PANEL):
        raise SystemExit(f"shares differ by {difference}: nothing is timed")
    seconds = by_turns(
        {"space_s": lambda: standing(predictor, cells, panel, vectors)}, given.repeats, given.device
    )
    write_line(
        "rank_space",
        given,
        {
            "cells": len(cells),
            "questions": len(cells) * PANEL * TASKS,
            "largest_difference": difference,
            **seconds,
        },
    )


if __name__ == "__main__":
    main()
