"""What each part of the lock does, row by row, and how a network was pruned, in words; for the
page, the comparison and the terminal.

A row's figures are those of the audit's measures; nothing is worked out but means over seeds of
what a thief reaches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lockforge.evidence.curves import ABLATION, ARCHITECTURE_LOCK
from lockforge.evidence.statistics import t_interval
from lockforge.records import (
    AblationMeasure,
    Checkpoint,
    Estimate,
    LearningCurve,
    Pruning,
    Start,
    Subjects,
    TransferAudit,
)

PAPERS_ATTACKER = (
    "frozen-mask"  # the attacker of the published evaluation of non-transferable pruning
)
PARTS = {
    ARCHITECTURE_LOCK: "architecture lock alone (twin)",
    "weight-lock": "weight lock alone (reference, pruned)",
    "magnitude": "magnitude pruning instead",
    "no-fisher": "without the Fisher term",
}
GENERATED = (
    "No auxiliary set was given: what stood in for a thief's task are images of the source in "
    "other styles. "
    "That is weaker than a set that is given, since the lock has learnt nothing of any real "
    "other task."
)


@dataclass(frozen=True)
class LockRow:
    """One network of the lock's parts: what it keeps on the source and what a thief gets out of it.

    `source` is its accuracy on the source's test split; `sparsity` the share of zeros, None where
    nothing was pruned; `area` the SLC-AUC (natural log) of `attacker`; `reached` the thief's
    accuracy with all images; `beyond` the mean accuracy by which it puts him above where the
    release does. None: the row is what it would be held against.
    """

    start: Start
    words: str
    source: float
    sparsity: float | None
    attacker: str
    area: Estimate
    removed: Estimate | None
    reached: Estimate
    beyond: Estimate | None


def lock_rows(
    subjects: Subjects, pruned: Mapping[Start, Pruning], audit: TransferAudit
) -> tuple[LockRow, ...]:
    """Reference, each part of the lock alone, each that stands in for one, and the release; none
    where nothing was pruned.

    Where release and reference have one architecture there is no architecture lock, and so no row
    for it.
    """
    found = {row.name: row for row in audit.measures.ablations}
    if not found:
        return ()
    curves = {envelope.name: envelope.curve for envelope in audit.measures.envelopes}
    own = _same_network(subjects.twin, subjects.reference)
    checkpoints = {f"{ABLATION}{one.name}": one.checkpoint for one in subjects.ablations} | {
        "twin": subjects.twin
    }
    names = [
        name
        for name in (*PARTS, *sorted(found.keys() - PARTS.keys()))
        if name in found and not (own and name == ARCHITECTURE_LOCK)
    ]
    measures = audit.measures
    ahead = t_interval(
        [
            worth - kept
            for worth, kept in zip(measures.worth.per_seed, measures.kept.per_seed, strict=True)
        ]
    )

    def row(
        start: Start,
        words: str,
        of: Checkpoint,
        curve: LearningCurve,
        removed: Estimate | None,
        beyond: Estimate | None,
    ) -> LockRow:
        attacker, area = _area(audit, start)
        return LockRow(
            start=start,
            words=words,
            source=of.test_accuracy,
            sparsity=pruned[start].sparsity if start in pruned else None,
            attacker=attacker,
            area=area,
            removed=removed,
            reached=t_interval(curve.accuracy[-1]),
            beyond=beyond,
        )

    def part(one: AblationMeasure) -> LockRow:
        words = PARTS.get(one.name, one.name)
        return row(
            one.start,
            words,
            checkpoints[one.start],
            one.curve,
            one.removed_vs_reference,
            one.beyond_release,
        )

    lock = "release (weight lock)" if own else "release (both locks)"
    return (
        row(
            "reference", "reference (no lock)", subjects.reference, curves["reference"], None, ahead
        ),
        *(part(found[name]) for name in names),
        row(
            "release",
            lock,
            subjects.release,
            curves["release"],
            measures.removed_vs_reference,
            None,
        ),
    )


def _same_network(a: Checkpoint, b: Checkpoint) -> bool:
    return (a.architecture, a.weights) == (b.architecture, b.weights)


def _area(audit: TransferAudit, start: Start) -> tuple[str, Estimate]:
    """The SLC-AUC of the paper's attacker where he is there, else the largest, and whose it is."""
    areas = {row.attacker: row.area for row in audit.measures.slc if row.start == start}
    if PAPERS_ATTACKER in areas:
        return PAPERS_ATTACKER, areas[PAPERS_ATTACKER]
    return min(areas.items(), key=lambda item: (-(item[1].mean or 0.0), item[0]))


def told(pruning: Pruning, auxiliary: tuple[str, ...]) -> tuple[str, ...]:
    """How a network was pruned, a sentence each: method, stand-in, what it cost, how large the file
    is.

    Args: auxiliary: the names of the sets that were given.
    """
    zeros = (
        f"{100 * pruning.sparsity:.1f} % of the weights of {len(pruning.layers)} layers are zero"
    )
    if pruning.method == "ntp":
        term = "with the Fisher term" if pruning.fisher else "without the Fisher term"
        method = (
            f"Non-transferable pruning, {term}: {zeros}; the others were trained to keep the "
            "source and to fail on another task."
        )
    else:
        method = f"Magnitude pruning: {zeros}, the smallest ones."
    stood = {
        "given": "In the place of a thief's task stood "
        f"{', '.join(auxiliary) or 'the auxiliary sets'}.",
        "generated": GENERATED,
        "none": "Nothing stood in for a thief's task.",
    }[pruning.auxiliary]
    points = 100 * pruning.source_drop
    cost = (
        f"cost {points:.1f} points of accuracy"
        if points >= 0
        else f"gained {-points:.1f} points of accuracy"
    )
    dense, sparse = size_words(pruning.dense_bytes), size_words(pruning.sparse_bytes)
    share = (
        f", {100 * pruning.sparse_bytes / pruning.dense_bytes:.0f} %" if pruning.dense_bytes else ""
    )
    return (
        method,
        stood,
        f"On the source's validation split it {cost}.",
        (
            f"The weights take {dense} with the zeros written out and {sparse} in the compact "
            f"form{share}."
        ),
    )


def size_words(count: int) -> str:
    """Bytes as a person reads them.

    >>> size_words(512), size_words(57_600), size_words(9 * 2**20)
    ('512 B', '56.2 KiB', '9.0 MiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
