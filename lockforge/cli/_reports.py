"""What `lockforge report` prints: one report again, or two side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from lockforge.cli._console import answer, console_of, figures, summary, table_of

if TYPE_CHECKING:
    from lockforge.records import Report
    from lockforge.report.comparison import Comparison


def one(report: "Report", html: Path | None, *, as_json: bool) -> None:
    """The figures of a report, as at the end of `protect`."""
    if as_json:
        answer(summary(report) | {"page": str(html) if html else None})
        return
    console = console_of()
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        console.print(f"{name}: {audit.verdict.word}", style="bold", markup=False)
    figures(console, report)
    if html:
        console.print(f"written to {html}", markup=False, soft_wrap=True)


def two(found: "Comparison", html: Path | None, *, as_json: bool) -> None:
    """Verdicts, figures where they stand beside one another, and everything that differs."""
    from lockforge.report.comparison import said

    if as_json:
        answer(
            found.model_dump(mode="json")
            | {"comparable": found.comparable, "page": str(html) if html else None}
        )
        return
    console = console_of(132)
    for letter, name, verdict in zip("AB", found.names, found.verdicts, strict=True):
        console.print(f"{letter}  {verdict}  ({name})", style="bold", markup=False, soft_wrap=True)
    groups = [
        ("on the source", found.source),
        *((f"target {target.name}", target.figures) for target in found.targets),
    ]
    why = {f"target {target.name}": target for target in found.targets}
    for name, rows in groups:
        table = table_of(name, "A", "B", "B minus A")
        table.columns[0].no_wrap = True
        if target := why.get(name):
            table.add_row("verdict", *target.verdicts, "", style="bold")
        for row in rows:
            table.add_row(
                row.name,
                said(row.a, row.unit),
                said(row.b, row.unit),
                said(row.difference, row.unit, difference=True),
            )
        console.print()
        console.print(table)
        for line in target.refused if target else ():
            console.print(
                f"  not put side by side: {line}", style="yellow", markup=False, soft_wrap=True
            )
    for letter, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            console.print(f"only in {letter}: {', '.join(names)}", style="yellow", markup=False)
    if found.differences:
        table = table_of("what differs", "A", "B")
        for difference in found.differences:
            table.add_row(difference.where, difference.a or "-", difference.b or "-")
        console.print()
        console.print(table)
    else:
        console.print("\nnothing else differs: data, networks, audits and recipes are the same")
    if html:
        console.print(f"written to {html}", markup=False, soft_wrap=True)
