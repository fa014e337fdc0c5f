"""Every error class is used, and every message comes with a way out."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockforge.errors import LockForgeError

PACKAGE = Path(__file__).parent.parent / "lockforge"
KINDS = {kind.__name__ for kind in LockForgeError.__subclasses__()}


def made() -> Iterator[tuple[Path, ast.Call]]:
    """Every place in the package where one of our errors is made."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in KINDS
            ):
                yield path, node


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_error_class_is_raised_somewhere(kind: str) -> None:
    """A class that nothing raises is a promise that nothing keeps."""
    assert any(isinstance(node.func, ast.Name) and node.func.id == kind for _, node in made())


def without_hint(kinds: set[str]) -> list[str]:
    """The places that make an error of these kinds and give no way out."""
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path, node in made()
        if isinstance(node.func, ast.Name)
        and node.func.id in kinds
        and "hint" not in {keyword.arg for keyword in node.keywords}
    ]


def test_a_message_names_a_value_and_a_way_out() -> None:
    """Each error comes with a hint, except that a damaged or forged file has only one way out: do
    not use it.
    """
    assert without_hint(KINDS - {"IntegrityError"}) == []
