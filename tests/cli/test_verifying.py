"""`lockforge verify` on the command line."""

from collections.abc import Callable
from pathlib import Path

from tests.small_release import make_release

Outputs = Callable[..., tuple[int, str, str]]


def test_figures_are_recomputed_whether_that_is_asked_for_or_not(
    outputs: Outputs, tmp_path: Path
) -> None:
    """`--recompute` is a word for what is always done: the same checks, the same answer."""
    release = make_release(tmp_path / "release", tmp_path / "key.pem")
    said = [
        outputs("verify", str(release), "--no-parity", *more) for more in ((), ("--recompute",))
    ]
    assert said[0] == said[1]
    assert "figures" in said[0][1]
