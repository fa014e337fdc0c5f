"""The plan itself: each question with its seconds, then time, memory and disk of what is left."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lockforge.engine.workload import TrainingCost, Workload
from lockforge.executors.threads import Threads
from lockforge.jobs import InTurn
from lockforge.models.networks import flops
from lockforge.models.read import Place
from lockforge.pipeline import STAND_IN
from lockforge.plan._calibrate import grouping, speeds_of
from lockforge.plan._walk import Question, architecture_with, walk
from lockforge.plan.speeds import HIGH, LOW, Groups, Speeds, side_by_side
from lockforge.recipe import Recipe
from lockforge.records import AnyArchitecture, ImageSet, Roles
from lockforge.runs import Runs

SIDE_BY_SIDE = frozenset(
    {"audit", "search"}
)  # stages whose pieces go as many at once as there are workers
AT_ONCE = frozenset({"embed", "train", "prune"})  # stages that are asked several questions at once
_COPIES = 4  # of the weights while they are trained: themselves, gradients, two moments
_LOOK = 512  # images of an evaluation, as floats


@dataclass(frozen=True)
class Line:
    """A question, and its seconds: of what is left of it, and of all of it had it not been
    begun.
    """

    question: Question
    left: float
    whole: float


@dataclass(frozen=True)
class Plan:
    """What `protect` would do now.

    Args: seconds, low, high: left in all, with the range that is shown. memory: bytes by what holds
        them, at the stage that holds most, and `peak` of it all; `mapped`: images that lie in
        files, which the system drops when memory is short; `free_memory`. disk, free_disk: bytes
        that are going to be written, and that may be. workers: pieces of a stage that go on side by
        side.
    """

    lines: tuple[Line, ...]
    seconds: float
    low: float
    high: float
    memory: Mapping[str, int]
    peak: int
    mapped: int
    free_memory: int
    disk: int
    free_disk: int
    workers: int
    speeds: Speeds

    @property
    def fits(self) -> bool:
        """Whether memory and disk have room for it."""
        return self.peak <= self.free_memory and self.disk <= self.free_disk


Calibrate = Callable[[AnyArchitecture], Speeds]


def make_plan(
    recipe: Recipe,
    roles: Roles,
    do: Runs,
    public: Sequence[str] = (),
    own: Place | None = None,
    *,
    workers: int | None = None,
    calibrate: Calibrate | None = None,
) -> Plan:
    """Say what `protect` would do with the same arguments, and what it would take on this machine.

    Args: workers: how many pieces of a stage go on side by side; None: as many as `do`'s device has
        (threads, or one on a GPU). calibrate: the speeds of a network; None: those kept from
        before, or measured now.
    Raises: what `protect` raises before it works: see `walk`.
    """
    questions = walk(recipe, roles, do, public, own)
    network = _typical(questions, recipe, roles)
    speeds = (calibrate or calibrated(recipe, do, again=False))(network)
    groups = grouping(network, do.device)
    beside = workers or (torch.get_num_threads() if do.device == "cpu" else 1)
    programs = beside if _apart(do) and beside > 1 else 0
    lines = tuple(_line(one, speeds, groups, beside) for one in questions)
    left = _together(lines, beside) + (speeds.begun if any(line.left for line in lines) else 0.0)
    memory, peak = _memory(
        lines, roles, speeds, groups, beside, programs, gpu=do.device.startswith("cuda")
    )
    return Plan(
        lines=lines,
        seconds=left,
        low=LOW * left,
        high=HIGH * left,
        memory=memory,
        peak=peak,
        mapped=sum(_bytes(images) for images in (roles.source, *roles.auxiliary, *roles.targets)),
        free_memory=free_memory(do.device),
        disk=_disk(questions, speeds),
        free_disk=shutil.disk_usage(do.folder).free,
        workers=beside,
        speeds=speeds,
    )


def _together(lines: Sequence[Line], workers: int) -> float:
    """Seconds of all lines, one stage after the other."""
    stages = dict.fromkeys(line.question.stage for line in lines)
    lefts = {
        stage: [line.left for line in lines if line.question.stage == stage] for stage in stages
    }
    return sum(
        side_by_side(left, workers if stage in AT_ONCE else 1) for stage, left in lefts.items()
    )


def _typical(questions: Sequence[Question], recipe: Recipe, roles: Roles) -> AnyArchitecture:
    """What is timed: the owner's network, or a typical cell in the recipe's skeleton."""
    own = next(
        (one.network for one in questions if one.stage in {"measure", "head"} and one.network), None
    )
    return own or architecture_with(STAND_IN, roles.source, recipe.network)


def _line(question: Question, speeds: Speeds, groups: Groups, workers: int) -> Line:
    here = (
        speeds
        if question.typical or question.network is None
        else speeds.scaled(flops(question.network))
    )
    beside = here.export if question.stage == "export" else 0.0
    if question.stage == "search":
        here = here.with_cells(
            (1 + here.random_cell) / 2
        )  # half of the cells are drawn, the others chosen
        beside = here.thought + question.reckonings * here.belief

    def seconds(effort: Workload, items: Sequence[Workload]) -> float:
        if question.items:
            return side_by_side([here.seconds_beside(one, groups) for one in items], workers)
        if question.stage in SIDE_BY_SIDE:
            return here.seconds_beside(effort, groups) / workers + beside
        return here.seconds(effort) + beside

    whole = seconds(question.effort, list(question.items.values()))
    left = (
        0.0
        if question.state == "done"
        else seconds(question.left, [question.items[item] for item in question.left_items])
    )
    return Line(question, left, whole)


def _apart(do: Runs) -> bool:
    """Whether an audit's attacks go to other processes."""
    return do.device == "cpu" and not isinstance(do.executor, Threads | InTurn)


def _memory(
    lines: Sequence[Line],
    roles: Roles,
    speeds: Speeds,
    groups: Groups,
    workers: int,
    programs: int,
    *,
    gpu: bool,
) -> tuple[dict[str, int], int]:
    """What is held at the stage that holds most, and the most in all: not less than was held while
    this machine was calibrated.

    Of a GPU only what lies there: not the program. Args: programs: worker processes of an audit.
    """
    parts = [
        _held(line.question, roles, speeds, groups, workers, programs)
        for line in lines
        if line.question.state != "done"
    ]
    most = max(parts, key=lambda one: sum(one.values()), default={})
    if gpu:
        return most, sum(most.values())
    found = {"program": speeds.resident, **most}
    return found, max(sum(found.values()), speeds.most_resident)


def _held(
    question: Question, roles: Roles, speeds: Speeds, groups: Groups, workers: int, programs: int
) -> dict[str, int]:
    """Bytes that one question holds beside the program: activations of its largest step, weights in
    training or kept, images, workers.
    """
    trained = [one for one in question.effort.fits if one.of == "network"]
    look = 4 * _LOOK * roles.source.shape[0] * roles.source.shape[1] * roles.source.shape[2]
    if not question.items:
        step = max(
            (round(one.examples * one.gradients) * speeds.saved for one in trained), default=0
        )
        return {
            "activations": step,
            "weights": _COPIES * speeds.weights if trained else 0,
            "images": look,
        }

    def at_once(one: TrainingCost) -> int:
        return max(groups(one.examples, one.together)) if one.together > 1 else 1

    step = max((at_once(one) * one.examples * speeds.saved for one in trained), default=0)
    stacked = max((at_once(one) for one in trained), default=1)
    target = max(_bytes(images, ("train", "val")) for images in roles.targets)
    seeds = 1 + max(item.seed for item in question.items)
    return {
        **({"worker processes": programs * speeds.resident} if programs else {}),
        "activations": workers * step,
        "weights": workers * (_COPIES * stacked + question.held) * speeds.weights,
        "images": (1 + seeds + workers) * target
        + max(_bytes(images, ("test",)) for images in roles.targets)
        + workers * look,
    }


def _bytes(images: ImageSet, splits: Sequence[str] = ("train", "val", "test")) -> int:
    """8-bit pixels of some splits."""
    c, h, w = images.shape
    count: int = sum(getattr(images.counts, split) for split in splits)
    return count * c * h * w


def _disk(questions: Sequence[Question], speeds: Speeds) -> int:
    """What is going to be written: of each network its weights and, while it is trained, its state;
    the release twice.
    """
    to_do = [one for one in questions if one.state != "done"]
    networks = sum(one.stage in {"train", "prune", "head"} for one in to_do)
    return speeds.weights * (networks + 5 * bool(networks) + 4) if to_do else 0


def free_memory(device: str) -> int:
    """Bytes that a new program may take: of the GPU, or of this machine and of the group of
    processes that we are in.
    """
    if device.startswith("cuda"):
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    said = Path("/proc/meminfo")
    if said.is_file():
        found += [
            1024 * int(line.split()[1])
            for line in said.read_text().splitlines()
            if line.startswith("MemAvailable:")
        ]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        found.append(int(text))
    return min(found)


def calibrated(recipe: Recipe, do: Runs, *, again: bool) -> Calibrate:
    """The speeds of this machine from the cache, or measured anew where that is asked for."""
    return lambda network: speeds_of(
        network, recipe, do.files, do.device, apart=_apart(do), again=again
    )


def as_json(plan: Plan) -> dict[str, object]:
    """The plan for machines: seconds and bytes."""
    return {
        "questions": [
            {
                "stage": one.stage,
                "on": one.on,
                "state": one.state,
                "key": one.key,
                "typical": one.typical,
                "trainings": one.effort.trainings,
                "steps": one.effort.steps,
                "images_passed": one.effort.passed,
                "pieces": len(one.items),
                "share_done": round(1.0 if one.state == "done" else one.share, 4),
                "seconds": round(line.whole, 2),
                "seconds_left": round(line.left, 2),
                "seconds_spent": round(one.spent, 2),
            }
            for line in plan.lines
            for one in (line.question,)
        ],
        "seconds": {
            "left": round(plan.seconds, 1),
            "low": round(plan.low, 1),
            "high": round(plan.high, 1),
        },
        "memory": {
            "peak": plan.peak,
            "parts": dict(plan.memory),
            "mapped": plan.mapped,
            "free": plan.free_memory,
        },
        "disk": {"needed": plan.disk, "free": plan.free_disk},
        "workers": plan.workers,
        "fits": plan.fits,
    }
