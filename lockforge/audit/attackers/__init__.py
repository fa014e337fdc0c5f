"""The attackers, one file each, and the suites they make up."""

from lockforge.audit.attackers.black_box_probe import BLACK_BOX_PROBE
from lockforge.audit.attackers.disguise import DISGUISE
from lockforge.audit.attackers.distill import DISTILL
from lockforge.audit.attackers.fine_tune import FINE_TUNE
from lockforge.audit.attackers.from_scratch import starting_over
from lockforge.audit.attackers.linear_probe import LINEAR_PROBE
from lockforge.audit.attackers.nrc import NRC
from lockforge.audit.attackers.repair import REPAIR
from lockforge.audit.attackers.shot import SHOT
from lockforge.audit.attackers.surgery import SURGERY
from lockforge.audit.protocol import Attacker

__all__ = [
    "BLACK_BOX_PROBE",
    "DISGUISE",
    "DISTILL",
    "FINE_TUNE",
    "LINEAR_PROBE",
    "NRC",
    "REPAIR",
    "SHOT",
    "SUITE_VERSION",
    "SURGERY",
    "attackers_of",
]

SUITE_VERSION = 1


def attackers_of(suite: str, *, scratch: bool) -> tuple[Attacker, ...]:
    """Who attacks a start: empty networks are trained in full, all others meet every attacker of the suite."""
    suites = {"quick": (LINEAR_PROBE, FINE_TUNE)}
    return (starting_over(suites[suite]),) if scratch else suites[suite]
