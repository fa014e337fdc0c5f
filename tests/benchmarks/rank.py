"""Ranking 30 cells on 16 task embeddings: all pairs at once against one question after another.

Same answers first: no answer may change where |logit| > 1e-5.
"""

import numpy as np

from lockforge.randomness import numpy_generator
from lockforge.search.predictor import load_predictor
from lockforge.search.ranking import ask_one_by_one, rank, rank_one_by_one
from lockforge.search.tasks import draw_cells
from tests.benchmarks.line import arguments, by_turns, write_line

CELLS, TASKS = 30, 16


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
        "one_by_one_s": lambda: rank_one_by_one(predictor, cells, vectors),
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
