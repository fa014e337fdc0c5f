"""`protect` with a network that is made elsewhere: by a function of the owner's, or by timm (a
stand-in).
"""

import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from lockforge import open_runs, protect, verify_release
from lockforge.data.roles import read_roles
from lockforge.errors import DataError
from lockforge.evidence.faults import faults_of
from lockforge.export.stage import lay_out
from lockforge.models import _python_functions as functions
from lockforge.models.read import own_place, place_of, read_given
from lockforge.pipeline import provenance
from lockforge.recipe import Recipe, read_recipe
from lockforge.records import Report, Verdict
from lockforge.runs import Runs
from tests.models.own_networks import TinyNet, stub_timm

TINY = """
threads: 1
data: {limit_per_class: 8}
embed: {samples: 8, head_steps: 2}
audit: {images_per_class: [1, 2], seeds: 2, steps: 2, probe_steps: 5, fine_tune_sgd_rates: []}
export: {parity_samples: 3}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Recipe:
    """A recipe that takes seconds; its figures mean nothing."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return read_recipe(str(tmp_path / "tiny.yaml"))


@pytest.fixture
def do(tiny: Recipe, tmp_path: Path) -> Runs:
    """A runs folder of the test's own."""
    return open_runs(tiny, tmp_path / "runs", device="cpu")


def parity(verdict: Verdict) -> str:
    """What was said of the ONNX file."""
    return next(check.value for check in verdict.checks if check.name == "parity")


def test_a_function_of_the_owners_is_audited_and_released(
    tiny: Recipe, do: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own weights are released, with an ONNX file that answers like them; whoever verifies runs
    no code of the owner's.

    In a process that was not given the function, the release is read by nobody.
    """
    monkeypatch.syspath_prepend(Path(__file__).parent / "models")
    monkeypatch.setattr(functions, "_given", {})
    roles = read_roles("digits:0-2", (), ("digits:5-7",), tiny.data, do.files)
    place = own_place("python:own_networks:tiny", None)
    artifact = protect(tiny, roles, do, own=place)
    release = lay_out(artifact, do.files, tmp_path / "release", provenance(do), None)
    report = Report.from_json((release / "report.json").read_bytes())
    assert str(report.subjects.release.architecture) == place.network
    assert report.parity.startswith("same logits")
    assert {"release", "scratch_release", "dummy"} <= {
        point.start for point in report.audits[0].points
    }
    assert faults_of(report.audits[0]) == ()
    monkeypatch.setattr(functions, "_given", {})
    verdict = verify_release(release)
    assert verdict.passed, verdict
    assert parity(verdict).startswith("not checked: a function of the owner's makes the network")
    with pytest.raises(DataError, match="never called because a file names it"):
        read_given(place_of(str(release)), roles.source, do.files)


def test_a_network_of_timms_is_released_and_rebuilt_where_timm_is(
    tiny: Recipe, do: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified with timm the logits are compared; without it that is said, and all else is
    checked.
    """
    monkeypatch.setitem(sys.modules, "timm", stub_timm())
    save_file(TinyNet(3, 1).state_dict(), tmp_path / "w")
    roles = read_roles("digits:0-2", (), (), tiny.data, do.files)
    artifact = protect(tiny, roles, do, own=own_place("timm:tiny_net", tmp_path / "w"))
    release = lay_out(artifact, do.files, tmp_path / "release", provenance(do), None)
    verdict = verify_release(release)
    assert verdict.passed, verdict
    assert parity(verdict).startswith("same logits")
    monkeypatch.setitem(sys.modules, "timm", None)
    verdict = verify_release(release)
    assert verdict.passed, verdict
    assert parity(verdict).startswith("not checked: networks named timm:NAME need timm")
