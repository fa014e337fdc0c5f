"""The attackers, one file each, and the suites they make up."""

from dataclasses import dataclass

from lockforge.audit.attackers.fine_tune import FINE_TUNE
from lockforge.audit.attackers.from_scratch import starting_over
from lockforge.audit.attackers.linear_probe import LINEAR_PROBE
from lockforge.audit.protocol import Attacker, Facts

SUITE_VERSION = 2


@dataclass(frozen=True)
class Suite:
    """Who attacks, a setting's optimiser steps where the recipe names none, and how many budgets the budget check spends (0: none)."""

    attackers: tuple[Attacker, ...]
    steps: int
    check: int = 0


SUITES = {"quick": Suite((LINEAR_PROBE, FINE_TUNE), steps=24)}


def attackers_of(suite: str, facts: Facts, *, scratch: bool) -> tuple[Attacker, ...]:
    """Who attacks a start: empty networks are trained in full, all others meet every attacker of the suite that the facts allow."""
    fit = tuple(attacker for attacker in SUITES[suite].attackers if not attacker.unfit(facts))
    return (starting_over(fit),) if scratch else fit


def left_out(suite: str, facts: Facts) -> tuple[str, ...]:
    """The attackers of a suite that cannot be made here, and why."""
    return tuple(f"{attacker.name}: {why}" for attacker in SUITES[suite].attackers if (why := attacker.unfit(facts)))
