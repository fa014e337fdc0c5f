"""What a person sees of the weight lock: the rounds of a pruning, and what each part of the lock
does.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lockforge.cli._console import console_of, estimate, table_of

if TYPE_CHECKING:
    from lockforge.records import PruneRound, Pruning, Report, Start, Subjects, TransferAudit


def print_rounds(rounds: Sequence["PruneRound"]) -> None:
    """The first and the last of the rounds, and of the recovery."""
    table = table_of(
        "round",
        "|W-Z|/|W|",
        "zeros",
        "source loss",
        "auxiliary loss",
        "between / within",
        "source, val",
    )
    phases = [one.phase for one in rounds]
    ends = {
        at
        for at, phase in enumerate(phases)
        if at in (0, len(rounds) - 1) or phase != phases[at - 1] or phase != phases[at + 1]
    }
    for at in sorted(ends):
        one = rounds[at]
        scatter = (
            "-"
            if one.between is None or one.within is None
            else f"{one.between:.3g} / {one.within:.3g}"
        )
        table.add_row(
            f"{at + 1}, {one.phase}" if one.phase == "recovery" else str(at + 1),
            "-" if one.phase == "recovery" else f"{one.primal:.3f}",
            f"{one.sparsity:.1%}",
            f"{one.source_loss:.3f}",
            "-" if one.auxiliary_loss is None else f"{one.auxiliary_loss:.3f}",
            scatter,
            f"{one.val_accuracy:.3f}",
        )
    console_of(96).print(table)


def print_lock(report: "Report") -> None:
    """How the release was pruned, and what each part of the lock does, target by target; nothing
    where nothing was pruned.
    """
    from lockforge.report.lock_rows import told

    if locked := report.pruned.get("release"):
        console_of().print(
            " ".join(told(locked, report.roles.auxiliary_names)) + "\n", markup=False
        )
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        print_parts(name, report.subjects, report.pruned, audit)


def print_parts(
    name: str, subjects: "Subjects", how: Mapping["Start", "Pruning"], audit: "TransferAudit"
) -> None:
    """What each part of the lock does, a line each; nothing where nothing was pruned."""
    from lockforge.report.lock_rows import PAPERS_ATTACKER, lock_rows

    rows = lock_rows(subjects, how, audit)
    if not rows:
        return
    papers = rows[0].attacker == PAPERS_ATTACKER
    columns = (
        "own task",
        "zeros",
        f"SLC-AUC, {PAPERS_ATTACKER if papers else 'worst'}",
        "advantage removed",
        "thief, all images",
    )
    table = table_of(f"parts of the lock, {name}", *columns)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(
            row.words,
            f"{row.source:.3f}",
            "-" if row.sparsity is None else f"{row.sparsity:.1%}",
            estimate(row.area),
            "-" if row.removed is None else estimate(row.removed),
            "-" if row.reached.mean is None else f"{row.reached.mean:.3f}",
            style="bold" if row.start == "release" else "",
        )
    console = console_of(132)
    console.print(table)
    console.print()
