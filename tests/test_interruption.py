"""A run that is killed or stopped goes on where it was, and ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.kill_resume import TINY

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_moments_the_same_bytes_come_out() -> None:
    """In every stage, while reading, and while the release is laid out; nothing half done ever
    looks finished.

    In a process of its own, which has no threads when it forks.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.kill_resume", "--kills", "20"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert done.returncode == 0, done.stderr[-2000:]
    assert found["differences"] == 0
    assert found["kills"] >= 20
    assert len(found["by_stage"]) == 7


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    """What was finished is kept, nothing is exported; a second process on the same question was
    turned away meanwhile.
    """
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY.replace("steps: 3, probe", "steps: 3000, probe"))
    command = [
        sys.executable,
        "-m",
        "lockforge",
        "protect",
        "--recipe",
        str(recipe),
        "--unsigned",
        "--runs",
        "runs",
        "--out",
        "out",
    ]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here
    ) as run:
        waited = time.monotonic()
        while (
            not list((tmp_path / "runs").glob("audit_transfer/*.partial/inputs.json"))
            and time.monotonic() - waited < 120
        ):
            time.sleep(0.05)
        second = subprocess.run(
            [*command, "--out", "other"],
            cwd=tmp_path,
            env=here,
            capture_output=True,
            text=True,
            check=False,
        )
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert second.returncode == 4, second.stderr
    assert "is in use by another process" in second.stderr
    assert run.returncode == 130, said
    assert "run the same command again" in said
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "runs").glob("train_cell/*/result.json"))
