"""The arithmetic from counted work to seconds and bytes, with speeds that are round numbers."""

from pathlib import Path

import pytest

from lockforge.data.builtin import DEFAULT
from lockforge.data.roles import read_roles
from lockforge.engine.workload import TrainingCost, Workload
from lockforge.executors import make_executor
from lockforge.pipeline import open_runs
from lockforge.plan import estimate
from lockforge.plan.estimate import Plan, as_json, free_memory, make_plan
from lockforge.plan.speeds import Speeds
from lockforge.recipe import Recipe
from tests.plan.conftest import ROUND, Ran


@pytest.fixture
def plan(tiny: Recipe, tmp_path: Path) -> Plan:
    """The tiny recipe before anything is done."""
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    return make_plan(
        tiny, read_roles(*DEFAULT, tiny.data, do.files), do, calibrate=lambda _network: ROUND
    )


def test_a_training_alone_takes_its_start_its_steps_and_its_validation() -> None:
    """Two trainings of 3 steps of 4, validated on 10: 2 (1 + 3 (0.5 + 4 * 0.25) + 10 * 0.5); a
    second gradient doubles the steps.
    """
    one = TrainingCost(trainings=2, steps=3, examples=4, validated=10)
    assert ROUND.seconds(Workload((one,), {"probe": 10, "network": 2})) == pytest.approx(
        2 * (1 + 4.5 + 5) + 1 + 1
    )
    twice = TrainingCost(trainings=1, steps=3, examples=4, gradients=2)
    assert ROUND.seconds(Workload((twice,))) == pytest.approx(1 + 9)


def test_trainings_that_go_together_are_stacked_as_the_stack_groups_them() -> None:
    """Five at once in stacks of 3 and 2: each step is begun twice, not five times; what has no
    stack goes one by one.
    """
    five = Workload((TrainingCost(trainings=5, steps=2, examples=8, together=5),))
    stacked = sum(2 * (1 + members * (0.5 + 8 * 0.125)) for members in (3, 2))
    assert ROUND.seconds_beside(five, lambda _examples, _count: (3, 2)) == pytest.approx(stacked)
    assert ROUND.seconds_beside(five, lambda _examples, count: (1,) * count) == pytest.approx(
        5 * (1 + 2 * 2.5)
    )


def test_heads_pay_for_their_steps_alone() -> None:
    """They see features: nothing passes through the network when they are validated."""
    heads = Workload((TrainingCost(trainings=3, steps=2, examples=8, validated=99, of="head"),))
    assert (
        ROUND.seconds(heads)
        == ROUND.seconds_beside(heads, lambda _examples, count: (count,))
        == pytest.approx(6)
    )


def test_the_seconds_left_are_those_of_all_questions(plan: Plan) -> None:
    """Before anything is done all of it is left; the range lies around it."""
    assert (
        plan.seconds
        == pytest.approx(sum(line.whole for line in plan.lines))
        == pytest.approx(sum(line.left for line in plan.lines))
    )
    assert plan.low < plan.seconds < plan.high


def test_more_workers_shorten_what_goes_side_by_side_and_nothing_else(
    plan: Plan, tiny: Recipe, tmp_path: Path
) -> None:
    """The audit's attacks go four at a time, not in less than a quarter of the time; trainings that
    need not wait do not.
    """
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    four = make_plan(
        tiny,
        read_roles(*DEFAULT, tiny.data, do.files),
        do,
        workers=4,
        calibrate=lambda _network: ROUND,
    )
    seconds, fewer = (
        {line.question.stage: line.left for line in one.lines} for one in (plan, four)
    )
    assert seconds["audit"] / 4 <= fewer["audit"] < seconds["audit"] / 2
    assert fewer["search"] < seconds["search"]
    assert {stage: seconds[stage] for stage in ("train", "export")} == {
        stage: fewer[stage] for stage in ("train", "export")
    }
    others = sum(
        line.left for line in four.lines if line.question.stage in {"search", "audit", "export"}
    )
    assert four.seconds == pytest.approx(
        others
        + sum(_longest(four, stage, 4) for stage in ("embed", "train", "prune"))
        + ROUND.begun
    )


def test_worker_processes_take_memory_and_do_not_queue(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them hold the program twice more, at the audit; threads and a single worker hold it
    once. What goes apart is timed apart.
    """
    asked: list[bool] = []

    def speeds(*_given: object, apart: bool, **_more: object) -> Speeds:
        asked.append(apart)
        return ROUND.model_copy(update={"resident": 10**9})

    monkeypatch.setattr(estimate, "speeds_of", speeds)
    held = {}
    for kind, workers in (("processes", 2), ("here", 2), ("here", 1), ("threads", 2)):
        do = open_runs(tiny, tmp_path / "runs", device="cpu", executor=make_executor(kind))
        plan = make_plan(tiny, read_roles(*DEFAULT, tiny.data, do.files), do, workers=workers)
        held[kind, workers] = plan.memory.get("worker processes", 0)
    assert held == {
        ("processes", 2): 2 * 10**9,
        ("here", 2): 2 * 10**9,
        ("here", 1): 0,
        ("threads", 2): 0,
    }
    assert asked == [True, True, True, False]


def _longest(plan: Plan, stage: str, workers: int) -> float:
    """The longest of a stage's questions, which are not more than the workers."""
    left = [line.left for line in plan.lines if line.question.stage == stage]
    assert len(left) <= workers
    return max(left)


def test_a_stage_whose_trainings_go_side_by_side_is_divided_among_the_workers(
    tiny: Recipe, tmp_path: Path
) -> None:
    """The search's trainings go two at a time; on speeds that are the same either way, half of
    their seconds are left.
    """
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    same = ROUND.model_copy(update={"forward_side": ROUND.forward})
    roles = read_roles(*DEFAULT, tiny.data, do.files)
    plans = [
        make_plan(tiny, roles, do, workers=workers, calibrate=lambda _network: same)
        for workers in (1, 2)
    ]
    alone, divided = (
        next(line for line in one.lines if line.question.stage == "search") for one in plans
    )
    thinking = ROUND.thought + alone.question.reckonings * ROUND.belief
    assert divided.left - thinking == pytest.approx((alone.left - thinking) / 2)


def test_what_is_done_takes_no_time(ran: Ran) -> None:
    """Everything found: nothing is left, nothing is written; what it would take anew is still
    told.
    """
    roles, do = ran.open()
    plan = make_plan(ran.recipe, roles, do, calibrate=lambda _network: ROUND)
    assert plan.seconds == plan.disk == 0
    assert all(line.whole > 0 for line in plan.lines)


def test_the_memory_of_an_audit_grows_with_what_it_holds_at_once(
    plan: Plan, tiny: Recipe, tmp_path: Path
) -> None:
    """More workers hold more; the parts and the program make the peak; what does not fit is said
    not to fit.
    """
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    large = ROUND.model_copy(update={"saved": 10**9})
    four = make_plan(
        tiny,
        read_roles(*DEFAULT, tiny.data, do.files),
        do,
        workers=40,
        calibrate=lambda _network: large,
    )
    assert four.peak > 10 * plan.peak
    assert plan.peak == sum(plan.memory.values())
    assert plan.fits
    assert not four.fits
    assert 0 < plan.mapped < 10**6
    assert free_memory("cpu") > 10**6


def test_the_json_has_every_question_and_the_totals(plan: Plan) -> None:
    """Seconds and bytes, as numbers."""
    told = as_json(plan)
    questions = told["questions"]
    assert isinstance(questions, list)
    assert [one["stage"] for one in questions] == [line.question.stage for line in plan.lines]
    assert sum(one["seconds_left"] for one in questions) == pytest.approx(plan.seconds, abs=0.1)
    assert told["fits"] is True
