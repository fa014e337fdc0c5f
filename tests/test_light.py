"""Start-up stays light: help, verify and the records import neither torch nor scipy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_release import make_release

HEAVY = ("torch", "scipy", "sklearn", "onnx", "onnxruntime")
NOT_NEEDED = (
    *HEAVY,
    "numpy",
    "rich",
    "cryptography.x509",
    "sigstore",
    "model_signing",
)  # half of the time that a gate then takes


def loaded_by(statement: str, heavy: tuple[str, ...] = HEAVY) -> set[str]:
    """The heavy packages that one import loads in a fresh process."""
    code = (
        f"{statement}\nimport sys\nprint(' '.join(name for name in {heavy!r} if name in "
        "sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return set(said.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "lockforge",
        "lockforge.cli",
        "lockforge.cli._console",
        "lockforge.verify",
        "lockforge.gate",
        "lockforge.recipe",
        "lockforge.evidence.curves",
    ],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    """`lockforge --help` and `verify` answer without the seconds that torch takes."""
    assert loaded_by(f"import {module}") == set()


def test_a_gate_opens_what_it_needs_and_no_more(tmp_path: Path) -> None:
    """A release signed with a key is judged, and the failing check shown, without numpy, rich,
    certificates and Sigstore.
    """
    make_release(tmp_path / "release", tmp_path / "key")
    words = [
        "gate",
        str(tmp_path / "release"),
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--key",
        str(tmp_path / "key.pub"),
    ]
    (tmp_path / "policy.yaml").write_text("attestation: optional\nmax_age_days: 1\n")
    run = (
        "from typer.main import get_command\nfrom lockforge.cli import "
        f"app\nget_command(app)({words!r}, standalone_mode=False)"
    )
    assert loaded_by(run, NOT_NEEDED) == set()


def test_the_check_can_fail() -> None:
    """A module that does need torch is seen to load it."""
    assert "torch" in loaded_by("import lockforge.engine.fit")
