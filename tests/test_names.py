"""One word, seven places: folder, command, recipe key, report section, test folder, docs page,
commit prefix.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from lockforge.cli import app
from lockforge.recipe import Recipe

ROOT = Path(__file__).parent.parent
STAGES = ("embed", "search", "train", "prune", "audit", "export")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_word_in_seven_places(stage: str) -> None:
    """Whoever knows the word finds the code, the command, the setting, the figures, the tests, the
    docs and the history.
    """
    assert (ROOT / "lockforge" / stage / "stage.py").is_file()
    # an app with several commands is a group
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    assert stage in Recipe.model_fields
    assert f'id="{stage}"' in (ROOT / "lockforge" / "report" / "report.html.j2").read_text()
    assert list((ROOT / "tests" / stage).glob("test_*.py"))
    assert (ROOT / "docs" / f"{stage}.md").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_commits_begin_with_its_word(stage: str) -> None:
    """The seventh place, where the history is at hand."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git history here")
    shallow = subprocess.run(
        [git, "-C", ROOT, "rev-parse", "--is-shallow-repository"],
        capture_output=True,
        text=True,
        check=True,
    )
    if shallow.stdout.strip() == "true":
        pytest.skip("the history was cut off by a shallow clone")
    log = subprocess.run(
        [git, "-C", ROOT, "log", "--format=%s"], capture_output=True, text=True, check=True
    )
    assert any(line.startswith(f"{stage}: ") for line in log.stdout.splitlines())
