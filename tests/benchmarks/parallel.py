"""Seconds a step of one large network by one process and by two (`engine.parallel`), one thread
each; and by one process of two threads.

A NAS-Bench-201 cell in its published width (16 channels) on noise of 32 px; `--cells` a stage
(published: 5) and `--batch` choose the case, no validation. Every run is started as a stage starts
it; its steps are timed from the end of its first tenth, and what precedes its first step is
`start_s`. `cpu_s` are the processors' seconds of all processes together, which say more on a busy
machine: what is above those of one process is the price of sharing, and `cpu_scaling` what
`scaling` could be on an idle machine. Losses of the first tenth must agree within a tenth of a nat
(batch norms differ).
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lockforge.engine.device import set_threads
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext
from lockforge.engine.parallel import Training, fit_together
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe
from lockforge.records import Architecture, Cell
from tests.benchmarks.line import arguments, idle, write_line

CELL = Cell.parse(
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
)


def make(job: str, device: str) -> Training:
    """A training of so many steps."""
    case = json.loads(job)
    architecture = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=16,
        cells_per_stage=case["cells"],
        classes=10,
        shape=(3, 32, 32),
    )
    draws = torch_generator(0, "benchmark", "noise")
    count = case["batch"] * 4
    images = torch.randn(count, 3, 32, 32, generator=draws).to(device)
    feed = TensorFeed(images, torch.randint(10, (count,), generator=draws).to(device))
    recipe = FitRecipe(
        steps=case["steps"], batch_size=case["batch"], learning_rate=0.05, select="last"
    )
    return Training(
        build(architecture, draws), feed, recipe, torch_generator(0, "benchmark", "draws")
    )


def main() -> None:
    """All ways by turns."""
    options = argparse.ArgumentParser(add_help=False)
    for name, default in (("cells", 3), ("batch", 64), ("steps", 20), ("processes", 2)):
        options.add_argument(f"--{name}", type=int, default=default)
    case, sys.argv[1:] = options.parse_known_args()
    given = arguments(__doc__, repeats=2, ways=("one_all_threads",))
    ways = {
        "one": (1, 1),
        "one_all_threads": (1, case.processes),
        "together": (case.processes, case.processes),
    }
    ways = {name: how for name, how in ways.items() if name not in given.without}
    runs: dict[str, list[Clock]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, (processes, threads) in ways.items():
            set_threads(threads)
            runs[name].append(timed(processes, case, given.device))
    losses = {name: found[0].loss for name, found in runs.items()}
    if max(losses.values()) - min(losses.values()) > 0.1:
        raise SystemExit(f"the ways do not train alike: losses of the first tenth {losses}")
    figures: dict[str, object] = {
        "processes": case.processes,
        "cells_per_stage": case.cells,
        "batch_size": case.batch,
        "steps": case.steps,
    }
    middle = {
        name: {what: statistics.median(getattr(one, what) for one in found) for what in FIGURES}
        for name, found in runs.items()
    }
    figures |= {
        f"{name}_{what}": value for name, values in middle.items() for what, value in values.items()
    }
    figures["scaling"] = middle["one"]["s_a_step"] / middle["together"]["s_a_step"]
    figures["cpu_scaling"] = (
        case.processes * middle["one"]["cpu_s_a_step"] / middle["together"]["cpu_s_a_step"]
    )
    if "one_all_threads" in middle:
        figures["against_threads"] = (
            middle["one_all_threads"]["s_a_step"] / middle["together"]["s_a_step"]
        )
    write_line("parallel", given, figures)


FIGURES = ("s_a_step", "cpu_s_a_step", "start_s")


@dataclass
class Clock:
    """Reads the time, and the processors' time, when a run begins its first step, at the end of its
    first tenth and at its end.
    """

    device: str
    begun: float = field(default_factory=time.perf_counter)
    read: list[tuple[float, float, float]] = field(default_factory=list)
    loss: float = 0.0

    def __call__(self, done: float, _total: float, note: str) -> None:
        """A report of `fit`; what comes between lines is left out."""
        if note and not self.read[1:] and done:
            self.loss = float(note.split()[1].rstrip(","))
        if not self.read or note:
            idle(self.device)
            self.read.append((done, time.perf_counter(), cpu_seconds()))

    @property
    def start_s(self) -> float:
        """Before the first step."""
        return self.read[0][1] - self.begun

    @property
    def s_a_step(self) -> float:
        """After the first tenth."""
        (first, since, _), (last, until, _) = self.read[1], self.read[-1]
        return (until - since) / (last - first)

    @property
    def cpu_s_a_step(self) -> float:
        """The same of all processes' own time."""
        (first, _, since), (last, _, until) = self.read[1], self.read[-1]
        return (until - since) / (last - first)


def timed(processes: int, case: argparse.Namespace, device: str) -> Clock:
    """One run, as a stage starts it."""
    job, clock = json.dumps(vars(case)), Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext(device, Path(folder), clock)
        if processes > 1:
            fit_together(make, job, processes, context)
        else:
            make(job, device).go(context)
    return clock


def cpu_seconds() -> float:
    """Of this process and of those that it started and that are alive."""
    own = os.times()
    ticks = os.sysconf("SC_CLK_TCK")
    spent = own.user + own.system
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


if __name__ == "__main__":
    main()
