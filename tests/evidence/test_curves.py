"""Areas and R against closed forms, laws, and simulated thieves whose true accuracies are known."""

import math
from collections.abc import Callable, Mapping, Sequence

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
    in_words,
    measure,
    removed,
    samples_to_reach,
    verdict,
)
from lockforge.records import AttackPoint, Envelope, Estimate, LearningCurve, Measures, Start

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
    """Y = log10(x) / 3 rises from 0 to 1 over three decades; half of ln 1000 is below it, however the grid is cut."""
    assert area((1, 1000), (0, 1)) == pytest.approx(math.log(1000) / 2, rel=1e-14)
    grid = (1, 2, 5, 20, 333, 1000)
    assert area(grid, [math.log10(x) / 3 for x in grid]) == pytest.approx(math.log(1000) / 2, rel=1e-14)


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), min_size=2, max_size=12))
def test_no_area_is_above_its_bound(steps: list[tuple[float, float]]) -> None:
    """0 <= A <= ln(x_max / x_min) for any accuracies in [0, 1]."""
    samples = np.exp(np.cumsum([step for step, _ in steps])).tolist()
    found = area(samples, [y for _, y in steps])
    assert -1e-12 <= found <= math.log(samples[-1] / samples[0]) + 1e-12


@pytest.mark.parametrize(
    ("samples", "accuracy", "why"),
    [((1, 1), (0.1, 0.2), "strictly"), ((2, 1), (0.1, 0.2), "strictly"), ((0, 1), (0.1, 0.2), "strictly"), ((1,), (0.1,), "two or more"),
     ((1, 2), (0.1,), "two or more"), ((1, 2), (0.1, 1.2), "0, 1"), ((1, 2), (-0.1, 1), "0, 1"), ((1, 2), (math.nan, 1), "0, 1"),
     ((1, math.nan), (0.2, 1), "strictly")],
)  # fmt: skip
def test_an_impossible_curve_is_refused(samples: tuple[float, ...], accuracy: tuple[float, ...], why: str) -> None:
    """Grids that do not rise and accuracies outside [0, 1] give no area."""
    with pytest.raises(IntegrityError, match=why):
        area(samples, accuracy)


# The choice


def point(start: Start, setting: str, val: float, test: float | None = 0.5, *, attacker: str = "fine_tune") -> AttackPoint:
    """One point at ten images, seed 0."""
    return AttackPoint(
        start=start, attacker=attacker, setting=setting, images_per_class=1, samples=10, seed=0, steps=1, flops=1,
        val_accuracy=val, test_accuracy=test,
    )  # fmt: skip


def test_the_choice_sees_validation_only() -> None:
    """The setting best by validation is chosen although another is better on test; of equal ones the first by name, in any order."""
    points = [
        point("release", "c", 0.8, 0.9),
        point("release", "b", 0.9, 0.1),
        point("release", "a", 0.9, 0.2),
        point("twin", "z", 0.0, None),
    ]
    for order in (points, points[::-1]):
        assert [(chosen.start, chosen.setting) for chosen in choose(order)] == [("release", "a"), ("twin", "z")]


def test_equal_validation_between_starts_is_a_coin_toss(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """Where release and scratch tie on validation, the envelope is the mean of their test accuracies, whichever name comes first."""
    points = simulate(flat, rng, attackers=("fine_tune",), rates=("only",))
    tied = tuple(item.model_copy(update={"val_accuracy": 0.5}) for item in points)
    assert envelope(measure(tied), "release").accuracy[0] == pytest.approx([(0.6 + 0.4 + 0.4) / 3] * 3)


# Measures with a known answer


def test_flat_curves_give_the_known_figures(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """Release .6, reference .8, twin .7, empty .4: R = 1 - .2/.4, against the twin 1 - .2/.3, dummy 1, gap .2, SLC-AUC .2 ln 1000."""
    found = measure(simulate(flat, rng))
    assert found.removed_vs_reference.per_seed == pytest.approx((0.5, 0.5, 0.5))
    assert (found.removed_vs_reference.mean, found.removed_vs_twin.mean) == pytest.approx((0.5, 1 / 3))
    assert found.removed_by_dummy.mean == pytest.approx(1.0)
    assert (found.accuracy_gap.mean, found.accuracy_gap.low) == pytest.approx((0.2, 0.2))
    slc = {(entry.start, entry.attacker): entry for entry in found.slc}
    assert set(slc) == {
        (start, attacker) for start in ("release", "twin", "reference", "dummy") for attacker in ("fine_tune", "linear_probe")
    }
    assert slc["release", "linear_probe"].area.mean == pytest.approx(0.2 * math.log(1000))
    assert slc["release", "linear_probe"].normalised.mean == pytest.approx(0.2)
    assert found.worst_attacker == "release:fine_tune"
    assert found.samples_to_90 == {"release": None, "reference": 10.0, "twin": None, "scratch": None, "dummy": None}
    assert measure(simulate(flat, rng)[::-1]) == found


def test_a_release_worse_than_nothing_gives_r_one_and_a_negative_slc_area(
    flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """A stuck attacker adds nothing, since the thief can start over: R stays at 1, not above, while SLC-AUC is -.3."""
    found = measure(simulate({**flat, "release": (0.1,) * 3}, rng))
    assert found.removed_vs_reference.mean == pytest.approx(1.0)
    assert [entry.normalised.mean for entry in found.slc if entry.start == "release"] == pytest.approx([-0.3, -0.3])


def test_slc_areas_are_against_scratch_on_the_released_architecture(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """Empty networks reach .4 on the released architecture and .5 on the reference's: .6 - .4 counts, as in the paper."""
    found = measure(simulate({**flat, "scratch_reference": (0.5,) * 3}, rng))
    assert [entry.normalised.mean for entry in found.slc if entry.start == "release"] == pytest.approx([0.2, 0.2])


def test_a_twin_that_is_the_release_gives_exactly_zero(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """Without points of its own the twin is the release: R against it is 0 to the last bit, and the reason names the missing lock."""
    truth = {start: curve for start, curve in flat.items() if start != "twin"}
    found = measure(simulate(truth, rng, noise=0.05), {"twin": "release"})
    assert (found.removed_vs_twin.mean, found.removed_vs_twin.low, found.removed_vs_twin.high) == (0, 0, 0)
    assert "no weight lock" in found.removed_vs_twin.reason
    assert envelope(found, "twin") == envelope(found, "release")
    assert {entry.start for entry in found.slc} == {"release", "twin", "reference", "dummy"}


def test_a_release_that_is_the_reference_removes_nothing(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """All three one network, one architecture: R is 0 exactly and the verdict is no protection."""
    truth: Truth = {start: flat[start] for start in ("release", "scratch_release", "dummy")}
    found = measure(
        simulate(truth, rng, noise=0.01), {"twin": "release", "reference": "release", "scratch_reference": "scratch_release"}
    )  # fmt: skip
    assert (found.removed_vs_reference.mean, found.removed_vs_reference.low, found.removed_vs_reference.high) == (0, 0, 0)
    assert verdict(found, "standard").word == "no protection"


def test_samples_to_90_are_read_off_a_line_over_ln_x() -> None:
    """From .2 at 10 to .8 at 1000 images, .5 is reached at 100; the first crossing counts; never is None."""
    curve = LearningCurve(samples=(10, 1000, 2000), accuracy=((0.2,), (0.8,), (0.3,)))
    assert samples_to_reach(curve, 0.5) == pytest.approx(100)
    assert samples_to_reach(curve, 0.1) == 10
    assert samples_to_reach(curve, 0.81) is None


# Noise


def test_an_unlocked_release_gives_zero_and_an_empty_one_gives_one(flat: Truth, simulate: Simulate) -> None:
    """In 150 noisy audits of four seeds the interval of R holds 0 for a release as good as the reference, and 1 for an empty network.

    Both sides choose among equally many settings, so no choice is favoured; 95 % within four standard errors (7 points).
    """
    rng = np.random.default_rng(3)
    holds: dict[str, list[bool]] = {"zero": [], "one": [], "dummy": []}
    for _ in range(150):
        unlocked = measure(
            simulate({**flat, "release": flat["reference"]}, rng, noise=0.02, seeds=4, attackers=("one",))
        ).removed_vs_reference
        empty = measure(simulate({**flat, "release": (0.4,) * 3}, rng, noise=0.02, seeds=4, attackers=("one",)))
        for name, figure, truth in (
            ("zero", unlocked, 0.0),
            ("one", empty.removed_vs_reference, 1.0),
            ("dummy", empty.removed_by_dummy, 1.0),
        ):
            assert figure.low is not None
            assert figure.high is not None
            holds[name].append(figure.low <= truth <= figure.high)
    assert {name: float(np.mean(held)) for name, held in holds.items()} == pytest.approx(
        {"zero": 0.95, "one": 0.95, "dummy": 0.95}, abs=0.07
    )


def test_choosing_on_test_would_fake_a_gain_and_choosing_by_validation_does_not(rng: np.random.Generator) -> None:
    """The example of the methods page: 12 attackers no better than scratch, noise .01 on test, area over ln 1000.

    The best of 12 on *test* gains .01 times the mean of the largest of 12 normals (1.629), .113 in all; by validation it gains nothing.
    """
    grid = ((1, 10), (10, 100), (0, 10_000))
    fake, honest = [], []
    for _ in range(200):
        points = [
            AttackPoint(start=start, attacker=f"a{a}", setting="s", images_per_class=images, samples=samples, seed=seed, steps=1, flops=1,
                        val_accuracy=float(0.5 + rng.normal(0, 0.01)), test_accuracy=float(0.5 + rng.normal(0, 0.01)))
            for start, attackers in (("release", 12), ("scratch_release", 1)) for a in range(attackers)
            for images, samples in grid for seed in range(2)
        ]  # fmt: skip
        found = measure(
            points, {"twin": "release", "reference": "release", "scratch_reference": "scratch_release", "dummy": "scratch_release"}
        )  # fmt: skip
        honest.append((advantage(envelope(found, "release"), envelope(found, "scratch")).mean or 0) * math.log(1000))
        for seed in range(2):
            best = [max(p.test_accuracy or 0 for p in points if (p.start, p.samples, p.seed) == ("release", n, seed)) for _, n in grid]
            none = [p.test_accuracy or 0 for p in points if (p.start, p.seed) == ("scratch_release", seed)]
            fake.append(area([n for _, n in grid], best) - area([n for _, n in grid], none))
    assert np.mean(fake) == pytest.approx(0.113, abs=0.01)
    assert np.mean(honest) == pytest.approx(0.0, abs=0.01)


# Undefined, refused


def test_nothing_to_protect_is_said(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """An unlocked model .02 above scratch, or uncertainly above it, leaves R undefined; .03 above it defines R."""
    barely = measure(simulate({**flat, "reference": (0.42,) * 3}, rng))
    assert not barely.removed_vs_reference.defined
    assert "0.020" in barely.removed_vs_reference.reason
    assert verdict(barely, "standard").word == "nothing to protect"
    assert verdict(barely, "quick").word == "nothing to protect"
    assert measure(simulate({**flat, "reference": (0.43,) * 3}, rng)).removed_vs_reference.defined
    curve = LearningCurve(samples=(1, 10), accuracy=((0.1, 0.9), (0.1, 0.9)))
    uncertain = removed(curve, curve, LearningCurve(samples=(1, 10), accuracy=((0.1, 0.1), (0.1, 0.1))))
    assert not uncertain.defined


def test_one_seed_gives_no_r(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """An interval needs two seeds; a single one leaves R undefined and says why."""
    assert "one seed" in measure(simulate(flat, rng, seeds=1)).removed_vs_reference.reason


def test_curves_on_different_grids_are_refused(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """A missing grid value, another count at the same value, a missing seed: no figure, and the curve is named."""
    points = simulate(flat, rng)
    rest = [p for p in points if not (p.start == "twin" and p.attacker == "linear_probe" and p.samples == 100)]
    with pytest.raises(IntegrityError, match="twin:linear_probe"):
        measure(rest)
    with pytest.raises(IntegrityError, match="twin:fine_tune"):
        measure([p.model_copy(update={"samples": 99}) if (p.start, p.samples) == ("twin", 100) else p for p in points])
    with pytest.raises(IntegrityError, match="dummy:fine_tune"):
        measure([p for p in points if not (p.start == "dummy" and p.seed == 2)])
    with pytest.raises(IntegrityError, match="rise strictly"):
        measure([p.model_copy(update={"samples": {10: 10_000, 10_000: 10}.get(p.samples, p.samples)}) for p in points])
    with pytest.raises(IntegrityError, match="different grids"):
        advantage(LearningCurve(samples=(1, 2), accuracy=((0.1,), (0.1,))), LearningCurve(samples=(1, 3), accuracy=((0.1,), (0.1,))))


def test_missing_starts_doubles_and_untested_choices_are_refused(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """What an audit left out, did twice or never tested stops the figures."""
    points = simulate(flat, rng)
    with pytest.raises(IntegrityError, match="without points: \\['dummy'\\]"):
        measure([p for p in points if p.start != "dummy"])
    with pytest.raises(IntegrityError, match="another's: \\['twin'\\]"):
        measure(points, {"twin": "release"})
    with pytest.raises(IntegrityError, match="1 attack points are there twice"):
        measure((*points, points[0]))
    with pytest.raises(IntegrityError, match="no test accuracy"):
        measure([p.model_copy(update={"test_accuracy": None}) for p in points])
    with pytest.raises(IntegrityError, match="without points"):
        measure([])


# The verdict


def with_r(measures: Measures, low: float, dummy: float = 1.0) -> Measures:
    """The same measures with another R and another R of the dummy."""
    figure = Estimate(mean=low + 0.1, low=low, high=low + 0.2, per_seed=(low, low + 0.2))
    return measures.model_copy(
        update={"removed_vs_reference": figure, "removed_by_dummy": Estimate(mean=dummy, low=dummy - 0.01, high=dummy + 0.01)}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "dummy", "suite", "word"),
    [(0.0, 1.0, "standard", "no protection"), (-0.2, 1.0, "quick", "no protection"), (0.1, 1.0, "standard", "delays"),
     (0.749, 1.0, "standard", "delays"), (0.75, 1.0, "standard", "protects under this suite"), (0.99, 1.0, "quick", "indicative only"),
     (0.9, 0.95, "standard", "protects under this suite"), (0.9, 0.9, "standard", "indicative only"), (0.9, 1.1, "full", "indicative only"),
     (-0.1, 0.5, "full", "no protection")],
)  # fmt: skip
def test_the_verdict_follows_the_lower_end_of_r(
    low: float, dummy: float, suite: str, word: str, flat: Truth, simulate: Simulate, rng: np.random.Generator
) -> None:
    """Every rule at its edge; `quick` never says that anything protects or delays; a dummy far from 1 takes the word away."""
    said = verdict(with_r(measure(simulate(flat, rng)), low, dummy), suite)
    assert said.word == word
    assert f"{low:.3f} to {low + 0.2:.3f}" in said.reason


def test_a_figure_in_words_says_what_is_missing() -> None:
    """Undefined and interval-less figures say so."""
    assert in_words(Estimate(mean=None, reason="no seeds")) == "undefined (no seeds)"
    assert in_words(Estimate(mean=0.5, reason="one seed gives no interval")) == "0.500 (one seed gives no interval)"


def test_envelopes_are_the_five_of_the_method(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> None:
    """W, V, U, C, D in that order, each but C with both scratches; every start of the records is used by one of them."""
    envelopes: tuple[Envelope, ...] = measure(simulate(flat, rng)).envelopes
    assert [item.name for item in envelopes] == ["release", "reference", "twin", "scratch", "dummy"]
    assert all({"scratch_release", "scratch_reference"} <= set(item.starts) for item in envelopes)
    assert {start for item in envelopes for start in item.starts} == set(STARTS)
