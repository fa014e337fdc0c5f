"""Intervals: against scipy, against published tables, and by counting how often they hold the truth."""

import math

import numpy as np
import pytest

from lockforge.evidence.statistics import covariance, fieller, mean, student_t_central, student_t_quantile, t_interval


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 7, 8, 9, 10, 29, 30, 100, 101, 1000])
def test_the_t_quantile_is_scipys(df: int) -> None:
    """The closed form and its bisection agree with scipy's to 1e-9 relative over the levels anyone uses."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    for p in (0.0005, 0.01, 0.025, 0.05, 0.3, 0.5, 0.6, 0.9, 0.95, 0.975, 0.995, 0.9995):
        assert student_t_quantile(p, df) == pytest.approx(float(stats.t.ppf(p, df)), rel=1e-9, abs=1e-12)


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
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    """Where no interval can be said, the reason says so."""
    assert t_interval([0.5]).low is None
    assert "one seed" in t_interval([0.5]).reason
    assert not t_interval([]).defined


def test_the_t_interval_holds_the_truth_19_times_in_20() -> None:
    """Nominal coverage: 4,000 draws of three seeds, 95 % within four standard errors (1.4 points)."""
    rng = np.random.default_rng(11)
    draws = rng.normal(0.3, 0.05, size=(4000, 3))
    estimates = [t_interval(row.tolist()) for row in draws]
    held = [e.low is not None and e.high is not None and e.low <= 0.3 <= e.high for e in estimates]
    assert np.mean(held) == pytest.approx(0.95, abs=0.014)


def test_fieller_holds_the_true_ratio_19_times_in_20() -> None:
    """Nominal coverage with correlated numerators and denominators; the delta method or a bootstrap of three would fall short."""
    rng = np.random.default_rng(12)
    held = []
    for _ in range(4000):
        shared = rng.normal(0, 0.03, 3)
        estimate = fieller((0.2 + shared + rng.normal(0, 0.02, 3)).tolist(), (0.8 + shared + rng.normal(0, 0.02, 3)).tolist())
        held.append(estimate.low is not None and estimate.high is not None and estimate.low <= 0.25 <= estimate.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.014)


def test_the_ends_of_fiellers_set_are_where_the_t_test_turns() -> None:
    """At either end r the t statistic of numerator - r denominator is the quantile itself: the definition, not the formula."""
    y, x = [0.3, 0.42, 0.35, 0.31], [0.8, 0.95, 0.85, 0.9]
    estimate = fieller(y, x)
    for end in (estimate.low, estimate.high):
        assert end is not None
        rest = [a - end * b for a, b in zip(y, x, strict=True)]
        t = mean(rest) / math.sqrt(covariance(rest, rest) / len(rest))
        assert abs(t) == pytest.approx(student_t_quantile(0.975, 3), rel=1e-9)


def test_a_ratio_over_nothing_is_undefined() -> None:
    """A denominator that cannot be told from 0 gives no figure but a reason; so does a single seed."""
    unbounded = fieller([0.1, 0.2, 0.3], [0.1, -0.1, 0.05])
    assert not unbounded.defined
    assert "not told from 0" in unbounded.reason
    assert not fieller([0.1], [0.5]).defined


def test_equal_means_give_the_ratio_one_exactly() -> None:
    """Something divided by itself is 1 whatever its noise."""
    estimate = fieller([0.5, 0.7, 0.6], [0.5, 0.7, 0.6])
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)
    assert estimate.per_seed == (1.0, 1.0, 1.0)
