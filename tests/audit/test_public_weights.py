"""Public weights: attacked like the release, with facts of their own, and what they do to the
verdict.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lockforge.audit import stage
from lockforge.audit._starts import StartingPoint, facts_of, starting_points
from lockforge.audit.attackers import SUITES, Suite
from lockforge.audit.attackers._fine_tune import FINE_TUNE
from lockforge.audit.attackers._linear_probe import LINEAR_PROBE
from lockforge.audit.stage import audit_transfer, who_attacks, who_is_skipped
from lockforge.errors import DataError
from lockforge.evidence.curves import measure, verdict
from lockforge.evidence.faults import faults_of, start_faults
from lockforge.files import Files
from lockforge.models.networks import build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import (
    Cell,
    Checkpoint,
    ImageSet,
    NamedArchitecture,
    Op,
    PublicWeights,
    Subjects,
    TransferAudit,
)
from lockforge.runs import Work

Train = Callable[..., Checkpoint]
PLAIN = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
QUICK = AuditRecipe(
    images_per_class=(2, 0), seeds=3, steps=4, probe_steps=6, batch_size=16,
    fine_tune_rates=(0.01,), fine_tune_sgd_rates=(), probe_rates=(0.1,),
)  # fmt: skip


def public(name: str, checkpoint: Checkpoint) -> PublicWeights:
    """A checkpoint that anybody can have."""
    return PublicWeights(
        name=name, architecture=checkpoint.architecture, weights=checkpoint.weights
    )


def resnet20(files: Files, classes: int, side: int = 6) -> PublicWeights:
    """A network by name, with random weights."""
    architecture = NamedArchitecture(name="resnet20-cifar", classes=classes, shape=(1, side, side))
    return PublicWeights(
        name="r20",
        architecture=architecture,
        weights=files.put_tensors(state(build(architecture, torch_generator(0)))),
    )


def start(subjects: Subjects, target: ImageSet, files: Files, name: str) -> StartingPoint:
    """A start by its name."""
    return next(
        point for point in starting_points(subjects, target, files)[0] if point.name == name
    )


def test_public_weights_as_good_as_the_unlocked_model_make_the_lock_moot(
    files: Files,
    source: ImageSet,
    target: ImageSet,
    emptied: Subjects,
    train: Train,
    tmp_path: Path,
) -> None:
    """All of the unlocked model is removed, but others like it are public.

    The audit stands up to its own check, which misses public weights that were not attacked.
    """
    subjects = emptied.model_copy(
        update={"public": (public("like-it", train(PLAIN, target, 120)),)}
    )
    audit = audit_transfer(
        subjects, source, target, QUICK, work=Work(files=files, folder=tmp_path, seed=0)
    )
    assert audit.verdict.word == "moot"
    assert "public:like-it" not in audit.same_as
    assert (*faults_of(audit), *start_faults(audit, subjects)) == ()
    more = subjects.model_copy(update={"public": (*subjects.public, resnet20(files, 5))})
    assert start_faults(audit, more) == ("public:r20 was given but not attacked",)
    assert start_faults(audit, emptied) == ("public:like-it was attacked but not given",)


def test_the_unlocked_models_own_weights_in_public_make_the_lock_moot(
    files: Files, target: ImageSet, emptied: Subjects, audited: tuple[TransferAudit, Path]
) -> None:
    """They are the reference again, are not attacked twice, and what the reference is worth beyond
    them is exactly 0.
    """
    subjects = emptied.model_copy(update={"public": (public("itself", emptied.reference),)})
    _, same_as = starting_points(subjects, target, files)
    assert same_as["public:itself"] == "reference"
    found = measure(audited[0].points, same_as, test_samples=40)
    assert found.worth_beyond_public is not None
    assert found.worth_beyond_public.mean == 0
    assert verdict(found, "quick").word == "moot"
    assert start_faults(audited[0].model_copy(update={"same_as": same_as}), subjects) == ()


def test_a_public_start_has_its_own_facts(
    files: Files, source: ImageSet, target: ImageSet, emptied: Subjects
) -> None:
    """Five source and four target classes: no head fits but that of a public network of four; it is
    not made of cells, the others are.
    """
    for classes, fits in ((4, True), (5, False)):
        subjects = emptied.model_copy(update={"public": (resnet20(files, classes),)})
        facts, alone = facts_of(subjects, source, target)
        own = start(subjects, target, files, "public:r20").facts(facts)
        assert (facts, start(subjects, target, files, "release").facts(facts)) == (alone, facts)
        assert (facts.head_fits, facts.cells, own.head_fits, own.cells, own.same_classes) == (
            False,
            True,
            fits,
            False,
            False,
        )
        given = start(subjects, target, files, "public:r20").given(torch_generator(0))
        assert (given.old_head is not None) == fits
        assert given.network.architecture.classes == 4


def test_a_public_start_is_spared_what_cannot_be_done_to_it_and_a_release_is_not(
    files: Files,
    source: ImageSet,
    target: ImageSet,
    emptied: Subjects,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attacker of cells meets all starts but a public ResNet. With a ResNet for a reference it
    meets none, and that is said.
    """
    surgery = replace(FINE_TUNE, unfit=lambda facts: "" if facts.cells else "no cells")
    monkeypatch.setitem(SUITES, "two", Suite((LINEAR_PROBE, surgery), steps=1))
    subjects = emptied.model_copy(update={"public": (resnet20(files, 5),)})
    facts, alone = facts_of(subjects, source, target)
    assert who_is_skipped("two", facts, alone) == ()
    assert who_attacks("two", facts, start(subjects, target, files, "release")) == (
        LINEAR_PROBE,
        surgery,
    )
    assert who_attacks("two", facts, start(subjects, target, files, "public:r20")) == (
        LINEAR_PROBE,
    )
    other = emptied.reference.model_copy(update={"architecture": resnet20(files, 5).architecture})
    facts, alone = facts_of(subjects.model_copy(update={"reference": other}), source, target)
    assert who_is_skipped("two", facts, alone) == (
        "fine-tune: no cells, at least not from every start",
    )
    assert who_attacks("two", facts, start(subjects, target, files, "release")) == (LINEAR_PROBE,)


def test_what_is_skipped_is_in_the_audit_and_in_its_verdict(
    files: Files,
    source: ImageSet,
    target: ImageSet,
    emptied: Subjects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a suite other than `quick`, everything removed: with a skipped attacker the audit can only
    indicate, and names him.
    """
    monkeypatch.setitem(SUITES, "standard", Suite((LINEAR_PROBE,), steps=4))
    monkeypatch.setattr(stage, "who_is_skipped", lambda *_given: ("shot: a reason",))
    recipe = QUICK.model_copy(update={"suite": "standard"})
    audit = audit_transfer(
        emptied, source, target, recipe, work=Work(files=files, folder=tmp_path, seed=0)
    )
    assert audit.skipped == ("shot: a reason",)
    assert audit.verdict.word == "indicative only"
    assert audit.verdict.reason.endswith("skipped: shot: a reason")
    assert faults_of(audit) == ()


def test_public_weights_for_other_images_are_an_error(
    files: Files, target: ImageSet, emptied: Subjects
) -> None:
    """The start and both shapes are named."""
    subjects = emptied.model_copy(update={"public": (resnet20(files, 5, side=8),)})
    with pytest.raises(
        DataError,
        match=r"public:r20 takes images of shape \(1, 8, 8\), the target's are \(1, 6, 6\)",
    ):
        starting_points(subjects, target, files)
