"""The audit as a whole, on a task with a known answer."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from lockforge.audit.ledger import NAME
from lockforge.audit.stage import audit_transfer
from lockforge.evidence.curves import advantage
from lockforge.evidence.faults import faults_of, start_faults
from lockforge.files import Files
from lockforge.recipe import AuditRecipe
from lockforge.records import Ablation, Cell, Checkpoint, ImageSet, Op, Subjects, TransferAudit
from lockforge.runs import Runs, Work

ONE = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
QUICK = AuditRecipe(
    images_per_class=(2, 0), seeds=3, steps=6, probe_steps=6, batch_size=16, fine_tune_sgd_rates=()
)
Audited = tuple[TransferAudit, Path]


def test_a_reference_that_knows_the_target_is_clearly_ahead(audited: Audited) -> None:
    """It was trained on the target's own images: a thief who may use it is above one who starts
    over, interval and all.
    """
    curves = {envelope.name: envelope.curve for envelope in audited[0].measures.envelopes}
    found = advantage(curves["reference"], curves["scratch"])
    assert found.low is not None
    assert found.low > 0.05


def test_a_release_that_knows_nothing_has_everything_removed(audited: Audited) -> None:
    """Release and dummy are both empty networks: R = 1 lies in the interval of each, or within a
    tenth of it.
    """
    audit, _ = audited
    for figure in (audit.measures.removed_vs_reference, audit.measures.removed_by_dummy):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low - 0.1 <= 1 <= figure.high + 0.1


def test_every_start_gets_the_same_grid_budget_and_number_of_settings(audited: Audited) -> None:
    """At each grid point and seed: equal steps, equal images, equally many settings, whatever the
    start.
    """
    audit, _ = audited
    assert audit.same_as == {"twin": "release", "scratch_reference": "scratch_release"}
    spent = {}
    for start, some, seed in itertools.product(
        ("release", "reference", "scratch_release", "dummy"), audit.grid, audit.seeds
    ):
        points = [
            p for p in audit.points if (p.start, p.images_per_class, p.seed) == (start, some, seed)
        ]
        spent.setdefault((some, seed), set()).add(
            (len(points), sum(p.steps for p in points), points[0].samples)
        )
    assert all(len(kinds) == 1 for kinds in spent.values())
    assert len(spent) == len(audit.grid) * QUICK.seeds


def test_one_setting_of_each_attack_is_tested(audited: Audited) -> None:
    """Once for each start, attacker, grid point and seed, and it is one that validation likes
    best.
    """
    audit, _ = audited
    groups: dict[tuple[object, ...], list[tuple[float, bool]]] = {}
    for p in audit.points:
        groups.setdefault((p.start, p.attacker, p.images_per_class, p.seed), []).append(
            (p.val_accuracy, p.test_accuracy is not None)
        )
    for tried in groups.values():
        (chosen,) = [val for val, tested in tried if tested]
        assert chosen == max(val for val, _ in tried)


def test_the_audit_says_what_it_was_about(audited: Audited, target: ImageSet) -> None:
    """Target, classes, grid and sizes: 120 images are the thief's, 24 of them for his
    validation.
    """
    audit, _ = audited
    assert (audit.target, audit.classes, audit.suite) == (target.digest, 4, "quick")
    assert (audit.grid, audit.samples, audit.dropped) == ((2, 0), (8, 96), ())
    assert (audit.validation_samples, audit.test_samples) == (24, 40)
    assert audit.verdict.word != "protects under this suite"


def test_an_ablation_is_attacked_like_the_release_and_moves_nothing(
    audited: Audited,
    emptied: Subjects,
    source: ImageSet,
    target: ImageSet,
    files: Files,
    train: Callable[..., Checkpoint],
    tmp_path: Path,
) -> None:
    """The same attackers, settings, grid and steps; all other points are the very same, and so is
    the verdict. No fault is found.
    """
    subjects = emptied.model_copy(
        update={"ablations": (Ablation(name="magnitude", checkpoint=train(ONE, target, 40)),)}
    )
    audit = audit_transfer(
        subjects, source, target, QUICK, work=Work(files=files, folder=tmp_path, seed=0)
    )
    asked: dict[str, set[tuple[object, ...]]] = {}
    for p in audit.points:
        asked.setdefault(p.start, set()).add(
            (p.attacker, p.setting, p.samples, p.seed, p.budget, p.steps)
        )
    assert asked["ablation:magnitude"] == asked["release"]
    assert {p for p in audit.points if p.start != "ablation:magnitude"} == set(audited[0].points)
    assert audit.verdict == audited[0].verdict
    assert [row.name for row in audit.measures.ablations] == ["magnitude"]
    assert (*faults_of(audit), *start_faults(audit, subjects)) == ()


@pytest.mark.parametrize("kept", [0.7, 0.97])
def test_a_killed_audit_ends_in_the_same_bytes(
    kept: float,
    audited: Audited,
    emptied: Subjects,
    source: ImageSet,
    target: ImageSet,
    files: Files,
    tmp_path: Path,
) -> None:
    """Resumed from a ledger cut anywhere, in the middle of a line too."""
    audit, folder = audited
    whole = (folder / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: int(kept * len(whole))])
    again = audit_transfer(
        emptied, source, target, QUICK, work=Work(files=files, folder=tmp_path, seed=0)
    )
    assert again.to_json() == audit.to_json()


def test_a_model_against_itself_has_nothing_removed(
    files: Files, source: ImageSet, target: ImageSet, emptied: Subjects, tmp_path: Path
) -> None:
    """Release, twin and reference are one network: R is exactly 0 against both, and the verdict is
    no protection.
    """
    model = emptied.reference
    subjects = Subjects(release=model, twin=model, reference=model)
    audit = audit_transfer(
        subjects, source, target, QUICK, work=Work(files=files, folder=tmp_path, seed=0)
    )
    assert audit.measures.removed_vs_twin.mean == 0
    assert audit.measures.removed_vs_reference.mean == 0
    assert audit.verdict.word == "no protection"


def test_the_runs_folder_keeps_the_audit(
    files: Files,
    source: ImageSet,
    target: ImageSet,
    train: Callable[..., Checkpoint],
    tmp_path: Path,
) -> None:
    """As a stage: asked again, the answer is read, and it is the same."""
    model = train(ONE, source, 0)
    subjects = Subjects(release=model, twin=model, reference=model)
    recipe = QUICK.model_copy(update={"images_per_class": (1, 2), "steps": 1, "seeds": 2})
    answers = []
    for seed in (0, 0):
        runs = Runs(tmp_path, seed=seed)
        for path in files.root.iterdir():
            runs.files.put(path.read_bytes())
        answers.append(runs(audit_transfer, subjects, source, target, recipe))
    assert answers[0] == answers[1]
    assert len(list((tmp_path / "audit_transfer").iterdir())) == 1
    assert not list(tmp_path.glob("**/*.partial"))
