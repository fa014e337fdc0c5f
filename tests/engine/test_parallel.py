"""One network trained by two processes.

Here they are forked from a server that has opened torch already, which a stage does not do: it
takes a second instead of ten. The stage's own start is tested in `tests/train`.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lockforge.engine import parallel
from lockforge.engine._team import Share, Team
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.engine.parallel import fit_together
from lockforge.errors import DataError, OutcomeError, ResourceError
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe, TrainRecipe
from tests.engine.together import lead, make

SERVER = multiprocessing.get_context("forkserver")
PLACE = parallel._Place(
    rank=0, size=1, device="cpu", threads=1, folder="", meeting="", save_every=0
)


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that find torch opened; none is left at the end."""
    multiprocessing.set_forkserver_preload(["tests.engine.together"])
    monkeypatch.setattr(parallel, "_CONTEXT", SERVER)
    yield
    assert not multiprocessing.active_children()


def together(folder: Path, size: int = 2, **asked: Any) -> Fitted:
    """Train with several processes, storing each line."""
    return fit_together(make, json.dumps(asked), size, RunContext(folder=folder, save_every=0))


def alone(**asked: Any) -> Fitted:
    """The same job by this process."""
    return make(json.dumps(asked), "cpu").go(RunContext())


def same_bits(a: Fitted, b: Fitted) -> bool:
    """Whether two outcomes agree in every bit."""
    pairs = zip(a.module.state_dict().values(), b.module.state_dict().values(), strict=True)
    return (
        all(x.equal(y) for x, y in pairs)
        and a.history == b.history
        and a.val_accuracy == b.val_accuracy
    )


@pytest.mark.parametrize("size", [2, 3])
def test_without_batch_norm_several_processes_train_as_one(tmp_path: Path, size: int) -> None:
    """Batches of 17 in uneven parts, a mask, sharpness-aware steps, a layer without a gradient, a
    last validation batch of one image.
    """
    asked = {"mask": True, "sharpness": 0.05, "val": 513}
    found, one = together(tmp_path, size, **asked), alone(**asked)
    torch.testing.assert_close(
        found.module.state_dict(), one.module.state_dict(), rtol=0, atol=1e-5
    )
    assert [line.loss for line in found.history] == pytest.approx(
        [line.loss for line in one.history], abs=1e-5
    )
    for name in ("train_accuracy", "val_accuracy", "learning_rate"):
        assert [getattr(line, name) for line in found.history] == pytest.approx(
            [getattr(line, name) for line in one.history], abs=0.02
        )
    assert (found.steps, not found.module.training) == (one.steps, True)


def test_batch_norms_see_their_own_part_and_all_processes_end_alike(tmp_path: Path) -> None:
    """As one process whose batch norms take each half by itself; weights, statistics, history and
    accuracy to the bit on both.
    """
    asked = {"recipe": {"batch_size": 16}}
    found = together(tmp_path / "run", norm="batch", keep=str(tmp_path), **asked)
    torch.testing.assert_close(
        found.module.state_dict(),
        alone(norm="ghost", **asked).module.state_dict(),
        rtol=0,
        atol=1e-5,
    )
    assert not torch.allclose(
        found.module.norm.running_var,
        alone(norm="batch", **asked).module.norm.running_var,
        rtol=0,
        atol=1e-5,
    )
    outcomes = []
    for name in ("0", "1", "here"):
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as stored:
            outcomes.append(
                (
                    {key: stored.get_tensor(key).numpy().tobytes() for key in stored.keys()},  # noqa: SIM118
                    stored.metadata()["story"],
                )
            )
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("size", [2, 3])
def test_a_killed_process_ends_the_others_and_the_run_goes_on_from_there(
    tmp_path: Path, size: int
) -> None:
    """A ResourceError within seconds that names process and signal; asked again, the bits of a run
    that nothing befell.
    """
    started = time.monotonic()
    with pytest.raises(
        ResourceError, match=rf"process 2 of {size} that train together was killed by SIGKILL"
    ):
        together(tmp_path / "run", size, norm="batch", deed="killed")
    assert time.monotonic() - started < 20
    told: list[float] = []
    context = RunContext(folder=tmp_path / "run", report=lambda done, *_: told.append(done))
    again = fit_together(make, json.dumps({"norm": "batch"}), size, context)
    assert told[0] == 1
    assert same_bits(again, together(tmp_path / "other", size, norm="batch"))


def test_a_fault_in_one_process_is_raised_here(tmp_path: Path) -> None:
    """Divergence as alone; what is wrong with the data; a bug with its own traceback, not its
    neighbour's; memory.
    """
    wild = {"recipe": {"learning_rate": 1e30}}
    with pytest.raises(OutcomeError) as one:
        alone(**wild)
    with pytest.raises(OutcomeError) as found:
        together(tmp_path / "a", **wild)
    assert str(found.value) == str(one.value)
    with pytest.raises(DataError, match="2 processes cannot share batches of 1 examples"):
        together(tmp_path / "b", train=1)
    with pytest.raises(RuntimeError, match=r"process 2 of 2 failed:(.|\n)*at the second pass"):
        together(tmp_path / "c", deed="wrong")
    with pytest.raises(MemoryError, match="at the second pass"):
        together(tmp_path / "d", deed="lacking")


def test_a_job_that_is_not_the_same_everywhere_is_noticed(tmp_path: Path) -> None:
    """The run that the processes left is of another question than the one asked here: nothing is
    trained in its stead.
    """
    with pytest.raises(RuntimeError, match="no finished run"):
        together(tmp_path, deed="fickle")


def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """It is killed while they train, and cannot tell them: none is left a second later."""
    job = json.dumps({"deed": "asleep"})
    first = SERVER.Process(target=lead, args=(job, str(tmp_path)))
    first.start()
    listed = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    if not listed.parent.exists():
        first.kill()
        pytest.skip("this system does not list a process's children")
    deadline = time.monotonic() + 30
    while not (tmp_path / "fit.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = [int(pid) for pid in listed.read_text().split()]
    assert len(children) == 2
    first.kill()
    first.join()
    time.sleep(1)
    assert not [pid for pid in children if running(pid)]


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.timeout(20)
def test_a_process_that_ends_between_two_looks_is_not_waited_for_for_ever() -> None:
    """It has closed its line, and is found alive at the first look and ended at the second."""
    mine, theirs = multiprocessing.Pipe(duplex=False)
    theirs.close()
    process = Ending(iter([None]), mine.fileno())
    parallel._watch([parallel._Member(PLACE, process, mine, open=False)], RunContext())  # type: ignore[arg-type]
    assert process.exitcode == 0


@dataclass
class Ending:
    """A process that has just ended; who looks early is told that it has not."""

    looks: Iterator[None]
    sentinel: int

    @property
    def exitcode(self) -> int | None:
        """As at this look."""
        return next(self.looks, 0)


def test_one_who_stops_waiting_leaves_no_process(tmp_path: Path) -> None:
    """The report raises, as Ctrl-C does: it is passed on, and all processes are gone (the fixture
    looks).
    """

    def stop(done: float, _total: float, _note: str) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together(make, "{}", 2, RunContext(folder=tmp_path, report=stop))


def test_each_process_has_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the one that is given on; too few are a ResourceError that says how many there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parallel._devices("cpu", 2) == ("cpu", "cpu")
    assert parallel._devices("cuda", 2) == ("cuda:0", "cuda:1")
    assert parallel._devices("cuda:1", 2) == ("cuda:1", "cuda:2")
    with pytest.raises(
        ResourceError, match="2 processes need a CUDA device each, and there are 1 from cuda:2 on"
    ):
        parallel._devices("cuda:2", 2)


@pytest.mark.gpu
def test_two_gpus_train_as_the_cpu_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through NCCL, in float32: the weights of one process on the CPU, to what devices round
    otherwise.
    """
    if torch.cuda.device_count() < 2:
        pytest.skip("no two CUDA devices here")
    monkeypatch.setattr(parallel, "_CONTEXT", multiprocessing.get_context("spawn"))
    asked = {"recipe": {"precision": "float32"}, "mask": True}
    found = fit_together(make, json.dumps(asked), 2, RunContext("cuda", tmp_path))
    torch.testing.assert_close(
        found.module.cpu().state_dict(), alone(**asked).module.state_dict(), rtol=0, atol=1e-3
    )


def test_parts_make_up_the_whole(generator: torch.Generator) -> None:
    """Of any batch, in order; the weighted mean of the parts' means is the mean; a feed in parts is
    as long as the whole.
    """
    for count, size in ((7, 2), (8, 2), (2, 3), (1, 2), (11, 4)):
        values = torch.rand(count, 3, generator=generator)
        parts = [Team(rank, size).share(values, values[:, 0]) for rank in range(size)]
        assert torch.cat([inputs for inputs, _, _ in parts]).equal(values)
        means = torch.stack([labels.mean() * weight for _, labels, weight in parts if len(labels)])
        assert float(means.sum() / size) == pytest.approx(float(values[:, 0].mean()), abs=1e-6)
        feed = TensorFeed(values, values[:, 0])
        shares = [Share(feed, Team(rank, size)) for rank in range(size)]
        assert len(shares[0]) == count
        seen: list[Tensor] = [labels for share in shares for _, labels in share.batches(3, None)]
        assert torch.cat(seen).sort().values.equal(values[:, 0].sort().values)


def test_more_processes_than_examples_in_a_batch_are_refused() -> None:
    """By the recipe, and by the loop where the data are fewer than a batch."""
    with pytest.raises(ValueError, match="3 processes cannot share batches of 2"):
        TrainRecipe(steps=1, batch_size=2, processes=3)
    feed = TensorFeed(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match="2 processes cannot share batches of 1"):
        fit(
            torch.nn.Linear(2, 2),
            feed,
            FitRecipe(steps=1),
            generator=torch_generator(0),
            context=RunContext(team=Team(0, 2)),
        )
