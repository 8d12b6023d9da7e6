"""Intervals against closed forms and against their own promise: how often they cover the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from bench.record.statistics import (
    difference_interval,
    holm,
    mann_whitney,
    mean_interval,
    paired_interval,
    paired_t_test,
    proportion_interval,
    ratio_interval,
    spread,
)

pytestmark = pytest.mark.any_torch


def test_t_interval_of_three_by_hand():
    """Mean 2, standard error 1/√3, t quantile with 2 degrees of freedom: t = p√(2/(1−p²)), p = 0.95."""
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.estimate == 2.0
    assert interval.high - 2.0 == pytest.approx(quantile / math.sqrt(3), rel=1e-12)
    assert 2.0 - interval.low == pytest.approx(quantile / math.sqrt(3), rel=1e-12)
    assert interval.n == 3


def test_paired_interval_ignores_what_pairs_share():
    shared = np.array([100.0, -50.0, 7.0])
    inner = np.array([1.0, 1.5, 2.0])
    assert paired_interval(shared + inner, shared).low == pytest.approx(mean_interval(inner).low)


def test_no_interval_from_one_value():
    for interval in (mean_interval([3.0]), paired_interval([3.0], [1.0]), ratio_interval([2], [1])):
        assert interval.low is interval.high is None
        assert "no interval" in interval.method
        assert not interval.excludes(0.0)


@pytest.mark.parametrize("n", [3, 7])
def test_mean_interval_covers_as_promised(n):
    """800 normal samples: the share of hits is within 4 standard errors of 95 %."""
    rng, trials = np.random.default_rng(1), 800
    hits = sum(not mean_interval(sample).excludes(0.0) for sample in rng.normal(size=(trials, n)))
    assert abs(hits / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_ratio_interval_covers():
    rng = np.random.default_rng(2)
    draws = [rng.lognormal(size=(2, 41)) * [[3.0], [1.0]] for _ in range(20)]
    hits = sum(not ratio_interval(a, b).excludes(3.0) for a, b in draws)
    assert hits >= stats.binom.ppf(0.001, 20, 0.93)  # the percentile bootstrap is a little narrow


def test_paired_ratio_removes_what_rounds_share():
    rng = np.random.default_rng(3)
    noise, base = rng.lognormal(sigma=1.0, size=31), rng.lognormal(sigma=0.001, size=31)
    paired = ratio_interval(2 * noise * base, noise, statistic="mean", paired=True)
    apart = ratio_interval(2 * noise * base, noise, statistic="mean")
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)
    assert paired.estimate == pytest.approx(2.0, rel=0.01)


def test_mean_square_ratio_and_its_reproducibility():
    first = ratio_interval([2.0, -4.0], [1.0, 3.0], statistic="mean_square")
    assert first.estimate == pytest.approx(20 / 10)
    assert first == ratio_interval([2.0, -4.0], [1.0, 3.0], statistic="mean_square")


def test_difference_interval_contains_the_shift():
    rng = np.random.default_rng(4)
    interval = difference_interval(rng.normal(5, 1, 200), rng.normal(-2, 1, 200))
    assert interval.low < 7 < interval.high


@pytest.mark.parametrize(("successes", "trials"), [(0, 11), (3, 11), (11, 11), (380, 400)])
def test_proportion_interval_inverts_the_binomial(successes, trials):
    """Clopper–Pearson's ends: with them as the truth, so extreme a count has probability 2.5 %."""
    interval = proportion_interval(successes, trials)
    if successes > 0:
        assert stats.binom.sf(successes - 1, trials, interval.low) == pytest.approx(0.025)
    else:
        assert interval.low == 0.0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, interval.high) == pytest.approx(0.025)
    else:
        assert interval.high == 1.0


def test_mann_whitney_exact():
    """All of one sample above all of the other: 2 of the C(7, 3) = 35 orders are so extreme."""
    assert mann_whitney([1, 2, 3], [4, 5, 6, 7]) == pytest.approx(2 / 35)


def test_paired_t_test():
    a, b = [1.0, 2.0, 4.0], [0.5, 1.0, 1.0]
    assert paired_t_test(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_t_test(a, a) == 1.0
    assert paired_t_test([2, 3], [1, 2]) == 0.0


def test_holm_by_hand():
    """0.01·4, 0.02·3, 0.03·2, 0.5·1 in order of size, never falling, at most 1."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_spread_warns_when_wide():
    assert spread([10.0, 10.1, 10.2]).warning == ""
    assert "20%" in spread([9.0, 9.0, 10.0, 11.0, 11.0]).warning
    assert spread([0.0, 0.0]).warning == ""


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_samples_are_finite_and_flat(bad):
    with pytest.raises(ValueError, match="values"):
        mean_interval(bad)


def test_pairs_have_equal_length():
    with pytest.raises(ValueError, match="3 and 2 values are not pairs"):
        paired_interval([1, 2, 3], [1, 2])
