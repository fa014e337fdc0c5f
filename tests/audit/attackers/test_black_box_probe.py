"""The black-box probe knows outputs and nothing else."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._queries import fresh_head
from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._black_box_probe import black_box_probe, settings
from lockforge.audit.protocol import Attempt, Budget, Capabilities, InitialModel, Setting
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "asked")
BUDGET = Budget(99, 8, head_steps=20)
SETTINGS = (Setting("adam", 0.1, "source"),)

Run = Callable[..., Sequence[Attempt]]


def service() -> InitialModel:
    """A random network for four classes that came with a head for six."""
    shape = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 6, 6),
    )
    return InitialModel(
        build(shape, torch_generator(0, "service")),
        source_head=fresh_head(16, 6, torch_generator(0, "six")).state_dict(),
    )


def test_what_the_outputs_do_not_show_changes_nothing(data: AttackerData, run_attack: Run) -> None:
    """A feature that the service's head ignores may be anything: the probe's answers are the same,
    bit by bit.
    """
    plain, other = service(), service()
    for given in (plain, other):
        assert given.source_head is not None
        given.source_head["weight"][:, 3] = 0
    other.network.last.bias.data[3] = 5.0  # type: ignore[union-attr]  # this space has it
    answers = [
        logits_of(
            run_attack(black_box_probe, given, data, SETTINGS, BUDGET, DRAW)[0].network, data.val
        )[0]
        for given in (plain, other)
    ]
    assert torch.equal(*answers)
    (seen,) = run_attack(black_box_probe, InitialModel(other.network), data, SETTINGS, BUDGET, DRAW)
    assert not torch.equal(answers[0], logits_of(seen.network, data.val)[0])


def test_the_network_that_comes_back_is_the_one_that_was_validated(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """On images it scores what was reported, in any mode, and the service is as it was."""
    given = service()
    before = state(given.network)
    for attempt in run_attack(
        black_box_probe, given, data, settings(AuditRecipe(), facts), BUDGET, DRAW
    ):
        assert accuracy(*logits_of(attempt.network.train(), data.val)) == attempt.val_accuracy
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given.network).items())


def test_operations_count_one_query_an_image_and_the_head(
    data: AttackerData, run_attack: Run
) -> None:
    """Closed form: 20 images once, and 3 x 6 outputs x 4 classes x 20 steps of 8 images."""
    given = service()
    (attempt,) = run_attack(black_box_probe, given, data, SETTINGS, BUDGET, DRAW)
    assert attempt.operations == 20 * flops(given.network.architecture) + 3 * 6 * 4 * 20 * 8
    assert attempt.steps == 20


def test_at_most_four_rates_are_tried(facts: Capabilities) -> None:
    """However many the recipe gives, the same never twice."""
    recipe = AuditRecipe(probe_rates=(0.1, 0.1, 0.2, 0.3, 0.4, 0.5))
    assert [one.rate for one in settings(recipe, facts)] == [0.1, 0.2, 0.3, 0.4]
