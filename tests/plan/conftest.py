"""A recipe that takes seconds, speeds that are round numbers, and one small run of the whole
sentence that was planned first.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from lockforge.data.builtin import DEFAULT
from lockforge.data.roles import read_roles
from lockforge.engine import fit, stack
from lockforge.pipeline import open_runs, protect
from lockforge.plan._walk import Question, walk
from lockforge.plan.speeds import Speeds, Steps
from lockforge.recipe import Recipe, read_recipe
from lockforge.records import Roles
from lockforge.runs import WORDS, Runs

TINY = """
threads: 1
data: {limit_per_class: 8}
network: {stem_channels: 4, cells_per_stage: 1}
embed: {samples: 12, head_steps: 3}
search: {measurements: 4, shortlist: {cells: 3, rounds: 2, fit: {epochs: 1, batch_size: 16}}}
train: {epochs: 2, batch_size: 16, learning_rate: 0.05}
prune: {method: ntp, sparsity: 0.5, max_source_drop: 1.0, rounds: 2, fit: {steps: 2,
  batch_size: 16}, recovery: {steps: 3, batch_size: 16}}
audit: {images_per_class: [1, 0], seeds: 2, steps: 2, probe_steps: 2, fine_tune_rates: [0.01],
  probe_rates: [0.1]}
export: {onnx: false}
"""
ROUND = Speeds(
    workers=1,
    begun=0,
    alone=Steps(start=1, step=0.5, example=0.25),
    side=Steps(start=1, step=0.5, example=0.25),
    stack=Steps(start=0, step=1, member=0.5, example=0.125),
    head=Steps(start=0, step=1, example=0),
    forward=0.5,
    forward_side=0.25,
    probe=0.1,
    fisher=0.2,
    restyled=0,
    random_cell=1,
    thought=5,
    belief=1,
    export=7,
    saved=1000,
    weights=100,
    resident=10**6,
    most_resident=10**6,
    operations=0,
    calibrated={},
)


@dataclass
class Seen:
    """Trainings and steps of whole networks, and heads, that really ran, stage by stage."""

    stage: str
    trainings: Counter[str]
    steps: Counter[str]
    heads: Counter[str]

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self.stage = WORDS[stage]

    def step(self, done: float, total: float, note: str) -> None:
        """Not looked at."""

    def end(self, stage: str, seconds: float, *, cached: bool, note: str) -> None:
        """Not looked at."""

    def note(self, module: nn.Module, steps: int) -> None:
        """One training."""
        if isinstance(module, nn.Linear):
            self.heads[self.stage] += 1
        else:
            self.trainings[self.stage] += 1
            self.steps[self.stage] += steps


@dataclass(frozen=True)
class Ran:
    """A run of the whole sentence: what was planned before it, what really happened, and where its
    answers lie.
    """

    recipe: Recipe
    folder: Path
    before: tuple[Question, ...]
    seen: Seen

    def open(self) -> tuple[Roles, Runs]:
        """The runs folder again, with the roles."""
        do = open_runs(self.recipe, self.folder, device="cpu")
        return read_roles(*DEFAULT, self.recipe.data, do.files), do

    def walk(self) -> tuple[Question, ...]:
        """What is to do now."""
        return walk(self.recipe, *self.open())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe that takes seconds; its figures mean nothing."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return read_recipe(str(path))


@pytest.fixture(scope="session")
def ran(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Planned, then done, with every training noted."""
    folder = tmp_path_factory.mktemp("plan") / "runs"
    seen = Seen("", Counter(), Counter(), Counter())
    with pytest.MonkeyPatch.context() as patch:
        alone, together = fit._Run.go, stack._Stack.go

        def go(self: fit._Run) -> None:
            seen.note(self.module, self.total)
            alone(self)

        def go_together(self: stack._Stack) -> list[object]:
            for course in self.all:
                seen.note(course.member.module, course.total)
            return together(self)

        patch.setattr(fit._Run, "go", go)
        patch.setattr(stack._Stack, "go", go_together)
        do = open_runs(tiny, folder, device="cpu", reporter=seen)
        roles = read_roles(*DEFAULT, tiny.data, do.files)
        before = walk(tiny, roles, do)
        protect(tiny, roles, do)
    return Ran(tiny, folder, before, seen)
