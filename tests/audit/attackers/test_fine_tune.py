"""Full fine-tuning trains everything, pruned weights too, and leaves the given network as it
was.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._fine_tune import fine_tune, settings
from lockforge.audit.protocol import Attempt, Budget, Capabilities, Setting
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "tuning")
BUDGET = Budget(5, 8)

Run = Callable[..., Sequence[Attempt]]


def network() -> CellNetwork:
    """A random network for four classes."""
    return build(
        Architecture(
            space="nasbench201",
            cell=CELL,
            stem_channels=4,
            cells_per_stage=1,
            classes=4,
            shape=(1, 6, 6),
        ),
        torch_generator(0, "tuned"),
    )


def test_every_layer_is_trained_and_the_given_network_is_not(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """All weights of each attempt differ from the start's; the start is untouched."""
    given = network()
    before = state(given)
    for attempt in run_attack(fine_tune, given, data, settings(AuditRecipe(), facts), BUDGET, DRAW):
        after = dict(attempt.network.named_parameters())
        assert all(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given).items())


def test_weights_that_were_pruned_grow_again(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """No mask holds an attacker back: zeros get gradients like any other weight."""
    given = network()
    # the cell's only convolution
    kernel = given.stages[0].cells[0].edges["3"].conv.weight  # type: ignore[union-attr,index]
    with torch.no_grad():
        kernel[:, :2] = 0
    attempt = next(
        iter(run_attack(fine_tune, given, data, settings(AuditRecipe(), facts), BUDGET, DRAW))
    )
    grown = attempt.network.stages[0].cells[0].edges["3"].conv.weight  # type: ignore[union-attr,index]
    assert bool((grown[:, :2] != 0).all())


def test_the_network_that_comes_back_is_the_one_that_was_validated(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Its accuracy on the validation images is the one that was reported."""
    for attempt in run_attack(
        fine_tune, network(), data, settings(AuditRecipe(), facts), BUDGET, DRAW
    ):
        assert accuracy(*logits_of(attempt.network, data.val)) == attempt.val_accuracy


def test_operations_are_three_passes_a_training_image(data: AttackerData, run_attack: Run) -> None:
    """Closed form: 5 steps of 8 images, 3 passes each; 20 images once more where statistics are
    re-estimated.
    """
    given = network()
    both = [Setting("adam", 0.01, "own"), Setting("adam", 0.01, "re-estimated")]
    own, renewed = run_attack(fine_tune, given, data, both, BUDGET, DRAW)
    assert own.operations == flops(given.architecture) * 3 * 5 * 8
    assert renewed.operations - own.operations == flops(given.architecture) * 20


def test_optimisers_have_their_own_rates(facts: Capabilities) -> None:
    """A rate given twice is tried once; SGD may be left out."""
    recipe = AuditRecipe(fine_tune_rates=(0.01, 0.003, 0.01), fine_tune_sgd_rates=(0.1,))
    assert [str(one) for one in settings(recipe, facts)] == [
        "adam lr=0.01 bn=re-estimated",
        "adam lr=0.003 bn=re-estimated",
        "sgd lr=0.1 bn=re-estimated",
    ]
    assert len(settings(recipe.model_copy(update={"fine_tune_sgd_rates": ()}), facts)) == 2


def test_a_setting_that_diverges_leaves_the_thief_with_what_he_had(
    data: AttackerData, run_attack: Run
) -> None:
    """It costs him the setting, not the audit: the network is the start's, it says so, and the
    others go on.
    """
    given = network()
    wild, tame = run_attack(
        fine_tune,
        given,
        data,
        [Setting("sgd", 1e30, "own"), Setting("sgd", 0.1, "own")],
        BUDGET,
        DRAW,
    )
    assert wild.name == "sgd lr=1e+30 bn=own (diverged)"
    assert wild.val_accuracy == accuracy(*logits_of(given, data.val))
    assert all(
        torch.equal(tensor, state(given)[name]) for name, tensor in state(wild.network).items()
    )
    assert tame.name == "sgd lr=0.1 bn=own"
