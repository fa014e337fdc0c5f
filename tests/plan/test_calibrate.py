"""A calibration measures this machine once, and is found again where nothing that decides it
changed.
"""

from pathlib import Path

import pytest
import torch

from lockforge.engine.workload import TrainingCost
from lockforge.files import Files
from lockforge.plan import _calibrate as calibrate
from lockforge.plan._calibrate import cache_folder, grouping, speeds_of
from lockforge.plan.speeds import Steps
from lockforge.recipe import Recipe
from lockforge.records import Architecture, Cell, Op

TINY_NETWORK = Architecture(
    space="transnas101",
    cell=Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none)),
    stem_channels=4,
    cells_per_stage=1,
    classes=3,
    shape=(1, 6, 6),
)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own, and measurements that are as short as can be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibrate, "_MOST_STEPS", 2)
    monkeypatch.setattr(calibrate, "_SOME", 16)
    monkeypatch.setattr(calibrate, "_REPEATS", 1)
    monkeypatch.setattr(calibrate, "_RANDOM_CELLS", 1)


@pytest.mark.usefixtures("_quick")
def test_a_machine_is_measured_once(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is above zero where there is something to measure; the second time nothing is
    measured, unless it is asked for.
    """
    files = Files(tmp_path / "files")
    first = speeds_of(TINY_NETWORK, tiny, files, "cpu")
    for steps in (first.alone, first.side, first.stack, first.head):
        assert steps is not None
        assert steps.step + steps.member + steps.example > 0
    assert (
        min(
            first.forward,
            first.forward_side,
            first.probe,
            first.fisher,
            first.restyled,
            first.random_cell,
            first.belief,
        )
        > 0
    )
    assert first.export == 0  # the recipe wants no ONNX file
    assert first.weights > 4 * 4 * 9

    def measured(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(calibrate._Calibration, "measured", measured)
    assert speeds_of(TINY_NETWORK, tiny, files, "cpu") == first
    for other in (
        TINY_NETWORK.model_copy(update={"shape": (1, 8, 8)}),
        TINY_NETWORK.model_copy(update={"stem_channels": 8}),
    ):
        with pytest.raises(AssertionError, match="again"):
            speeds_of(other, tiny, files, "cpu")
    for how in ({"again": True}, {"apart": True}):
        with pytest.raises(AssertionError, match="again"):
            speeds_of(TINY_NETWORK, tiny, files, "cpu", **how)


@pytest.mark.usefixtures("_quick")
def test_a_damaged_cache_is_measured_over(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is no calibration."""
    from tests.plan.conftest import ROUND

    monkeypatch.setattr(
        calibrate._Calibration,
        "measured",
        lambda _self, said: ROUND.model_copy(update={"calibrated": said}),
    )
    first = speeds_of(TINY_NETWORK, tiny, Files(tmp_path / "files"), "cpu")
    (path,) = cache_folder().iterdir()
    path.write_text("{")
    assert speeds_of(TINY_NETWORK, tiny, Files(tmp_path / "files"), "cpu") == first
    assert path.read_text() == first.to_json()


def test_stacks_are_grouped_as_the_stack_itself_groups_them() -> None:
    """Small networks go together, and all of them are in a group; a batch too large for a stack
    leaves them alone.
    """
    groups = grouping(TINY_NETWORK, "cpu")
    assert sum(groups(4, 10)) == sum(groups(20_000, 10)) == 10
    assert max(groups(4, 10)) > 1
    assert set(groups(20_000, 10)) == {1}


def test_a_stack_is_not_taken_for_slower_than_its_networks_one_by_one(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement of a stack that met a busy moment (100 s a step) is no measurement of the
    stack.
    """
    monkeypatch.setattr(calibrate, "_start_and_step", lambda _run, _workers=1: (0.0, 100.0))
    alone = Steps(start=0, step=1, example=0.125)
    stack = calibrate._Calibration(TINY_NETWORK, tiny, Files(tmp_path), "cpu", apart=False).stack(
        alone
    )
    assert stack is not None
    for examples, members in ((8, 2), (16, 2), (8, 6)):
        one = TrainingCost(trainings=members, steps=1, examples=examples)
        assert stack.of(one, members) <= members * alone.of(one) * (1 + 1e-9)


def test_bytes_that_are_saved_for_the_backward_pass_are_counted(
    tiny: Recipe, tmp_path: Path
) -> None:
    """At least every input of a convolution of one example, and in proportion to the image's
    pixels.
    """
    networks = [TINY_NETWORK.model_copy(update={"shape": (1, side, side)}) for side in (8, 16)]
    small, large = (
        calibrate._Calibration(one, tiny, Files(tmp_path), "cpu", apart=False).saved()
        for one in networks
    )
    assert small > 4 * 4 * 8 * 8  # the stem's output alone
    assert 3.5 < large / small < 4.5


@pytest.mark.gpu
@pytest.mark.usefixtures("_quick")
def test_a_gpu_is_calibrated_too(tiny: Recipe, tmp_path: Path) -> None:
    """One attack at a time, and every figure is above zero."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    found = speeds_of(TINY_NETWORK, tiny, Files(tmp_path / "files"), "cuda")
    assert found.workers == 1
    assert min(found.forward, found.forward_side, found.probe, found.fisher, found.belief) > 0
