"""A run that was stopped goes on as if it had not been."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.engine.resume import FILE
from lockforge.errors import IntegrityError
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

MakeNet = Callable[[], nn.Module]
Run = Callable[..., tuple[Fitted, Tensor]]
ROOT = Path(__file__).parents[2]
RECIPES = {
    "sgd": FitRecipe(epochs=5, batch_size=16, warmup=0.1),
    "adam": FitRecipe(epochs=5, batch_size=16, optimizer="adam", learning_rate=0.02, select="last"),
    "steps that end inside passes": FitRecipe(steps=25, batch_size=16),
    "one batch a pass": FitRecipe(steps=5, batch_size=512, select="last"),
    "no momentum": FitRecipe(epochs=5, batch_size=16, momentum=0.0, schedule="constant"),
}


class Stopped(Exception):  # noqa: N818
    """Someone pulled the plug."""


def stop_after(lines: int) -> Callable[[float, float, str], None]:
    """A report that stops the run after so many lines of history."""
    told = iter(range(-1, 1000))

    def report(_done: float, _total: float, _note: str) -> None:
        if next(told) == lines - 1:
            raise Stopped

    return report


def same(a: tuple[Fitted, Tensor], b: tuple[Fitted, Tensor]) -> bool:
    """Whether two outcomes agree in every bit."""
    states = [outcome[0].module.state_dict() for outcome in (a, b)]
    weights = all(states[0][name].equal(states[1][name]) for name in states[0])
    return (
        weights
        and a[0].history == b[0].history
        and a[0].val_accuracy == b[0].val_accuracy
        and a[1].equal(b[1])
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_stopped_after_any_line_a_run_ends_with_the_same_bits(
    run: Run, recipe: FitRecipe, tmp_path: Path
) -> None:
    """Weights, statistics, history, chosen accuracy and the generator's state, for every place to
    stop.
    """
    whole = run(recipe)
    for lines in range(len(whole[0].history) + 1):
        folder = tmp_path / str(lines)
        with pytest.raises(Stopped):
            run(recipe, folder, stop_after(lines))
        assert same(run(recipe, folder), whole), lines


def test_stopped_again_and_again(run: Run, tmp_path: Path) -> None:
    """One line at a time, eleven starts for ten lines."""
    recipe = RECIPES["steps that end inside passes"]
    for _ in range(10):
        with pytest.raises(Stopped):
            run(recipe, tmp_path, stop_after(1))
    assert same(run(recipe, tmp_path), run(recipe))


def test_a_killed_process_leaves_a_run_that_goes_on(run: Run, tmp_path: Path) -> None:
    """SIGKILL in the third epoch, between two writes: nothing is tidied up, and the bits are the
    same.

    In a process of its own: one that has threads must not be forked.
    """
    only = str(Path(__file__).with_name("doomed.py"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "--timeout=0",
        only,
    ]
    killed = subprocess.run(
        command,
        env=os.environ | {"LOCKFORGE_TEST_DOOMED_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stdout[-2000:]
    assert same(run(RECIPES["sgd"], tmp_path), run(RECIPES["sgd"]))


def test_a_finished_run_is_not_trained_again(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, tmp_path: Path
) -> None:
    """Asked a second time it answers from the folder, without one more loss."""

    def never(_outputs: Tensor, _labels: Tensor) -> Tensor:
        raise AssertionError("trained again")

    recipe = RECIPES["sgd"]
    first = fit(
        make_net(),
        train,
        recipe,
        generator=torch_generator(0),
        val=val,
        context=RunContext(folder=tmp_path),
    )
    again = fit(
        make_net(),
        train,
        recipe,
        generator=torch_generator(0),
        val=val,
        loss=never,
        context=RunContext(folder=tmp_path),
    )
    assert again.history == first.history
    assert all(
        b.equal(first.module.state_dict()[name]) for name, b in again.module.state_dict().items()
    )


def test_a_run_of_another_question_is_not_used(
    make_net: MakeNet, train: TensorFeed, tmp_path: Path
) -> None:
    """Another rate, another start, another seed or another number of examples: as if the folder
    were empty.
    """
    recipe = FitRecipe(steps=4, batch_size=16, select="last")
    other = recipe.model_copy(update={"learning_rate": 0.2})
    moved = make_net()
    with torch.no_grad():
        moved[4].bias += 1
    fewer = TensorFeed(train.inputs[:90], train.labels[:90])
    for net, feed, asked, seed in (
        (make_net(), train, other, 0),
        (moved, train, recipe, 0),
        (make_net(), train, recipe, 1),
        (make_net(), fewer, recipe, 0),
    ):
        fit(
            make_net(),
            train,
            recipe,
            generator=torch_generator(0),
            context=RunContext(folder=tmp_path, save_every=0),
        )
        start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        found = fit(
            net, feed, asked, generator=torch_generator(seed), context=RunContext(folder=tmp_path)
        ).module.state_dict()
        fresh = make_net()
        fresh.load_state_dict(start)
        alone = fit(fresh, feed, asked, generator=torch_generator(seed)).module.state_dict()
        assert all(found[name].equal(alone[name]) for name in found)


def test_a_damaged_file_is_named(run: Run, tmp_path: Path) -> None:
    """Cut short or overwritten: an IntegrityError with the file and the way out, never a
    half-loaded run.
    """
    run(RECIPES["sgd"], tmp_path)
    data = (tmp_path / FILE).read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"x" * len(data)):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(IntegrityError, match=FILE):
            run(RECIPES["sgd"], tmp_path)


def test_without_a_folder_nothing_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of small runs must not touch the disk."""
    monkeypatch.chdir(tmp_path)
    run(RECIPES["sgd"])
    assert not list(tmp_path.iterdir())
