"""A re-run trusts nothing but the weights: what was measured comes out again, what was made up does
not.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lockforge import pipeline
from lockforge.cli import app
from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.evidence.curves import measure, overall, verdict
from lockforge.evidence.signing import load_private, new_key, sign_folder
from lockforge.evidence.statistics import target_tests
from lockforge.export.stage import export_artifact, lay_out
from lockforge.models.networks import build, state
from lockforge.models.weights import write_weights
from lockforge.recipe import Recipe
from lockforge.records import (
    Architecture,
    AttackPoint,
    Cell,
    Check,
    Checkpoint,
    Op,
    Report,
    WeightLock,
)
from lockforge.runs import Runs
from lockforge.verify import verify_release

TINY = Recipe.model_validate(
    {
        "threads": 1,
        "data": {"limit_per_class": 12},
        "embed": {"samples": 8, "head_steps": 1},
        "export": {"onnx": False},
        "network": {"stem_channels": 4, "cells_per_stage": 1},
        "audit": {
            "images_per_class": (1, 2),
            "seeds": 2,
            "steps": 3,
            "probe_steps": 3,
            "batch_size": 5,
        },
    }
)
PLACES = pipeline.Places("digits:0-4", (), ("digits:5-9/b",))
Edit = Callable[[AttackPoint, int], AttackPoint]  # the point, and the images that it was tested on


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release of an untrained network, really audited on the digits: `release/`, `key`,
    `key.pub`.
    """
    place = tmp_path_factory.mktemp("rerun")
    do = Runs(place / "runs", seed=TINY.seed)
    roles = pipeline.gather(PLACES, TINY, do.files)
    plan = Architecture(
        space="nasbench201",
        cell=Cell(ops=(Op.skip,) * 6),
        stem_channels=4,
        cells_per_stage=1,
        classes=5,
        shape=roles.source.shape,
    )
    weights = do.files.put_tensors(state(build(plan, torch.Generator().manual_seed(0))))
    known = Checkpoint(
        architecture=plan,
        weights=weights,
        trained_on=roles.source.digest,
        made_by="nobody",
        val_accuracy=0,
        test_accuracy=0,
        test_samples=0,
        confusion=(),
        history=(),
    )
    (place / "model.safetensors").write_bytes(write_weights(known, roles.source, TINY, do.files))
    subjects, audits = pipeline.audit(
        TINY, roles, pipeline.Models(str(place / "model.safetensors")), do
    )
    artifact = do(
        export_artifact,
        roles,
        (),
        None,
        subjects,
        audits,
        WeightLock(release=subjects.release),
        TINY,
    )
    key = new_key(place / "key")
    lay_out(
        artifact,
        do.files,
        place / "release",
        pipeline.provenance(do),
        lambda folder: sign_folder(folder, key),
    )
    return place


def refit(
    folder: Path,
    runs: Path,
    places: pipeline.Places = PLACES,
    *,
    count: int = 6,
    exact: bool = True,
) -> tuple[Check, ...]:
    """Fit some of a release's places again."""
    report = Report.from_json((folder / "report.json").read_bytes())
    return pipeline.rerun(
        folder, report, places, (count, 1), Runs(runs, seed=TINY.seed), exact=exact
    )


def lie(made: Path, folder: Path, edit: Edit) -> Path:
    """The release with every point edited, all figures worked out again and signed by the owner:
    nothing is left to recompute.
    """
    shutil.copytree(made / "release", folder)
    report = Report.from_json((folder / "report.json").read_bytes())
    (audit,) = report.audits
    points = tuple(edit(point, audit.test_samples) for point in audit.points)
    found = measure(points, audit.same_as, test_samples=audit.test_samples)
    audit = audit.model_copy(
        update={
            "points": points,
            "measures": found,
            "verdict": verdict(found, audit.suite, audit.skipped),
        }
    )
    changed = {
        "audits": (audit,),
        "tests": target_tests(report.roles.target_names, (audit,)),
        "verdict": overall([audit.verdict]),
    }
    (folder / "report.json").write_text(report.model_copy(update=changed).to_json())
    sign_folder(folder, load_private(made / "key"))
    return folder


def worse(point: AttackPoint, images: int) -> AttackPoint:
    """The thief is said to get two images less right with the release."""
    if point.start != "release" or point.test_accuracy is None:
        return point
    return point.model_copy(
        update={"test_accuracy": max(0, round(point.test_accuracy * images) - 2) / images}
    )


def test_what_was_measured_comes_out_again_to_the_last_digit(made: Path, tmp_path: Path) -> None:
    """On the machine that measured it, whole curves for the places drawn: accuracies, steps and
    operations of every setting.
    """
    found = refit(made / "release", tmp_path / "runs")
    assert len(found) > 7
    assert len(found) % 2 == 1  # two grid values a curve, and the check of all together
    assert all(check.passed for check in found)
    assert all(check.value.endswith("every point to the last digit") for check in found[:-1])


def test_elsewhere_the_places_drawn_are_fitted_alone(made: Path, tmp_path: Path) -> None:
    """Six places and the check of all together, within the tolerance."""
    found = refit(made / "release", tmp_path / "runs", exact=False)
    assert len(found) == 7
    assert all(check.passed for check in found)


def test_edited_curves_that_are_signed_again_pass_verify_and_not_a_rerun(
    made: Path, tmp_path: Path
) -> None:
    """Recomputing trusts the points; fitting them again does not."""
    folder = lie(made, tmp_path / "lie", worse)
    assert verify_release(folder, made / "key.pub", parity=False).passed
    found = refit(folder, tmp_path / "runs")
    assert any(not check.passed and "release:" in check.value for check in found)
    assert all(check.passed for check in found if "scratch" in check.value)


def test_fewer_steps_than_the_suite_has_are_caught_whatever_the_accuracy(
    made: Path, tmp_path: Path
) -> None:
    """A thief who was given less: equal everywhere, so nothing else notices."""
    folder = lie(made, tmp_path / "lie", lambda point, _: point.model_copy(update={"steps": 1}))
    found = refit(folder, tmp_path / "runs", exact=False)
    assert any("steps stated, the suite has" in check.value for check in found if not check.passed)


def test_other_images_are_the_users_fault_and_other_audits_the_releases(
    made: Path, tmp_path: Path
) -> None:
    """Another set than was audited; an audit that says it is of another grid."""
    with pytest.raises(DataError, match=r"not the images that were audited: digits:5-9/a"):
        refit(
            made / "release",
            tmp_path / "runs",
            pipeline.Places("digits:0-4", (), ("digits:5-9/a",)),
        )
    shutil.copytree(made / "release", tmp_path / "short")
    tree = json.loads((made / "release" / "report.json").read_text())
    tree["audits"][0]["points"] = [
        point for point in tree["audits"][0]["points"] if point["attacker"] != "linear-probe"
    ]
    (tmp_path / "short" / "report.json").write_text(json.dumps(tree))
    with pytest.raises(IntegrityError, match="not of these images and this suite") as caught:
        refit(tmp_path / "short", tmp_path / "runs2")
    assert "the suite sends fine-tune, linear-probe; stated are fine-tune" in caught.value.faults[0]


def test_the_command_draws_anew_says_how_and_fails_with_5(made: Path, tmp_path: Path) -> None:
    """The seed of the draw is printed, so that others can draw the same; nothing is run from a
    release that is not what was signed.
    """
    options = [
        "--no-parity",
        "--rerun",
        "2",
        "--source",
        "digits:0-4",
        "--target",
        "digits:5-9/b",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, ["verify", str(made / "release"), *options])
    assert done.exit_code == 0, done.output
    assert "2 place(s) drawn by --seed" in done.stdout
    assert "the same kind of machine" in done.stdout
    folder = lie(made, tmp_path / "lie", worse)
    done = CliRunner().invoke(app, ["verify", str(folder), *options, "--rerun", "6", "--json"])
    assert done.exit_code == 5
    assert not json.loads(done.stdout)["passed"]
    (folder / "report.json").write_text("{}")
    done = CliRunner().invoke(app, ["verify", str(folder), *options])
    assert done.exit_code == 5
    assert "not checked, since the manifest failed" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--rerun", "2"],
        ["--rerun", "2", "--source", "digits:0-4"],
        ["--source", "digits:0-4"],
        ["--seed", "1"],
    ],
)
def test_half_a_command_is_refused(options: list[str], made: Path) -> None:
    """Images without a re-run, and a re-run without images."""
    done = CliRunner().invoke(app, ["verify", str(made / "release"), "--no-parity", *options])
    assert isinstance(done.exception, RecipeError)
