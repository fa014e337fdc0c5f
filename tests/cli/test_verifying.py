"""`lockforge verify` on the command line."""

from collections.abc import Callable
from pathlib import Path

from tests.small_release import make_release

Outputs = Callable[..., tuple[int, str, str]]


def test_figures_are_always_recomputed(outputs: Outputs, tmp_path: Path) -> None:
    """The check `figures` is made without an option, and there is no option about it."""
    release = make_release(tmp_path / "release", tmp_path / "key.pem")
    _, stdout, _ = outputs("verify", str(release), "--no-parity")
    assert "figures" in stdout
    code, _, stderr = outputs("verify", str(release), "--no-parity", "--recompute")
    assert code == 2
    assert "--recompute" in stderr
