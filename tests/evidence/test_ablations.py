"""Ablations: attacked like the release, each with a known answer, and deciding nothing; then audits
of them with one thing wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pytest

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import measure, verdict
from lockforge.evidence.faults import faults_of, start_faults
from lockforge.records import Ablation, AttackPoint, Estimate, Start, Subjects, TransferAudit
from tests.evidence.test_faults import checkpoint

measured = partial(measure, test_samples=1000)
Simulate = Callable[..., tuple[AttackPoint, ...]]
Truth = Mapping[Start, Sequence[float]]
MAGNITUDE, ALONE = "ablation:magnitude", "ablation:weight-lock"


def with_ablations(audit: TransferAudit, points: Sequence[AttackPoint]) -> TransferAudit:
    """The audit with more points, worked out again."""
    every = (*audit.points, *points)
    found = measure(every, audit.same_as, test_samples=audit.test_samples)
    return audit.model_copy(
        update={"points": every, "measures": found, "verdict": verdict(found, audit.suite)}
    )


def from_the(
    audit: TransferAudit, start: Start, name: Start = MAGNITUDE
) -> tuple[AttackPoint, ...]:
    """A start's points as if they were an ablation's."""
    return tuple(
        point.model_copy(update={"start": name}) for point in audit.points if point.start == start
    )


def test_flat_curves_give_the_known_rows(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Twin .7, magnitude .75, release .6, reference .8, empty .4: the locked cell removes 1 -
    .3/.4, magnitude 1 - .35/.4.
    """
    found = measured(simulate({**flat, MAGNITUDE: (0.75,) * 3}, rng))
    rows = {row.name: row for row in found.ablations}
    assert list(rows) == ["architecture-lock", "magnitude"]
    assert rows["architecture-lock"].start == "twin"
    assert rows["architecture-lock"].removed_vs_reference.mean == pytest.approx(0.25)
    magnitude = rows["magnitude"]
    assert (
        magnitude.removed_vs_reference.mean,
        magnitude.kept.mean,
        magnitude.beyond_release.mean,
    ) == pytest.approx((0.125, 0.35, 0.15))
    assert magnitude.beyond_release.low is not None
    assert magnitude.curve.accuracy == ((0.75,) * 3,) * 3
    assert magnitude.worst_attacker == "ablation:magnitude:fine_tune"
    assert [row.normalised.mean for row in found.slc if row.start == MAGNITUDE] == pytest.approx(
        [0.35, 0.35]
    )


def test_an_ablation_worse_than_nothing_is_one_to_start_over_from(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Stuck at .1, its envelope is scratch's: R is 1 and not above."""
    (_, row) = measured(simulate({**flat, MAGNITUDE: (0.1,) * 3}, rng)).ablations
    assert row.removed_vs_reference.mean == pytest.approx(1.0)


def test_nothing_else_moves_when_ablations_are_there(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Every other figure and the verdict are what they were, even beside an ablation that locks far
    better than the release.
    """
    points = simulate(flat, rng, noise=0.02)
    more = simulate({MAGNITUDE: (0.41,) * 3, ALONE: (0.99,) * 3}, rng, noise=0.02)
    before, after = measured(points), measured((*points, *more))
    own = {"ablations", "slc"}
    assert before.model_dump(exclude=own) == after.model_dump(exclude=own)
    assert before.slc == tuple(row for row in after.slc if not row.start.startswith("ablation:"))
    assert verdict(before, "standard") == verdict(after, "standard")


def test_a_release_without_ablations_and_weight_lock_has_no_rows(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """The twin is the release then: the architecture lock alone is the whole lock."""
    truth = {start: curve for start, curve in flat.items() if start != "twin"}
    assert measured(simulate(truth, rng), {"twin": "release"}).ablations == ()


def test_an_ablation_that_is_the_release_is_beyond_it_by_nothing(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """It has no points of its own, and every figure of the release, to the last bit. A start that
    nobody attacked can be nobody's.
    """
    points = simulate(flat, rng, noise=0.05)
    found = measured(points, {MAGNITUDE: "release"})
    (_, row) = found.ablations
    assert (row.beyond_release.mean, row.beyond_release.low, row.beyond_release.high) == (0, 0, 0)
    assert row.removed_vs_reference == found.removed_vs_reference
    with pytest.raises(IntegrityError, match="ablation:magnitude"):
        measured(points, {MAGNITUDE: "ablation:nobody"})


def test_an_ablation_on_another_grid_is_refused(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """A grid value less would make its curve look better or worse than it is."""
    points = [
        p
        for p in simulate({**flat, MAGNITUDE: (0.7,) * 3}, rng)
        if (p.start, p.samples) != (MAGNITUDE, 10)
    ]
    with pytest.raises(IntegrityError, match="ablation:magnitude:fine_tune"):
        measured(points)


# Faults


def test_a_faultless_audit_with_ablations_has_no_fault(audited: TransferAudit) -> None:
    """Neither as made nor after a round trip through JSON."""
    audit = with_ablations(audited, from_the(audited, "twin"))
    assert faults_of(audit) == ()
    assert faults_of(TransferAudit.from_json(audit.to_json())) == ()


SPARED: dict[str, tuple[Callable[[AttackPoint], AttackPoint | None], str]] = {
    "an attacker less": (
        lambda p: None if p.attacker == "linear_probe" else p,
        "linear_probe left out ablation:magnitude",
    ),
    "a setting less": (
        lambda p: p if p.test_accuracy is not None else None,
        "other settings on some starts than on others: ablation",
    ),
    "fewer steps": (
        lambda p: p.model_copy(update={"steps": p.steps - 1}),
        "fine_tune at 10 images: budgets differ",
    ),
    "a seed less": (
        lambda p: p if p.seed else None,
        "ablation:magnitude:fine_tune is on another grid or has other seeds",
    ),
}


@pytest.mark.parametrize("case", SPARED)
def test_an_ablation_that_was_attacked_less_is_named(case: str, audited: TransferAudit) -> None:
    """What is spared looks locked: an ablation gets what every start gets."""
    change, said = SPARED[case]
    points = [one for one in map(change, from_the(audited, "twin")) if one is not None]
    faults = faults_of(audited.model_copy(update={"points": (*audited.points, *points)}))
    assert any(said in fault for fault in faults), faults


def test_an_edited_row_is_named(audited: TransferAudit) -> None:
    """A better figure, a figure that nothing gives, a row left out."""
    audit = with_ablations(audited, from_the(audited, "twin"))

    def said(*rows: object) -> str:
        return "\n".join(
            faults_of(
                audit.model_copy(
                    update={"measures": audit.measures.model_copy(update={"ablations": rows})}
                )
            )
        )

    lock, magnitude = audit.measures.ablations
    assert "measures.ablations.1.kept.mean: the report says 0.4" in said(
        lock, magnitude.model_copy(update={"kept": magnitude.kept.model_copy(update={"mean": 0.4})})
    )
    assert "kept of ablation:magnitude: 1.2 is beyond 1" in said(
        lock, magnitude.model_copy(update={"kept": Estimate(mean=1.2)})
    )
    assert "measures.ablations: " in said(lock)


def test_the_ablations_attacked_are_those_of_the_subjects(audited: TransferAudit) -> None:
    """One that was not given, one that was not attacked, one that stands for another network: each
    is named.
    """
    subjects = Subjects(release=checkpoint("1"), twin=checkpoint("2"), reference=checkpoint("3"))
    given = subjects.model_copy(
        update={"ablations": (Ablation(name="magnitude", checkpoint=checkpoint("4")),)}
    )
    audit = with_ablations(audited, from_the(audited, "twin"))
    assert start_faults(audit, given) == ()
    assert start_faults(audit, subjects) == ("ablation:magnitude was attacked but not given",)
    assert start_faults(audited, given) == ("ablation:magnitude was given but not attacked",)
    hidden = audited.model_copy(update={"same_as": {MAGNITUDE: "release"}})
    assert start_faults(hidden, given) == (
        "ablation:magnitude is said to be release, which is another network",
    )
    alike = subjects.model_copy(
        update={"ablations": (Ablation(name="magnitude", checkpoint=checkpoint("1")),)}
    )
    assert start_faults(hidden, alike) == ()
