"""Attacks side by side: order, resumption, failure, threads."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lockforge.audit.ledger import Ledger
from lockforge.audit.protocol import Item
from lockforge.audit.side_by_side import Brake, one_thread_each, run_all
from lockforge.errors import OutcomeError
from lockforge.records import AttackPoint
from lockforge.runs import Files, Work


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch with so many threads, and with what it had before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def work_in(folder: Path) -> Work:
    """A stage's work in this folder."""
    return Work(files=Files(folder), folder=folder, seed=0)


def jobs_that_note(done: list[int], count: int, seconds: float = 0.0) -> dict[Item, Callable[[], tuple[AttackPoint, ...]]]:
    """Jobs that take so long, write their number down and give a point with it."""

    def job(seed: int) -> Callable[[], tuple[AttackPoint, ...]]:
        def run() -> tuple[AttackPoint, ...]:
            assert torch.get_num_threads() == 1
            time.sleep(seconds)
            done.append(seed)
            return (
                AttackPoint(start="dummy", attacker="a", setting="s", images_per_class=1, samples=2, seed=seed, steps=1, flops=0,
                            val_accuracy=0),
            )  # fmt: skip

        return run

    return {Item("dummy", "a", seed): job(seed) for seed in range(count)}


def test_points_come_in_the_order_of_the_jobs(tmp_path: Path, threads: int) -> None:
    """Whoever finishes first; each attack computes on one thread, and torch has its threads back afterwards."""
    done: list[int] = []
    points = run_all(jobs_that_note(done, 8), Ledger(tmp_path), work_in(tmp_path), Brake())
    assert [point.seed for point in points] == list(range(8)) == sorted(done)
    assert torch.get_num_threads() == threads


def test_finished_items_are_not_done_again(tmp_path: Path) -> None:
    """A second run asks only for what is missing, and counts from where it was."""
    run_all(jobs_that_note([], 3), Ledger(tmp_path), work_in(tmp_path), Brake())
    done: list[int] = []
    said: list[float] = []
    work = Work(files=Files(tmp_path), folder=tmp_path, seed=0, report=lambda so_far, _total, _note: said.append(so_far))
    points = run_all(jobs_that_note(done, 5), Ledger(tmp_path), work, Brake())
    assert sorted(done) == [3, 4]
    assert said == [4, 5]
    assert len(points) == 5


def test_a_failed_attack_stops_the_audit_and_keeps_what_was_finished(tmp_path: Path) -> None:
    """Its error is raised as it is; nothing that was waiting is begun."""
    done: list[int] = []
    jobs = jobs_that_note(done, 40, seconds=0.01)

    def fails() -> tuple[AttackPoint, ...]:
        raise OutcomeError("diverged")

    jobs[Item("dummy", "a", 9)] = fails
    with pytest.raises(OutcomeError, match="diverged"):
        run_all(jobs, Ledger(tmp_path), work_in(tmp_path), Brake())
    assert Item("dummy", "a", 0) in Ledger(tmp_path).finished
    assert len(done) < 20


def test_threads_are_given_back_after_an_error(threads: int) -> None:
    """The context ends well however it ends."""
    with pytest.raises(OutcomeError), one_thread_each():
        raise OutcomeError("any")
    assert torch.get_num_threads() == threads


def test_an_interruption_brakes_what_is_under_way(tmp_path: Path) -> None:
    """An attack that would take a minute ends as soon as it asks; what was finished is kept."""
    brake, asked = Brake(), []

    def long() -> tuple[AttackPoint, ...]:
        for step in range(6000):
            time.sleep(0.01)
            asked.append(step)
            brake.ask(step, 6000, "")
        return ()

    def interrupt(_done: float, _total: float, _note: str) -> None:
        raise KeyboardInterrupt

    work = Work(files=Files(tmp_path), folder=tmp_path, seed=0, report=interrupt)
    jobs = jobs_that_note([], 1) | {Item("dummy", "a", 9): long}
    with pytest.raises(KeyboardInterrupt):
        run_all(jobs, Ledger(tmp_path), work, brake)
    assert len(asked) < 3000
    assert len(Ledger(tmp_path).finished) == 1
