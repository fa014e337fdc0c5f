"""An owner's own network through `protect`: nothing searched, nothing trained, everything audited,
a release that verifies.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lockforge import open_runs, protect, verify_release
from lockforge.data.roles import read_roles
from lockforge.export.stage import lay_out
from lockforge.models._named import to_published
from lockforge.models.networks import build, load, state
from lockforge.models.read import own_place
from lockforge.pipeline import provenance
from lockforge.randomness import torch_generator
from lockforge.recipe import Recipe, read_recipe
from lockforge.records import HEADLESS, NamedArchitecture, Report
from lockforge.runs import Runs

TINY = """
threads: 1
data: {limit_per_class: 16}
embed: {samples: 16, head_steps: 2}
audit: {images_per_class: [1, 2], seeds: 2, steps: 2, probe_steps: 5, fine_tune_sgd_rates: []}
export: {parity_samples: 3, onnx: false}
"""
NAME = "resnet20-cifar"
ARCHITECTURE = NamedArchitecture(name=NAME, classes=3, shape=(1, 8, 8))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe that takes seconds; its figures mean nothing."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return read_recipe(str(path))


@pytest.fixture
def do(tiny: Recipe, tmp_path: Path) -> Runs:
    """A runs folder of the test's own."""
    return open_runs(tiny, tmp_path / "runs", device="cpu")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """An untrained ResNet-20 for three classes of grey images."""
    return to_published(NAME, state(build(ARCHITECTURE, torch_generator(0))))


def test_an_own_network_is_reference_and_twin_and_its_release_verifies(
    tiny: Recipe, do: Runs, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """No search, no training: only embed, adopt, audit and export are asked; every figure follows
    from the points.
    """
    save_file(weights, tmp_path / "w.safetensors")
    roles = read_roles("digits:0-2", (), ("digits:5-7",), tiny.data, do.files)
    artifact = protect(tiny, roles, do, own=own_place(NAME, tmp_path / "w.safetensors"))
    assert set(do.keys) == {"embed_task", "adopt_model", "audit_transfer", "export_artifact"}
    release = lay_out(artifact, do.files, tmp_path / "release", provenance(do), None)
    report = Report.from_json((release / "report.json").read_bytes())
    subjects = report.subjects
    assert report.search is None
    assert subjects.release == subjects.twin == subjects.reference
    assert subjects.reference.architecture == ARCHITECTURE
    kept = to_published(NAME, do.files.get_tensors(subjects.reference.weights))
    assert all(torch.equal(kept[key], weights[key]) for key in weights)
    verdict = verify_release(release)
    assert verdict.passed, [check for check in verdict.checks if not check.passed]
    page = (release / "report.html").read_text()
    assert "The network was given, not searched." in page
    assert "no lock was put on it" in page
    assert "came without a head" not in page


def test_an_encoder_gets_a_head_and_the_report_says_so(
    tiny: Recipe, do: Runs, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Under MoCo's names; the body stays bit for bit what it was, and its head reads digits far
    better than chance.
    """
    body = {
        f"module.encoder_q.{key}": tensor
        for key, tensor in weights.items()
        if not key.startswith("linear.")
    }
    torch.save({"state_dict": body}, tmp_path / "moco.pth.tar")
    roles = read_roles("digits:0-2", (), (), tiny.data, do.files)
    artifact = protect(tiny, roles, do, own=own_place(f"{NAME}={tmp_path / 'moco.pth.tar'}", None))
    report = Report.from_json(do.files.get(artifact.report))
    reference = report.subjects.reference
    assert reference.made_by == HEADLESS
    assert reference.test_accuracy > 0.6
    tensors = to_published(NAME, state(load(ARCHITECTURE, do.files.get_tensors(reference.weights))))
    assert all(
        torch.equal(tensors[key], tensor)
        for key, tensor in weights.items()
        if not key.startswith("linear.")
    )
    assert b"The network came without a head." in do.files.get(artifact.files["report.html"])
