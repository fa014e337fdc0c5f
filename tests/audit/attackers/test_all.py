"""What holds for every attacker that trains a network by halving."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._from_scratch import restarting
from lockforge.audit.attackers._frozen_mask import FROZEN_MASK
from lockforge.audit.attackers._full import FULL
from lockforge.audit.attackers._head_then_all import HEAD_THEN_ALL
from lockforge.audit.attackers._last_block import LAST_BLOCK
from lockforge.audit.attackers._low_rank import LOW_RANK
from lockforge.audit.attackers._regrow import REGROW
from lockforge.audit.attackers._sharpness import SHARPNESS
from lockforge.audit.attackers._shrink_perturb import SHRINK_PERTURB
from lockforge.audit.protocol import Attacker, Attempt, Budget, Capabilities, InitialModel
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import CellNetwork, load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.spaces.counts import flops

Run = Callable[..., Sequence[Attempt]]
Small = Callable[..., CellNetwork]
Prune = Callable[[CellNetwork, float], CellNetwork]

RECIPE = AuditRecipe(rates=(0.01,), sgd_rates=(0.1,))
BUDGET = Budget(4, 8, head_steps=8)
TRAINED = (
    FULL,
    HEAD_THEN_ALL,
    LAST_BLOCK,
    LOW_RANK,
    REGROW,
    SHRINK_PERTURB,
    SHARPNESS,
    FROZEN_MASK,
)
EVERYONE = (*TRAINED, restarting(TRAINED))
PASSES = {"sharpness": 6}


@pytest.fixture(params=EVERYONE, ids=lambda attacker: attacker.name)
def attacker(request: pytest.FixtureRequest) -> Attacker:
    """Each of them."""
    found: Attacker = request.param
    return found


def test_what_comes_back_is_an_ordinary_network_and_what_was_validated(
    attacker: Attacker, small: Small, data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Its weights load into the architecture, nothing is frozen, its accuracy is the one reported,
    the given network is untouched.
    """
    given = small()
    before = state(given)
    draw = partial(torch_generator, 0, "ordinary", attacker.name)
    settings = attacker.settings(RECIPE, facts)
    attempts = run_attack(
        attacker.attack, InitialModel(given, given.head.state_dict()), data, settings, BUDGET, draw
    )
    assert [one.setting for one in attempts] == list(settings)
    for one in attempts:
        assert all(parameter.requires_grad for parameter in one.network.parameters())
        plain = load(given.architecture, state(one.network))
        assert (
            accuracy(*logits_of(plain, data.val))
            == accuracy(*logits_of(one.network, data.val))
            == one.val_accuracy
        )
        assert not torch.equal(plain.head.weight, given.head.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given).items())
    assert all(parameter.requires_grad for parameter in given.parameters())


def test_every_start_costs_the_same(
    attacker: Attacker,
    small: Small,
    prune: Prune,
    data: AttackerData,
    run_attack: Run,
    facts: Capabilities,
) -> None:
    """Steps and operations are equal for a network, a pruned one, and one without a head of its
    own; nothing of the budget is lost.
    """
    settings = attacker.settings(RECIPE, facts)
    draw = partial(torch_generator, 0, "costs", attacker.name)
    costs = set()
    for network in (
        InitialModel(small(), small().head.state_dict()),
        InitialModel(prune(small("another"), 0.5)),
    ):
        attempts = run_attack(attacker.attack, network, data, settings, BUDGET, draw)
        costs.add((sum(one.steps for one in attempts), sum(one.operations for one in attempts)))
    assert len(costs) == 1
    steps, operations = costs.pop()
    head = BUDGET.head_steps * len(settings) if attacker is HEAD_THEN_ALL else 0
    halved = len(settings) + -(-len(settings) // 4) * BUDGET.steps
    assert steps - head == (halved if len(settings) > 2 else len(settings) * BUDGET.steps)
    assert operations >= PASSES.get(attacker.name, 3) * flops(small().architecture) * 8 * (
        steps - head
    )


def test_settings_have_names_of_their_own(attacker: Attacker, facts: Capabilities) -> None:
    """Two attempts with one name could not be told apart; a rate given twice is tried once."""
    twice = AuditRecipe(rates=(0.01, 0.01), sgd_rates=(0.1, 0.1), probe_rates=(0.1, 0.1))
    for recipe in (AuditRecipe(), twice):
        names = [str(one) for one in attacker.settings(recipe, facts)]
        assert len(set(names)) == len(names) > 0


def test_the_same_names_draw_the_same(
    attacker: Attacker, small: Small, data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """An attack run twice ends with the same bits; with another seed it does not."""
    first = tuple(attacker.settings(RECIPE, facts)[:2])
    ends = [
        state(
            run_attack(
                attacker.attack,
                small(),
                data,
                first,
                BUDGET,
                partial(torch_generator, seed, "again"),
            )[0].network
        )
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert any(not torch.equal(tensor, ends[2][name]) for name, tensor in ends[0].items())
