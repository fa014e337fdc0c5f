"""Which attackers a suite has, by name: whoever judges an audit must know who should be in it, and
has no torch to ask the audit itself.
"""

from collections.abc import Mapping

from lockforge.records import TransferAudit

_STRONG = (
    "linear-probe",
    "head-then-all",
    "full",
    "last-block",
    "low-rank",
    "regrow",
    "shrink-perturb",
    "sharpness",
    "cell-surgery",
    "source-repair",
    "distill",
    "shot",
    "nrc",
    "disguise",
)
ATTACKERS: Mapping[str, tuple[str, ...]] = {
    "quick": ("linear-probe", "fine-tune"),
    "paper": ("frozen-mask",),
    "standard": _STRONG,
    "full": (*_STRONG, "black-box-probe", "frozen-mask"),
}


def missing_attackers(audit: TransferAudit) -> tuple[str, ...]:
    """Attackers of the audit's suite who neither attacked the release nor are said to have been
    left out; none for an unknown suite.

    That they were rightly left out depends on the networks and the classes; a re-run finds out.
    """
    there = {
        point.attacker for point in audit.points if point.start == "release" and point.budget == 1
    }
    said = {line.partition(":")[0] for line in (*audit.dropped, *audit.skipped)}
    return tuple(name for name in ATTACKERS.get(audit.suite, ()) if name not in there | said)
