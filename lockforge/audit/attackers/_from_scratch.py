"""Starting over: an empty network trained in full, with as many settings and as much of a budget as
attackers of a trained start have.
"""

from collections.abc import Sequence

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import every_rate, starts_of, tune
from lockforge.audit.attackers import _fine_tune as fine_tune
from lockforge.audit.protocol import Asking, Attacker, Budget, Capabilities, InitialModel, Setting
from lockforge.recipe import AuditRecipe

FACTORS = (2.0, 1 / 2, 4.0, 1 / 4, 1.5, 1 / 1.5)


def settings(recipe: AuditRecipe, facts: Capabilities, wanted: int) -> tuple[Setting, ...]:
    """The settings of fine-tuning with batch norm's own statistics, then the same at other rates,
    until there are enough.
    """
    return enough(
        [Setting(one.optimizer, one.rate, "own") for one in fine_tune.settings(recipe, facts)],
        wanted,
    )


def enough(base: Sequence[Setting], wanted: int) -> tuple[Setting, ...]:
    """These settings, then the same at other rates, until there are so many.

    The other rates are the first ones times 2, 1/2, 4, 1/4, 1.5, 1/1.5, then times their squares,
    and so on.
    """
    found = dict.fromkeys(base)
    power = 1
    while len(found) < wanted:
        others = [
            Setting(one.optimizer, float(f"{one.rate * factor**power:.3g}"), "own")
            for factor in FACTORS
            for one in base
        ]
        found |= dict.fromkeys(others)
        power += 1
    return tuple(found)[:wanted]


def starting_over(suite: tuple[Attacker, ...]) -> Attacker:
    """The attacker of empty networks that has as many settings as this suite, each with the whole
    budget.
    """
    return Attacker(
        "from-scratch",
        fine_tune.fine_tune,
        lambda recipe, facts: settings(
            recipe, facts, sum(len(other.settings(recipe, facts)) for other in suite)
        ),
    )


def restart(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train the empty network for each setting, by halving."""
    return (yield from tune(starts_of(given, data, settings, budget, draw), data, budget, draw))


def restarting(suite: tuple[Attacker, ...]) -> Attacker:
    """The attacker of empty networks that has as many settings as the one of this suite that has
    most, with the same halving.
    """

    def most(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
        wanted = max(
            len(other.settings(recipe, facts)) for other in suite if not other.unfit(facts)
        )
        return enough(every_rate(recipe, "own"), wanted)

    return Attacker("from-scratch", restart, most)
