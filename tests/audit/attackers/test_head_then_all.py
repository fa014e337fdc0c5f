"""The head first, then everything from there."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._head_then_all import NORMS, head_then_all, settings
from lockforge.audit.attackers._linear_probe import linear_probe
from lockforge.audit.protocol import Attempt, Budget, Capabilities, Setting
from lockforge.engine.evaluate import logits_of
from lockforge.models.networks import CellNetwork, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.spaces.counts import flops

Run = Callable[..., Sequence[Attempt]]
DRAW = partial(torch_generator, 0, "head first")
BUDGET = Budget(4, 8, head_steps=30)


def test_training_starts_from_the_probe(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """At a rate of nearly nothing what comes back answers as the linear probe of the same draws
    does.
    """
    for norm in NORMS:
        still, moving = (Setting("sgd", rate, norm, (("probe", 0.1),)) for rate in (1e-12, 0.1))
        (probe,) = run_attack(
            linear_probe, small(), data, [Setting("adam", 0.1, norm)], BUDGET, DRAW
        )
        then, moved = run_attack(head_then_all, small(), data, [still, moving], BUDGET, DRAW)
        torch.testing.assert_close(
            state(then.network)["head.weight"], state(probe.network)["head.weight"]
        )
        assert not torch.allclose(
            logits_of(moved.network, data.val)[0], logits_of(probe.network, data.val)[0], atol=0.1
        )
        assert all(
            not torch.equal(tensor, state(small())[name])
            for name, tensor in moved.network.named_parameters()
        )


def test_each_setting_pays_for_its_head(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """Closed form, one setting: 30 + 4 steps; 20 images twice through the network, the head's
    training, 3 passes x 4 steps x 8 images.
    """
    given = small()
    (one,) = run_attack(
        head_then_all,
        given,
        data,
        [Setting("sgd", 0.1, "re-estimated", (("probe", 0.1),))],
        BUDGET,
        DRAW,
    )
    assert one.steps == 34
    assert (
        one.operations
        == flops(given.architecture) * (2 * 20 + 3 * 4 * 8) + 3 * given.head.weight.numel() * 30 * 8
    )


def test_each_probe_is_tried_with_each_way_of_training(facts: Capabilities) -> None:
    """Probe's rates x batch norm x (Adam's and SGD's rates)."""
    found = settings(
        AuditRecipe(probe_rates=(0.1, 0.3), rates=(0.01,), sgd_rates=(0.1, 0.2)), facts
    )
    assert len(found) == len(set(found)) == 2 * 2 * 3
