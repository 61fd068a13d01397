"""Intervals cover what they promise, on samples whose truth is known."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import stats

from efflab.estimate import Estimate, bootstrap, of_mean, of_median, one_more, paired_difference


def test_an_estimate_says_its_interval_and_stays_as_it_is():
    found = Estimate(2.0, 1.5, 2.25)
    assert str(found) == "2.000 (1.500 to 2.250)"
    with pytest.raises(FrozenInstanceError):
        found.mean = 3.0


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((float("nan"), 0, 1), "mean=nan: expected a finite number"),
        ((1, 0, float("inf")), "high=inf: expected a finite number"),
        ((1, None, 2), "low=None: expected a number"),
        ((1, 2, 3), "mean=1: expected a number in its interval, 2 to 3"),
        ((1, 2, 0), "mean=1: expected a number in its interval, 2 to 0"),
    ],
)
def test_an_estimate_lies_in_its_interval(numbers, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Estimate(*numbers)


def test_a_sample_with_what_is_no_number_has_no_estimate():
    sampled = (bootstrap, of_mean, of_median, one_more, lambda x: paired_difference(x, [0.0] * 3))
    for estimate in sampled:
        for wrong in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"\[1\]=(nan|inf): expected a finite number"):
                estimate([1.0, wrong, 2.0])


def test_an_interval_of_resampled_values_holds_the_samples_own():
    assert Estimate.widened(1.0, 1.0 + 1e-16, 2.0) == Estimate(1.0, 1.0, 2.0)
    assert Estimate.widened(3.0, 1.0, 2.0) == Estimate(3.0, 1.0, 3.0)
    found = bootstrap([0.1] * 7)  # means of equal values differ in the last digit
    assert found.low <= found.mean <= found.high


def test_bootstrap_brackets_the_mean():
    values = np.random.default_rng(0).normal(3, 1, 400)
    estimate = bootstrap(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap(values) == estimate  # the same draws each time


def test_bootstrap_of_a_ratio_resamples_both_together():
    bottom = np.arange(1.0, 50.0)
    assert bootstrap(3 * bottom, bottom) == Estimate(3.0, 3.0, 3.0)
    assert bootstrap([1, 2, 6], [1, 1, 4]).mean == 1.5  # 9 over 6, not the mean of the ratios


def test_paired_is_the_t_interval_of_the_differences():
    a, b = [3.0, 4.1, 5.0, 7.5], [1.0, 2.0, 3.0, 4.0]
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = paired_difference(a, b)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(np.mean(np.subtract(a, b)))
    assert str(paired_difference([3.0, 4.1, 5.0], [1.0, 2.0, 3.0])) == "2.033 (1.890 to 2.177)"


def test_what_pairs_have_in_common_cancels():
    shared = np.random.default_rng(1).normal(0, 10, 8)
    found = paired_difference(shared + 0.5, shared)
    assert found.high - found.low < 1e-9
    assert found.low == pytest.approx(0.5)


def test_a_mean_has_the_t_interval():
    values = [3.0, 4.1, 5.0, 7.5]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = of_mean(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 1), (6, 1), (9, 2), (15, 4), (101, 41)])
def test_the_median_lies_between_these_ranks(n, rank):
    """The widest pair of order statistics that still covers 95 % (all of them below six)."""
    values = np.random.default_rng(n).permutation(np.arange(1, n + 1))
    assert of_median(values) == Estimate((n + 1) / 2, rank, n + 1 - rank)
    if n >= 6:
        assert 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5) >= 0.95
        assert 1 - 2 * stats.binom.cdf(rank, n, 0.5) < 0.95


@pytest.mark.parametrize("n", [2, 3, 10])
def test_one_more_of_a_kind_falls_inside_19_times_of_20(n):
    draws = np.random.default_rng(n).normal(5, 2, (4000, n + 1))
    found = [one_more(row[:n]) for row in draws]
    inside = [e.low <= row[n] <= e.high for e, row in zip(found, draws, strict=True)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)  # 3.5 deviations of such a share
    assert found[0].mean == pytest.approx(draws[0, :n].mean())
    assert str(one_more([5.0, 5.2, 5.1])) == "5.100 (4.603 to 5.597)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([1.0], [1.0]), "a=1"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "a=2"),
        (lambda: bootstrap([1.0]), "numerators"),
        (lambda: bootstrap([1.0, 2.0], [1.0]), "denominators"),
        (lambda: of_median([]), "values"),
        (lambda: of_mean([1.0]), "number of values=1"),
        (lambda: one_more([1.0]), "number of values=1"),
    ],
)
def test_too_few_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("band", "low", "high"), [(0, 0.8, 1.2), (0.25, 0.6, 1.5), (1, 0, 2.4), (1.5, 0, 3)]
)
def test_noise_widens_a_ratio_and_never_refuses_a_busy_machine(band, low, high):
    noisy = Estimate(1.0, 0.8, 1.2).with_noise(band)
    assert (noisy.mean, noisy.low, noisy.high) == pytest.approx((1, low, high))


def test_the_noise_of_equals_is_how_far_from_one_it_reaches():
    assert Estimate(1.0, 0.9, 1.05).band == pytest.approx(0.1)
    assert of_mean([1.0, 1.0]).band == 0
    assert of_mean([0.95, 1.05]).band > 0.05


def test_noise_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"band=-0\.1"):
        Estimate(1.0, 0.8, 1.2).with_noise(-0.1)
