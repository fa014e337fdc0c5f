"""Intervals and tests over a few seeds, in closed form and without scipy.

A figure comes from s seeds; each seed redraws subset, split and initialisation, so the s values are
independent and an interval over them is Student's t with s - 1 degrees of freedom. Values are plain
floats; sums are exact (`math.fsum`), so order does not matter.
"""

import math
from collections.abc import Sequence

from lockforge.records import Estimate, TargetTest, TransferAudit


def student_t_central(t: float, df: int) -> float:
    r"""P(\|T\| <= t) for T with `df` degrees of freedom, a whole number: a finite sum.

    With a = atan(t / sqrt(df)): odd df, 2/pi (a + sin a (cos a + 2/3 cos^3 a + 2*4/(3*5) cos^5 a +
    ...)), powers up to df - 2; even df, sin a (1 + 1/2 cos^2 a + 1*3/(2*4) cos^4 a + ...), powers
    up to df - 2. Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    >>> round(student_t_central(1.0, 1), 12)  # Cauchy: 2 atan(1) / pi
    0.5
    """
    angle = math.atan(t / math.sqrt(df))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = df % 2 == 1
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(df // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def student_t_quantile(p: float, df: int) -> float:
    """The t that T stays below with probability `p`, by bisection of `student_t_central` down to
    neighbouring floats.

    Args: p: in (0, 1); of the size of .0005 to .9995 for full accuracy, since it works from the
        centre. df: a whole number >= 1.

    >>> round(student_t_quantile(0.975, 2), 6)
    4.302653
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"a quantile needs 0 < p < 1 and df >= 1, not p = {p}, df = {df}")
    if p < 0.5:
        return -student_t_quantile(1 - p, df)
    wanted = 2 * p - 1
    low, high = 0.0, 1.0
    while student_t_central(high, df) < wanted:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        if student_t_central(middle, df) < wanted:
            low = middle
        else:
            high = middle
    return high


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, with an exact sum."""
    return math.fsum(values) / len(values)


def covariance(first: Sequence[float], second: Sequence[float]) -> float:
    """The sample covariance of paired values, n - 1 in the denominator; `covariance(x, x)` is the
    sample variance.
    """
    a, b = mean(first), mean(second)
    return math.fsum((x - a) * (y - b) for x, y in zip(first, second, strict=True)) / (
        len(first) - 1
    )


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of independent values with its Student t interval: mean +- t(1 - (1 - level)/2, n -
    1) s / sqrt(n).

    One value has a mean and no interval, and the reason says so; no value has no mean.

    >>> estimate = t_interval([1.0, 2.0, 3.0])
    >>> estimate.mean, round(estimate.low, 3), round(estimate.high, 3)
    (2.0, -0.484, 4.484)
    """
    values = tuple(values)
    if not values:
        return Estimate(mean=None, reason="no values")
    centre = mean(values)
    if len(values) == 1:
        return Estimate(mean=centre, per_seed=values, reason="one seed gives no interval")
    half = student_t_quantile((1 + level) / 2, len(values) - 1) * math.sqrt(
        covariance(values, values) / len(values)
    )
    return Estimate(mean=centre, low=centre - half, high=centre + half, per_seed=values)


def fieller(
    numerators: Sequence[float], denominators: Sequence[float], level: float = 0.95
) -> Estimate:
    """The ratio r of two means of paired values, with the set of r that a t test of mean(numerator
    - r denominator) = 0 keeps.

    Kept is every r with (y - r x)^2 <= c (s_yy - 2 r s_xy + r^2 s_xx); x and y are the means, c =
    q^2 / n, q the t quantile with n - 1 degrees of freedom. Written in d = r - y/x and the rests e
    = numerator - (y/x) denominator, which have mean 0, that is (x^2 - c s_xx) d^2 + 2 c s_ex d - c
    s_ee <= 0: an interval exactly when x differs from 0 at that level; else unbounded, and the
    ratio undefined. Fieller 1954, J. R. Stat. Soc. B 16:175.

    Returns: the ratio of the means; `per_seed` holds each pair's own ratio, empty when a
        denominator is 0.

    >>> ratio = fieller([1.0, 1.2, 1.1], [2.0, 2.4, 2.2])
    >>> ratio.mean, round(ratio.low, 6), round(ratio.high, 6)
    (0.5, 0.5, 0.5)
    """
    pairs = tuple(zip(numerators, denominators, strict=True))
    if len(pairs) < 2:
        return Estimate(mean=None, reason="a ratio with an interval needs at least two seeds")
    y, x = mean(numerators), mean(denominators)
    scale = student_t_quantile((1 + level) / 2, len(pairs) - 1) ** 2 / len(pairs)
    squared = x * x - scale * covariance(denominators, denominators)
    if squared <= 0:
        return Estimate(
            mean=None,
            reason=f"the denominator is not told from 0 at the {level:.0%} level (its mean is "
            f"{x:.4g})",
        )
    ratio = y / x
    rests = tuple(a - ratio * b for a, b in pairs)
    tilt = scale * covariance(rests, denominators)
    root = math.sqrt(tilt * tilt + squared * scale * covariance(rests, rests))
    own = tuple(a / b for a, b in pairs) if all(denominators) else ()
    return Estimate(
        mean=ratio,
        low=ratio - (tilt + root) / squared,
        high=ratio + (root - tilt) / squared,
        per_seed=own,
    )


def paired_t_p(lower: Sequence[float], upper: Sequence[float]) -> float:
    """The one-sided p of a paired t test: how often values whose means are equal would lie so far
    below their partners, or farther.

    t = mean(d) / (s_d / sqrt(n)) with d = upper - lower, n - 1 degrees of freedom, p = P(T >= t):
    small where `lower` is below `upper`. A single pair shows nothing: p is 1. Differences that are
    all the same leave no room for chance: p is 0 when they are above 0, else 1.

    >>> round(
    ...     paired_t_p([0.1, 0.2, 0.3], [0.3, 0.3, 0.6]),
    ...     4,
    ... )  # t = 2 sqrt 3 with 2 degrees of freedom
    0.0371
    """
    rests = [b - a for a, b in zip(lower, upper, strict=True)]
    if len(rests) < 2:
        return 1.0
    variance = covariance(rests, rests) / len(rests)
    if not variance:
        return 0.0 if mean(rests) > 0 else 1.0
    return max(0.0, (1 - student_t_central(mean(rests) / math.sqrt(variance), len(rests) - 1)) / 2)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values, in the order given: those at or below q are the discoveries of which at
    most a share q is false on average.

    With the p values sorted, p_(1) <= ... <= p_(m), the i-th becomes the least m p_(j) / j of all j
    >= i, at most 1. For independent or positively dependent tests. Benjamini and Hochberg 1995, J.
    R. Stat. Soc. B 57:289, their step-up rule written as adjusted values.

    >>> benjamini_hochberg([0.04, 0.01, 0.5])
    (0.06, 0.03, 0.5)
    """
    adjusted = [1.0] * len(p_values)
    least = 1.0
    for rank, at in reversed(
        list(enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at]), start=1))
    ):
        least = min(least, len(p_values) * p_values[at] / rank)
        adjusted[at] = least
    return tuple(adjusted)


def target_tests(names: Sequence[str], audits: Sequence[TransferAudit]) -> tuple[TargetTest, ...]:
    """For each target: is the release's mean advantage over scratch below the unlocked model's?
    Paired over seeds, one-sided.

    Args: names: the targets', one for each audit.
    """
    p_values = [
        paired_t_p(audit.measures.kept.per_seed, audit.measures.worth.per_seed) for audit in audits
    ]
    adjusted = benjamini_hochberg(p_values)
    return tuple(
        TargetTest(target=name, p=p, adjusted=q)
        for name, p, q in zip(names, p_values, adjusted, strict=True)
    )
