"""The docs are true: pages written from the code are current, every command has a page, README's
commands exist, links lead somewhere.
"""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from lockforge.cli import app
from tests.write_docs import cli_page, gate_page, recipes_page

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("name", "page"), [("cli.md", cli_page), ("recipes.md", recipes_page), ("gate.md", gate_page)]
)
def test_a_generated_page_is_current(name: str, page: object) -> None:
    """`python -m tests.write_docs` writes what the code says today."""
    assert callable(page)
    assert (ROOT / "docs" / name).read_text() == page()


def test_every_command_has_a_page_or_a_line() -> None:
    """A verb has a page of its own; the small commands are explained with what they serve."""
    text = "".join(page.read_text() for page in PAGES if page.name != "cli.md")
    # an app with several commands is a group
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"lockforge {name}" in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_has_two_commands_that_set_up_everything_and_ci_runs_the_second() -> None:
    """What CI passes is what the README promises."""
    block = re.search(r"## Start.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    first, second = block.group(1).strip().splitlines()
    setup = "python -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[cpu,dev]'"
    assert first == f"{setup} && .venv/bin/lockforge protect"
    assert second == f"{setup} && .venv/bin/python -m pytest"
    assert second in (ROOT / ".ci" / "run").read_text()


def test_no_page_names_a_machine() -> None:
    """No absolute paths of anyone's machine in what people read."""
    for page in PAGES:
        assert not re.search(r"(?<![\w./])/(work|home|root|tmp|Users)/", page.read_text()), page
