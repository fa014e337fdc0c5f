"""Intervals and tests: against scipy, against published tables, and by counting how often they hold
the truth.
"""

import itertools
import math

import numpy as np
import pytest

from lockforge.evidence.statistics import (
    benjamini_hochberg,
    covariance,
    fieller,
    mean,
    paired_t_p,
    student_t_central,
    student_t_quantile,
    t_interval,
    target_tests,
)
from lockforge.randomness import numpy_generator
from lockforge.records import Estimate, TransferAudit

FOUR_ERRORS = 4 * math.sqrt(
    0.95 * 0.05 / 4000
)  # standard errors of a share of .95, or of .05, in 4,000 draws


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 7, 8, 9, 10, 29, 30, 100, 101, 1000])
def test_the_t_quantile_is_scipys(df: int) -> None:
    """The closed form and its bisection agree with scipy's to 1e-9 relative over the levels anyone
    uses.
    """
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    for p in (0.0005, 0.01, 0.025, 0.05, 0.3, 0.5, 0.6, 0.9, 0.95, 0.975, 0.995, 0.9995):
        assert student_t_quantile(p, df) == pytest.approx(
            float(stats.t.ppf(p, df)), rel=1e-9, abs=1e-12
        )


def test_the_t_quantile_is_the_textbooks() -> None:
    """Two, three and five seeds: 12.706, 4.303 and 2.776, as every printed table has them."""
    assert [round(student_t_quantile(0.975, df), 3) for df in (1, 2, 4)] == [12.706, 4.303, 2.776]


def test_the_central_probability_inverts_the_quantile() -> None:
    """P(|T| <= t) = 2p - 1 at t = quantile(p), a law."""
    for df in range(1, 40):
        assert student_t_central(student_t_quantile(0.8, df), df) == pytest.approx(0.6, abs=1e-13)


@pytest.mark.parametrize(("p", "df"), [(0.0, 3), (1.0, 3), (0.5, 0), (math.nan, 2)])
def test_an_impossible_quantile_is_refused(p: float, df: int) -> None:
    """Outside (0, 1) or below one degree of freedom there is no quantile."""
    with pytest.raises(ValueError, match="quantile"):
        student_t_quantile(p, df)


def test_the_t_interval_is_scipys() -> None:
    """Mean and interval of five values equal scipy's."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    values = [0.11, 0.35, 0.2, 0.19, 0.4]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    estimate = t_interval(values)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
        (np.mean(values), low, high), rel=1e-12
    )


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    """Where no interval can be said, the reason says so."""
    assert t_interval([0.5]).low is None
    assert "one seed" in t_interval([0.5]).reason
    assert not t_interval([]).defined


def test_the_t_interval_holds_the_truth_19_times_in_20() -> None:
    """Nominal coverage: 4,000 draws of three seeds, 95 % within four standard errors (1.4
    points).
    """
    rng = numpy_generator(0, "coverage of t")
    draws = rng.normal(0.3, 0.05, size=(4000, 3))
    estimates = [t_interval(row.tolist()) for row in draws]
    held = [e.low is not None and e.high is not None and e.low <= 0.3 <= e.high for e in estimates]
    assert np.mean(held) == pytest.approx(0.95, abs=FOUR_ERRORS)


def test_fieller_holds_the_true_ratio_19_times_in_20() -> None:
    """Nominal coverage with correlated numerators and denominators; the delta method or a bootstrap
    of three would fall short.
    """
    rng = numpy_generator(0, "coverage of Fieller")
    held = []
    for _ in range(4000):
        shared = rng.normal(0, 0.03, 3)
        estimate = fieller(
            (0.2 + shared + rng.normal(0, 0.02, 3)).tolist(),
            (0.8 + shared + rng.normal(0, 0.02, 3)).tolist(),
        )
        held.append(
            estimate.low is not None
            and estimate.high is not None
            and estimate.low <= 0.25 <= estimate.high
        )
    assert np.mean(held) == pytest.approx(0.95, abs=FOUR_ERRORS)


def test_a_percentile_bootstrap_would_hold_it_three_times_in_four() -> None:
    """Why not the usual one: over three seeds it reaches from the least to the greatest (each is 1
    of 27 resampled means, more than 2.5 %).

    The truth, here the median, is outside when all three lie on one side of it: 2 / 8.
    """
    rng = numpy_generator(0, "coverage of the bootstrap")
    which = np.array(list(itertools.product(range(3), repeat=3)))
    means = rng.normal(0.3, 0.05, size=(4000, 3))[:, which].mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1, method="inverted_cdf")
    assert np.mean((low <= 0.3) & (high >= 0.3)) == pytest.approx(
        0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000)
    )


def test_the_ends_of_fiellers_set_are_where_the_t_test_turns() -> None:
    """At either end r the t statistic of numerator - r denominator is the quantile itself: the
    definition, not the formula.
    """
    y, x = [0.3, 0.42, 0.35, 0.31], [0.8, 0.95, 0.85, 0.9]
    estimate = fieller(y, x)
    for end in (estimate.low, estimate.high):
        assert end is not None
        rest = [a - end * b for a, b in zip(y, x, strict=True)]
        t = mean(rest) / math.sqrt(covariance(rest, rest) / len(rest))
        assert abs(t) == pytest.approx(student_t_quantile(0.975, 3), rel=1e-9)


def test_a_ratio_over_nothing_is_undefined() -> None:
    """A denominator that cannot be told from 0 gives no figure but a reason; so does a single
    seed.
    """
    unbounded = fieller([0.1, 0.2, 0.3], [0.1, -0.1, 0.05])
    assert not unbounded.defined
    assert "not told from 0" in unbounded.reason
    assert not fieller([0.1], [0.5]).defined


def test_equal_means_give_the_ratio_one_exactly() -> None:
    """Something divided by itself is 1 whatever its noise."""
    estimate = fieller([0.5, 0.7, 0.6], [0.5, 0.7, 0.6])
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)
    assert estimate.per_seed == (1.0, 1.0, 1.0)


# Tests


def test_the_paired_p_is_scipys() -> None:
    """One-sided and paired: five values each, both ways round; the two sides add up to 1."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    low, high = [0.11, 0.35, 0.2, 0.19, 0.4], [0.2, 0.34, 0.3, 0.25, 0.41]
    assert paired_t_p(low, high) == pytest.approx(
        float(stats.ttest_rel(low, high, alternative="less").pvalue), rel=1e-12
    )
    assert paired_t_p(high, low) == pytest.approx(
        float(stats.ttest_rel(high, low, alternative="less").pvalue), rel=1e-12
    )
    assert paired_t_p(low, high) + paired_t_p(high, low) == pytest.approx(1.0, abs=1e-12)


def test_a_p_without_spread_or_seeds_is_said() -> None:
    """One pair shows nothing; the same difference every time leaves nothing to chance; no
    difference at all is none.
    """
    assert paired_t_p([0.1], [0.9]) == 1.0
    assert paired_t_p([0.25, 0.5], [0.5, 0.75]) == 0.0
    assert paired_t_p([0.25, 0.5], [0.25, 0.5]) == 1.0
    assert paired_t_p([0.5, 0.75], [0.25, 0.5]) == 1.0


def test_equal_means_are_told_apart_one_time_in_twenty() -> None:
    """The level holds: 4,000 draws of three correlated pairs with equal means, p <= .05 in 5 %
    within four standard errors.
    """
    rng = numpy_generator(0, "level of the paired test")
    shared = rng.normal(0.3, 0.05, size=(4000, 1, 3))
    pairs = shared + rng.normal(0, 0.02, size=(4000, 2, 3))
    assert np.mean([paired_t_p(*pair) <= 0.05 for pair in pairs.tolist()]) == pytest.approx(
        0.05, abs=FOUR_ERRORS
    )


WORKED = (
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0,
)


def test_the_worked_example_of_benjamini_and_hochberg() -> None:
    """Their section 3.2, fifteen comparisons of two treatments: at q = .05 the first four are
    rejected; Bonferroni rejects three.
    """
    adjusted = benjamini_hochberg(WORKED)
    assert sum(p <= 0.05 for p in adjusted) == 4
    assert sum(15 * p <= 0.05 for p in WORKED) == 3
    assert adjusted[3] == pytest.approx(15 * 0.0095 / 4)
    assert adjusted[:2] == pytest.approx((15 * 0.0001, 15 * 0.0004 / 2))
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    assert adjusted == pytest.approx(tuple(stats.false_discovery_control(WORKED)), rel=1e-12)


def test_adjusted_values_keep_order_and_bounds() -> None:
    """Given in another order they come in that order; never below p, never above 1; of none there
    are none.
    """
    shuffled = numpy_generator(0, "order").permutation(15)
    assert benjamini_hochberg([WORKED[at] for at in shuffled]) == tuple(
        benjamini_hochberg(WORKED)[at] for at in shuffled
    )
    assert all(p <= q <= 1 for p, q in zip(WORKED, benjamini_hochberg(WORKED), strict=True))
    assert benjamini_hochberg([]) == ()
    assert benjamini_hochberg([0.3]) == (0.3,)


def test_each_target_has_its_test(audited: TransferAudit) -> None:
    """What the release keeps against what the unlocked model is worth, seed by seed, and adjusted
    over the targets.
    """
    kept = ((0.1, 0.2, 0.3), (0.4, 0.3, 0.4))
    worth = Estimate(mean=0.4, per_seed=(0.3, 0.3, 0.6))
    measures = [
        audited.measures.model_copy(
            update={"kept": Estimate(mean=mean(one), per_seed=one), "worth": worth}
        )
        for one in kept
    ]
    tests = target_tests(
        ("usps", "svhn"), [audited.model_copy(update={"measures": one}) for one in measures]
    )
    assert [test.target for test in tests] == ["usps", "svhn"]
    assert [test.p for test in tests] == pytest.approx(
        [paired_t_p(one, worth.per_seed) for one in kept]
    )
    assert tests[0].p < 0.05 < tests[1].p
    assert [test.adjusted for test in tests] == pytest.approx([2 * tests[0].p, tests[1].p])
