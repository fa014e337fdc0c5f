"""A stored audit with one thing wrong: each wrong thing is named, and a faultless audit has no
fault.
"""

from collections.abc import Callable
from typing import Any

import pytest

from lockforge.evidence.curves import measure, verdict
from lockforge.evidence.faults import checkpoint_faults, faults_of, first_of, start_faults, unlike
from lockforge.records import (
    Architecture,
    AttackPoint,
    Cell,
    Checkpoint,
    Envelope,
    Estimate,
    FileRef,
    Op,
    Subjects,
    TransferAudit,
)

Edit = Callable[[TransferAudit], TransferAudit]


def with_point(audit: TransferAudit, index: int, **changes: Any) -> TransferAudit:
    """The audit with one point changed and nothing worked out again."""
    points = list(audit.points)
    points[index] = points[index].model_copy(update=changes)
    return audit.model_copy(update={"points": tuple(points)})


def again(audit: TransferAudit) -> TransferAudit:
    """Worked out again after an edit: the faults that are left are the points' own."""
    found = measure(audit.points, audit.same_as, test_samples=audit.test_samples)
    return audit.model_copy(
        update={"measures": found, "verdict": verdict(found, audit.suite, audit.skipped)}
    )


def with_measure(audit: TransferAudit, **changes: Any) -> TransferAudit:
    """The audit with an edited figure."""
    return audit.model_copy(update={"measures": audit.measures.model_copy(update=changes)})


def with_each(
    audit: TransferAudit, changes: Callable[[AttackPoint], dict[str, Any]]
) -> TransferAudit:
    """The audit with changes to every point and nothing worked out again."""
    return audit.model_copy(
        update={"points": tuple(point.model_copy(update=changes(point)) for point in audit.points)}
    )


def other_grid(one: Envelope) -> Envelope:
    """An envelope over other numbers of images."""
    return one.model_copy(
        update={"curve": one.curve.model_copy(update={"samples": (1, 100, 1000)})}
    )


def place_of(audit: TransferAudit, *, chosen: bool) -> int:
    """The place of the first point of the release that was (or was not) chosen."""
    return next(
        i
        for i, p in enumerate(audit.points)
        if p.start == "release" and (p.test_accuracy is not None) == chosen
    )


def test_a_faultless_audit_has_no_fault(audited: TransferAudit) -> None:
    """Neither as made nor after a round trip through JSON, nor with its points in another order."""
    assert faults_of(audited) == ()
    assert faults_of(TransferAudit.from_json(audited.to_json())) == ()
    assert faults_of(audited.model_copy(update={"points": audited.points[::-1]})) == ()


EDITS: dict[str, tuple[Edit, str]] = {
    "a better R": (
        lambda a: with_measure(
            a, removed_vs_reference=a.measures.removed_vs_reference.model_copy(update={"mean": 0.9})
        ),
        "measures.removed_vs_reference.mean: the report says 0.9, its points give 0.5",
    ),
    "a narrower interval": (
        lambda a: with_measure(
            a, accuracy_gap=a.measures.accuracy_gap.model_copy(update={"low": 0.19})
        ),
        "measures.accuracy_gap.low: the report says 0.19",
    ),
    "another worst attacker": (
        lambda a: with_measure(a, worst_attacker="release:linear_probe"),
        "measures.worst_attacker",
    ),
    "a missing curve": (
        lambda a: with_measure(a, envelopes=a.measures.envelopes[:4]),
        "measures.envelopes",
    ),
    "never instead of ten": (
        lambda a: with_measure(a, samples_to_90={**a.measures.samples_to_90, "reference": None}),
        "measures.samples_to_90.reference: the report says None, its points give 10.0",
    ),
    "a kinder word": (
        lambda a: a.model_copy(
            update={"verdict": a.verdict.model_copy(update={"word": "protects under this suite"})}
        ),
        "verdict.word",
    ),
    "a suite it was not": (lambda a: a.model_copy(update={"suite": "standard"}), "verdict.word"),
    "a worse test accuracy": (
        lambda a: with_point(a, place_of(a, chosen=True), test_accuracy=0.1),
        "measures.",
    ),
    "an accuracy above 1": (
        lambda a: with_point(a, place_of(a, chosen=True), test_accuracy=1.5),
        "test accuracy 1.5 is not in [0, 1]",
    ),
    "an accuracy no count gives": (
        lambda a: again(with_point(a, place_of(a, chosen=True), test_accuracy=0.55)),
        "is not a share of 10",
    ),
    "a validation no count gives": (
        lambda a: again(with_point(a, place_of(a, chosen=True), val_accuracy=0.66)),
        "is not a share of 10",
    ),
    "a choice made on test": (
        lambda a: with_point(a, place_of(a, chosen=False), test_accuracy=0.6),
        "validation did not choose it",
    ),
    "an untested choice": (
        lambda a: with_point(a, place_of(a, chosen=True), test_accuracy=None),
        "no test accuracy",
    ),
    "a bigger budget": (
        lambda a: with_point(a, 0, steps=101),
        "fine_tune at 10 images: budgets differ: 200, 201 steps",
    ),
    "a budget shared out otherwise": (
        lambda a: with_point(with_point(a, 0, steps=50), 9, steps=150),
        "fine_tune at 10 images: budgets differ: 200 steps, shared out",
    ),
    "starting over with less": (
        lambda a: with_each(a, lambda p: {"steps": 40} if p.start == "scratch_release" else {}),
        (
            "scratch_release at 10 images: starting over got 160 steps, fewer than the 200 of "
            "linear_probe"
        ),
    ),
    "an attacker less": (
        lambda a: a.model_copy(
            update={
                "points": tuple(
                    p for p in a.points if (p.start, p.attacker) != ("twin", "linear_probe")
                )
            }
        ),
        "linear_probe left out twin",
    ),
    "an area above its maximum": (
        lambda a: with_measure(
            a,
            slc=tuple(
                row.model_copy(update={"area": Estimate(mean=7.013)}) for row in a.measures.slc
            ),
        ),
        "SLC-AUC of release:fine_tune: 7.013 is beyond 6.90776",
    ),
    "an advantage above 1": (
        lambda a: with_measure(a, kept=Estimate(mean=-1.2)),
        "kept: -1.2 is beyond 1",
    ),
    "a gap of a seed above 1": (
        lambda a: with_measure(a, accuracy_gap=Estimate(mean=0.2, per_seed=(1.4, -0.8))),
        "accuracy_gap: 1.4 is beyond 1",
    ),
    "a curve on another grid": (
        lambda a: with_measure(a, envelopes=tuple(other_grid(one) for one in a.measures.envelopes)),
        "envelope release is on another grid than the audit",
    ),
    "operations below 0": (lambda a: with_point(a, 0, flops=-1.0), "-1.0 operations are below 0"),
    "cheaper operations": (
        lambda a: with_measure(a, flops_to_90={**a.measures.flops_to_90, "reference": 1.0}),
        "measures.flops_to_90.reference: the report says 1.0",
    ),
    "less noise of images": (
        lambda a: with_measure(a, image_sd=0.001),
        "measures.image_sd: the report says 0.001",
    ),
    "no test images": (
        lambda a: a.model_copy(update={"test_samples": 0}),
        "is not a share of 0 images",
    ),
    "a grid of other counts": (
        lambda a: a.model_copy(update={"classes": 9}),
        "own grid is malformed",
    ),
    "a grid that falls": (
        lambda a: a.model_copy(update={"grid": a.grid[::-1], "samples": a.samples[::-1]}),
        "own grid is malformed",
    ),
    "another setting": (
        lambda a: with_point(a, 0, setting="rate=0.001"),
        "tries other settings at some places",
    ),
    "a dropped curve": (
        lambda a: a.model_copy(
            update={
                "points": tuple(p for p in a.points if not (p.start == "twin" and p.samples == 100))
            }
        ),
        "twin:fine_tune is on another grid",
    ),
    "a dropped seed": (
        lambda a: a.model_copy(update={"points": tuple(p for p in a.points if p.seed)}),
        "or has other seeds",
    ),
    "a seed said twice": (
        lambda a: a.model_copy(update={"seeds": (0, 0, 1)}),
        "own grid is malformed",
    ),
    "no points": (lambda a: a.model_copy(update={"points": ()}), "starts without points"),
    "a hidden start": (
        lambda a: a.model_copy(update={"same_as": {"reference": "release"}}),
        "starts with points although",
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_every_edit_is_named(case: str, audited: TransferAudit) -> None:
    """One thing edited, one line that names it."""
    edit, said = EDITS[case]
    assert any(said in fault for fault in faults_of(edit(audited))), faults_of(edit(audited))


def test_fewer_settings_for_one_start_are_a_fault(audited: TransferAudit) -> None:
    """An attacker with one setting on the release and two on the reference had less of a chance
    there, however consistent the rest is.
    """
    poorer = [p for p in audited.points if not (p.start == "release" and p.setting == "rate=0.1")]
    audit = again(audited.model_copy(update={"points": tuple(poorer)}))
    rivals = "dummy, reference, release, twin"
    assert set(faults_of(audit)) == {
        *(
            f"{attacker} tries other settings on some starts than on others: {rivals}"
            for attacker in ("fine_tune", "linear_probe")
        ),
        *(
            f"{attacker} at {n} images: budgets differ: 100, 200 steps"
            for attacker in ("fine_tune", "linear_probe")
            for n in audit.samples
        ),
    }


def test_what_honest_audits_may_differ_in_is_no_fault(audited: TransferAudit) -> None:
    """Halving that favours another setting at every place, a diverged setting, a grid of fractions,
    public weights with fewer attackers.
    """

    def halved(point: AttackPoint) -> dict[str, Any]:
        winner = "rate=0.1" if (point.seed + len(point.start)) % 2 else "rate=0.01"
        return {"steps": 150 if point.setting == winner else 50}

    def diverged(point: AttackPoint) -> dict[str, Any]:
        lost = point.test_accuracy is None and (point.start, point.seed, point.samples) == (
            "release",
            0,
            10,
        )
        return {"setting": f"{point.setting} (diverged)"} if lost else {}

    def public(point: AttackPoint) -> AttackPoint:
        return point.model_copy(update={"start": "public:imagenet"})

    fractions = audited.model_copy(update={"grid": (0, 0, 0)})
    fewer = tuple(
        public(p) for p in audited.points if (p.start, p.attacker) == ("twin", "fine_tune")
    )
    assert faults_of(with_each(audited, halved)) == ()
    assert faults_of(with_each(audited, diverged)) == ()
    assert faults_of(with_each(fractions, lambda _: {"images_per_class": 0})) == ()
    assert faults_of(again(audited.model_copy(update={"points": (*audited.points, *fewer)}))) == ()


MORE: dict[str, tuple[Callable[[AttackPoint], AttackPoint | None], str]] = {
    "one that was never tried with one": (
        lambda p: p.model_copy(update={"attacker": "regrow"}),
        "4 budgets, but nobody tried one",
    ),
    "no more than one": (
        lambda p: p.model_copy(update={"steps": 150}),
        "4 budgets are 300 steps, where one is 200",
    ),
    "other settings": (
        lambda p: p.model_copy(update={"setting": f"{p.setting} longer"}),
        "4 budgets with other settings than one budget",
    ),
    "fewer settings": (
        lambda p: p if p.test_accuracy is not None else None,
        "4 budgets with other settings than one budget",
    ),
    "another grid": (
        lambda p: p.model_copy(update={"samples": 55}),
        "release:fine_tune is on another grid",
    ),
    "an accuracy no count gives": (
        lambda p: p.model_copy(update={"val_accuracy": 0.66}),
        "4 budgets: validation accuracy 0.66 is not a share",
    ),
    "no test accuracy": (
        lambda p: p.model_copy(update={"test_accuracy": None}),
        "4 budgets was chosen by validation but has no test",
    ),
    "tested twice": (
        lambda p: p.model_copy(update={"test_accuracy": 0.6}),
        "4 budgets was tested although validation did not choose it",
    ),
}


def longer(audit: TransferAudit) -> tuple[AttackPoint, ...]:
    """Fine-tuning of the release at 100 images with seed 0, four budgets."""
    place = ("release", "fine_tune", 100, 0)
    once = (p for p in audit.points if (p.start, p.attacker, p.samples, p.seed) == place)
    return tuple(
        p.model_copy(update={"budget": 4, "steps": 398}) for p in once
    )  # of 400: halving may round a step away


def test_points_with_more_budget_are_no_fault_and_no_curve(audited: TransferAudit) -> None:
    """One place with one seed is enough; what was measured before is as it was; a check that says
    otherwise than its points is named.
    """
    audit = again(audited.model_copy(update={"points": (*audited.points, *longer(audited))}))
    assert faults_of(audit) == ()
    assert audit.measures.envelopes == audited.measures.envelopes
    kinder = with_measure(
        audit,
        budget_checks=tuple(
            one.model_copy(update={"share": 0.9}) for one in audit.measures.budget_checks
        ),
    )
    assert faults_of(kinder) == (
        "measures.budget_checks.0.share: the report says 0.9, its points give 1.0",
    )


@pytest.mark.parametrize("case", MORE)
def test_every_edit_of_a_larger_budget_is_named(case: str, audited: TransferAudit) -> None:
    """The points that show whether one budget is enough are checked like the others."""
    change, said = MORE[case]
    edited = tuple(one for one in map(change, longer(audited)) if one is not None)
    faults = faults_of(audited.model_copy(update={"points": (*audited.points, *edited)}))
    assert any(said in fault for fault in faults), faults


def test_a_skipped_attacker_weakens_the_stored_verdict(audited: TransferAudit) -> None:
    """Whoever strikes a skipped attacker from a stronger suite's audit is left with a verdict that
    does not follow.
    """
    audit = again(audited.model_copy(update={"suite": "full", "skipped": ("regrow: no weights",)}))
    assert faults_of(audit) == ()
    assert audit.verdict.word == "indicative only"
    assert any(
        "verdict.word" in fault for fault in faults_of(audit.model_copy(update={"skipped": ()}))
    )


def test_differences_below_the_tolerance_are_none() -> None:
    """1e-12 is another machine's logarithm; 1e-6 is an edit; True is not 1."""
    assert unlike({"a": 1.0}, {"a": 1.0 + 1e-12}, "x") == []
    assert unlike({"a": 1.0}, {"a": 1.0 + 1e-6}, "x") == [
        "x.a: the report says 1.0, its points give 1.000001"
    ]
    assert unlike(True, 1, "x") != []
    assert unlike([1], [1, 2], "x") != []
    assert unlike({"a": 1}, {"b": 1}, "x") != []
    assert first_of(()) == ""
    assert first_of(("a", "b", "c")) == "a (and 2 more)"


def checkpoint(weights: str = "0", op: Op = Op.conv3x3, **changes: Any) -> Checkpoint:
    """Two classes, 7 of 10 right."""
    cell = Cell(ops=(op, op, op, op, op, op))
    fields: dict[str, Any] = {
        "architecture": Architecture(
            space="nasbench201",
            cell=cell,
            stem_channels=4,
            cells_per_stage=1,
            classes=2,
            shape=(1, 8, 8),
        ),
        "weights": FileRef(sha256=weights * 64, size=1),
        "trained_on": "0" * 64,
        "made_by": "test",
        "val_accuracy": 0.5,
        "test_accuracy": 0.7,
        "test_samples": 10,
        "confusion": ((3, 2), (1, 4)),
        "history": (),
    }
    return Checkpoint(**{**fields, **changes})


def test_a_checkpoints_accuracy_follows_from_its_confusion_matrix() -> None:
    """7 of 10; another accuracy, count or shape of matrix is a fault."""
    assert checkpoint_faults(checkpoint(), "release") == ()
    assert checkpoint_faults(checkpoint(test_accuracy=0.8), "release") == (
        "release.test_accuracy: the report says 0.8, its points give 0.7",
    )
    assert "test_samples" in checkpoint_faults(checkpoint(test_samples=11), "release")[0]
    assert "2 x 2" in checkpoint_faults(checkpoint(confusion=((3, 2),)), "release")[0]
    assert "2 x 2" in checkpoint_faults(checkpoint(confusion=((3, 2), (-1, 6))), "release")[0]


def test_a_start_may_only_stand_for_the_same_network(audited: TransferAudit) -> None:
    """A twin with the release's weights may be left out, one with others may not; empty networks
    share by their body; the dummy never.
    """
    subjects = Subjects(
        release=checkpoint("1"), twin=checkpoint("1"), reference=checkpoint("2", Op.skip)
    )

    def said(**same_as: str) -> tuple[str, ...]:
        return start_faults(audited.model_copy(update={"same_as": same_as}), subjects)

    assert said(twin="release") == ()
    assert said(reference="release") == (
        "reference is said to be release, which is another network",
    )
    assert len(said(scratch_reference="scratch_release")) == 1
    assert len(said(dummy="scratch_release")) == 1
    assert len(said(dummy="dummy")) == 1
    assert len(said(twin="scratch_release")) == 1
    plan = checkpoint().architecture
    for alike in (
        checkpoint("2"),
        checkpoint("2", architecture=plan.model_copy(update={"classes": 5})),
    ):
        same = subjects.model_copy(update={"reference": alike})
        assert (
            start_faults(
                audited.model_copy(update={"same_as": {"scratch_reference": "scratch_release"}}),
                same,
            )
            == ()
        )


def test_public_starts_may_have_settings_and_steps_of_their_own(audited: TransferAudit) -> None:
    """A head that fits is kept, one that does not is new. What is tried at one place and not at
    another is a fault here too.
    """
    own = [
        point.model_copy(
            update={
                "start": "public:a",
                "setting": f"own {point.setting}",
                "steps": point.steps + 1,
            }
        )
        for point in audited.points
        if point.start == "reference"
    ]
    assert faults_of(again(audited.model_copy(update={"points": (*audited.points, *own)}))) == ()
    spared = next(point for point in own if point.test_accuracy is None)
    fewer = [point for point in own if point is not spared]
    faults = faults_of(again(audited.model_copy(update={"points": (*audited.points, *fewer)})))
    assert (
        f"public:a:{spared.attacker} tries other settings at some places than at others" in faults
    )


def test_the_points_of_the_fixture_are_as_an_audit_leaves_them(audited: TransferAudit) -> None:
    """One test accuracy for each start, attacker, grid value and seed: the test split is touched
    once.
    """
    tested_points: list[AttackPoint] = [
        point for point in audited.points if point.test_accuracy is not None
    ]
    assert len(tested_points) == 6 * 2 * 3 * 3
