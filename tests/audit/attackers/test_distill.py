"""Distillation trains networks of the thief's own; a black box gives it outputs and nothing
else.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from lockforge.audit._queries import fresh_head
from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._distill import STRONG, Student, distill, matching, settings
from lockforge.audit.protocol import (
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Trained,
    Training,
    train_all,
)
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv1x1, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "distilled")

Run = Callable[..., Sequence[Attempt]]


def service() -> InitialModel:
    """A random network for four classes that came with a head for six which ignores feature 3."""
    shape = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 6, 6),
    )
    head = fresh_head(16, 6, torch_generator(0, "six"))
    with torch.no_grad():
        head.weight[:, 3] = 0
    return InitialModel(build(shape, torch_generator(0, "service")), source_head=head.state_dict())


def test_a_black_box_is_known_by_its_outputs_alone(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """A feature that no output depends on may be anything: students of the black box are the same,
    the others not.
    """
    plain, other = service(), service()
    other.network.last.weight.data[3] = -3.0  # type: ignore[union-attr]  # this space has it
    found = [
        run_attack(distill, given, data, settings(AuditRecipe(), facts), Budget(6, 8), DRAW)
        for given in (plain, other)
    ]
    for one, two in zip(*found, strict=True):
        same = torch.equal(logits_of(one.network, data.val)[0], logits_of(two.network, data.val)[0])
        assert same == ("black-box" in one.name)


def test_students_are_empty_networks(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """No weight of the given network is in them, which stays as it is; two have the strong cell,
    two its own.
    """
    given = service()
    before = state(given.network)
    attempts = run_attack(distill, given, data, settings(AuditRecipe(), facts), Budget(2, 8), DRAW)
    assert [one.network.architecture.cell for one in attempts] == [STRONG, STRONG, CELL, CELL]
    kernels = {name for name, tensor in before.items() if tensor.dim() == 4}
    assert all(
        not torch.allclose(state(one.network)[name], before[name], atol=0.05)
        for one in attempts[2:]
        for name in kernels
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given.network).items())


def test_a_student_comes_to_say_what_its_teacher_says(
    data: AttackerData, facts: Capabilities
) -> None:
    """After the matching half its error on the training images is less than two thirds of what it
    was.
    """
    given, budget = service(), Budget(40, 20)
    under_way = distill(given, data, settings(AuditRecipe(), facts), budget, DRAW)
    for wanted in next(under_way):
        assert wanted.recipe.steps == 20
        assert wanted.loss is not None
        errors = []
        for module in (wanted.module, train_all([wanted], budget)[0].module):
            outputs, rows = logits_of(module.train(), wanted.train)
            errors.append(float(wanted.loss(outputs, rows)))
        assert errors[1] < errors[0] * 2 / 3


def test_the_second_half_learns_the_labels_from_where_the_first_ended(
    data: AttackerData, facts: Capabilities
) -> None:
    """What is trained on labels is what came back from matching, with a head for the thief's
    classes; the steps add up.
    """
    budget = Budget(5, 8)
    under_way = distill(service(), data, settings(AuditRecipe(), facts), budget, DRAW)
    first: Sequence[Training] = next(under_way)
    back = [Trained(one.module, 0.0) for one in first]
    second = under_way.send(back)
    # students
    assert [one.module for one in second] == [one.module.network for one in back]  # type: ignore[union-attr]
    assert all(a.recipe.steps + b.recipe.steps == 5 for a, b in zip(first, second, strict=True))  # type: ignore[operator]
    assert all(one.train is data.train and one.loss is None for one in second)


def test_validation_and_operations_are_the_students(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Closed form: 3 passes of the student for 6 steps of 8 images, 1 of the teacher for each of 20
    images.
    """
    given = service()
    for attempt in run_attack(
        distill, given, data, settings(AuditRecipe(), facts), Budget(6, 8), DRAW
    ):
        assert accuracy(*logits_of(attempt.network, data.val)) == attempt.val_accuracy
        student = flops(attempt.network.architecture)
        assert attempt.operations == 3 * 6 * 8 * student + 20 * flops(given.network.architecture)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_single_step_is_for_the_labels(
    data: AttackerData, run_attack: Run, facts: Capabilities, steps: int
) -> None:
    """Very small budgets work."""
    attempts = run_attack(
        distill, service(), data, settings(AuditRecipe(), facts), Budget(steps, 8), DRAW
    )
    assert [attempt.steps for attempt in attempts] == [steps] * 4


def test_matching_looks_targets_up_by_row() -> None:
    """Rows 2 and 0 against their own targets: the squared error by hand."""
    targets = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]])
    assert (
        float(matching(targets)(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([2, 0])))
        == (0 + 4 + 0 + 1) / 4
    )
    assert Student(service().network, fresh_head(16, 2, DRAW("two")))(
        torch.zeros(3, 1, 6, 6)
    ).shape == (3, 2)
