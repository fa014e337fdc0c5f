"""A release that protects, made without training anything: a few kilobytes, signed, every figure
following from its points.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from lockforge.evidence.attestation import ATTESTATION, CodeVersion, attest
from lockforge.evidence.curves import SCRATCH, STARTS, measure, overall, verdict
from lockforge.evidence.manifest import hash_folder
from lockforge.evidence.signing import load_private, new_key, sign_folder
from lockforge.evidence.statistics import target_tests
from lockforge.evidence.suites import ATTACKERS
from lockforge.files import Files
from lockforge.recipe import AuditRecipe, Recipe, to_yaml
from lockforge.records import (
    Architecture,
    AttackPoint,
    Cell,
    Checkpoint,
    FileRef,
    ImageSet,
    Op,
    Provenance,
    Report,
    Roles,
    Splits,
    Start,
    Subjects,
    TransferAudit,
)

Edit = Callable[[dict[str, Any]], object]

IMAGES = 100  # of the target's test split, and of the thief's validation split
LEVELS: dict[Start, int] = {
    "release": 40,
    "reference": 80,
    "scratch_release": 40,
    "scratch_reference": 40,
    "dummy": 40,
}  # right of 100
MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def images(seed: int) -> ImageSet:
    """A data set of which only the record matters here."""
    pixels = FileRef(sha256=f"{seed:x}" * 64, size=1)
    counts = Splits(train=8, val=2, test=IMAGES)
    return ImageSet(
        classes=("a", "b"), shape=(1, 8, 8), mean=(0.5,), std=(0.2,), counts=counts, pixels=pixels
    )


def checkpoint(op: Op, weights: FileRef) -> Checkpoint:
    """A checkpoint that has 9 of 10 test images right."""
    cell = Architecture(
        space="nasbench201",
        cell=Cell(ops=(op,) * 6),
        stem_channels=2,
        cells_per_stage=1,
        classes=2,
        shape=(1, 8, 8),
    )
    return Checkpoint(
        architecture=cell,
        weights=weights,
        trained_on=images(1).digest,
        made_by="test",
        val_accuracy=0.9,
        test_accuracy=0.9,
        test_samples=10,
        confusion=((5, 0), (1, 4)),
        history=(),
    )


def audit(
    target: ImageSet, suite: str = "standard", levels: dict[Start, int] = LEVELS
) -> TransferAudit:
    """An audit of three seeds: an image less, none, and one more than the levels; twice as far from
    0 with ten times the images.
    """
    points = tuple(
        AttackPoint(
            start=start,
            attacker=attacker,
            setting="one",
            images_per_class=per_class,
            samples=2 * per_class,
            seed=seed,
            steps=10,
            flops=1,
            val_accuracy=right / IMAGES,
            test_accuracy=right / IMAGES,
        )
        for start in STARTS
        if start in levels
        for attacker in (("from-scratch",) if start in SCRATCH else ATTACKERS[suite])
        for per_class in (1, 10)
        for seed in range(3)
        for right in [levels[start] + seed - 1 + (10 if per_class == 10 else 0)]
    )
    same_as: dict[Start, Start] = {"twin": "release"}
    found = measure(points, same_as, test_samples=IMAGES)
    return TransferAudit(
        target=target.digest,
        suite=suite,
        suite_version=2,
        classes=2,
        grid=(1, 10),
        samples=(2, 20),
        seeds=(0, 1, 2),
        validation_samples=IMAGES,
        test_samples=IMAGES,
        same_as=same_as,
        points=points,
        measures=found,
        verdict=verdict(found, suite),
    )


def recipe_of(audits: tuple[TransferAudit, ...]) -> Recipe:
    """The defaults, with the suite and the seeds of the first audit."""
    if not audits:
        return Recipe()
    # it is one
    return Recipe(audit=AuditRecipe(suite=audits[0].suite, seeds=len(audits[0].seeds)))  # type: ignore[arg-type]


def report(weights: FileRef, audits: tuple[TransferAudit, ...]) -> Report:
    """A whole report on targets made by `images(2)`, `images(3)`, ..."""
    names = tuple(f"target-{i}" for i, _ in enumerate(audits, start=1))
    release, reference = (
        checkpoint(Op.conv1x1, weights),
        checkpoint(Op.skip, FileRef(sha256="f" * 64, size=1)),
    )
    roles = Roles(
        source=images(1),
        targets=tuple(images(2 + i) for i, _ in enumerate(audits)),
        names=("source", *names),
    )
    return Report(
        recipe=recipe_of(audits).model_dump(mode="json"),
        roles=roles,
        embeddings=(),
        cosines=(),
        search=None,
        subjects=Subjects(release=release, twin=release, reference=reference),
        audits=audits,
        tests=target_tests(names, audits),
        parity="same logits: largest difference 1.0e-07 on 16 seeded inputs",
        verdict=overall([one.verdict for one in audits]),
    )


def make_release(
    folder: Path,
    key: Path,
    audits: tuple[TransferAudit, ...] | None = None,
    *,
    made: datetime = MADE,
    weights: int = 64,
    attested: bool = False,
) -> Path:
    """Write and sign a release; the key is made where there is none. weights: bytes of them.
    attested: with attestation.json.
    """
    folder.mkdir(parents=True)
    tensors = {"head.weight": np.arange(weights // 4, dtype=np.float32)}
    stored = Files(folder.parent / "files").put(save(tensors))
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"labels": "a,b"}))
    (folder / "model.onnx").write_bytes(b"\x08\x0a a network")
    audits = (audit(images(2)),) if audits is None else audits
    whole = report(stored, audits)
    (folder / "report.json").write_text(whole.to_json())
    (folder / "recipe.yaml").write_text(to_yaml(recipe_of(audits)))
    (folder / "labels.json").write_text('["a", "b"]')
    (folder / "preprocessing.json").write_text('{"mean": [0.5], "std": [0.2]}')
    circumstances = Provenance(
        versions={}, hardware={}, seconds={}, commit="none", started=made.isoformat()
    )
    (folder / "provenance.json").write_text(circumstances.to_json())
    private = load_private(key) if key.exists() else new_key(key)
    if attested:
        code = CodeVersion(lockforge="0.1.0", commit="none")
        (folder / ATTESTATION).write_bytes(
            attest(whole, hash_folder(folder), code, made.strftime("%Y-%m-%dT%H:%M:%SZ"), private)
        )
    sign_folder(folder, private)
    return folder


def edit_json(path: Path, change: Edit) -> None:
    """Edit a JSON file as a tree."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
