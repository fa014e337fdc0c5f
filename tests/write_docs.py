"""Write docs/cli.md, docs/recipes.md and the keys in docs/gate.md from the code: `python -m
tests.write_docs`.

`test_docs` holds them to it.
"""

from pathlib import Path
from typing import Any

import typer
import yaml
from typer.main import get_command

from lockforge.cli import app
from lockforge.policy import Policy
from lockforge.recipe import explain, parse_yaml, recipe_text, shipped_recipes
from lockforge.records import Record

DOCS = Path(__file__).parent.parent / "docs"
WIDTH = 100


def commands(command: Any, path: tuple[str, ...] = ("lockforge",)) -> list[tuple[str, str]]:
    """Each command's name and help, depth first."""
    context = typer.Context(
        command, info_name=" ".join(path), terminal_width=WIDTH, max_content_width=WIDTH
    )
    rows = [(" ".join(path), command.get_help(context))]
    for name, child in getattr(command, "commands", {}).items():
        rows += commands(child, (*path, name))
    return rows


def cli_page() -> str:
    """docs/cli.md: what every `--help` says."""
    parts = [
        (
            "# The command line\n\nWritten from the code by `python -m tests.write_docs`; the same "
            "words as `--help`.\n"
        )
    ]
    parts += [f"## `{name}`\n\n```text\n{text}\n```\n" for name, text in commands(get_command(app))]
    parts.append(
        "## Exit codes\n\n0 done · 1 the gate says no · 2 recipe, policy or command line · 3 "
        "data · "
        "4 resource (no GPU, memory, disk, permission, extra) · 5 integrity · 6 outcome · 70 a "
        "bug · "
        "130 interrupted (run the same command again to go on)\n"
    )
    return "\n".join(parts)


def recipes_page() -> str:
    """docs/recipes.md: every key, its default and its meaning; every shipped recipe."""
    lines = [
        "# Recipes",
        "",
        (
            "A recipe is YAML that holds everything that decides the outcome; data, weights, keys, "
            "device and folders are arguments"
        ),
        (
            "instead. It names values, never code. Unknown keys, wrong types and duplicate keys "
            "are "
            "errors, all listed at once."
        ),
        (
            "`lockforge init` writes a file with every key; `--set search.steps=80` overrides one. "
            "What a recipe does not name keeps"
        ),
        "the default below.",
        "",
        "| recipe | what its first line says |",
        "| --- | --- |",
    ]
    for name in shipped_recipes():
        text = recipe_text(name)
        parse_yaml(text, name)
        lines.append(f"| `{name}` | {text.splitlines()[0].removeprefix('# ')} |")
    lines += ["", "| key | default | meaning |", "| --- | --- | --- |"]
    for key, meaning, default in explain():
        shown = "" if isinstance(default, Record) else f"`{plain(default)}`"
        lines.append(
            f"| {'**' + key + '**' if isinstance(default, Record) else f'`{key}`'} | {shown} | "
            f"{meaning} |"
        )
    return "\n".join([*lines, ""])


def gate_page() -> str:
    """docs/gate.md as it is, with every key of a policy, its default and its meaning in the
    table.
    """
    lines = (DOCS / "gate.md").read_text().splitlines()
    start = lines.index("| --- | --- | --- |") + 1
    end = start
    while lines[end].startswith("|"):
        end += 1
    rows = [
        f"| `{key}` | `{plain(default)}` | {meaning} |" for key, meaning, default in explain(Policy)
    ]
    return "\n".join([*lines[:start], *rows, *lines[end:], ""])


def plain(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000
    )
    return text.removesuffix("\n...\n").strip()


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page())
    (DOCS / "recipes.md").write_text(recipes_page())
    (DOCS / "gate.md").write_text(gate_page())
