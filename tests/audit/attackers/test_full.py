"""Full fine-tuning: which head it starts from, which statistics, and that everything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._full import FULL, full
from lockforge.audit.protocol import Attempt, Budget, Capabilities, InitialModel, Setting
from lockforge.models.networks import CellNetwork, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe

Run = Callable[..., Sequence[Attempt]]
DRAW = partial(torch_generator, 0, "full")
STILL = 1e-12  # a learning rate at which nothing moves


def test_the_old_head_is_kept_where_the_setting_says_so(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """At a rate of nearly nothing the head that comes back is the one that came, or the new one."""
    given, old = small(), small("old").head.state_dict()
    both = [Setting("sgd", STILL, "source", (("head", head),)) for head in ("kept", "new")]
    kept, new = run_attack(full, InitialModel(given, old), data, both, Budget(2, 8), DRAW)
    torch.testing.assert_close(kept.network.head.state_dict(), dict(old))
    torch.testing.assert_close(new.network.head.state_dict(), given.head.state_dict())
    (without,) = run_attack(full, InitialModel(given), data, both[:1], Budget(2, 8), DRAW)
    torch.testing.assert_close(without.network.head.state_dict(), given.head.state_dict())


def test_every_layer_is_trained(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """All weights of each attempt differ from the start's, whichever statistics it began with."""
    given = small()
    before = state(given)
    ways = [
        Setting("adam", 0.01, "source", (("head", "kept"),)),
        Setting("sgd", 0.1, "re-estimated", (("head", "new"),)),
    ]
    for attempt in run_attack(full, given, data, ways, Budget(4, 8), DRAW):
        assert all(
            not torch.equal(before[name], tensor)
            for name, tensor in attempt.network.named_parameters()
        )


def test_the_grid_is_the_product(facts: Capabilities) -> None:
    """Head x batch norm x (Adam's and SGD's rates); without the kept head where it does not fit."""
    recipe = AuditRecipe(rates=(0.01, 0.02), sgd_rates=(0.1,))
    found = FULL.settings(recipe, facts)
    assert len(found) == 2 * 2 * 3
    assert {(dict(one.also)["head"], one.batch_norm, one.optimizer, one.rate) for one in found} == {
        (head, norm, *way)
        for head in ("new", "kept")
        for norm in ("re-estimated", "source")
        for way in (("adam", 0.01), ("adam", 0.02), ("sgd", 0.1))
    }
    unfit = FULL.settings(recipe, replace(facts, head_fits=False))
    assert {one for one in found if dict(one.also)["head"] == "new"} == set(unfit)
