"""Start-up stays light: help, verify and the records import neither torch nor scipy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "scipy", "sklearn", "onnx", "onnxruntime")


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that one import loads in a fresh process."""
    code = f"{statement}\nimport sys\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "lockforge",
        "lockforge.cli",
        "lockforge.cli.show",
        "lockforge.verify",
        "lockforge.gate",
        "lockforge.recipe",
        "lockforge.evidence.curves",
    ],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    """`lockforge --help` and `verify` answer without the seconds that torch takes."""
    assert loaded_by(f"import {module}") == set()


def test_the_check_can_fail() -> None:
    """A module that does need torch is seen to load it."""
    assert "torch" in loaded_by("import lockforge.engine.fit")
