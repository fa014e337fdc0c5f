"""What an executor costs: short trainings of about a second each on two workers, beside the time
that these spent on them.

A worker that is not at a piece waits: for what it is to do next, for the answer to be taken, or, at
the end, for the other one. `overhead` is two workers' time less the pieces' own seconds, as a share
of these; both pass on the same machine at the same time, so other work on it does not count. Each
executor does two pieces first, which start its workers (`start_s`). The answers must be the same.
"""

import tempfile
import time
from pathlib import Path

from lockforge.data.roles import read_set
from lockforge.executors import Kind, make_executor
from lockforge.files import Files
from lockforge.jobs import Job, Task, TaskResult
from lockforge.recipe import DataRecipe, FitRecipe, NetworkRecipe
from lockforge.runs import Work
from lockforge.search._short_training import Measured, measure_cell, set_course
from lockforge.spaces.isomorphism import different_networks
from tests.benchmarks.line import arguments, write_line

WORKERS, PIECES = 2, 40
KINDS: tuple[Kind, ...] = ("threads", "processes", "ray")
NETWORK = NetworkRecipe(space="nasbench201", stem_channels=8, cells_per_stage=1)
FIT = FitRecipe(steps=60, batch_size=64)


def main() -> None:
    """Give all executors the same pieces and print the line."""
    given = arguments(__doc__, repeats=1)
    figures: dict[str, object] = {"workers": WORKERS, "pieces": PIECES}
    answers: list[list[Measured]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            files=Files(Path(folder) / "files"), folder=Path(folder), seed=0, device=given.device
        )
        images = read_set("digits", DataRecipe(), work.files)
        shared = (images, NETWORK, FIT)
        spread = Job(measure_cell, set_course, shared, set_course(*shared, work=work))
        pieces = [
            Task((cell,), work) for cell in different_networks("nasbench201")[1000 : 1000 + PIECES]
        ]
        for kind in KINDS:
            executor = make_executor(kind, workers=WORKERS)
            done: list[TaskResult[Measured]] = []
            begun = time.perf_counter()
            executor.run(spread, pieces[:WORKERS], done.append)
            figures[f"{kind}_start_s"] = time.perf_counter() - begun - done[-1].seconds
            done.clear()
            begun = time.perf_counter()
            executor.run(spread, pieces, done.append)
            spent, own = time.perf_counter() - begun, sum(one.seconds for one in done)
            figures[f"{kind}_s"] = spent
            figures[f"{kind}_piece_s"] = own / PIECES
            figures[f"{kind}_overhead"] = WORKERS * spent / own - 1
            answers.append([one.result for one in sorted(done, key=lambda one: one.place)])
    figures["answers_differ"] = sum(answer != answers[0] for answer in answers)
    write_line("executors", given, figures)


if __name__ == "__main__":
    main()
