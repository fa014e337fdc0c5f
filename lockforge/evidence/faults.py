"""What makes a stored audit impossible: figures that do not follow from its points, and points that no honest audit can have.

Everything is worked out again from the raw points. That proves that the figures are the points' own, not that the points are true: only
fitting some of them again could.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import SCRATCH, choose, measure, name_of, verdict
from lockforge.records import Checkpoint, Start, Subjects, TransferAudit

TOLERANCE = 1e-9  # on recomputed figures; another machine's logarithm may differ in the last bit
_WHOLE = 0.01  # images: how far accuracy x images may lie from a whole number, for accuracies once held in float32

HEAD_ONLY = "linear-probe"


def faults_of(audit: TransferAudit) -> tuple[str, ...]:
    """Every fault of an audit, one line each; none for an audit whose every figure follows from its points."""
    outside = tuple(_outside(audit))
    if outside:
        return outside
    faults = [*_uncountable(audit), *_wrong_grid(audit), *_unequal_rules(audit), *_tested_by_choice(audit)]
    try:
        found = measure(audit.points, audit.same_as)
    except IntegrityError as error:
        return tuple(dict.fromkeys((*faults, error.message)))
    faults += unlike(audit.measures.model_dump(), found.model_dump(), "measures")
    faults += unlike(audit.verdict.model_dump(), verdict(found, audit.suite).model_dump(), "verdict")
    return tuple(dict.fromkeys(faults))


def _accuracies(audit: TransferAudit) -> Iterator[tuple[str, float, int]]:
    """Every accuracy with its name and the images it was taken on."""
    for point in audit.points:
        yield f"{name_of(point)}: validation accuracy", point.val_accuracy, audit.validation_samples
        if point.test_accuracy is not None:
            yield f"{name_of(point)}: test accuracy", point.test_accuracy, audit.test_samples


def _outside(audit: TransferAudit) -> Iterator[str]:
    return (f"{name} {accuracy} is not in [0, 1]" for name, accuracy, _ in _accuracies(audit) if not 0 <= accuracy <= 1)


def _uncountable(audit: TransferAudit) -> Iterator[str]:
    """Accuracies that no count of right answers among so many images can give."""
    for name, accuracy, images in _accuracies(audit):
        if abs(accuracy * images - round(accuracy * images)) > _WHOLE:
            yield f"{name} {accuracy} is not a share of {images} images"


def _wrong_grid(audit: TransferAudit) -> Iterator[str]:
    """Points on another grid or with other seeds than the audit says, start by start."""
    if len(audit.grid) != len(audit.samples) or len(set(audit.seeds)) != len(audit.seeds):
        yield f"the audit's own grid is malformed: {list(audit.grid)}, {list(audit.samples)}, seeds {list(audit.seeds)}"
        return
    wanted = {(images, samples, seed) for images, samples in zip(audit.grid, audit.samples, strict=True) for seed in audit.seeds}
    places: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    for point in audit.points:
        places[f"{point.start}:{point.attacker}"].add((point.images_per_class, point.samples, point.seed))
    for name, found in sorted(places.items()):
        if found != wanted:
            yield f"{name} is on another grid or has other seeds than the audit says"


def _unequal_rules(audit: TransferAudit) -> Iterator[str]:
    """Other settings at one place than at another, fewer settings for an empty network than for an attacker, or unequal budgets."""
    settings: dict[tuple[str, str], dict[tuple[int, int], list[str]]] = defaultdict(lambda: defaultdict(list))
    for point in audit.points:
        settings[point.start, point.attacker][point.samples, point.seed].append(point.setting)
    for (start, attacker), places in sorted(settings.items()):
        tried = {tuple(sorted(names)) for names in places.values()}
        if len(tried) > 1:
            yield f"{start}:{attacker} tries other settings at some places than at others"
        twice = sorted(name for name, count in Counter(next(iter(tried))).items() if count > 1)
        if twice:
            yield f"{start}:{attacker} tries the setting {twice[0]} twice"
    by_attacker: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for (start, attacker), places in settings.items():
        by_attacker[attacker][start] = {name for names in places.values() for name in names}
    for attacker, starts in sorted(by_attacker.items()):
        rivals = {start: names for start, names in starts.items() if start not in SCRATCH}
        if len({frozenset(names) for names in rivals.values()}) > 1:
            yield f"{attacker} tries other settings on some starts than on others: {', '.join(sorted(rivals))}"
    for of_heads in (True, False):  # a linear probe's steps do not pass through the network: it has a number of its own
        steps = sorted({point.steps for point in audit.points if (point.attacker == HEAD_ONLY) == of_heads})
        if len(steps) > 1:
            yield f"budgets differ: {', '.join(str(number) for number in steps)} steps"


def _tested_by_choice(audit: TransferAudit) -> Iterator[str]:
    """A test accuracy where validation did not choose is a choice made on test."""
    chosen = set(choose(audit.points))
    for point in audit.points:
        if point.test_accuracy is not None and point not in chosen:
            yield f"{name_of(point)} was tested although validation did not choose it"
        elif point.test_accuracy is None and point in chosen:
            yield f"{name_of(point)} was chosen by validation but has no test accuracy"


def unlike(said: Any, found: Any, where: str) -> list[str]:
    """A line for each place where what is said differs from what was found, numbers by more than `TOLERANCE`.

    >>> unlike({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, "x")
    ['x.a.1: the report says 2.0, its points give 2.5']
    """
    match said, found:
        case (bool(), _) | (_, bool()) if said is not found:
            pass
        case (float() | int(), float() | int()) if math.isclose(said, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return []
        case Mapping(), Mapping() if said.keys() == found.keys():
            return [line for key in said for line in unlike(said[key], found[key], f"{where}.{key}")]
        case (list() | tuple(), list() | tuple()) if len(said) == len(found):
            return [line for i, (a, b) in enumerate(zip(said, found, strict=True)) for line in unlike(a, b, f"{where}.{i}")]
        case _ if said == found:
            return []
    return [f"{where}: the report says {_short(said)}, its points give {_short(found)}"]


def start_faults(audit: TransferAudit, subjects: Subjects) -> tuple[str, ...]:
    """Starts that stand for others although they are not the same network.

    Trained starts are the same when weights and architecture are; empty ones when their architecture is, whatever its head, since each
    start gets a head for the target's classes; the dummy is always on its own.
    """
    trained = {"release": subjects.release, "twin": subjects.twin, "reference": subjects.reference}
    empty = {"scratch_release": subjects.release, "scratch_reference": subjects.reference}

    def identity(start: Start) -> tuple[str, str] | None:
        if start not in trained and start not in empty:
            return None
        checkpoint = trained[start] if start in trained else empty[start]
        headless = checkpoint.architecture.model_copy(update={"classes": audit.classes})
        return headless.digest, checkpoint.weights.sha256 if start in trained else "empty"

    def unequal(start: Start, other: Start) -> bool:
        return identity(start) is None or identity(start) != identity(other)

    pairs = sorted(audit.same_as.items())
    return tuple(f"{start} is said to be {other}, which is another network" for start, other in pairs if unequal(start, other))


def checkpoint_faults(checkpoint: Checkpoint, name: str) -> tuple[str, ...]:
    """Where a checkpoint's accuracy and counts do not follow from its confusion matrix (rows: true class, columns: answer)."""
    rows, classes = checkpoint.confusion, checkpoint.architecture.classes
    if len(rows) != classes or any(len(row) != classes for row in rows) or any(count < 0 for row in rows for count in row):
        return (f"{name}: the confusion matrix is not {classes} x {classes} counts",)
    total, right = sum(map(sum, rows)), sum(row[i] for i, row in enumerate(rows))
    faults = unlike(checkpoint.test_samples, total, f"{name}.test_samples")
    return (*faults, *unlike(checkpoint.test_accuracy, right / total if total else 0.0, f"{name}.test_accuracy"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_of(faults: Sequence[str]) -> str:
    """The first fault and how many more there are, on one line."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return "".join(faults[:1]) + more
