"""Starting over: an empty network trained in full, with as many settings as all attackers of a trained start have together."""

from lockforge.audit.attackers import fine_tune
from lockforge.audit.protocol import Attacker, Facts, Setting
from lockforge.recipe import AuditRecipe

FACTORS = (2.0, 1 / 2, 4.0, 1 / 4, 1.5, 1 / 1.5)


def settings(recipe: AuditRecipe, facts: Facts, wanted: int) -> tuple[Setting, ...]:
    """The settings of fine-tuning with batch norm's own statistics, then the same at other rates, until there are enough.

    The other rates are the first ones times 2, 1/2, 4, 1/4, 1.5, 1/1.5, then times their squares, and so on.
    """
    base = [Setting(one.optimizer, one.rate, "own") for one in fine_tune.settings(recipe, facts)]
    found = dict.fromkeys(base)
    power = 1
    while len(found) < wanted:
        others = [Setting(one.optimizer, float(f"{one.rate * factor**power:.3g}"), "own") for factor in FACTORS for one in base]
        found |= dict.fromkeys(others)
        power += 1
    return tuple(found)[:wanted]


def starting_over(suite: tuple[Attacker, ...]) -> Attacker:
    """The attacker of empty networks that has as many settings as this suite."""
    return Attacker(
        "from-scratch",
        fine_tune.fine_tune,
        lambda recipe, facts: settings(recipe, facts, sum(len(other.settings(recipe, facts)) for other in suite)),
    )
