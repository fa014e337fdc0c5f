"""The linear probe changes the head and nothing else, and its head is one for the network's own
features.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._linear_probe import linear_probe, settings
from lockforge.audit.protocol import Attempt, Budget, Capabilities, Setting
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "probe")
BUDGET = Budget(99, 8, head_steps=5)

Run = Callable[..., Sequence[Attempt]]


def network() -> CellNetwork:
    """A random network for four classes whose batch norm has seen other images."""
    made = build(
        Architecture(
            space="nasbench201",
            cell=CELL,
            stem_channels=4,
            cells_per_stage=1,
            classes=4,
            shape=(1, 6, 6),
        ),
        torch_generator(0, "probed"),
    )
    made.train()
    with torch.no_grad():
        made(3 + 2 * torch.randn(16, 1, 6, 6, generator=torch_generator(0, "seen")))
    return made.eval()


def test_only_the_head_and_the_statistics_may_change(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """With source statistics every other tensor is the network's own; with re-estimated ones every
    weight still is.
    """
    given = network()
    before = state(given)
    for attempt in run_attack(
        linear_probe, given, data, settings(AuditRecipe(), facts), BUDGET, DRAW
    ):
        after = state(attempt.network)
        same = {name for name in before if torch.equal(before[name], after[name])}
        changed = before.keys() - same
        assert {"head.weight", "head.bias"} <= changed
        allowed = (
            {"running_mean", "running_var", "num_batches_tracked"}
            if attempt.setting.batch_norm == "re-estimated"
            else set()
        )
        assert {
            name.rsplit(".", 1)[-1] for name in changed - {"head.weight", "head.bias"}
        } <= allowed
        assert bool(allowed) == (changed != {"head.weight", "head.bias"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given).items())


def test_the_network_that_comes_back_is_the_one_that_was_validated(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """The head was trained on standardised features and folded: on images the whole network
    scores what was reported.
    """
    for attempt in run_attack(
        linear_probe, network(), data, settings(AuditRecipe(), facts), BUDGET, DRAW
    ):
        assert accuracy(*logits_of(attempt.network, data.val)) == attempt.val_accuracy


def test_features_are_worked_out_once_for_all_rates(data: AttackerData, run_attack: Run) -> None:
    """Four rates cost as many passes through the network as one: one an image of each split."""
    given = network()
    seen: list[int] = []
    settings_of = [Setting("adam", rate, "source") for rate in (0.01, 0.03, 0.1, 0.3)]
    original = CellNetwork.features

    def counted(self: CellNetwork, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return original(self, x)

    CellNetwork.features = counted  # type: ignore[method-assign]  # put back below
    try:
        attempts = list(run_attack(linear_probe, given, data, settings_of, BUDGET, DRAW))
    finally:
        CellNetwork.features = original  # type: ignore[method-assign]
    assert sum(seen) == len(data.train) + len(data.val)
    assert len(attempts) == 4


def test_operations_count_one_pass_an_image_and_the_head(
    data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Closed form: 20 images once (twice with re-estimation), and 3 x 16 features x 4 classes x 5
    steps of 8 images.
    """
    given = network()
    forward, head = flops(given.architecture), 3 * 16 * 4 * 5 * 8
    kept, renewed = run_attack(
        linear_probe, given, data, settings(AuditRecipe(probe_rates=(0.1,)), facts), BUDGET, DRAW
    )
    assert (kept.operations, renewed.operations) == (20 * forward + head, 40 * forward + head)
    assert kept.steps == renewed.steps == 5


def test_a_rate_given_twice_is_tried_once(facts: Capabilities) -> None:
    """Two attempts with one name could not be told apart."""
    assert len(settings(AuditRecipe(probe_rates=(0.1, 0.1)), facts)) == 2
