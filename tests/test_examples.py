"""The examples run: the commands of the CI files pass a release that protects and stop one that
does not.
"""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lockforge.records import Start
from tests.small_release import LEVELS, audit, images, make_release

EXAMPLES = Path(__file__).parent.parent / "examples"


def commands(name: str) -> list[str]:
    """The lines of a CI file that call lockforge, in order."""
    tree = yaml.safe_load((EXAMPLES / name).read_text())
    return [
        line.strip()
        for text in scripts(tree)
        for line in text.splitlines()
        if line.strip().startswith("lockforge ")
    ]


def scripts(tree: Any) -> list[str]:
    """What a CI file has its machine run, wherever it stands."""
    if isinstance(tree, list):
        return [text for one in tree for text in scripts(one)]
    if not isinstance(tree, dict):
        return []
    own = [tree["run"]] if isinstance(tree.get("run"), str) else list(tree.get("script", ()))
    return own + [text for one in tree.values() for text in scripts(one)]


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of a CI file in a shell, with this Python's lockforge."""
    line = line.replace("lockforge ", f"{sys.executable} -m lockforge ", 1)
    root = str(EXAMPLES.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["sh", "-ec", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the CI files expect: the release, the policy and the signer's key."""
    make_release(tmp_path / "release", tmp_path / "key", made=datetime.now(UTC), attested=True)
    shutil.copy(EXAMPLES / "policy.yaml", tmp_path)
    (tmp_path / "key.pub").rename(tmp_path / "owner.pub")
    return tmp_path


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_commands_of_a_ci_file_pass_a_release_that_protects_and_stop_one_that_does_not(
    name: str, repository: Path
) -> None:
    """Exit 0 and the files that the job hands on; exit 1 and a table that names the check."""
    lines = commands(name)
    assert [line.split()[1] for line in lines] == ["verify", "gate"]
    for line in lines:
        done = run(line, repository)
        assert done.returncode == 0, done.stdout + done.stderr
    assert 'failures="0"' in (repository / "gate.xml").read_text()
    if name.startswith("github"):
        assert "passes the gate" in (repository / "summary.md").read_text()
        assert '"results": []' in (repository / "gate.sarif").read_text()
    shutil.rmtree(repository / "release")
    unlocked: dict[Start, int] = {**LEVELS, "release": 80}
    make_release(
        repository / "release",
        repository / "key",
        (audit(images(2), levels=unlocked),),
        made=datetime.now(UTC),
        attested=True,
    )
    done = run(lines[-1], repository)
    assert done.returncode == 1
    assert "target-1: advantage removed" in done.stdout
    assert 'failures="0"' not in (repository / "gate.xml").read_text()


def test_the_example_policy_asks_for_an_attestation(repository: Path) -> None:
    """The same release without its claim, rightly signed, is stopped by that check alone."""
    shutil.rmtree(repository / "release")
    make_release(repository / "release", repository / "key", made=datetime.now(UTC))
    done = run(commands("gitlab-ci.yml")[-1], repository)
    assert (done.returncode, done.stdout.count("attestation.json is missing")) == (1, 1)
    assert "NOT PASSED: 1 of" in done.stdout


def test_a_faulty_policy_is_no_verdict(repository: Path) -> None:
    """Exit 2, every fault, and no file that could be taken for one."""
    (repository / "policy.yaml").write_text("seeds_at_least: many\nparty: stated\n")
    done = run(
        "lockforge gate release --policy policy.yaml --key owner.pub --junit gate.xml", repository
    )
    assert done.returncode == 2
    assert "seeds_at_least" in done.stderr
    assert "party" in done.stderr
    assert not (repository / "gate.xml").exists()
