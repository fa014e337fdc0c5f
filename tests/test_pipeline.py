"""The whole sentence on the built-in digits, small: a release that verifies, the same bytes again,
nothing of the owner's data in it.
"""

import json
import re
from pathlib import Path

import pytest

from lockforge import open_runs, protect, verify_release
from lockforge.data.builtin import DEFAULT
from lockforge.data.roles import read_roles
from lockforge.evidence.faults import faults_of, start_faults
from lockforge.evidence.signing import new_key
from lockforge.executors import Kind, make_executor
from lockforge.export.seal import Seal, sealing
from lockforge.export.stage import lay_out
from lockforge.pipeline import STAND_IN, Models, audit, provenance, prune
from lockforge.recipe import Recipe, read_recipe
from lockforge.records import Architecture, Report, Subjects
from lockforge.runs import Silent
from tests.executors.workers import kill_workers

TINY = """
threads: 1
data: {limit_per_class: 16}
network: {stem_channels: 4, cells_per_stage: 1}
embed: {samples: 32, head_steps: 5}
search: {steps: 5, simulated: 2, shortlist: {cells: 2, fit: {epochs: 1, batch_size: 32}}}
train: {epochs: 2, batch_size: 32, learning_rate: 0.05}
prune: {method: ntp, sparsity: 0.5, max_source_drop: 1.0, rounds: 2, fit: {steps: 2,
  batch_size: 32}, recovery: {steps: 3, batch_size: 32}}
audit: {images_per_class: [1, 2, 0], seeds: 2, steps: 5, fine_tune_rates: [0.01],
  probe_rates: [0.1]}
export: {parity_samples: 3, int8: true}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe that takes seconds; its figures mean nothing."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return read_recipe(str(path))


@pytest.fixture(scope="module")
def release(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release of the built-in digits, with its runs beside it."""
    folder = tmp_path_factory.mktemp("protect")
    do = open_runs(tiny, folder / "runs", device="cpu")
    source, auxiliary, targets = DEFAULT
    artifact = protect(tiny, read_roles(source, auxiliary, targets, tiny.data, do.files), do)
    key = new_key(folder / "key.pem")
    circumstances = provenance(do)
    return lay_out(
        artifact,
        do.files,
        folder / "release",
        circumstances,
        sealing(Seal(key), do.files, circumstances),
    )


def test_a_release_verifies_with_the_signers_key(release: Path) -> None:
    """Every check passes, parity included."""
    verdict = verify_release(release, release.parent / "key.pem.pub")
    assert verdict.passed, [check for check in verdict.checks if not check.passed]
    assert {check.name for check in verdict.checks} >= {
        "manifest",
        "signature",
        "attestation",
        "figures",
        "weights",
        "parity",
    }
    assert "bound to these bytes" in next(
        check.value for check in verdict.checks if check.name == "attestation"
    )


def test_a_release_holds_what_it_promises(release: Path) -> None:
    """Weights, ONNX, preprocessing, labels, report in both forms, recipe, provenance, attestation,
    manifest, signature.
    """
    assert {path.name for path in release.iterdir()} == {
        "model.safetensors",
        "model.onnx",
        "model.int8.onnx",
        "preprocessing.json",
        "labels.json",
        "report.json",
        "report.html",
        "recipe.yaml",
        "provenance.json",
        "attestation.json",
        "README.md",
        "bom.json",
        "manifest.json",
        "model.sig",
    }


def test_the_same_recipe_gives_the_same_report_byte_for_byte(
    release: Path, tiny: Recipe, tmp_path: Path
) -> None:
    """From nothing, in another folder, on one machine with one number of threads."""
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    source, auxiliary, targets = DEFAULT
    artifact = protect(tiny, read_roles(source, auxiliary, targets, tiny.data, do.files), do)
    assert do.files.get(artifact.report) == (release / "report.json").read_bytes()
    assert do.files.get(artifact.files["model.onnx"]) == (release / "model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_wherever_the_work_is_done_the_report_is_the_same(
    kind: Kind, release: Path, tiny: Recipe, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In worker processes and on a Ray cluster, though every worker is killed in the middle of the
    audit.
    """
    if kind == "ray":
        request.getfixturevalue("ray_cluster")
    killed: list[int] = []

    class Killer(Silent):
        def step(self, _done: float, _total: float, note: str) -> None:
            if ": fine-tune" in note and not killed:
                killed.extend(kill_workers(kind))

    do = open_runs(
        tiny,
        tmp_path / "runs",
        device="cpu",
        reporter=Killer(),
        executor=make_executor(kind, workers=2),
    )
    source, auxiliary, targets = DEFAULT
    artifact = protect(tiny, read_roles(source, auxiliary, targets, tiny.data, do.files), do)
    assert killed
    assert do.files.get(artifact.report) == (release / "report.json").read_bytes()


def test_targets_are_not_needed_for_the_choice(release: Path, tiny: Recipe, tmp_path: Path) -> None:
    """Without a target the same cell is chosen and the same weights are trained; the release says
    that it was not audited.
    """
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    source, auxiliary, _ = DEFAULT
    artifact = protect(tiny, read_roles(source, auxiliary, (), tiny.data, do.files), do)
    alone, audited = (
        Report.from_json(text)
        for text in (do.files.get(artifact.report), (release / "report.json").read_bytes())
    )
    assert alone.verdict == "not audited"
    assert alone.search == audited.search
    assert alone.subjects == audited.subjects


def test_the_report_has_the_audit_of_both_ways_and_every_seed(release: Path, tiny: Recipe) -> None:
    """Release, reference, scratch and the dummy are all there on one grid."""
    report = Report.from_json((release / "report.json").read_bytes())
    (audit,) = report.audits
    assert {"release", "scratch_release", "dummy"} <= {point.start for point in audit.points}
    assert len(audit.seeds) == tiny.audit.seeds
    assert {envelope.name for envelope in audit.measures.envelopes} >= {
        "release",
        "reference",
        "scratch",
        "dummy",
    }
    assert audit.verdict.word in {"indicative only", "nothing to protect", "no protection"}


def test_every_part_of_the_lock_is_audited_beside_the_release(release: Path) -> None:
    """Plain pruning, no Fisher term, and the reference behind the same weight lock; the last only
    where the reference is another cell.
    """
    report = Report.from_json((release / "report.json").read_bytes())
    names = {ablation.name for ablation in report.subjects.ablations}
    assert names | {"weight-lock"} == {"magnitude", "no-fisher", "weight-lock"}
    assert ("weight-lock" in names) == (
        report.subjects.reference.weights != report.subjects.twin.weights
    )
    assert set(report.pruned) == {"release", *(f"ablation:{name}" for name in names)}
    assert {point.start for point in report.audits[0].points} >= {
        f"ablation:{name}" for name in names
    }
    assert all(abs(pruning.sparsity - 0.5) < 0.01 for pruning in report.pruned.values())
    assert report.subjects.release.weights != report.subjects.twin.weights


def test_a_release_can_be_pruned_again_without_a_stand_in(
    release: Path, tiny: Recipe, tmp_path: Path
) -> None:
    """`prune` alone: zeros in the weights, images made of the source in the thief's place, the
    search and the training left alone.
    """
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    roles = read_roles(DEFAULT[0], (), (), tiny.data, do.files)
    found = prune(tiny, roles, Models(str(release)), do)
    assert found.pruning.auxiliary == "generated"
    assert found.pruning.sparsity == pytest.approx(0.5, abs=0.01)
    assert set(do.keys) == {"adopt_model", "prune_model"}


def test_no_path_and_no_image_leaves_the_house(release: Path) -> None:
    """No file names anything of this machine, and none holds an image."""
    for path in release.iterdir():
        data = path.read_bytes()
        for word in (str(Path.home()), str(release.parent), "site-packages", "/usr/"):
            assert word.encode() not in data, (path.name, word)
        assert b"\x89PNG" not in data
        assert b"data:image" not in data


def test_the_page_needs_no_network_and_every_figure_has_words(release: Path) -> None:
    """One file: no script, no outside address; each chart has a label."""
    html = (release / "report.html").read_text()
    assert not re.search(r"<script|https?://|@import|url\(", html)
    images = re.findall(r'<[^>]*role="img"[^>]*>', html)
    assert images
    assert all("aria-label=" in tag for tag in images)
    assert html.count("<svg") >= 3
    assert json.loads((release / "labels.json").read_text()) == ["0", "1", "2", "3", "4"]


def test_an_onnx_file_is_audited_beside_public_weights(
    release: Path, tiny: Recipe, tmp_path: Path
) -> None:
    """The release's ONNX file alone: as good on the source as its weights, which are public here;
    what needs weights is skipped.
    """
    pytest.importorskip("onnxruntime")
    do = open_runs(tiny, tmp_path / "runs", device="cpu")
    source, _, targets = DEFAULT
    roles = read_roles(source, (), targets, tiny.data, do.files)
    subjects, (found,) = audit(
        tiny, roles, Models(str(release / "model.onnx"), None, (f"itself={release}",)), do
    )
    known = Report.from_json((release / "report.json").read_bytes()).subjects.release
    assert subjects.release.test_accuracy == known.test_accuracy
    assert [public.weights for public in subjects.public] == [known.weights]
    assert isinstance(subjects.stand_in, Architecture)
    assert (subjects.stand_in.cell, subjects.stand_in.shape) == (STAND_IN, roles.source.shape)
    assert [line.partition(":")[0] for line in found.skipped] == ["fine-tune"]
    assert {point.attacker for point in found.points if point.start == "public:itself"} == {
        "linear-probe"
    }
    assert (*faults_of(found), *start_faults(found, subjects)) == ()
    assert Subjects.from_json(subjects.to_json()) == subjects
