"""What makes a stored audit impossible: figures that do not follow from its points, and points that
no honest audit can have.

Everything is worked out again from the raw points. That proves that the figures are the points'
own, not that the points are true: only fitting some of them again could.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import (
    ABLATION,
    PUBLIC,
    SCRATCH,
    STARTS,
    choose,
    measure,
    name_of,
    rises,
    verdict,
)
from lockforge.records import (
    AttackPoint,
    Checkpoint,
    Estimate,
    PublicWeights,
    Start,
    Subjects,
    TransferAudit,
)

TOLERANCE = 1e-9  # on recomputed figures; another machine's logarithm may differ in the last bit
# images: how far accuracy x images may lie from a whole number, for accuracies once held in float32
_WHOLE = 0.01

HEAD_ONLY = "linear-probe"
_DIVERGED = " (diverged)"  # said after the name of a setting

_Place = tuple[str, str, int, int]  # start, attacker, images, seed


def faults_of(audit: TransferAudit) -> tuple[str, ...]:
    """Every fault of an audit, one line each; none for an audit whose every figure follows from its
    points.
    """
    outside = tuple(_outside(audit))
    if outside:
        return outside
    faults = [
        *_uncountable(audit),
        *_wrong_grid(audit),
        *_beyond(audit),
        *_unequal_settings(audit),
        *_unequal_budgets(audit),
    ]
    faults += [*_unequal_checks(audit), *_tested_by_choice(audit)]
    try:
        found = measure(audit.points, audit.same_as, test_samples=audit.test_samples)
    except IntegrityError as error:
        return tuple(dict.fromkeys((*faults, error.message)))
    faults += unlike(audit.measures.model_dump(), found.model_dump(), "measures")
    faults += unlike(
        audit.verdict.model_dump(),
        verdict(found, audit.suite, audit.skipped).model_dump(),
        "verdict",
    )
    return tuple(dict.fromkeys(faults))


def _accuracies(audit: TransferAudit) -> Iterator[tuple[AttackPoint, str, float, int]]:
    """Every accuracy: whose, of which split, and the images it was taken on. There are thousands,
    so only faulty ones are named.
    """
    for point in audit.points:
        yield point, "validation", point.val_accuracy, audit.validation_samples
        if point.test_accuracy is not None:
            yield point, "test", point.test_accuracy, audit.test_samples


def _outside(audit: TransferAudit) -> Iterator[str]:
    for point, split, accuracy, _ in _accuracies(audit):
        if not 0 <= accuracy <= 1:
            yield f"{name_of(point)}: {split} accuracy {accuracy} is not in [0, 1]"
    yield from (
        f"{name_of(point)}: {point.flops} operations are below 0"
        for point in audit.points
        if not point.flops >= 0
    )


def _uncountable(audit: TransferAudit) -> Iterator[str]:
    """Accuracies that no count of right answers among so many images can give."""
    for point, split, accuracy, images in _accuracies(audit):
        if images < 1 or abs(accuracy * images - round(accuracy * images)) > _WHOLE:
            yield f"{name_of(point)}: {split} accuracy {accuracy} is not a share of {images} images"


def _wrong_grid(audit: TransferAudit) -> Iterator[str]:
    """Points on another grid or with other seeds than the audit says, start by start; a grid that
    cannot be one.
    """
    grid = tuple(zip(audit.grid, audit.samples, strict=False))
    uneven = len(audit.grid) != len(audit.samples) or any(
        images and images * audit.classes != count for images, count in grid
    )
    if uneven or len(set(audit.seeds)) != len(audit.seeds) or not rises(grid):
        yield (
            f"the audit's own grid is malformed: {list(audit.grid)}, {list(audit.samples)}, "
            f"seeds {list(audit.seeds)}"
        )
        return
    wanted = {(images, samples, seed) for images, samples in grid for seed in audit.seeds}
    places: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    more: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    for point in audit.points:
        of_budget = places if point.budget == 1 else more
        of_budget[f"{point.start}:{point.attacker}"].add(
            (point.images_per_class, point.samples, point.seed)
        )
    for name in sorted({*places, *more}):
        if places[name] != wanted or not more[name] <= wanted:
            yield f"{name} is on another grid or has other seeds than the audit says"


def _beyond(audit: TransferAudit) -> Iterator[str]:
    """Stated figures that no points can give: areas above ln(x_max / x_min), differences of
    accuracies above 1, curves on other grids.
    """
    measures = audit.measures
    yield from (
        f"envelope {one.name} is on another grid than the audit"
        for one in measures.envelopes
        if one.curve.samples != audit.samples
    )
    figures: list[tuple[str, Estimate | None, float]] = [
        (name, getattr(measures, name), 1.0)
        for name in ("worth", "kept", "worth_beyond_public", "accuracy_gap")
    ]
    for one in measures.ablations:
        figures += [
            (f"kept of {one.start}", one.kept, 1.0),
            (f"beyond_release of {one.start}", one.beyond_release, 1.0),
        ]
    for row in measures.slc:
        figures.append((f"normalised SLC-AUC of {row.start}:{row.attacker}", row.normalised, 1.0))
        if len(audit.samples) > 1 and audit.samples[0] > 0:
            figures.append(
                (
                    f"SLC-AUC of {row.start}:{row.attacker}",
                    row.area,
                    math.log(audit.samples[-1] / audit.samples[0]),
                )
            )
    for name, figure, most in figures:
        values = () if figure is None or figure.mean is None else (figure.mean, *figure.per_seed)
        if any(abs(value) > most + TOLERANCE for value in values):
            yield (
                f"{name}: {max(values, key=abs):.6g} is beyond {most:.6g}, the most that this "
                "grid allows"
            )


def _places(points: Sequence[AttackPoint]) -> Mapping[_Place, tuple[AttackPoint, ...]]:
    """The points of each place, which is one attacker from one start at one grid value with one
    seed.
    """
    found: dict[_Place, list[AttackPoint]] = defaultdict(list)
    for point in points:
        found[point.start, point.attacker, point.samples, point.seed].append(point)
    return {place: tuple(tried) for place, tried in found.items()}


def _settings(tried: Sequence[AttackPoint]) -> tuple[str, ...]:
    """The settings of some points by name, whether or not they diverged."""
    return tuple(sorted(point.setting.removesuffix(_DIVERGED) for point in tried))


def _one_budget(audit: TransferAudit) -> Mapping[_Place, tuple[AttackPoint, ...]]:
    return _places([point for point in audit.points if point.budget == 1])


def _unequal_settings(audit: TransferAudit) -> Iterator[str]:
    """Other settings at one place than at another, or from one start than from another; attackers
    that left a start alone.

    Public starts may have other attackers and settings, since not every attack can be made on any
    network: a head that fits is kept, one that does not is new.
    """
    tried: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    for (start, attacker, _, _), points in _one_budget(audit).items():
        tried[start, attacker].add(_settings(points))
    by_attacker: dict[tuple[str, bool], dict[str, set[str]]] = defaultdict(dict)
    for (start, attacker), found in sorted(tried.items()):
        if len(found) > 1:
            yield f"{start}:{attacker} tries other settings at some places than at others"
        twice = sorted(name for name, count in Counter(next(iter(found))).items() if count > 1)
        if twice:
            yield f"{start}:{attacker} tries the setting {twice[0]} twice"
        if not start.startswith(PUBLIC):
            by_attacker[attacker, start in SCRATCH][start] = {
                name for names in found for name in names
            }
    for (attacker, empty), starts in sorted(by_attacker.items()):
        if len({frozenset(names) for names in starts.values()}) > 1:
            yield (
                f"{attacker} tries other settings on some starts than on others: "
                f"{', '.join(sorted(starts))}"
            )
        spared = sorted(
            {
                start
                for start, _ in tried
                if not start.startswith(PUBLIC) and (start in SCRATCH) == empty
            }
            - starts.keys()
        )
        if spared:
            yield f"{attacker} left out {', '.join(spared)}, so the starts were not treated alike"


def _unequal_budgets(audit: TransferAudit) -> Iterator[str]:
    """Other steps for an attacker at one place than at another with as many images, or fewer steps
    for starting over than for an attacker.

    Successive halving gives a place's settings unequal steps, and each place may favour another
    setting: what must be equal are the steps themselves, whoever got them. A linear probe's do not
    pass through the network and are held against its own alone, and a public start's, which may
    have other settings, against its own.
    """
    shares: dict[tuple[str, int, str], set[tuple[int, ...]]] = defaultdict(set)
    empty: dict[tuple[str, int, int], int] = defaultdict(int)
    most: dict[tuple[int, int], tuple[int, str]] = {}
    for (start, attacker, samples, seed), tried in _one_budget(audit).items():
        steps = tuple(sorted(point.steps for point in tried))
        shares[
            attacker,
            samples,
            start if start.startswith(PUBLIC) else "empty" if start in SCRATCH else "trained",
        ].add(steps)
        if attacker == HEAD_ONLY or start.startswith(PUBLIC):
            continue
        if start in SCRATCH:
            empty[start, samples, seed] += sum(steps)
        else:
            most[samples, seed] = max(most.get((samples, seed), (0, "")), (sum(steps), attacker))
    for (attacker, samples, _), kinds in sorted(shares.items()):
        totals = sorted({sum(steps) for steps in kinds})
        if len(kinds) > 1:
            said = (
                f"{', '.join(map(str, totals))} steps"
                if len(totals) > 1
                else f"{totals[0]} steps, shared out otherwise at some places"
            )
            yield f"{attacker} at {samples} images: budgets differ: {said}"
    for (start, samples, seed), steps_of_all in sorted(empty.items()):
        wanted, attacker = most.get((samples, seed), (0, ""))
        if steps_of_all < wanted:
            yield (
                f"{start} at {samples} images: starting over got {steps_of_all} steps, fewer "
                f"than the {wanted} of {attacker}"
            )


def _unequal_checks(audit: TransferAudit) -> Iterator[str]:
    """Points with more budget that do not show what more budget does: nothing beside them, other
    settings, or too few steps.

    Budgets are whole steps, so each setting of a halved budget may have lost one to rounding.
    """
    base = _one_budget(audit)
    for budget in sorted({point.budget for point in audit.points if point.budget > 1}):
        for place, tried in sorted(
            _places([point for point in audit.points if point.budget == budget]).items()
        ):
            start, attacker, samples, seed = place
            said = f"{start}:{attacker} at {samples} images, seed {seed}: {budget} budgets"
            if place not in base:
                yield f"{said}, but nobody tried one"
                continue
            had, got = (
                sum(point.steps for point in base[place]),
                sum(point.steps for point in tried),
            )
            if _settings(tried) != _settings(base[place]):
                yield f"{said} with other settings than one budget"
            elif got < budget * (had - len(tried)):
                yield f"{said} are {got} steps, where one is {had}"


def _tested_by_choice(audit: TransferAudit) -> Iterator[str]:
    """A test accuracy where validation did not choose is a choice made on test."""
    chosen = set(choose(audit.points))
    for point in audit.points:
        if point.test_accuracy is not None and point not in chosen:
            yield f"{name_of(point)} was tested although validation did not choose it"
        elif point.test_accuracy is None and point in chosen:
            yield f"{name_of(point)} was chosen by validation but has no test accuracy"


def unlike(said: Any, found: Any, where: str) -> list[str]:
    """A line for each place where what is said differs from what was found, numbers by more than
    `TOLERANCE`.

    >>> unlike({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, "x")
    ['x.a.1: the report says 2.0, its points give 2.5']
    """
    match said, found:
        case (bool(), _) | (_, bool()) if said is not found:
            pass
        case (float() | int(), float() | int()) if math.isclose(
            said, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE
        ):
            return []
        case Mapping(), Mapping() if said.keys() == found.keys():
            return [
                line for key in said for line in unlike(said[key], found[key], f"{where}.{key}")
            ]
        case (list() | tuple(), list() | tuple()) if len(said) == len(found):
            return [
                line
                for i, (a, b) in enumerate(zip(said, found, strict=True))
                for line in unlike(a, b, f"{where}.{i}")
            ]
        case _ if said == found:
            return []
    return [f"{where}: the report says {_short(said)}, its points give {_short(found)}"]


def start_faults(audit: TransferAudit, subjects: Subjects) -> tuple[str, ...]:
    """Starts that stand for others although they are not the same network.

    Trained starts are the same when weights and architecture are; empty ones when their
    architecture is, whatever its head, since each start gets a head for the target's classes; the
    dummy is always on its own.
    """
    trained: dict[Start, Checkpoint | PublicWeights] = {
        "release": subjects.release,
        "twin": subjects.twin,
        "reference": subjects.reference,
        **{f"{ABLATION}{one.name}": one.checkpoint for one in subjects.ablations},
        **{f"{PUBLIC}{one.name}": one for one in subjects.public},
    }
    empty = {"scratch_release": subjects.release, "scratch_reference": subjects.reference}

    def identity(start: Start) -> tuple[str, str] | None:
        if start not in trained and start not in empty:
            return None
        architecture = (
            trained[start].architecture if start in trained else subjects.empty(empty[start])
        )
        headless = architecture.model_copy(update={"classes": audit.classes})
        return headless.digest, trained[start].weights.sha256 if start in trained else "empty"

    def unequal(start: Start, other: Start) -> bool:
        return identity(start) is None or identity(start) != identity(other)

    pairs = sorted(audit.same_as.items())
    unlike_others = tuple(
        f"{start} is said to be {other}, which is another network"
        for start, other in pairs
        if unequal(start, other)
    )
    there = {
        start
        for start in (*audit.same_as, *(point.start for point in audit.points))
        if start not in STARTS
    }
    given = trained.keys() - set(STARTS)
    return (
        *unlike_others,
        *(f"{start} was given but not attacked" for start in sorted(given - there)),
        *(f"{start} was attacked but not given" for start in sorted(there - given)),
    )


def checkpoint_faults(checkpoint: Checkpoint, name: str) -> tuple[str, ...]:
    """Where a checkpoint's accuracy and counts do not follow from its confusion matrix (rows: true
    class, columns: answer).
    """
    rows, classes = checkpoint.confusion, checkpoint.architecture.classes
    if (
        len(rows) != classes
        or any(len(row) != classes for row in rows)
        or any(count < 0 for row in rows for count in row)
    ):
        return (f"{name}: the confusion matrix is not {classes} x {classes} counts",)
    total, right = sum(map(sum, rows)), sum(row[i] for i, row in enumerate(rows))
    faults = unlike(checkpoint.test_samples, total, f"{name}.test_samples")
    return (
        *faults,
        *unlike(checkpoint.test_accuracy, right / total if total else 0.0, f"{name}.test_accuracy"),
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_of(faults: Sequence[str]) -> str:
    """The first fault and how many more there are, on one line."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return "".join(faults[:1]) + more
