"""Intervals over a few seeds, in closed form and without scipy.

A figure comes from s seeds; each seed redraws subset, split and initialisation, so the s values are independent and an interval over
them is Student's t with s - 1 degrees of freedom. Values are plain floats; sums are exact (`math.fsum`), so order does not matter.
"""

import math
from collections.abc import Sequence

from lockforge.records import Estimate


def student_t_central(t: float, df: int) -> float:
    r"""P(\|T\| <= t) for T with `df` degrees of freedom, a whole number: a finite sum.

    With a = atan(t / sqrt(df)): odd df, 2/pi (a + sin a (cos a + 2/3 cos^3 a + 2*4/(3*5) cos^5 a + ...)), powers up to df - 2;
    even df, sin a (1 + 1/2 cos^2 a + 1*3/(2*4) cos^4 a + ...), powers up to df - 2.
    Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

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
    """The t that T stays below with probability `p`, by bisection of `student_t_central` down to neighbouring floats.

    Args: p: in (0, 1); of the size of .0005 to .9995 for full accuracy, since it works from the centre. df: a whole number >= 1.

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
    """The sample covariance of paired values, n - 1 in the denominator; `covariance(x, x)` is the sample variance."""
    a, b = mean(first), mean(second)
    return math.fsum((x - a) * (y - b) for x, y in zip(first, second, strict=True)) / (len(first) - 1)


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of independent values with its Student t interval: mean +- t(1 - (1 - level)/2, n - 1) s / sqrt(n).

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
    half = student_t_quantile((1 + level) / 2, len(values) - 1) * math.sqrt(covariance(values, values) / len(values))
    return Estimate(mean=centre, low=centre - half, high=centre + half, per_seed=values)


def fieller(numerators: Sequence[float], denominators: Sequence[float], level: float = 0.95) -> Estimate:
    """The ratio r of two means of paired values, with the set of r that a t test of mean(numerator - r denominator) = 0 keeps.

    Kept is every r with (y - r x)^2 <= c (s_yy - 2 r s_xy + r^2 s_xx); x and y are the means, c = q^2 / n, q the t quantile with
    n - 1 degrees of freedom. Written in d = r - y/x and the rests e = numerator - (y/x) denominator, which have mean 0, that is
    (x^2 - c s_xx) d^2 + 2 c s_ex d - c s_ee <= 0: an interval exactly when x differs from 0 at that level; else unbounded, and the
    ratio undefined. Fieller 1954, J. R. Stat. Soc. B 16:175.

    Returns: the ratio of the means; `per_seed` holds each pair's own ratio, empty when a denominator is 0.

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
        return Estimate(mean=None, reason=f"the denominator is not told from 0 at the {level:.0%} level (its mean is {x:.4g})")
    ratio = y / x
    rests = tuple(a - ratio * b for a, b in pairs)
    tilt = scale * covariance(rests, denominators)
    root = math.sqrt(tilt * tilt + squared * scale * covariance(rests, rests))
    own = tuple(a / b for a, b in pairs) if all(denominators) else ()
    return Estimate(mean=ratio, low=ratio - (tilt + root) / squared, high=ratio + (root - tilt) / squared, per_seed=own)
