"""Who is in a suite is written down twice, for those who have torch and those who have not, and
both agree.
"""

from lockforge.audit.attackers import SUITES
from lockforge.evidence.suites import ATTACKERS


def test_the_names_of_a_suite_are_those_of_its_attackers() -> None:
    """Every suite, in its order."""
    assert {
        name: tuple(one.name for one in suite.attackers) for name, suite in SUITES.items()
    } == dict(ATTACKERS)
