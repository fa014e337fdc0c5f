"""From raw attack points to sample-wise learning curves, their areas, and the advantage a lock
removed.

Words: x, training images the thief has (1 or more, all classes together); y, accuracy in [0, 1]; A,
area over ln x (natural log), so that A / ln(x_max / x_min) is a mean accuracy; s, seeds. A *start*
is what the thief starts from, an *attacker* is how he trains, a *setting* is one configuration of
an attacker. Points with more than one budget belong to no curve (see `costs.py`). Everything is a
function of the points, whatever their order: `verify` computes it again.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lockforge.errors import IntegrityError
from lockforge.evidence._costs import check_budgets, operations_to_reach
from lockforge.evidence.statistics import fieller, mean, t_interval
from lockforge.records import (
    AblationMeasure,
    AttackPoint,
    AuditVerdict,
    Envelope,
    Estimate,
    LearningCurve,
    Measures,
    SlcArea,
    Start,
)

# Every audit has these starts; it may have `ablation:NAME` and `public:NAME` beside them.
STARTS: tuple[Start, ...] = (
    "release",
    "twin",
    "reference",
    "scratch_release",
    "scratch_reference",
    "dummy",
)
SCRATCH: tuple[Start, ...] = ("scratch_release", "scratch_reference")
ENVELOPES: Mapping[str, tuple[Start, ...]] = {
    "release": ("release", *SCRATCH),
    "reference": ("reference", *SCRATCH),
    "twin": ("twin", *SCRATCH),
    "scratch": SCRATCH,
    "dummy": ("dummy", *SCRATCH),
}
ABLATION, PUBLIC = "ablation:", "public:"
ARCHITECTURE_LOCK = (
    "architecture-lock"  # what the twin is among the ablations: a locked cell, and nothing pruned
)
WORTH_PROTECTING = (
    0.02  # least mean advantage of the unlocked model, in accuracy, for R to be defined
)
INDICATIVE = ("quick", "paper")  # suites that never say more than "indicative only"
PROTECTS = 0.75  # least lower bound of R for "protects under this suite"
DUMMY_MARGIN = 0.05  # how far the interval of the dummy's R may lie from 1
ENOUGH = (
    0.95  # least share of what an attacker reaches with more budget that he must reach with one
)
WORST_FIRST = (
    "no protection",
    "indicative only",
    "delays",
    "moot",
    "nothing to protect",
    "protects under this suite",
)

_GridValue = tuple[
    int, int
]  # images per class (0 is all, or at every point no such number), images in all


def area(samples: Sequence[float], accuracy: Sequence[float]) -> float:
    """A = sum_i (ln x_i - ln x_(i-1)) (y_i + y_(i-1)) / 2, the area under a learning curve over ln
    x, in accuracy x nats.

    SLC-AUC of Ding et al. 2024 (non-transferable pruning, arXiv:2410.08015), with the natural log;
    x may be images or fractions. Since y is in [0, 1], 0 <= A <= ln(x_max / x_min).

    Raises: IntegrityError: fewer than two points, x not strictly rising above 0, or an accuracy
        outside [0, 1].

    >>> round(area([1, 10, 100], [0.5, 0.5, 0.5]), 4)  # half of ln 100
    2.3026
    """
    if len(samples) < 2 or len(samples) != len(accuracy):
        raise IntegrityError(
            f"a curve needs two or more points and one accuracy each, not {len(samples)} and "
            f"{len(accuracy)}"
        )
    if samples[0] <= 0 or any(not a < b for a, b in pairwise(samples)):
        raise IntegrityError(f"the grid must rise strictly from above 0: {list(samples)}")
    if not all(0 <= y <= 1 for y in accuracy):
        raise IntegrityError(f"accuracies must be in [0, 1]: {list(accuracy)}")
    logs = [math.log(x) for x in samples]
    return math.fsum(
        (logs[i] - logs[i - 1]) * (accuracy[i] + accuracy[i - 1]) / 2 for i in range(1, len(logs))
    )


def choose(points: Sequence[AttackPoint]) -> tuple[AttackPoint, ...]:
    """The setting that validation chooses for each start, attacker, grid value, seed and budget; of
    equal ones the first by name.

    Test accuracies are not looked at, so the audit calls this first and touches the test split for
    these points only.

    Returns: ordered by start (as in `STARTS`, then ablations and public ones by name), attacker,
        images, seed, budget.
    """
    order = {start: rank for rank, start in enumerate(STARTS)}
    best: dict[tuple[int, str, str, int, int, int, int], AttackPoint] = {}
    for point in sorted(points, key=lambda point: point.setting):
        rank = order.get(point.start, len(STARTS))
        key = (
            rank,
            point.start,
            point.attacker,
            point.samples,
            point.images_per_class,
            point.seed,
            point.budget,
        )
        if key not in best or point.val_accuracy > best[key].val_accuracy:
            best[key] = point
    return tuple(best[key] for key in sorted(best))


@dataclass(frozen=True)
class _Table:
    """Chosen points on one grid: `cells[start, attacker][i, s]` at the i-th grid value and s-th
    seed, in one budget.

    `spent[start, attacker][i, s]` are the operations of all settings that were tried there.
    """

    samples: tuple[int, ...]
    seeds: int
    cells: Mapping[tuple[Start, str], Mapping[tuple[int, int], AttackPoint]]
    spent: Mapping[tuple[Start, str], Mapping[tuple[int, int], float]]
    same_as: Mapping[Start, Start]

    @property
    def span(self) -> float:
        """ln(x_max / x_min): what an area is divided by to be a mean accuracy."""
        return math.log(self.samples[-1] / self.samples[0])

    def own(self, start: Start) -> Start:
        """The start whose points stand for this one."""
        return self.same_as.get(start, start)

    def beside(self, kind: str) -> tuple[Start, ...]:
        """The starts that not every audit has, of one kind, by name."""
        return tuple(
            sorted(
                start
                for start in {start for start, _ in self.cells} | self.same_as.keys()
                if start.startswith(kind)
            )
        )

    def attackers(self, start: Start) -> tuple[str, ...]:
        """Who attacked it, by name."""
        return tuple(sorted(attacker for owner, attacker in self.cells if owner == self.own(start)))

    def curve(self, choices: Sequence[tuple[Start, str]]) -> LearningCurve:
        """Test accuracy of whom validation prefers at each grid value and seed.

        Equal validation accuracies are a coin toss between starts and attackers: the mean of their
        test accuracies is its expectation, and no order of names can favour one side.
        """
        rows = self.cells.keys() & {(self.own(start), attacker) for start, attacker in choices}

        def accuracy(i: int, s: int) -> float:
            rivals = [self.cells[row][i, s] for row in rows]
            best = max(rival.val_accuracy for rival in rivals)
            return mean([_tested(rival) for rival in rivals if rival.val_accuracy == best])

        grid = range(len(self.samples))
        return LearningCurve(
            samples=self.samples,
            accuracy=tuple(tuple(accuracy(i, s) for s in range(self.seeds)) for i in grid),
        )

    def envelope(self, starts: Sequence[Start]) -> LearningCurve:
        """What a thief gets who may use any of these starts with any attacker."""
        return self.curve(
            [(start, attacker) for start in starts for attacker in self.attackers(start)]
        )

    def operations(self, starts: Sequence[Start], goal: float) -> float | None:
        """What it costs to reach an accuracy: one attacker with all his settings, from one of these
        starts, at one grid value.
        """
        rows = self.cells.keys() & {
            (self.own(start), attacker) for start in starts for attacker in self.attackers(start)
        }
        seeds, grid = range(self.seeds), range(len(self.samples))
        places = (
            (
                [_tested(self.cells[row][i, s]) for s in seeds],
                [self.spent[row][i, s] for s in seeds],
            )
            for row in rows
            for i in grid
        )
        return operations_to_reach(places, goal)


def _tested(point: AttackPoint) -> float:
    if point.test_accuracy is None:
        raise IntegrityError(f"{name_of(point)} was chosen by validation but has no test accuracy")
    return point.test_accuracy


def name_of(point: AttackPoint) -> str:
    """A point in words: start, attacker, setting, images, seed, and the budgets where they are
    several.
    """
    budgets = f", {point.budget} budgets" if point.budget > 1 else ""
    return (
        f"{point.start}:{point.attacker} [{point.setting}] at {point.samples} images, seed "
        f"{point.seed}{budgets}"
    )


def _table(points: Sequence[AttackPoint], same_as: Mapping[Start, Start]) -> _Table:
    """Sort the chosen points of one budget onto one grid, or say why there is none."""
    rows: dict[tuple[Start, str], dict[tuple[_GridValue, int], AttackPoint]] = defaultdict(dict)
    for point in choose(points):
        rows[point.start, point.attacker][(point.images_per_class, point.samples), point.seed] = (
            point
        )
    wanted = next(iter(rows.values())).keys()
    grid = sorted({value for value, _ in wanted}, key=lambda value: value[1])
    seeds = sorted({seed for _, seed in wanted})
    _check_grid(grid, seeds, rows)
    index = {(value, seed): (i, s) for i, value in enumerate(grid) for s, seed in enumerate(seeds)}
    cells = {
        row: {index[place]: point for place, point in found.items()} for row, found in rows.items()
    }
    costs: dict[tuple[Start, str], dict[tuple[int, int], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for point in points:
        costs[point.start, point.attacker][
            index[(point.images_per_class, point.samples), point.seed]
        ].append(point.flops)
    spent = {
        row: {place: math.fsum(each) for place, each in found.items()}
        for row, found in costs.items()
    }
    return _Table(
        samples=tuple(samples for _, samples in grid),
        seeds=len(seeds),
        cells=cells,
        spent=spent,
        same_as=same_as,
    )


def _check_starts(points: Sequence[AttackPoint], same_as: Mapping[Start, Start]) -> None:
    owners = {point.start for point in points}
    missing = [
        start
        for start in dict.fromkeys((*STARTS, *same_as))
        if same_as.get(start, start) not in owners
    ]
    doubled = sorted(owners & same_as.keys())
    if missing or doubled:
        raise IntegrityError(
            f"starts without points: {missing or 'none'}; starts with points although they are "
            f"another's: {doubled or 'none'}"
        )


def envelope_of(points: Sequence[AttackPoint], starts: Sequence[Start]) -> LearningCurve:
    """What a thief gets who may use any of these starts with any attacker that is there, choosing
    by validation.

    Raises: IntegrityError: no such start, no one rising grid, or a chosen point without a test
        accuracy.
    """
    mine = [point for point in points if point.start in starts and point.budget == 1]
    if not mine:
        raise IntegrityError(f"no points start from {' or '.join(starts)}")
    return _table(mine, {}).envelope(starts)


def _check_grid(
    grid: Sequence[_GridValue],
    seeds: Sequence[int],
    rows: Mapping[tuple[Start, str], Mapping[tuple[_GridValue, int], AttackPoint]],
) -> None:
    full = {(value, seed) for value in grid for seed in seeds}
    uneven = [
        f"{start}:{attacker}"
        for (start, attacker), found in sorted(rows.items())
        if found.keys() != full
    ]
    if uneven:
        raise IntegrityError(
            f"curves on different grids or seeds cannot be compared: {', '.join(uneven)} differ "
            f"from {min(rows)[0]}'s"
        )
    if not rises(grid):
        raise IntegrityError(
            f"the grid must rise strictly from 1 image over two or more values: {list(grid)} "
            "(images a class, images)"
        )


def rises(grid: Sequence[tuple[int, int]]) -> bool:
    """Whether a grid of (images per class, images) rises strictly from one image over two or more
    values.

    0 images per class are all of them, and so the last; where every value has 0, the grid is one of
    fractions and only images count.

    >>> rises([(1, 10), (5, 50), (0, 2000)]), rises([(0, 20), (0, 200)]), rises([(0, 20), (1, 200)])
    (True, True, False)
    """
    samples = [float(count) for _, count in grid]
    per_class = [images or math.inf for images, _ in grid]
    lines = (samples, per_class) if any(images for images, _ in grid) else (samples,)
    return (
        len(grid) > 1
        and samples[0] >= 1
        and all(a < b for line in lines for a, b in pairwise(line))
    )


def measure(
    points: Sequence[AttackPoint],
    same_as: Mapping[Start, Start] | None = None,
    *,
    test_samples: int,
) -> Measures:
    """Everything that follows from the points: envelopes, SLC-AUC, advantage removed, gap, cost.

    Envelopes (a thief who may use these starts, choosing by validation at each grid value and
    seed): release W, reference V, twin U, scratch C, dummy D; all but C also hold both scratches,
    since a thief can start over. Where there are public starts, outside O is the two scratches and
    these; no other envelope holds them. Ablations have curves of their own (`AblationMeasure`), and
    nothing else is worked out from them.

    Args: points: every fitted setting. same_as: starts that are the same network as another and
    have no points of their own, for instance {"twin": "release"} for a release without a weight
    lock. test_samples: images that every test accuracy was taken on.
    Raises: IntegrityError: starts or test accuracies are missing, or the curves are not on one
        strictly rising grid.
    """
    names = {
        (point.start, point.attacker, point.setting, point.samples, point.seed, point.budget)
        for point in points
    }
    if len(names) != len(points):
        raise IntegrityError(f"{len(points) - len(names)} attack points are there twice")
    once = [point for point in points if point.budget == 1]
    _check_starts(once, same_as or {})
    table = _table(once, same_as or {})
    public, ablations = table.beside(PUBLIC), table.beside(ABLATION)
    envelopes = {**ENVELOPES, **({"outside": (*SCRATCH, *public)} if public else {})}
    curves = {name: table.envelope(starts) for name, starts in envelopes.items()}
    slc = _slc_areas(table, (*ablations, *public))
    last = [tuple(curves[name].accuracy[-1]) for name in ("reference", "release")]
    goal = 0.9 * mean(curves["reference"].accuracy[-1])
    same = table.own("twin") == table.own("release")
    parts = [
        *([] if same else [(ARCHITECTURE_LOCK, "twin")]),
        *((start.removeprefix(ABLATION), start) for start in ablations),
    ]
    no_lock = Estimate(
        mean=0.0,
        low=0.0,
        high=0.0,
        per_seed=(0.0,) * table.seeds,
        reason="the release has no weight lock: it is its own twin",
    )
    return Measures(
        envelopes=tuple(
            Envelope(name=name, starts=starts, curve=curves[name])
            for name, starts in envelopes.items()
        ),
        slc=slc,
        worth=advantage(curves["reference"], curves["scratch"]),
        kept=advantage(curves["release"], curves["scratch"]),
        worth_beyond_public=advantage(curves["reference"], curves["outside"]) if public else None,
        removed_vs_reference=removed(curves["release"], curves["reference"], curves["scratch"]),
        removed_vs_twin=no_lock
        if same
        else removed(curves["release"], curves["twin"], curves["scratch"]),
        removed_by_dummy=removed(curves["dummy"], curves["reference"], curves["scratch"]),
        worst_attacker=_worst(slc, "release"),
        accuracy_gap=t_interval(
            [unlocked - locked for unlocked, locked in zip(*last, strict=True)]
        ),
        samples_to_90={name: samples_to_reach(curve, goal) for name, curve in curves.items()},
        flops_to_90={name: table.operations(starts, goal) for name, starts in envelopes.items()},
        budget_checks=check_budgets(choose(points)),
        ablations=_ablations(table, parts, curves, slc),
        image_sd=image_deviation(curves["release"], curves["scratch"], test_samples),
    )


def _worst(slc: Sequence[SlcArea], start: Start) -> str:
    """The attacker with the highest mean SLC-AUC from a start."""
    mine = [entry for entry in slc if entry.start == start]
    strongest = min(mine, key=lambda entry: (-(entry.normalised.mean or 0.0), entry.attacker))
    return f"{start}:{strongest.attacker}"


def _ablations(
    table: _Table,
    named: Sequence[tuple[str, Start]],
    curves: Mapping[str, LearningCurve],
    slc: Sequence[SlcArea],
) -> tuple[AblationMeasure, ...]:
    """A row for each (name, start): the envelope is of that start and both scratches, as the
    release's is.
    """
    found = []
    for name, start in named:
        curve = table.envelope((start, *SCRATCH))
        row = AblationMeasure(
            name=name,
            start=start,
            curve=curve,
            kept=advantage(curve, curves["scratch"]),
            removed_vs_reference=removed(curve, curves["reference"], curves["scratch"]),
            beyond_release=advantage(curve, curves["release"]),
            worst_attacker=_worst(slc, start),
        )
        found.append(row)
    return tuple(found)


def _slc_areas(table: _Table, others: tuple[Start, ...]) -> tuple[SlcArea, ...]:
    """SLC-AUC = A(start, attacker) - A(scratch on the released architecture, its attackers chosen
    by validation), per seed.
    """
    scratch = areas(
        table.curve(
            [("scratch_release", attacker) for attacker in table.attackers("scratch_release")]
        )
    )
    found = []
    starts: tuple[Start, ...] = ("release", "twin", "reference", "dummy")
    for start in (*starts, *others):
        for attacker in table.attackers(start):
            own = areas(table.curve([(start, attacker)]))
            gains = [mine - empty for mine, empty in zip(own, scratch, strict=True)]
            normalised = t_interval([gain / table.span for gain in gains])
            found.append(
                SlcArea(
                    start=start, attacker=attacker, area=t_interval(gains), normalised=normalised
                )
            )
    return tuple(found)


def areas(curve: LearningCurve) -> tuple[float, ...]:
    """The area of each seed's curve."""
    return tuple(area(curve.samples, column) for column in zip(*curve.accuracy, strict=True))


def advantage(unlocked: LearningCurve, scratch: LearningCurve) -> Estimate:
    """How far one envelope lies above another on average, in accuracy: A(V - C) / ln(x_max /
    x_min), per seed.

    Raises: IntegrityError: the two are on different grids.
    """
    if unlocked.samples != scratch.samples:
        raise IntegrityError(
            f"curves on different grids cannot be compared: {list(unlocked.samples)} and "
            f"{list(scratch.samples)}"
        )
    span = math.log(unlocked.samples[-1] / unlocked.samples[0])
    return t_interval(
        [(v - c) / span for v, c in zip(areas(unlocked), areas(scratch), strict=True)]
    )


def removed(released: LearningCurve, unlocked: LearningCurve, scratch: LearningCurve) -> Estimate:
    """R = 1 - A(W - C) / A(V - C): the share of the unlocked model's head start over an empty
    network that the thief no longer gets.

    1: the release is worth no more to him than an empty network; 0: as much as the unlocked model.
    Not clamped. The interval is Fieller's, for a ratio of means over paired seeds. Undefined, with
    the reason, where the lower end of the unlocked model's mean advantage is not above
    `WORTH_PROTECTING`.
    """
    worth = advantage(unlocked, scratch)
    if worth.low is None or worth.low <= WORTH_PROTECTING:
        wanted = f"its lower end must exceed {WORTH_PROTECTING}"
        return Estimate(
            mean=None,
            reason="nothing to protect: the unlocked model's mean advantage over scratch is "
            f"{in_words(worth)}; {wanted}",
        )
    kept = fieller(advantage(released, scratch).per_seed, worth.per_seed)
    if kept.mean is None or kept.low is None or kept.high is None:
        return kept
    return Estimate(
        mean=1 - kept.mean,
        low=1 - kept.high,
        high=1 - kept.low,
        per_seed=tuple(1 - share for share in kept.per_seed),
    )


def image_deviation(released: LearningCurve, scratch: LearningCurve, images: int) -> float:
    """What the finite test split adds to the mean advantage of one envelope over another, as a
    standard deviation in accuracy.

    Each test accuracy y is binomial: its images are drawn independently, and its variance is y (1 -
    y) / images. The points of one curve, at all grid values and seeds, are taken to err together,
    since they are tested on the same images: the deviation of a curve's mean is the mean of its
    points', A(sqrt(y (1 - y) / images)) / ln(x_max / x_min). The two curves are taken to err
    independently. Both can only make it too large, as long as images that are hard for one of the
    two are not the easy ones of the other.

    Raises: IntegrityError: no images.

    >>> half = LearningCurve(samples=(1, 10), accuracy=((0.5,), (0.5,)))
    >>> round(image_deviation(half, half, 50), 3)  # sqrt(.25 / 50 + .25 / 50)
    0.1
    """
    if images < 1:
        raise IntegrityError("test accuracies need test images, of which there are said to be none")
    span = math.log(released.samples[-1] / released.samples[0])

    def of(curve: LearningCurve) -> float:
        rows = [[math.sqrt(y * (1 - y) / images) for y in row] for row in curve.accuracy]
        return area(curve.samples, [mean(row) for row in rows]) / span

    return math.hypot(of(released), of(scratch))


def samples_to_reach(curve: LearningCurve, goal: float) -> float | None:
    """Where the mean curve first reaches an accuracy, interpolated in ln x; None where it never
    does.

    >>> samples_to_reach(LearningCurve(samples=(1, 100), accuracy=((0.0,), (1.0,))), 0.5)
    10.0
    """
    means = [mean(row) for row in curve.accuracy]
    for i, (samples, accuracy) in enumerate(zip(curve.samples, means, strict=True)):
        if accuracy < goal:
            continue
        if i == 0:
            return float(samples)
        share = (goal - means[i - 1]) / (accuracy - means[i - 1])
        return float(curve.samples[i - 1] * (samples / curve.samples[i - 1]) ** share)
    return None


def in_words(estimate: Estimate) -> str:
    """A figure with its interval and the number of seeds, three digits after the point.

    >>> in_words(Estimate(mean=0.5, low=0.25, high=0.75, per_seed=(0.4, 0.6)))
    '0.500 (95 % interval 0.250 to 0.750, 2 seeds)'
    """
    if estimate.mean is None:
        return f"undefined ({estimate.reason})"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f} ({estimate.reason or 'no interval'})"
    return (
        f"{estimate.mean:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f}, "
        f"{len(estimate.per_seed)} seeds)"
    )


def verdict(measures: Measures, suite: str, skipped: Sequence[str] = ()) -> AuditVerdict:
    """What the figures allow to say; the lower end of R against the reference decides, since the
    claim is the owner's to prove.

    In this order: R undefined, "nothing to protect"; lower end of what the unlocked model is worth
    beyond public weights <= 0, "moot"; lower end of R <= 0, "no protection"; 1 farther than
    `DUMMY_MARGIN` from the interval of the dummy's R, a suite of `INDICATIVE`, or attackers
    skipped, "indicative only"; lower end < `PROTECTS`, or an attack that more budget takes further
    than `ENOUGH` allows, "delays"; else "protects under this suite". The first two say as well who
    was skipped: with him, the unlocked model might be worth more.
    """
    figure, dummy, beyond = (
        measures.removed_vs_reference,
        measures.removed_by_dummy,
        measures.worth_beyond_public,
    )
    if figure.low is None or figure.high is None:
        return AuditVerdict(word="nothing to protect", reason=figure.reason + _left_out(skipped))
    said = f"advantage removed against the reference {in_words(figure)}"
    if beyond is not None and (beyond.low is None or beyond.low <= 0):
        found = f"the unlocked model's mean advantage over public weights is {in_words(beyond)}"
        return AuditVerdict(
            word="moot",
            reason=f"public weights do as well: {found}, its lower end is not above 0; "
            f"{said}{_left_out(skipped)}",
        )
    if figure.low <= 0:
        return AuditVerdict(word="no protection", reason=f"{said}: its lower end is not above 0")
    doubt = _doubt(dummy, suite, skipped)
    if doubt:
        return AuditVerdict(word="indicative only", reason=said + doubt)
    if figure.low < PROTECTS:
        return AuditVerdict(
            word="delays", reason=f"{said}: its lower end is above 0 and below {PROTECTS}"
        )
    short = _short_of_budget(measures)
    return AuditVerdict(
        word="delays" if short else "protects under this suite",
        reason=f"{said}: its lower end reaches {PROTECTS}{short}",
    )


def _doubt(dummy: Estimate, suite: str, skipped: Sequence[str]) -> str:
    """Why an audit can only indicate; empty where it can say more."""
    if (
        dummy.low is None
        or dummy.high is None
        or not dummy.low - DUMMY_MARGIN <= 1 <= dummy.high + DUMMY_MARGIN
    ):
        return (
            f", but an empty network, for which it must be 1, gets {in_words(dummy)}: the audit "
            "is off"
        )
    if suite in INDICATIVE:
        return f"; the {suite} suite has too few attackers to say more"
    return _left_out(skipped)


def _left_out(skipped: Sequence[str]) -> str:
    """Who was skipped; empty where nobody was."""
    return (
        f"; attackers that a thief could make were skipped: {'; '.join(skipped)}" if skipped else ""
    )


def _short_of_budget(measures: Measures) -> str:
    """Where the best attack with more budget leaves the release's envelope too far behind; empty
    where one budget is enough.

    The best is the best on test, which errs on the side of the thief.
    """
    released = next(envelope for envelope in measures.envelopes if envelope.name == "release")
    reached = {
        samples: mean(row)
        for samples, row in zip(released.curve.samples, released.curve.accuracy, strict=True)
    }
    mine = [
        check
        for check in measures.budget_checks
        if check.start in released.starts and check.samples in reached
    ]
    far = [check for check in mine if ENOUGH * check.with_more > reached[check.samples]]
    if not far:
        return ""
    worst = max(far, key=lambda check: check.with_more - reached[check.samples] / ENOUGH)
    return (
        f", but {worst.start}:{worst.attacker} with {worst.factor} budgets reaches "
        f"{worst.with_more:.3f} at {worst.samples} images, "
        f"where the release's envelope is at {reached[worst.samples]:.3f}: one budget is too "
        "small to say that it protects"
    )


def overall(verdicts: Sequence[AuditVerdict]) -> str:
    """The worst verdict over several targets, in words.

    >>> words = ("delays", "no protection")
    >>> overall([AuditVerdict(word=word, reason="") for word in words]), overall([])
    ('no protection', 'not audited')
    """
    said = {verdict.word for verdict in verdicts}
    return next((word for word in WORST_FIRST if word in said), "not audited")
