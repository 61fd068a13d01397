"""Estimates with 95 % confidence intervals: bootstrap, paired differences, medians.

Differences are taken pair by pair (by seed, by window, by text), so that what two techniques have
in common cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import TypeAlias

import numpy as np

from efflab.arguments import check_arguments, check_module
from efflab.errors import require, require_finite, require_interval
from efflab.rules import NonNegative

CONFIDENCE = 0.95
Values: TypeAlias = Sequence | np.ndarray


def _floats(name: str, values: Values) -> list[float]:
    plain = not isinstance(values, np.ndarray) or values.ndim == 1
    require(plain, name, values, "numbers in one dimension")
    for i, value in enumerate(values):  # a NaN would be sorted or counted like any number
        require_finite(f"{name}[{i}]", value)
    return list(map(float, values))


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval: finite numbers, the figure between the two ends."""

    mean: float
    low: float
    high: float

    def __post_init__(self):
        require_interval("mean", self.mean, self.low, self.high)

    @classmethod
    @check_arguments
    def widened(cls, mean: float, low: float, high: float) -> "Estimate":
        """The interval of resampled values, widened to contain the sample's own figure.

        Rounding, or a small and skewed sample, may leave that outside.
        """
        return cls(float(mean), float(min(low, mean)), float(max(high, mean)))

    @check_arguments
    def with_noise(self, band: NonNegative) -> "Estimate":
        """The interval of a ratio, widened by the A/A noise `band` (0.03 = 3 %) at either end.

        >>> print(Estimate(0.9, 0.88, 0.92).with_noise(0.05))
        0.900 (0.836 to 0.966)
        """
        # the noise of a busy machine may exceed the time itself
        below = max(0.0, 1 - band)
        ends = sorted((self.low * below, self.low * (1 + band), self.high * (1 + band)))
        return Estimate(self.mean, ends[0], ends[-1])

    @property
    def band(self) -> float:
        """How far from 1 the interval reaches: the A/A noise, of a ratio of equals."""
        return max(self.high - 1, 1 - self.low)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap(numerators: Values, denominators: Values | None = None) -> Estimate:
    """sum(numerators) / sum(denominators) over resampled units; without denominators the mean.

    Percentile bootstrap (Efron 1979) by `scipy.stats.bootstrap`, the same 1,000 draws each time.
    """
    from scipy import stats

    top = np.asarray(_floats("numerators", numerators))
    weights = np.ones_like(top) if denominators is None else denominators
    bottom = np.asarray(_floats("denominators", weights))
    require(len(top) >= 2, "numerators", top.shape, "two values or more")
    require(bottom.shape == top.shape, "denominators", bottom.shape, f"shape {top.shape}")
    require(bool((bottom > 0).all()), "denominators", denominators, "positive numbers")

    def ratio(a, b, axis=-1):
        return a.sum(axis) / b.sum(axis)

    options = dict(paired=True, method="percentile", n_resamples=1000, rng=0)
    interval = stats.bootstrap((top, bottom), ratio, **options).confidence_interval
    return Estimate.widened(ratio(top, bottom), interval.low, interval.high)


def paired_difference(a: Values, b: Values) -> Estimate:
    """Mean of a - b with Student's t interval; `a[i]` and `b[i]` share what is not compared.

    >>> print(paired_difference([3.0, 4.1, 5.0], [1.0, 2.0, 3.0]))
    2.033 (1.890 to 2.177)
    """
    a, b = _floats("a", a), _floats("b", b)
    require(len(a) == len(b) >= 2, "a", len(a), f"two pairs or more, as many as b has ({len(b)})")
    return of_mean([x - y for x, y in zip(a, b, strict=True)])


def of_mean(values: Values) -> Estimate:
    """Mean with Student's t interval.

    >>> print(of_mean([5.0, 5.2, 5.1]))
    5.100 (4.852 to 5.348)
    """
    return _by_student(values, 0)


def _by_student(values: Values, n_more: int) -> Estimate:
    """The mean, with an interval for the true mean and for that of `n_more` further values."""
    from scipy import stats

    values = _floats("values", values)
    n = len(values)
    require(n >= 2, "number of values", n, "at least two")
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    half, middle = t * stdev(values) * (n_more + 1 / n) ** 0.5, mean(values)
    return Estimate(middle, middle - half, middle + half)


def of_median(values: Values) -> Estimate:
    """Median with its distribution-free interval: the order statistics that cover it.

    The k-th smallest and the k-th largest of n values hold the median between them with
    probability 1 - 2 P(Binomial(n, 1/2) < k) (Conover 1999, section 3.2). Below six values even
    the smallest and the largest cover less than 95 %; they are used nevertheless.
    """
    from scipy import stats

    ordered = sorted(_floats("values", values))
    require(len(ordered) >= 1, "values", ordered, "at least one")
    k = max(1, int(stats.binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5)))
    return Estimate(median(ordered), ordered[k - 1], ordered[-k])


def one_more(values: Values) -> Estimate:
    """Mean of `values` with Student's t prediction interval for one further value.

    >>> print(one_more([5.0, 5.2, 5.1]))
    5.100 (4.603 to 5.597)
    """
    return _by_student(values, 1)


check_module(__name__)
