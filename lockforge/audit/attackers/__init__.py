"""The attackers, one file each, and the suites they make up."""

from dataclasses import dataclass

from lockforge.audit.attackers._black_box_probe import BLACK_BOX_PROBE
from lockforge.audit.attackers._disguise import DISGUISE
from lockforge.audit.attackers._distill import DISTILL
from lockforge.audit.attackers._fine_tune import FINE_TUNE
from lockforge.audit.attackers._from_scratch import restarting, starting_over
from lockforge.audit.attackers._frozen_mask import FROZEN_MASK
from lockforge.audit.attackers._full import FULL
from lockforge.audit.attackers._head_then_all import HEAD_THEN_ALL
from lockforge.audit.attackers._last_block import LAST_BLOCK
from lockforge.audit.attackers._linear_probe import LINEAR_PROBE
from lockforge.audit.attackers._low_rank import LOW_RANK
from lockforge.audit.attackers._nrc import NRC
from lockforge.audit.attackers._regrow import REGROW
from lockforge.audit.attackers._repair import REPAIR
from lockforge.audit.attackers._sharpness import SHARPNESS
from lockforge.audit.attackers._shot import SHOT
from lockforge.audit.attackers._shrink_perturb import SHRINK_PERTURB
from lockforge.audit.attackers._surgery import SURGERY
from lockforge.audit.protocol import Attacker, Capabilities

SUITE_VERSION = 2


@dataclass(frozen=True)
class Suite:
    """Who attacks, a setting's optimiser steps where the recipe names none, and how many budgets
    the budget check spends (0: none).
    """

    attackers: tuple[Attacker, ...]
    steps: int
    check: int = 0


STRONG = (
    LINEAR_PROBE,
    HEAD_THEN_ALL,
    FULL,
    LAST_BLOCK,
    LOW_RANK,
    REGROW,
    SHRINK_PERTURB,
    SHARPNESS,
    SURGERY,
    REPAIR,
    DISTILL,
    SHOT,
    NRC,
    DISGUISE,
)
SUITES = {
    "quick": Suite((LINEAR_PROBE, FINE_TUNE), steps=24),
    "paper": Suite((FROZEN_MASK,), steps=300),
    "standard": Suite(STRONG, steps=120, check=4),
    "full": Suite((*STRONG, BLACK_BOX_PROBE, FROZEN_MASK), steps=400, check=4),
}


def attackers_of(suite: str, facts: Capabilities, *, scratch: bool) -> tuple[Attacker, ...]:
    """Who attacks a start: empty networks are trained in full, all others meet every attacker of
    the suite that the facts allow.

    Of a black box only outputs are known, so it meets those who need no more.
    """
    fit = tuple(
        one
        for one in SUITES[suite].attackers
        if not one.unfit(facts) and (one.black_box or not facts.black_box)
    )
    if not scratch:
        return fit
    return (starting_over(fit) if suite == "quick" else restarting(fit),)


def left_out(suite: str, facts: Capabilities) -> tuple[str, ...]:
    """The attackers of a suite that cannot be made here, and why."""
    return tuple(
        f"{attacker.name}: {why}"
        for attacker in SUITES[suite].attackers
        if (why := attacker.unfit(facts))
    )
