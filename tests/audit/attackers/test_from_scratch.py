"""Starting over gets as many settings as all attackers of a trained start together."""

import pytest

from lockforge.audit.attackers import attackers_of
from lockforge.audit.attackers._from_scratch import restarting, settings
from lockforge.audit.attackers._full import FULL
from lockforge.audit.attackers._last_block import LAST_BLOCK
from lockforge.audit.protocol import Attacker, Capabilities
from lockforge.recipe import AuditRecipe

RECIPES = (
    AuditRecipe(),
    AuditRecipe(fine_tune_rates=(0.01,), fine_tune_sgd_rates=(), probe_rates=(0.1,)),
    AuditRecipe(
        fine_tune_rates=(0.01, 0.02, 0.04), fine_tune_sgd_rates=(0.1,), probe_rates=(0.01, 0.1)
    ),
    AuditRecipe(
        fine_tune_rates=(0.001,),
        fine_tune_sgd_rates=(),
        probe_rates=tuple(10.0**-i for i in range(12)),
    ),
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_starting_over_has_as_many_settings_as_the_suite(
    recipe: AuditRecipe, facts: Capabilities
) -> None:
    """Whatever the lists of rates; all settings differ, and fine-tuning's own rates are among
    them.
    """
    suite = sum(
        len(attacker.settings(recipe, facts))
        for attacker in attackers_of("quick", facts, scratch=False)
    )
    (scratch,) = attackers_of("quick", facts, scratch=True)
    found = scratch.settings(recipe, facts)
    assert len({str(setting) for setting in found}) == len(found) == suite
    assert {("adam", rate) for rate in recipe.fine_tune_rates} <= {
        (one.optimizer, one.rate) for one in found
    }


def test_more_settings_lie_around_the_given_ones(facts: Capabilities) -> None:
    """Below and above each rate, never the same twice."""
    rates = [
        one.rate
        for one in settings(AuditRecipe(fine_tune_rates=(0.01,), fine_tune_sgd_rates=()), facts, 9)
    ]
    assert len(set(rates)) == 9
    assert min(rates) < 0.01 < max(rates)


def test_restarting_has_as_many_settings_as_the_widest_attacker(facts: Capabilities) -> None:
    """Full fine-tuning's number here, where that is possible, else the next's; all differ, and
    statistics are batch norm's own.
    """
    impossible = Attacker("full", FULL.attack, FULL.settings, lambda _facts: "not here")
    for suite, widest in (((LAST_BLOCK, FULL), FULL), ((LAST_BLOCK, impossible), LAST_BLOCK)):
        found = restarting(suite).settings(AuditRecipe(), facts)
        assert (
            len({str(one) for one in found})
            == len(found)
            == len(widest.settings(AuditRecipe(), facts))
        )
        assert {one.batch_norm for one in found} == {"own"}
        assert set(AuditRecipe().rates) <= {one.rate for one in found}
