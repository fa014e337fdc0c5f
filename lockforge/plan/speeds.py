"""From counted work to seconds: how fast this machine trains, passes and asks, and the arithmetic
between.

A step of one network on b examples takes step + b example seconds; K networks in a stack take step
+ K (member + b example). A training takes `start` more, once: building it, its optimiser, its last
look. That is a model: caches, and neighbours on the machine, are not in it.
"""

import heapq
from collections.abc import Callable, Iterable
from math import ceil

from lockforge.engine.workload import TrainingCost, Workload
from lockforge.records import Record

LOW, HIGH = (
    0.45,
    1.7,
)  # of an estimate: the range that is shown beside it; docs/plan.md says where it comes from

Groups = Callable[[int, int], tuple[int, ...]]
"""(examples a step, trainings at once) -> how many go into each stack."""


class Steps(Record):
    """Seconds of trainings of one kind. `start`: of each; `step`: of a step; `member`: of a step
    and network; `example`: of an example.
    """

    start: float
    step: float
    member: float = 0.0
    example: float

    def of(self, fits: TrainingCost, together: int = 1) -> float:
        """Of as many trainings as go together, one after another or as one stack; without
        validation.
        """
        each = self.step + together * (self.member + fits.examples * self.example)
        return together * self.start + fits.steps * fits.gradients * each


class Speeds(Record):
    """What was measured here, in seconds: trainings alone on all threads, and one of `workers` at
    once on a thread each; images passed.

    `begun`: what the first training of a program takes longer than others. `stack` is missing where
    networks of this size are not stacked. `random_cell`: a step of a random cell in steps of the
    typical one. `thought`: of a search, what comes before its first training; `belief`: each
    reckoning between trainings. `export`: the ONNX file and its check.
    Bytes: `saved`, what a step keeps of one example for its backward pass; `weights`, all
    parameters; `resident` and `most_resident`, of this program when all was measured, and the most
    until then. `operations`: of the network and an image, as `models.networks.flops` counts them.
    """

    workers: int
    begun: float
    alone: Steps
    side: Steps
    stack: Steps | None
    head: Steps
    forward: float
    forward_side: float
    probe: float
    fisher: float
    restyled: float
    random_cell: float
    thought: float
    belief: float
    export: float
    saved: int
    weights: int
    resident: int
    most_resident: int
    operations: int
    calibrated: dict[str, str]

    def scaled(self, operations: int) -> "Speeds":
        """Of a network with so many operations an image: examples take longer in proportion, what
        comes with every step does not.
        """
        by = operations / self.operations if self.operations and operations else 1.0
        grown = {
            name: one.model_copy(update={"example": one.example * by})
            for name in ("alone", "side", "stack")
            if (one := getattr(self, name))
        }
        return self.model_copy(
            update={**grown, "forward": self.forward * by, "forward_side": self.forward_side * by}
        )

    def with_cells(self, by: float) -> "Speeds":
        """Of cells that take so many times as long to train one by one, steps and examples
        alike.
        """
        grown = {
            name: steps.model_copy(update={"step": by * steps.step, "example": by * steps.example})
            for name, steps in (("alone", self.alone), ("side", self.side))
        }
        return self.model_copy(update=grown)

    def seconds(self, effort: Workload) -> float:
        """Of work that has the machine for itself."""
        passes = {
            "network": self.forward,
            "probe": self.probe,
            "fisher": self.fisher,
            "restyled": self.restyled,
        }
        total = sum(passes[name] * count for name, count in (effort.passes or {}).items())
        for one in effort.fits:
            kind = self.head if one.of == "head" else self.alone
            total += one.trainings * (
                kind.of(one) + (one.validated * self.forward if one.of == "network" else 0.0)
            )
        return total

    def seconds_beside(self, effort: Workload, groups: Groups) -> float:
        """Of one of several pieces of work that go on side by side, each on one thread."""
        total = (effort.passes or {}).get("network", 0) * self.forward_side
        for one in effort.fits:
            if one.of == "head":
                total += one.trainings * self.head.of(one)
                continue
            sizes = (
                groups(one.examples, one.together)
                if self.stack and one.together > 1
                else (1,) * one.together
            )
            once = sum(
                self.stack.of(one, size) if self.stack and size > 1 else self.side.of(one)
                for size in sizes
            )
            total += (
                one.trainings / one.together * once
                + one.trainings * one.validated * self.forward_side
            )
        return total


def side_by_side(seconds: Iterable[float], workers: int) -> float:
    """How long pieces of work take that are begun in order, as many at once as there are workers.

    >>> side_by_side([3.0, 1.0, 1.0, 2.0], 2)
    4.0
    """
    busy = [0.0] * max(1, workers)
    for one in seconds:
        heapq.heappush(busy, heapq.heappop(busy) + one)
    return max(busy)


def told(seconds: float) -> str:
    """A duration in words.

    >>> told(0.4), told(75), told(5400), told(200000)
    ('< 1 s', '75 s', '1.5 h', '56 h')
    """
    if seconds < 1:
        return "< 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{ceil(hours)} h"
