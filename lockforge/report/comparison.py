"""Two reports side by side: verdicts, figures with intervals, differences, and which inputs differ.

Figures of a target stand beside one another only where both audits asked the same: the same
images, suite, grid and means of the thief. Otherwise they are refused and it is said what
differs. Nothing is recomputed: `verify` says whether a report's figures are its points' own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockforge.errors import RecipeError
from lockforge.evidence.curves import areas
from lockforge.evidence.manifest import MANIFEST, read_limited
from lockforge.evidence.statistics import t_interval
from lockforge.records import (
    Checkpoint,
    Estimate,
    ImageSet,
    LearningCurve,
    NamedArchitecture,
    Record,
    Report,
    TransferAudit,
)
from lockforge.report._charts import pair_chart
from lockforge.report.lock_rows import GENERATED, PARTS
from lockforge.report.page import comparison_page, large, points, short

SAID_ELSEWHERE = {
    "suite",
    "images_per_class",
    "fractions",
    "seeds",
}  # keys of the audit recipe that the audit itself tells
Pair = tuple[TransferAudit, TransferAudit]
COUNTS = ("images", "operations")
COMPARED = ("release", "reference", "twin", "scratch", "outside")


class Difference(Record):
    """One input that differs; `where` is a recipe key, a role or a part of the audit. None: not
    there.
    """

    where: str
    a: str | None
    b: str | None


class Figure(Record):
    """One figure in both reports, and B minus A with an interval where the seeds can be paired."""

    name: str
    unit: str
    a: Estimate
    b: Estimate
    difference: Estimate


class TargetPair(Record):
    """One target in both reports; `refused` says why its figures do not stand beside one another,
    and then there are none.
    """

    name: str
    verdicts: tuple[str, str]
    reasons: tuple[str, str]
    refused: tuple[str, ...]
    figures: tuple[Figure, ...]


class Comparison(Record):
    """Two reports, named as they were given."""

    names: tuple[str, str]
    verdicts: tuple[str, str]
    source: tuple[Figure, ...]
    targets: tuple[TargetPair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def comparable(self) -> bool:
        """Whether the figures of one target at least stand beside one another."""
        return any(not target.refused for target in self.targets)


def read_report(place: Path) -> Report:
    """The report of a release folder, or a report.json by itself.

    Raises: RecipeError: nothing is there. IntegrityError: it is no report.
    """
    file = place / "report.json" if place.is_dir() else place
    if not file.is_file():
        raise RecipeError(f"{file} is not there", hint="give a release folder or its report.json")
    return Report.from_json(read_limited(file))


def check_page_place(file: Path) -> None:
    """Refuse a page inside a release: its bytes are signed.

    Raises: RecipeError: the folder holds a manifest.
    """
    if (file.absolute().parent / MANIFEST).exists():
        raise RecipeError(
            f"{file} lies in a release, whose files are signed as they are",
            hint="give --html a place outside of it",
        )


def compare(a: Report, b: Report, names: tuple[str, str]) -> Comparison:
    """Two reports side by side. A target is the same where its images and labels are, whatever it
    is called.
    """
    pairs = _pairs(a, b)
    met = ({pair[0].target for _, pair in pairs}, {pair[1].target for _, pair in pairs})
    only = [
        tuple(name for name, audit in _named(one) if audit.target not in seen)
        for one, seen in zip((a, b), met, strict=True)
    ]
    return Comparison(
        names=names,
        verdicts=(a.verdict, b.verdict),
        source=(
            *(
                _on_source(name, getattr(a.subjects, name), getattr(b.subjects, name))
                for name in ("release", "reference")
            ),
            *_zeros(a, b),
        ),
        targets=tuple(_target(name, pair, (a, b)) for name, pair in pairs),
        only_a=only[0],
        only_b=only[1],
        differences=tuple(
            Difference(where=where, a=one, b=other)
            for where, one, other in _differences(a, b, pairs)
        ),
    )


def page_of(found: Comparison, a: Report, b: Report) -> str:
    """The comparison as one HTML file, with the curves of both where figures stand beside one
    another.
    """
    charts = [
        None if target.refused else pair_chart(pair)
        for target, (_, pair) in zip(found.targets, _pairs(a, b), strict=True)
    ]
    return comparison_page(found, charts, said)


def said(value: Estimate, unit: str, *, difference: bool = False) -> str:
    """A figure as a person reads it, by its unit; differences carry a sign, and those of accuracies
    are in points.

    >>> (
    ...     said(Estimate(mean=0.5, low=0.4, high=0.6), "accuracy"),
    ...     said(Estimate(mean=0.05), "accuracy", difference=True),
    ... )
    ('0.50 [0.40, 0.60]', '+5.0 points')
    >>> (
    ...     said(Estimate(mean=None, reason="never"), "images"),
    ...     said(Estimate(mean=-0.25), "ratio", difference=True),
    ... )
    ('never', '-0.25')
    """
    if value.mean is None:
        return value.reason if unit in COUNTS else "not defined"
    if unit in COUNTS:
        sign = "-" if value.mean < 0 else "+" if difference else ""
        return sign + (f"{abs(value.mean):,.0f}" if unit == "images" else large(abs(value.mean)))
    if unit == "points" or (unit == "accuracy" and difference):
        return points(value)
    text = short(value)
    return f"+{text}" if difference and value.mean >= 0 else text


def _named(report: Report) -> list[tuple[str, TransferAudit]]:
    return list(zip(report.roles.target_names, report.audits, strict=True))


def _pairs(a: Report, b: Report) -> list[tuple[str, Pair]]:
    """Targets of both: by their images first, those that are left by name."""
    left = [_named(a), _named(b)]
    found: list[tuple[str, Pair]] = []
    for by_name in (False, True):
        for one in list(left[0]):
            other = next(
                (
                    rival
                    for rival in left[1]
                    if (rival[0] == one[0] if by_name else rival[1].target == one[1].target)
                ),
                None,
            )
            if other is not None:
                left[0].remove(one)
                left[1].remove(other)
                found.append(
                    (one[0] if one[0] == other[0] else f"{one[0]} / {other[0]}", (one[1], other[1]))
                )
    return found


def _target(name: str, pair: Pair, reports: tuple[Report, Report]) -> TargetPair:
    a, b = pair
    refused = tuple(_refusals(pair, reports))
    return TargetPair(
        name=name,
        verdicts=(a.verdict.word, b.verdict.word),
        reasons=(a.verdict.reason, b.verdict.reason),
        refused=refused,
        figures=() if refused else tuple(_figures(a, b)),
    )


def _refusals(pair: Pair, reports: tuple[Report, Report]) -> Iterator[str]:
    """Why the figures of two audits must not stand beside one another."""
    a, b = pair
    if a.target != b.target:
        yield f"the target's images differ ({a.target[:12]}, {b.target[:12]})"
    if (a.suite, a.suite_version) != (b.suite, b.suite_version):
        yield (
            f"the suites differ ({a.suite} version {a.suite_version}, {b.suite} version "
            f"{b.suite_version})"
        )
    for word, one, other in (
        ("grids, images a class", a.grid, b.grid),
        ("grids, images", a.samples, b.samples),
    ):
        if one != other:
            yield f"the {word}, differ ({_listed(one)}; {_listed(other)})"
    means = [
        {
            key: _word(value)
            for key, value in _flat(report.recipe.get("audit", {})).items()
            if key not in SAID_ELSEWHERE
        }
        for report in reports
    ]
    for key, mine, theirs in _unlike(means[0], means[1], "audit."):
        yield f"the thief's means differ ({key}: {mine}; {theirs})"


def _figures(a: TransferAudit, b: TransferAudit) -> Iterator[Figure]:
    """Every figure of a target that both have."""
    paired = a.seeds == b.seeds
    for name, key in (
        ("advantage removed, against reference", "removed_vs_reference"),
        ("advantage removed, against twin", "removed_vs_twin"),
        ("advantage removed, empty network", "removed_by_dummy"),
    ):
        one, other = (getattr(audit.measures, key) for audit in (a, b))
        yield _figure(name, "ratio", one, other, why="a difference of ratios has no interval here")
    parts = [{row.name: row for row in audit.measures.ablations} for audit in (a, b)]
    for name in (name for name in parts[0] if name in parts[1]):
        one, other = (found[name].removed_vs_reference for found in parts)
        yield _figure(
            f"advantage removed, {PARTS.get(name, name)}",
            "ratio",
            one,
            other,
            why="a difference of ratios has no interval here",
        )
    for name, key in (("worth without a lock", "worth"), ("still worth to the thief", "kept")):
        one, other = (getattr(audit.measures, key) for audit in (a, b))
        yield _figure(name, "points", one, other, paired=paired)
    yield _figure(
        "gap, all images: reference - release",
        "points",
        a.measures.accuracy_gap,
        b.measures.accuracy_gap,
        paired=paired,
    )
    curves = [
        {envelope.name: envelope.curve for envelope in audit.measures.envelopes} for audit in (a, b)
    ]
    for name in COMPARED:
        if (
            name not in curves[0]
            or name not in curves[1]
            or (name in a.same_as and name in b.same_as)
        ):
            continue
        ends, means = ([of(found[name]) for found in curves] for of in (_at_the_end, _over_grid))
        yield _figure(f"{name}: accuracy, all images", "accuracy", *ends, paired=paired)
        yield _figure(f"{name}: mean over the grid", "accuracy", *means, paired=paired)
        for unit, key in (("images", "samples_to_90"), ("operations", "flops_to_90")):
            counts = [_count(getattr(audit.measures, key).get(name)) for audit in (a, b)]
            yield _figure(
                f"{name}: {unit} to 90 %", unit, *counts, why="of mean curves: no interval"
            )


def _figure(
    name: str,
    unit: str,
    a: Estimate,
    b: Estimate,
    *,
    paired: bool = False,
    why: str = "other seeds: not paired",
) -> Figure:
    """B minus A: by seed where both have the same, else of the means alone, with the reason."""
    if a.mean is None or b.mean is None:
        difference = Estimate(
            mean=None, reason="–" if unit in COUNTS else "not defined in one of the two"
        )
    elif paired:
        difference = t_interval([y - x for x, y in zip(a.per_seed, b.per_seed, strict=True)])
    else:
        difference = Estimate(mean=b.mean - a.mean, reason=why)
    return Figure(name=name, unit=unit, a=a, b=b, difference=difference)


def _at_the_end(curve: LearningCurve) -> Estimate:
    return t_interval(curve.accuracy[-1])


def _over_grid(curve: LearningCurve) -> Estimate:
    span = math.log(curve.samples[-1] / curve.samples[0])
    return t_interval([area / span for area in areas(curve)])


def _count(value: float | None) -> Estimate:
    return Estimate(mean=value, reason="never" if value is None else "on the mean curve")


def _on_source(name: str, a: Checkpoint, b: Checkpoint) -> Figure:
    one, other = (Estimate(mean=found.test_accuracy, reason="one training") for found in (a, b))
    return _figure(
        f"source accuracy of the {name}, test", "accuracy", one, other, why="one training each"
    )


def _zeros(a: Report, b: Report) -> Iterator[Figure]:
    """Shares of zeros, where one of the two releases at least was pruned."""
    found = [report.pruned.get("release") for report in (a, b)]
    if any(found):
        one, other = (
            Estimate(mean=each.sparsity if each else 0.0, reason="" if each else "not pruned")
            for each in found
        )
        yield _figure(
            "zeros among the release's prunable weights",
            "ratio",
            one,
            other,
            why="one pruning each",
        )


def _differences(
    a: Report, b: Report, pairs: Sequence[tuple[str, Pair]]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Inputs that differ: data, networks, audits, recipe."""
    sets = [dict(_sets(one)) for one in (a, b)]
    yield from _unlike(sets[0], sets[1], "data: ")
    for name in ("release", "reference"):
        one, other = (getattr(report.subjects, name) for report in (a, b))
        yield from _unlike(_network(one), _network(other), f"{name}: ")
    yield from _unlike(_lock(a), _lock(b), "weight lock: ")
    for name, (one, other) in pairs:
        yield from _unlike(_means(one), _means(other), f"audit of {name}: ")
    yield from _unlike(
        {key: _word(value) for key, value in _flat(a.recipe).items()},
        {key: _word(value) for key, value in _flat(b.recipe).items()},
        "recipe: ",
    )


def _unlike(
    a: Mapping[str, str], b: Mapping[str, str], where: str
) -> Iterator[tuple[str, str | None, str | None]]:
    for key in dict.fromkeys((*a, *b)):
        if a.get(key) != b.get(key):
            yield where + key, a.get(key), b.get(key)


def _sets(report: Report) -> Iterator[tuple[str, str]]:
    roles = report.roles
    sets: tuple[ImageSet, ...] = (roles.source, *roles.auxiliary, *roles.targets)
    words = [
        "source",
        *(f"auxiliary {name}" for name in roles.auxiliary_names),
        *(f"target {name}" for name in roles.target_names),
    ]
    for word, images in zip(words, sets, strict=True):
        yield (
            word,
            f"{images.digest[:12]} ({images.counts.total:,} images, {len(images.classes)} classes)",
        )


def _network(checkpoint: Checkpoint) -> dict[str, str]:
    architecture = checkpoint.architecture
    if isinstance(architecture, NamedArchitecture):
        return {"network": architecture.name, "weights": checkpoint.weights.sha256[:12]}
    return {
        "cell": str(architecture.cell),
        "channels and cells": f"{architecture.stem_channels}, {architecture.cells_per_stage} a "
        "stage",
        "weights": checkpoint.weights.sha256[:12],
    }


def _lock(report: Report) -> dict[str, str]:
    """How the release was pruned; nothing where it was not."""
    pruning = report.pruned.get("release")
    if pruning is None:
        return {}
    term = "with the Fisher term" if pruning.fisher else "without the Fisher term"
    sets = ", ".join(report.roles.auxiliary_names)
    stood = {
        "given": sets or "auxiliary sets",
        "generated": f"generated. {GENERATED}",
        "none": "nothing",
    }[pruning.auxiliary]
    return {
        "method": f"{pruning.method} {term}" if pruning.method == "ntp" else pruning.method,
        "stand-in for the thief's task": stood,
    }


def _means(audit: TransferAudit) -> dict[str, str]:
    return {
        "suite": f"{audit.suite} version {audit.suite_version}",
        "grid, images a class": _listed(audit.grid),
        "grid, images": _listed(audit.samples),
        "seeds": _listed(audit.seeds),
        "attackers": ", ".join(sorted({point.attacker for point in audit.points})),
        "skipped": "; ".join(audit.skipped) or "none",
    }


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys joined by dots.

    >>> _flat({"audit": {"steps": 3}, "seed": 0})
    {'audit.steps': 3, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= (
            _flat(inner, f"{before}{key}.") if isinstance(inner, Mapping) else {before + key: inner}
        )
    return found


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)


def _word(value: Any) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
