"""Ranking 30 cells on 16 task embeddings: all pairs at once against one question after another.

Same answers first: no answer may change where |logit| > 1e-5.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lockforge.randomness import numpy_generator
from lockforge.records import Cell
from lockforge.search.predictor import Predictor, load_predictor
from lockforge.search.ranking import from_logits, rank
from lockforge.search.tasks import draw_cells
from tests.benchmarks.line import arguments, by_turns, write_line

CELLS, TASKS = 30, 16


def ask_one_by_one(
    predictor: Predictor, cells: Sequence[Cell], vectors: Float[np.ndarray, "t d"]
) -> Float[np.ndarray, "t k k"]:
    """Logits of all ordered pairs, a forward pass for each unordered one."""
    logits = np.zeros((len(vectors), len(cells), len(cells)), dtype=np.float32)
    for z, vector in enumerate(vectors):
        for i, first in enumerate(cells):
            for j in range(i + 1, len(cells)):
                logits[z, i, j] = predictor.ask([first], [cells[j]], vector[None])[0]
                logits[z, j, i] = -logits[z, i, j]
    return logits


def main() -> None:
    """Compare, time, print the line."""
    given = arguments(__doc__, repeats=7)
    predictor = load_predictor("nasbench201")
    generator = numpy_generator(0, "benchmark", "rank")
    cells = draw_cells("nasbench201", CELLS, (), generator)
    vectors = generator.dirichlet(np.ones(len(predictor.tasks)), size=TASKS) @ predictor.tasks
    batched, single = predictor.ask_all(cells, vectors), ask_one_by_one(predictor, cells, vectors)
    flipped = int(((batched > 0) != (single > 0))[np.abs(single) > 1e-5].sum())
    if flipped:
        raise SystemExit(f"{flipped} answers differ: nothing is timed")
    ways = {
        "one_by_one_s": lambda: from_logits(cells, ask_one_by_one(predictor, cells, vectors)),
        "batched_s": lambda: rank(predictor, cells, vectors),
    }
    seconds = by_turns(ways, given.repeats, given.device)
    figures = {
        "pairs": TASKS * CELLS * (CELLS - 1) // 2,
        "answers_flipped": flipped,
        "largest_difference": float(np.abs(batched - single).max()),
        **seconds,
        "speedup": seconds["one_by_one_s"] / seconds["batched_s"],
    }
    write_line("rank", given, figures)


if __name__ == "__main__":
    main()
