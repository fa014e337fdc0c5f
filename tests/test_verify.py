"""A release is refused for every single thing that is wrong with it, in one line, and accepted when
nothing is.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from lockforge.errors import RecipeError
from lockforge.evidence.attestation import CodeVersion, attest
from lockforge.evidence.curves import STARTS, choose, measure, verdict
from lockforge.evidence.manifest import hash_folder, write_manifest
from lockforge.evidence.parity import compare, probe_inputs
from lockforge.evidence.signing import PrivateKey, fingerprint, load_private, new_key, sign_folder
from lockforge.evidence.statistics import target_tests
from lockforge.files import Files
from lockforge.gate import gate_release
from lockforge.models.networks import build, state
from lockforge.policy import Policy
from lockforge.recipe import Recipe, template
from lockforge.records import (
    Architecture,
    AttackPoint,
    Candidate,
    Cell,
    Checkpoint,
    FileRef,
    ImageSet,
    Op,
    Report,
    Roles,
    SearchResult,
    Splits,
    Subjects,
    TransferAudit,
    Verdict,
)
from lockforge.verify import verify_release
from tests.evidence.test_certificates import issue, write

LEVELS = {
    "release": 0.6,
    "reference": 0.8,
    "scratch_release": 0.4,
    "scratch_reference": 0.4,
    "dummy": 0.4,
}
Edit = Callable[[Path], object]


def images(seed: int) -> ImageSet:
    """A data set of which only the record matters here."""
    return ImageSet(
        classes=("a", "b"),
        shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.2,),
        counts=Splits(train=8, val=2, test=10),
        pixels=FileRef(sha256=f"{seed}" * 64, size=1),
    )


def checkpoint(architecture: Architecture, weights: FileRef) -> Checkpoint:
    """A checkpoint that has 7 of 10 test images right."""
    return Checkpoint(
        architecture=architecture,
        weights=weights,
        trained_on=images(1).digest,
        made_by="test",
        val_accuracy=0.5,
        test_accuracy=0.7,
        test_samples=10,
        confusion=((3, 2), (1, 4)),
        history=(),
    )


def audit(target: ImageSet) -> TransferAudit:
    """An audit whose accuracies are the levels above, whatever the images; the twin is the
    release.
    """
    points = [
        AttackPoint(
            start=start,
            attacker="fine-tune",
            setting=setting,
            images_per_class=per_class,
            samples=2 * per_class,
            seed=seed,
            steps=10,
            flops=1,
            val_accuracy=LEVELS[start],
            test_accuracy=LEVELS[start],
        )
        for start in STARTS
        if start in LEVELS
        for setting in ("a", "b")
        for per_class in (1, 10)
        for seed in range(3)
    ]
    chosen = set(choose(points))
    points = [
        point if point in chosen else point.model_copy(update={"test_accuracy": None})
        for point in points
    ]
    found = measure(points, {"twin": "release"}, test_samples=10)
    return TransferAudit(
        target=target.digest,
        suite="quick",
        suite_version=1,
        classes=2,
        grid=(1, 10),
        samples=(2, 20),
        seeds=(0, 1, 2),
        validation_samples=10,
        test_samples=10,
        same_as={"twin": "release"},
        points=tuple(points),
        measures=found,
        verdict=verdict(found, "quick"),
    )


def report(recipe: Recipe, release: Checkpoint, reference: Checkpoint) -> Report:
    """A whole report with one target."""
    candidates = tuple(
        Candidate(
            cell=one.architecture.cell,
            source_rank=1,
            target_rank=8,
            rank_gap=6.0,
            judged_by=("predictor",),
        )
        for one in (release, reference)
    )
    found = SearchResult(
        scheme="TU",
        chosen=release.architecture,
        reference=reference.architecture,
        candidates=candidates,
        questions=1,
        predictor="0" * 64,
        source_cosines=(),
        used=(),
    )
    audits = (audit(images(2)),)
    return Report(
        recipe=recipe.model_dump(mode="json"),
        roles=Roles(source=images(1), targets=(images(2),), names=("source", "target-1")),
        embeddings=(),
        cosines=(),
        search=found,
        subjects=Subjects(release=release, twin=release, reference=reference),
        audits=audits,
        tests=target_tests(("target-1",), audits),
        parity="checked",
        verdict="indicative only",
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release of a small untrained network, and its key, made once: `release/`, `key`,
    `key.pub`.
    """
    place = tmp_path_factory.mktemp("made")
    folder = place / "release"
    folder.mkdir()
    files = Files(place / "files")
    cells = {op: Cell(ops=(op,) * 6) for op in (Op.conv1x1, Op.skip)}
    plans = {
        op: Architecture(
            space="nasbench201",
            cell=cell,
            stem_channels=2,
            cells_per_stage=1,
            classes=2,
            shape=(1, 8, 8),
        )
        for op, cell in cells.items()
    }
    network = build(plans[Op.conv1x1], torch.Generator().manual_seed(0)).eval()
    weights = files.put_tensors(state(network))
    (folder / "model.safetensors").write_bytes(
        save(files.get_arrays(weights), metadata={"labels": "a,b"})
    )
    export(network, folder / "model.onnx")
    whole = report(
        Recipe(),
        checkpoint(plans[Op.conv1x1], weights),
        checkpoint(plans[Op.skip], FileRef(sha256="3" * 64, size=1)),
    )
    (folder / "report.json").write_text(whole.to_json())
    (folder / "recipe.yaml").write_text(template())
    (folder / "labels.json").write_text('["a", "b"]')
    (folder / "preprocessing.json").write_text(
        '{"mean": [0.5], "std": [0.2], "scale": "to [0, 1]"}'
    )
    sign_folder(folder, new_key(place / "key"))
    return place


def export(network: torch.nn.Module, path: Path) -> None:
    """ONNX by the old exporter, which is ten times faster and good enough here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy of the release that a test may spoil."""
    shutil.copytree(made / "release", tmp_path / "release")
    return tmp_path / "release"


@pytest.fixture
def sign_again(made: Path) -> Edit:
    """Sign a spoilt release with the owner's own key: what is left to find is in the figures."""
    return lambda folder: sign_folder(folder, load_private(made / "key"))


def failing(found: Verdict) -> dict[str, str]:
    """What failed, and what was said."""
    assert all("\n" not in check.value for check in found.checks)
    return {check.name: check.value for check in found.checks if not check.passed}


def edit_report(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit report.json as a tree."""
    tree = json.loads((folder / "report.json").read_text())
    change(tree)
    (folder / "report.json").write_text(json.dumps(tree))


# Nothing wrong


def test_a_good_release_passes_every_check(release: Path, made: Path) -> None:
    """With the owner's key: manifest, signature, report, attestation, figures, weights and parity,
    all passed.
    """
    found = verify_release(release, made / "key.pub")
    assert failing(found) == {}
    assert [check.name for check in found.checks] == [
        "manifest",
        "signature",
        "report",
        "attestation",
        "figures",
        "weights",
        "parity",
    ]
    assert "same logits" in found.checks[-1].value
    assert found.passed


def test_without_a_key_the_signer_is_not_established(release: Path, made: Path) -> None:
    """The bytes are checked and the fingerprint of the key that came along is shown."""
    found = verify_release(release, parity=False)
    assert found.passed
    assert (
        found.checks[1].value
        == f"signer not established: {fingerprint(load_private(made / 'key').public_key())}"
    )
    assert found.checks[-1].value == "not checked: switched off"


def test_an_unsigned_release_says_so_and_fails_with_a_key(release: Path, made: Path) -> None:
    """`--unsigned` marks the release: its bytes can be checked, nobody's name can."""
    (release / "model.sig").unlink()
    write_manifest(release)
    found = verify_release(release, parity=False)
    assert found.passed
    assert found.checks[1].value.startswith("NOT SIGNED")
    assert "signature" in failing(verify_release(release, made / "key.pub", parity=False))


def test_without_onnxruntime_parity_is_not_checked(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an error, but said."""
    monkeypatch.setattr("lockforge.verify.find_spec", lambda _: None)
    assert "onnxruntime is not installed" in verify_release(release).checks[-1].value


# Changed bytes


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "model.onnx", "report.json", "recipe.yaml", "manifest.json", "model.sig"],
)
def test_every_sampled_byte_flip_is_caught(name: str, release: Path, made: Path) -> None:
    """Any flipped bit of any file, with the key and without."""
    data = (release / name).read_bytes()
    for position in range(0, len(data), max(1, len(data) // 12)):
        (release / name).write_bytes(
            data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]
        )
        for key in (made / "key.pub", None):
            assert {"manifest", "signature"} & failing(verify_release(release, key)).keys()


def test_what_is_changed_is_named_and_never_run(release: Path, made: Path) -> None:
    """A changed ONNX file is named in one line, and no network of this release is asked
    anything.
    """
    (release / "model.onnx").write_bytes(b"evil")
    said = failing(verify_release(release, made / "key.pub"))
    assert said["manifest"].startswith("model.onnx was changed")
    assert "the folder is not what was signed: model.onnx was changed" in said["signature"]
    assert said["parity"] == "not checked, since the manifest failed"


def test_extra_and_missing_files_and_links_are_caught(release: Path, made: Path) -> None:
    """Not listed, gone, or a link."""
    (release / "run.py").write_text("")
    assert (
        failing(verify_release(release, made / "key.pub"))["manifest"]
        == "run.py is there but not listed"
    )
    (release / "run.py").unlink()
    (release / "model.safetensors").unlink()
    assert failing(verify_release(release, made / "key.pub"))["manifest"].startswith(
        "model.safetensors is missing"
    )
    (release / "model.safetensors").symlink_to(made / "release" / "model.safetensors")
    assert failing(verify_release(release, made / "key.pub")) == {
        "manifest": "model.safetensors is a link"
    }


def test_another_signer_is_caught_with_the_key(release: Path, made: Path, tmp_path: Path) -> None:
    """Signed again by somebody else."""
    sign_folder(release, new_key(tmp_path / "other"))
    assert "another key" in failing(verify_release(release, made / "key.pub"))["signature"]


def test_no_folder_and_no_key_are_faults_of_the_command(release: Path, tmp_path: Path) -> None:
    """A folder or a key file that is not there is the command line's fault, not the release's."""
    with pytest.raises(RecipeError, match="not a folder"):
        verify_release(tmp_path / "none")
    with pytest.raises(RecipeError, match="cannot be read"):
        verify_release(release, tmp_path / "none.pub")


# Rightly signed, wrongly said


def set_measure(tree: dict[str, Any], name: str, value: Any) -> None:
    """Edit a figure of the first audit."""
    tree["audits"][0]["measures"][name]["mean"] = value


def rename_reference(tree: dict[str, Any]) -> None:
    """Say that the reference is the release, and drop its points."""
    first = tree["audits"][0]
    first["same_as"]["reference"] = "release"
    first["points"] = [point for point in first["points"] if point["start"] != "reference"]


def prune(tree: dict[str, Any], zeros: int, start: str = "release", **changes: Any) -> None:
    """Say that a network was pruned, in its first kernel."""
    layers = [{"name": "stem.0.weight", "weights": 18, "zeros": zeros}]
    said = {
        "method": "ntp",
        "fisher": True,
        "auxiliary": "given",
        "layers": layers,
        "rounds": [],
        "source_drop": 0.0,
        "dense_bytes": 9,
    }
    tree.setdefault("pruned", {})[start] = said | {"sparse_bytes": 9} | changes


def ablate(tree: dict[str, Any], **changes: Any) -> None:
    """Say that the release was an ablation too."""
    tree["subjects"]["ablations"] = [
        {"name": "magnitude", "checkpoint": tree["subjects"]["release"] | changes}
    ]


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "a better R": (
        lambda t: set_measure(t, "removed_vs_reference", 0.99),
        "figures",
        ("target-1: measures.removed_vs_reference.mean"),
    ),
    "a kinder verdict": (
        lambda t: t["audits"][0]["verdict"].update(word="delays"),
        "figures",
        "verdict.word",
    ),
    "a better accuracy": (
        lambda t: t["subjects"]["release"].update(test_accuracy=0.9),
        "figures",
        "release.test_accuracy",
    ),
    "a kinder verdict over all": (
        lambda t: t.update(verdict="protects under this suite"),
        "figures",
        "verdict: the report says",
    ),
    "another p": (
        lambda t: t["tests"][0].update(p=0.2),
        "figures",
        ("tests.0.p: the report says 0.2"),
    ),
    "a test left out": (lambda t: t.update(tests=[]), "figures", "tests: the report says []"),
    "a smaller cost": (
        lambda t: t["audits"][0]["measures"]["flops_to_90"].update(reference=1.0),
        "figures",
        ("flops_to_90.reference: the report says 1.0"),
    ),
    "another rank gap": (
        lambda t: t["search"]["candidates"][1].update(rank_gap=99.0),
        "figures",
        "search.candidates.1.rank_gap",
    ),
    "a hidden reference": (
        rename_reference,
        "figures",
        ("reference is said to be release, which is another network"),
    ),
    "an accuracy above 1": (
        lambda t: t["audits"][0]["points"][0].update(val_accuracy=1.5),
        "report",
        "val_accuracy",
    ),
    "other weights": (
        lambda t: t["subjects"]["release"]["weights"].update(sha256="4" * 64),
        "weights",
        ("other tensors than"),
    ),
    "another recipe": (
        lambda t: t["recipe"].update(seed=7),
        "report",
        ("recipe.seed: the report says 7"),
    ),
    "no recipe": (lambda t: t.update(recipe={"seed": "x"}), "report", "recipe has 1 fault"),
    "another target": (
        lambda t: t["roles"]["targets"][0].update(classes=["x", "y"]),
        "report",
        ("not of its 1 targets"),
    ),
    "no audit": (lambda t: t.update(audits=[]), "report", "0 audits"),
    "figures of another int8 file": (
        lambda t: t.update(
            int8={
                "file": {"sha256": "4" * 64, "size": 1},
                "calibration": 1,
                "accuracy": 1.0,
                "test_samples": 10,
            }
        ),
        "report",
        "model.int8.onnx is not the file",
    ),
    "an unknown field": (lambda t: t.update(note="trust me"), "report", "not a Report record"),
    "an endless image": (
        lambda t: t["subjects"]["release"]["architecture"].update(shape=[1, 10**6, 10**6]),
        "parity",
        "cannot be asked",
    ),
    "another network": (
        lambda t: t["subjects"]["release"]["architecture"].update(stem_channels=3),
        "parity",
        "do not fit",
    ),
    "zeros that are not there": (
        lambda t: prune(t, 5),
        "weights",
        ("not as sparse as the report says: stem.0.weight has 0 zeros among 18"),
    ),
    "more zeros than weights": (
        lambda t: prune(t, 20),
        "figures",
        ("stem.0.weight has 20 zeros among 18 weights"),
    ),
    "a share above 1": (lambda t: prune(t, 0, source_drop=1.5), "report", "source_drop"),
    "a pruned stranger": (
        lambda t: prune(t, 0, "ablation:other"),
        "figures",
        ("pruned.ablation:other: the report has no such network"),
    ),
    "an ablation that was not attacked": (
        ablate,
        "figures",
        ("target-1: ablation:magnitude was given but not attacked (and 1 more)"),
    ),
    "an ablation that nobody attacked again": (
        lambda t: (
            ablate(t),
            t["audits"][0]["same_as"].update({"ablation:magnitude": "reference"}),
        ),
        "figures",
        "target-1: ablation:magnitude is said to be reference, which is another network",
    ),
    "an ablation's better accuracy": (
        lambda t: ablate(t, test_accuracy=0.9),
        "figures",
        "not attacked (and 2 more)",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lie_that_is_rightly_signed_is_named(
    case: str, release: Path, made: Path, sign_again: Edit
) -> None:
    """The owner's own key does not make a figure follow from its points."""
    change, check, said = LIES[case]
    edit_report(release, change)
    sign_again(release)
    found = failing(verify_release(release, made / "key.pub"))
    assert said in found[check]
    assert not {"manifest", "signature"} & found.keys()


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 5000, '{"schema_version": 2}', "\x00"]
)
def test_no_malformed_report_gives_a_traceback(
    text: str, release: Path, made: Path, sign_again: Edit
) -> None:
    """Whatever stands in report.json: one failed check a line, and those that need it are not
    made.
    """
    (release / "report.json").write_text(text)
    sign_again(release)
    found = failing(verify_release(release, made / "key.pub"))
    assert "not a Report record" in found["report"]
    assert (
        found["figures"]
        == found["weights"]
        == found["parity"]
        == "not checked, since the report failed"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", '["b", "a"]'),
        ("labels.json", "{"),
        ("labels.json", "{}"),
        ("preprocessing.json", "[" * 9999),
        ("preprocessing.json", '{"mean": [0.5]}'),
        ("preprocessing.json", ('{"mean": [0.5], "std": [0.1]}')),
    ],
)
def test_swapped_labels_and_other_preprocessing_are_caught(
    name: str, text: str, release: Path, made: Path, sign_again: Edit
) -> None:
    """What a user feeds and reads must be what was audited: class order, mean and deviation."""
    (release / name).write_text(text)
    sign_again(release)
    assert name in failing(verify_release(release, made / "key.pub", parity=False))["report"]


@pytest.mark.parametrize("data", [b"", b"\xff" * 32, (4 << 30).to_bytes(8, "little") + b"{}"])
def test_malformed_weights_are_refused(
    data: bytes, release: Path, made: Path, sign_again: Edit
) -> None:
    """An empty file, noise, and a header that claims 4 GB."""
    (release / "model.safetensors").write_bytes(data)
    sign_again(release)
    assert "cannot be read" in failing(verify_release(release, made / "key.pub"))["weights"]


def test_a_missing_or_malformed_onnx_is_refused(
    release: Path, made: Path, sign_again: Edit
) -> None:
    """Signed noise in place of a network, then nothing in its place."""
    (release / "model.onnx").write_bytes(b"\x08noise")
    sign_again(release)
    assert failing(verify_release(release, made / "key.pub"))["parity"].startswith(
        "model.onnx cannot be run"
    )
    (release / "model.onnx").unlink()
    sign_again(release)
    assert "model.onnx is missing" in failing(verify_release(release, made / "key.pub"))["parity"]


def test_another_network_in_onnx_is_caught(release: Path, made: Path, sign_again: Edit) -> None:
    """The same architecture with other weights answers otherwise."""
    architecture = Report.from_json(
        (release / "report.json").read_bytes()
    ).subjects.release.architecture
    export(build(architecture, torch.Generator().manual_seed(1)).eval(), release / "model.onnx")
    sign_again(release)
    assert (
        "is another network than the weights"
        in failing(verify_release(release, made / "key.pub"))["parity"]
    )


# The attestation


def claim(folder: Path, key: PrivateKey) -> None:
    """Attest what lies there, and sign it all."""
    whole = Report.from_json((folder / "report.json").read_bytes())
    code = CodeVersion(lockforge="0.1.0", commit="abc")
    (folder / "attestation.json").write_bytes(
        attest(whole, hash_folder(folder), code, "2026-11-21T12:00:00Z", key)
    )
    sign_folder(folder, key)


def test_an_attestation_is_held_against_bytes_and_report(
    release: Path, made: Path, sign_again: Edit
) -> None:
    """Right as it is; left behind by an edited report or by other weights it is named; without one
    the answer says so.
    """
    assert "NOT ATTESTED" in next(
        check.value
        for check in verify_release(release, parity=False).checks
        if check.name == "attestation"
    )
    claim(release, load_private(made / "key"))
    found = verify_release(release, made / "key.pub", parity=False)
    assert found.passed, failing(found)
    edit_report(release, lambda tree: tree.update(parity="not checked"))
    sign_again(release)
    assert (
        "attestation.report is not what the report says"
        in failing(verify_release(release, made / "key.pub", parity=False))["attestation"]
    )


def test_an_attestation_by_another_key_is_refused(
    release: Path, made: Path, sign_again: Edit, tmp_path: Path
) -> None:
    """Whoever signs the release must have made the claim; an unsigned release can claim nothing."""
    claim(release, new_key(tmp_path / "other"))
    sign_again(release)
    assert (
        "no signature by the key"
        in failing(verify_release(release, made / "key.pub", parity=False))["attestation"]
    )
    (release / "model.sig").unlink()
    write_manifest(release)
    assert not verify_release(release, parity=False).passed


def test_a_certificate_names_the_signer(release: Path, tmp_path: Path) -> None:
    """By the root alone: signature and attestation pass and the name is said; by another root the
    signature fails.
    """
    root = issue("root", ca=True)
    leaf, key = issue("the owner", root)
    whole = Report.from_json((release / "report.json").read_bytes())
    code = CodeVersion(lockforge="0.1.0", commit="abc")
    (release / "attestation.json").write_bytes(
        attest(whole, hash_folder(release), code, "2026-11-21T12:00:00Z", key)
    )
    sign_folder(release, key, (leaf,))
    found = verify_release(release, trusted=write(tmp_path / "root", root[0]), parity=False)
    assert found.passed, failing(found)
    assert next(check.value for check in found.checks if check.name == "signature").startswith(
        "signed by CN=the owner, key "
    )
    assert (
        "no valid chain"
        in failing(
            verify_release(release, trusted=write(tmp_path / "root", issue("root", ca=True)[0]))
        )["signature"]
    )


# Parity as a gate asks for it, and itself


def parity_of(folder: Path, made: Path, parity: Literal["again", "stated"]) -> tuple[bool, str]:
    """What a gate says of parity in a release that is rightly signed: whether it passes, and
    why.
    """
    policy = Policy(
        attestation="optional", suites=("quick",), verdicts=("indicative only",), parity=parity
    )
    found = {check.name: check for check in gate_release(folder, policy, made / "key.pub").checks}
    assert found["signature"].passed
    assert found["signer"].passed
    return found["parity"].passed, found["parity"].value


def test_a_gate_that_asks_again_believes_the_networks_and_not_the_report(
    release: Path, made: Path, sign_again: Edit
) -> None:
    """`parity: again` passes where both answer alike, whatever the report says; an ONNX that
    answers otherwise fails it, rightly signed.
    """
    assert parity_of(release, made, "again")[0]
    assert parity_of(release, made, "stated") == (False, "checked")
    edit_report(release, lambda tree: tree.update(parity="same logits"))
    architecture = Report.from_json(
        (release / "report.json").read_bytes()
    ).subjects.release.architecture
    export(build(architecture, torch.Generator().manual_seed(1)).eval(), release / "model.onnx")
    sign_again(release)
    assert parity_of(release, made, "stated")[0]
    passed, said = parity_of(release, made, "again")
    assert not passed
    assert "is another network than the weights" in said


def test_a_gate_that_asks_again_fails_where_it_cannot_ask(
    release: Path, made: Path, sign_again: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without onnxruntime nothing was asked, and the report's word does not stand in for it."""
    edit_report(release, lambda tree: tree.update(parity="same logits"))
    sign_again(release)
    monkeypatch.setattr("lockforge.verify.find_spec", lambda _: None)
    passed, said = parity_of(release, made, "again")
    assert (passed, "onnxruntime is not installed" in said) == (False, True)


def test_parity_allows_rounding_and_nothing_else() -> None:
    """1e-5 + 1e-5 x size is the edge; other shapes and NaN are never the same; inputs follow from
    the seed.
    """
    ours = np.array([[100.0, 0.0]], dtype=np.float32)
    assert compare(ours, ours + np.array([[9e-4, 9e-6]], dtype=np.float32)).same
    assert not compare(ours, ours + np.array([[0.0, 1.2e-5]], dtype=np.float32)).same
    assert not compare(ours, ours + np.array([[1.2e-3, 0.0]], dtype=np.float32)).same
    assert not compare(ours, ours[:, :1]).same
    assert not compare(ours, np.full_like(ours, np.nan)).same
    assert np.array_equal(probe_inputs(1, 2, (1, 4, 4)), probe_inputs(1, 2, (1, 4, 4)))
    assert not np.array_equal(probe_inputs(1, 2, (1, 4, 4)), probe_inputs(2, 2, (1, 4, 4)))
