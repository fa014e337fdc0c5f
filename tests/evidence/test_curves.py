"""Areas and R against closed forms, laws, and simulated thieves whose true accuracies are known."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockforge.errors import IntegrityError
from lockforge.evidence.curves import (
    STARTS,
    advantage,
    area,
    choose,
    image_deviation,
    in_words,
    measure,
    removed,
    samples_to_reach,
    verdict,
)
from lockforge.randomness import numpy_generator
from lockforge.records import AttackPoint, Envelope, Estimate, LearningCurve, Measures, Start

measured = partial(measure, test_samples=1000)
Simulate = Callable[..., tuple[AttackPoint, ...]]
Truth = Mapping[Start, Sequence[float]]


def envelope(measures: Measures, name: str) -> LearningCurve:
    """One envelope's curve by name."""
    return next(item.curve for item in measures.envelopes if item.name == name)


# Areas


def test_a_constant_curve_has_the_area_of_its_rectangle() -> None:
    """A = y ln(x_max / x_min): .7 ln 1000 over the paper's own fractions."""
    fractions = (0.001, 0.002, 0.005, 0.008, 0.01, 0.05, 0.1, 0.2, 0.5, 1)
    assert area(fractions, (0.7,) * 10) == pytest.approx(0.7 * math.log(1000), rel=1e-14)
    assert area(fractions, (1.0,) * 10) == pytest.approx(6.907755278982137, rel=1e-14)


def test_a_line_over_ln_x_has_the_area_of_its_triangle() -> None:
    """Y = log10(x) / 3 rises from 0 to 1 over three decades; half of ln 1000 is below it, however
    the grid is cut.
    """
    assert area((1, 1000), (0, 1)) == pytest.approx(math.log(1000) / 2, rel=1e-14)
    grid = (1, 2, 5, 20, 333, 1000)
    assert area(grid, [math.log10(x) / 3 for x in grid]) == pytest.approx(
        math.log(1000) / 2, rel=1e-14
    )


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), min_size=2, max_size=12))
def test_no_area_is_above_its_bound(steps: list[tuple[float, float]]) -> None:
    """0 <= A <= ln(x_max / x_min) for any accuracies in [0, 1]."""
    samples = np.exp(np.cumsum([step for step, _ in steps])).tolist()
    found = area(samples, [y for _, y in steps])
    assert -1e-12 <= found <= math.log(samples[-1] / samples[0]) + 1e-12


@pytest.mark.parametrize(
    ("samples", "accuracy", "why"),
    [
        ((1, 1), (0.1, 0.2), "strictly"),
        ((2, 1), (0.1, 0.2), "strictly"),
        ((0, 1), (0.1, 0.2), "strictly"),
        ((1,), (0.1,), "two or more"),
        ((1, 2), (0.1,), "two or more"),
        ((1, 2), (0.1, 1.2), "0, 1"),
        ((1, 2), (-0.1, 1), "0, 1"),
        ((1, 2), (math.nan, 1), "0, 1"),
        ((1, math.nan), (0.2, 1), "strictly"),
    ],
)
def test_an_impossible_curve_is_refused(
    samples: tuple[float, ...], accuracy: tuple[float, ...], why: str
) -> None:
    """Grids that do not rise and accuracies outside [0, 1] give no area."""
    with pytest.raises(IntegrityError, match=why):
        area(samples, accuracy)


# The choice


def point(
    start: Start, setting: str, val: float, test: float | None = 0.5, *, attacker: str = "fine_tune"
) -> AttackPoint:
    """One point at ten images, seed 0."""
    return AttackPoint(
        start=start,
        attacker=attacker,
        setting=setting,
        images_per_class=1,
        samples=10,
        seed=0,
        steps=1,
        flops=1,
        val_accuracy=val,
        test_accuracy=test,
    )


def test_the_choice_sees_validation_only() -> None:
    """The setting best by validation is chosen although another is better on test; of equal ones
    the first by name, in any order.
    """
    points = [
        point("release", "c", 0.8, 0.9),
        point("release", "b", 0.9, 0.1),
        point("release", "a", 0.9, 0.2),
        point("twin", "z", 0.0, None),
    ]
    for order in (points, points[::-1]):
        assert [(chosen.start, chosen.setting) for chosen in choose(order)] == [
            ("release", "a"),
            ("twin", "z"),
        ]


def test_equal_validation_between_starts_is_a_coin_toss(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Where release and scratch tie on validation, the envelope is the mean of their test
    accuracies, whichever name comes first.
    """
    points = simulate(flat, rng, attackers=("fine_tune",), rates=("only",))
    tied = tuple(item.model_copy(update={"val_accuracy": 0.5}) for item in points)
    assert envelope(measured(tied), "release").accuracy[0] == pytest.approx(
        [(0.6 + 0.4 + 0.4) / 3] * 3
    )


# Measures with a known answer


def test_flat_curves_give_the_known_figures(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Release .6, reference .8, twin .7, empty .4: R = 1 - .2/.4, against the twin 1 - .2/.3, dummy
    1, gap .2, SLC-AUC .2 ln 1000.
    """
    found = measured(simulate(flat, rng))
    assert found.removed_vs_reference.per_seed == pytest.approx((0.5, 0.5, 0.5))
    assert (found.removed_vs_reference.mean, found.removed_vs_twin.mean) == pytest.approx(
        (0.5, 1 / 3)
    )
    assert found.removed_by_dummy.mean == pytest.approx(1.0)
    assert (found.accuracy_gap.mean, found.accuracy_gap.low) == pytest.approx((0.2, 0.2))
    slc = {(entry.start, entry.attacker): entry for entry in found.slc}
    assert set(slc) == {
        (start, attacker)
        for start in ("release", "twin", "reference", "dummy")
        for attacker in ("fine_tune", "linear_probe")
    }
    assert slc["release", "linear_probe"].area.mean == pytest.approx(0.2 * math.log(1000))
    assert slc["release", "linear_probe"].normalised.mean == pytest.approx(0.2)
    assert found.worst_attacker == "release:fine_tune"
    assert found.samples_to_90 == {
        "release": None,
        "reference": 10.0,
        "twin": None,
        "scratch": None,
        "dummy": None,
    }
    assert measured(simulate(flat, rng)[::-1]) == found


def test_a_release_worse_than_nothing_gives_r_one_and_a_negative_slc_area(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """A stuck attacker adds nothing, since the thief can start over: R stays at 1, not above, while
    SLC-AUC is -.3.
    """
    found = measured(simulate({**flat, "release": (0.1,) * 3}, rng))
    assert found.removed_vs_reference.mean == pytest.approx(1.0)
    assert [
        entry.normalised.mean for entry in found.slc if entry.start == "release"
    ] == pytest.approx([-0.3, -0.3])


def test_slc_areas_are_against_scratch_on_the_released_architecture(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Empty networks reach .4 on the released architecture and .5 on the reference's: .6 - .4
    counts, as in the paper.
    """
    found = measured(simulate({**flat, "scratch_reference": (0.5,) * 3}, rng))
    assert [
        entry.normalised.mean for entry in found.slc if entry.start == "release"
    ] == pytest.approx([0.2, 0.2])


def test_a_twin_that_is_the_release_gives_exactly_zero(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Without points of its own the twin is the release: R against it is 0 to the last bit, and the
    reason names the missing lock.
    """
    truth = {start: curve for start, curve in flat.items() if start != "twin"}
    found = measured(simulate(truth, rng, noise=0.05), {"twin": "release"})
    assert (found.removed_vs_twin.mean, found.removed_vs_twin.low, found.removed_vs_twin.high) == (
        0,
        0,
        0,
    )
    assert "no weight lock" in found.removed_vs_twin.reason
    assert envelope(found, "twin") == envelope(found, "release")
    assert {entry.start for entry in found.slc} == {"release", "twin", "reference", "dummy"}


def test_a_release_that_is_the_reference_removes_nothing(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """All three one network, one architecture: R is 0 exactly and the verdict is no protection."""
    truth: Truth = {start: flat[start] for start in ("release", "scratch_release", "dummy")}
    found = measured(
        simulate(truth, rng, noise=0.01),
        {"twin": "release", "reference": "release", "scratch_reference": "scratch_release"},
    )
    assert (
        found.removed_vs_reference.mean,
        found.removed_vs_reference.low,
        found.removed_vs_reference.high,
    ) == (0, 0, 0)
    assert verdict(found, "standard").word == "no protection"


def test_samples_to_90_are_read_off_a_line_over_ln_x() -> None:
    """From .2 at 10 to .8 at 1000 images, .5 is reached at 100; the first crossing counts; never is
    None.
    """
    curve = LearningCurve(samples=(10, 1000, 2000), accuracy=((0.2,), (0.8,), (0.3,)))
    assert samples_to_reach(curve, 0.5) == pytest.approx(100)
    assert samples_to_reach(curve, 0.1) == 10
    assert samples_to_reach(curve, 0.81) is None


# Noise


def test_an_unlocked_release_gives_zero_and_an_empty_one_gives_one(
    flat: Truth, simulate: Simulate
) -> None:
    """In 120 noisy audits of four seeds the interval of R holds 0 for a release as good as the
    reference, and 1 for an empty network.

    Both sides choose among equally many settings, so no choice is favoured; 95 % within four
    standard errors (8 points). A twin as good as the release, attacked on its own, gives 0 as well.
    For an empty network it may hold more often: where validation prefers scratch both curves are
    the same points, and their difference is 0 exactly.
    """
    rng = numpy_generator(3, "known releases")
    holds: dict[str, list[bool]] = {"zero": [], "twin": [], "one": [], "dummy": []}
    for _ in range(120):
        options = {"noise": 0.02, "seeds": 4, "attackers": ("one",)}
        unlocked = measured(
            simulate(
                {**flat, "release": flat["reference"], "twin": flat["reference"]}, rng, **options
            )
        )
        empty = measured(simulate({**flat, "release": (0.4,) * 3}, rng, **options))
        for name, figure, truth in (
            ("zero", unlocked.removed_vs_reference, 0.0),
            ("twin", unlocked.removed_vs_twin, 0.0),
            ("one", empty.removed_vs_reference, 1.0),
            ("dummy", empty.removed_by_dummy, 1.0),
        ):
            assert figure.low is not None
            assert figure.high is not None
            holds[name].append(figure.low <= truth <= figure.high)
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 120)
    share = {name: float(np.mean(held)) for name, held in holds.items()}
    assert (share["zero"], share["twin"]) == pytest.approx((0.95, 0.95), abs=tolerance)
    assert min(share["one"], share["dummy"]) >= 0.95 - tolerance


def test_choosing_on_test_would_fake_a_gain_and_choosing_by_validation_does_not() -> None:
    """The example of the methods page: 12 attackers no better than scratch, noise .01 on test, area
    over ln 1000.

    The best of 12 on *test* gains .01 times the mean of the largest of 12 normals (1.629), .113 in
    all. By validation the same attackers gain nothing, and the interval of the dummy's R, here the
    release's too, holds 1 in 95 % of 150 audits of three seeds.
    """
    rng = numpy_generator(5, "twelve attackers")
    grid = ((1, 10), (10, 100), (0, 10_000))
    same_as: dict[Start, Start] = {
        "twin": "release",
        "dummy": "release",
        "scratch_reference": "scratch_release",
    }
    crowd = (("release", 12, 0.5), ("reference", 1, 0.8), ("scratch_release", 1, 0.5))
    fake, honest, held = [], [], []
    for _ in range(150):
        points = [
            AttackPoint(
                start=start,
                attacker=f"a{a}",
                setting="s",
                images_per_class=images,
                samples=samples,
                seed=seed,
                steps=1,
                flops=1,
                val_accuracy=float(level + rng.normal(0, 0.01)),
                test_accuracy=float(level + rng.normal(0, 0.01)),
            )
            for start, attackers, level in crowd
            for a in range(attackers)
            for images, samples in grid
            for seed in range(3)
        ]
        found = measured(points, same_as)
        honest.append((found.kept.mean or 0) * math.log(1000))
        dummy = found.removed_by_dummy
        held.append(
            dummy.low is not None and dummy.high is not None and dummy.low <= 1 <= dummy.high
        )
        for seed in range(3):
            best = [
                max(
                    p.test_accuracy or 0
                    for p in points
                    if (p.start, p.samples, p.seed) == ("release", n, seed)
                )
                for _, n in grid
            ]
            none = [
                p.test_accuracy or 0
                for p in points
                if (p.start, p.seed) == ("scratch_release", seed)
            ]
            fake.append(area([n for _, n in grid], best) - area([n for _, n in grid], none))
    assert np.mean(fake) == pytest.approx(0.113, abs=0.01)
    assert np.mean(honest) == pytest.approx(0.0, abs=0.01)
    assert np.mean(held) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 150))


def test_the_deviation_by_images_is_the_binomials() -> None:
    """Flat curves of .6 and .4 on 24 images: sqrt(.24 / 24 + .24 / 24) in closed form; a curve that
    is always right adds nothing.
    """

    def flat_at(level: float) -> LearningCurve:
        return LearningCurve(samples=(1, 10, 1000), accuracy=((level,) * 2,) * 3)

    assert image_deviation(flat_at(0.6), flat_at(0.4), 24) == pytest.approx(
        math.sqrt(0.02), rel=1e-12
    )
    assert image_deviation(flat_at(0.6), flat_at(1.0), 24) == pytest.approx(0.1, rel=1e-12)
    with pytest.raises(IntegrityError, match="test images"):
        image_deviation(flat_at(0.6), flat_at(1.0), 0)


@pytest.mark.parametrize(("shared", "low", "high"), [(False, 0.7, 1.05), (True, 0.0, 0.7)])
def test_the_deviation_by_images_is_an_upper_bound(
    *, shared: bool, low: float, high: float
) -> None:
    """2,000 test splits of 100 images, each image right where its difficulty is below the accuracy.

    With difficulties of their own the two curves err by no more than stated (5 % for the draws) and
    by most of it; with the same by less.
    """
    rng = numpy_generator(6, "test splits", shared)
    samples, truths = (1, 10, 1000), ((0.3, 0.5, 0.8), (0.2, 0.4, 0.7))
    own, other = rng.random((2, 2000, 100))
    rights = [
        [(draw < y).mean(axis=1) for y in levels]
        for levels, draw in zip(truths, (own, own if shared else other), strict=True)
    ]
    gaps = [
        area(samples, one) - area(samples, two)
        for one, two in zip(np.array(rights[0]).T, np.array(rights[1]).T, strict=True)
    ]
    curves = [
        LearningCurve(samples=samples, accuracy=tuple((y,) for y in levels)) for levels in truths
    ]
    ratio = float(np.std(gaps)) / math.log(1000) / image_deviation(*curves, 100)
    assert low < ratio < high


# Undefined, refused


def test_nothing_to_protect_is_said(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """An unlocked model .02 above scratch, or uncertainly above it, leaves R undefined; .03 above
    it defines R.
    """
    barely = measured(simulate({**flat, "reference": (0.42,) * 3}, rng))
    assert not barely.removed_vs_reference.defined
    assert "0.020" in barely.removed_vs_reference.reason
    assert verdict(barely, "standard").word == "nothing to protect"
    assert verdict(barely, "quick").word == "nothing to protect"
    assert measured(simulate({**flat, "reference": (0.43,) * 3}, rng)).removed_vs_reference.defined
    curve = LearningCurve(samples=(1, 10), accuracy=((0.1, 0.9), (0.1, 0.9)))
    uncertain = removed(
        curve, curve, LearningCurve(samples=(1, 10), accuracy=((0.1, 0.1), (0.1, 0.1)))
    )
    assert not uncertain.defined


def test_one_seed_gives_no_r(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """An interval needs two seeds; a single one leaves R undefined and says why."""
    assert "one seed" in measured(simulate(flat, rng, seeds=1)).removed_vs_reference.reason


def test_curves_on_different_grids_are_refused(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """A missing grid value, another count at the same value, a missing seed: no figure, and the
    curve is named.
    """
    points = simulate(flat, rng)
    rest = [
        p
        for p in points
        if not (p.start == "twin" and p.attacker == "linear_probe" and p.samples == 100)
    ]
    with pytest.raises(IntegrityError, match="twin:linear_probe"):
        measured(rest)
    with pytest.raises(IntegrityError, match="twin:fine_tune"):
        measured(
            [
                p.model_copy(update={"samples": 99}) if (p.start, p.samples) == ("twin", 100) else p
                for p in points
            ]
        )
    with pytest.raises(IntegrityError, match="dummy:fine_tune"):
        measured([p for p in points if not (p.start == "dummy" and p.seed == 2)])
    with pytest.raises(IntegrityError, match="rise strictly"):
        measured(
            [
                p.model_copy(update={"samples": {10: 10_000, 10_000: 10}.get(p.samples, p.samples)})
                for p in points
            ]
        )
    with pytest.raises(IntegrityError, match="different grids"):
        advantage(
            LearningCurve(samples=(1, 2), accuracy=((0.1,), (0.1,))),
            LearningCurve(samples=(1, 3), accuracy=((0.1,), (0.1,))),
        )


def test_missing_starts_doubles_and_untested_choices_are_refused(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """What an audit left out, did twice or never tested stops the figures."""
    points = simulate(flat, rng)
    with pytest.raises(IntegrityError, match="without points: \\['dummy'\\]"):
        measured([p for p in points if p.start != "dummy"])
    with pytest.raises(IntegrityError, match="another's: \\['twin'\\]"):
        measured(points, {"twin": "release"})
    with pytest.raises(IntegrityError, match="1 attack points are there twice"):
        measured((*points, points[0]))
    with pytest.raises(IntegrityError, match="no test accuracy"):
        measured([p.model_copy(update={"test_accuracy": None}) for p in points])
    with pytest.raises(IntegrityError, match="without points"):
        measured([])


def test_a_figure_in_words_says_what_is_missing() -> None:
    """Undefined and interval-less figures say so."""
    assert in_words(Estimate(mean=None, reason="no seeds")) == "undefined (no seeds)"
    assert (
        in_words(Estimate(mean=0.5, reason="one seed gives no interval"))
        == "0.500 (one seed gives no interval)"
    )


def test_public_weights_are_outside_and_nowhere_else(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Public weights at .7: outside is the best of these and scratch, the unlocked model is worth
    .1 more, and nothing else changes.
    """
    without = measured(simulate(flat, rng))
    found = measured(simulate({**flat, "public:a": (0.7,) * 3, "public:b": (0.3,) * 3}, rng))
    assert found.envelopes[-1].name == "outside"
    assert found.envelopes[-1].starts == (
        "scratch_release",
        "scratch_reference",
        "public:a",
        "public:b",
    )
    assert found.envelopes[-1].curve.accuracy[0] == pytest.approx((0.7,) * 3)
    assert found.worth_beyond_public is not None
    assert found.worth_beyond_public.mean == pytest.approx(0.1)
    assert found.envelopes[:-1] == without.envelopes
    assert without.worth_beyond_public is None
    assert (found.removed_vs_reference, found.worth, found.kept) == (
        without.removed_vs_reference,
        without.worth,
        without.kept,
    )
    assert {entry.start: entry.normalised.mean for entry in found.slc}["public:b"] == pytest.approx(
        -0.1
    )


def test_public_weights_may_lack_attackers_but_not_places(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """One attacker of two is enough; a missing grid value is not."""
    points = [
        p
        for p in simulate({**flat, "public:a": (0.7,) * 3}, rng)
        if (p.start, p.attacker) != ("public:a", "linear_probe")
    ]
    assert measured(points).worth_beyond_public is not None
    with pytest.raises(IntegrityError, match="public:a:fine_tune"):
        measured([p for p in points if (p.start, p.samples) != ("public:a", 10)])


def test_a_grid_of_fractions_gives_the_same_figures(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Without images per class only the images tell points apart: every figure is what it was. Some
    with and some without are refused.
    """
    points = simulate(flat, rng)
    assert measured([p.model_copy(update={"images_per_class": 0}) for p in points]) == measured(
        points
    )
    with pytest.raises(IntegrityError, match="rise strictly"):
        measured(
            [p.model_copy(update={"images_per_class": 0 if p.samples < 100 else 7}) for p in points]
        )


def test_worth_and_kept_are_mean_accuracies_over_the_grid(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Reference .8 and release .6 over scratch .4: worth .4, kept .2, whatever the grid; the
    images' part is binomial on 1,000 images.
    """
    found = measured(simulate(flat, rng))
    assert (found.worth.mean, found.kept.mean) == pytest.approx((0.4, 0.2))
    assert found.image_sd == pytest.approx(math.sqrt(2 * 0.24 / 1000))


def test_envelopes_are_the_five_of_the_method(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """W, V, U, C, D in that order, each but C with both scratches; every start of the records is
    used by one of them.
    """
    envelopes: tuple[Envelope, ...] = measured(simulate(flat, rng)).envelopes
    assert [item.name for item in envelopes] == ["release", "reference", "twin", "scratch", "dummy"]
    assert all({"scratch_release", "scratch_reference"} <= set(item.starts) for item in envelopes)
    assert {start for item in envelopes for start in item.starts} == set(STARTS)
