r"""Intervals and tests: what may be said about a difference, given how much it varies.

Nothing here needs torch. Everything comes from `scipy` (Student's distribution from `scipy.special`, since thousands of simulated studies
take it); the choices are:

    mean_interval(values)               mean, Student's t
    paired_interval(a, b)               mean of a−b over pairs (seeds), Student's t
    ratio_interval(a, b)                ratio of medians (means, mean squares), bootstrap
    difference_interval(a, b)           difference of medians (means), bootstrap
    proportion_interval(k, n)           k of n, Clopper and Pearson 1934: exact, so never too narrow
    mann_whitney(a, b)                  p-value: are values of one sample larger?
    mean_test(values)                   p-value: is the mean zero?
    power(effect, n, level=…)           how likely that test finds an effect
    detectable(n, level=…)              the least effect that it finds with power 0.8
    holm(p_values)                      p-values adjusted for their number, Holm 1979
    spread(values)                      median, quartiles, and a warning where they are far apart

**Small n.** With three seeds the t interval has two degrees of freedom and is wide: 4.3 standard
errors to each side. It is honest if the differences are roughly normal, which three values cannot
show; so the report prints n beside every interval.

**Bootstrap.** The percentile interval, and not the bias-corrected accelerated one, because the
acceleration comes from a jackknife, which is inconsistent for the median (Efron and Tibshirani
1993, section 11.6). The resampling is seeded: the same samples give the same interval.

An interval that cannot be computed (one value) has `low` and `high` None and says so in `method`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats

Values = Sequence[float] | NDArray[np.float64]
_Statistic = Literal["median", "mean", "mean_square"]

LEVEL = 0.95
"""Confidence level of every interval unless another is given."""
_WIDE_IQR = 0.1
"""An interquartile range above this share of the median draws a warning."""
_RESAMPLES = 9999
_BATCH = 1000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: the point estimate, in the unit of the values.
        low: lower end; None where n is too small for an interval.
        high: upper end, likewise.
        level: confidence level, 0.95.
        n: number of values or pairs.
        method: how it was computed, in words.
    """

    estimate: float
    low: float | None
    high: float | None
    level: float
    n: int
    method: str

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside: the data speak against it at this level."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def as_json(self) -> dict[str, Any]:
        """JSON values, for records and report.json."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """Where the middle half of the samples lies; `warning` is "" where that is narrow."""

    median: float
    low_quartile: float
    high_quartile: float
    warning: str


def mean_interval(values: Values, *, level: float = LEVEL) -> Interval:
    """Mean of `values` with Student's t interval, n − 1 degrees of freedom."""
    sample = _sample(values, "values")
    mean = float(sample.mean())
    n = sample.size
    if n < 2:
        return Interval(mean, None, None, level, n, "no interval: one value")
    half = float(sample.std(ddof=1) / n**0.5 * special.stdtrit(n - 1, (1 + level) / 2))
    return Interval(mean, mean - half, mean + half, level, n, f"Student's t, n = {n}")


def paired_interval(a: Values, b: Values, *, level: float = LEVEL) -> Interval:
    """Mean of a − b over pairs that share everything but what is compared, Student's t.

    Raises:
        ValueError: the lengths differ: the pairs are not known.
    """
    first, second = _paired(a, b)
    interval = mean_interval(first - second, level=level)
    return _renamed(interval, f"paired {interval.method}")


def ratio_interval(
    numerator: Values,
    denominator: Values,
    *,
    statistic: _Statistic = "median",
    paired: bool = False,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """statistic(numerator) / statistic(denominator), percentile bootstrap with 9999 resamples.

    Args:
        numerator: positive samples, such as times.
        denominator: likewise; in the order of `numerator` where `paired`.
        statistic: "median"; "mean"; or "mean_square", for errors, where it is the ratio of the
            mean squared errors: so many times more evaluations are needed at equal accuracy.
        paired: resample the pairs together, for contenders that alternated in one process.
        level: confidence level.
        seed: of the resampling.
    """
    measure = _STATISTICS[statistic]

    def ratio(x: NDArray[np.float64], y: NDArray[np.float64], axis: int = -1) -> Any:
        return measure(x, axis) / measure(y, axis)

    above, below = _sample(numerator, "numerator"), _sample(denominator, "denominator")
    return _bootstrap(above, below, ratio, paired=paired, level=level, seed=seed)


def difference_interval(
    a: Values,
    b: Values,
    *,
    statistic: _Statistic = "median",
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """statistic(a) − statistic(b) of independent samples, percentile bootstrap as above."""
    measure = _STATISTICS[statistic]

    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int = -1) -> Any:
        return measure(x, axis) - measure(y, axis)

    first, second = _sample(a, "a"), _sample(b, "b")
    return _bootstrap(first, second, difference, paired=False, level=level, seed=seed)


def proportion_interval(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """`successes` of `trials` with the exact interval of Clopper and Pearson (1934)."""
    bounds = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    share = successes / trials
    method = f"Clopper–Pearson, n = {trials}"
    return Interval(share, float(bounds.low), float(bounds.high), level, trials, method)


def mann_whitney(a: Values, b: Values) -> float:
    """Two-sided p-value of the Mann–Whitney test that a and b have the same distribution."""
    result = stats.mannwhitneyu(_sample(a, "a"), _sample(b, "b"), alternative="two-sided")
    return float(result.pvalue)


def paired_t_test(a: Values, b: Values) -> float:
    """Two-sided p-value that the mean of a − b is zero; 1 where all differences are zero."""
    first, second = _paired(a, b)
    difference = first - second
    if difference.size < 2 or not difference.any():
        return 1.0
    if np.ptp(difference) == 0:
        return 0.0
    n = difference.size
    statistic = difference.mean() / (difference.std(ddof=1) / n**0.5)
    return float(2 * special.stdtr(n - 1, -abs(statistic)))


def mean_test(values: Values) -> float:
    """Two-sided p-value that the mean is zero, Student's t; 0 or 1 where all values are equal, 1 for one value."""
    sample = _sample(values, "values")
    return paired_t_test(sample, np.zeros_like(sample))


def power(effect: float, n: int, *, level: float = 1 - LEVEL) -> float:
    """Probability that Student's test at `level` finds a mean of `effect` standard deviations with n values.

    With δ = √n·effect, c = t_{1−level/2} and ν = n − 1 the statistic is (Z + δ)/S, S² ~ χ²_ν/ν, so the power is
    E[Φ(δ − cS) + Φ(−δ − cS)], integrated over S: the tails of scipy's noncentral t are not accurate there.
    """
    if n < 2:
        return 0.0
    limit, shift, nu = stats.t.ppf(1 - level / 2, n - 1), n**0.5 * effect, n - 1

    def integrand(s: float) -> float:
        tails = special.ndtr(shift - limit * s) + special.ndtr(-shift - limit * s)
        return float(stats.chi.pdf(s * nu**0.5, nu) * nu**0.5 * tails)

    return float(integrate.quad(integrand, 0.0, 1.0)[0] + integrate.quad(integrand, 1.0, np.inf)[0])


def detectable(n: int, *, level: float, wanted: float = 0.8) -> float:
    """The least mean, in standard deviations, that n values find with power `wanted`; infinite for n < 2."""
    if n < 2:
        return float("inf")
    high = 1.0
    while power(high, n, level=level) < wanted:
        high *= 2
    found = optimize.brentq(lambda effect: power(effect, n, level=level) - wanted, 0.0, high)
    return float(found)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm 1979): some error in any of them ≤ the level.

    Sorted, the k-th smallest of n is multiplied by n − k + 1, then made monotone and capped at 1.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(p) for p in adjusted]


def spread(values: Values) -> Spread:
    """Median and quartiles; the warning says that the samples scatter too much to trust."""
    low, median, high = (float(q) for q in np.percentile(_sample(values, "values"), [25, 50, 75]))
    share = (high - low) / abs(median) if median else 0.0
    wide = f"the middle half spans {share:.0%} of the median" if share > _WIDE_IQR else ""
    return Spread(median, low, high, wide)


def _bootstrap(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    statistic: Callable[..., Any],
    *,
    paired: bool,
    level: float,
    seed: int,
) -> Interval:
    if paired:
        a, b = _paired(a, b)
    estimate, n = float(statistic(a, b)), min(a.size, b.size)
    if n < 2:
        return Interval(estimate, None, None, level, n, "no interval: one value")
    result = stats.bootstrap(
        (a, b),
        statistic,
        paired=paired,
        confidence_level=level,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = (float(end) for end in result.confidence_interval)
    method = f"{'paired ' if paired else ''}percentile bootstrap, n = {n}"
    return Interval(estimate, low, high, level, n, method)


def _median(sample: NDArray[np.float64], axis: int) -> Any:
    return np.median(sample, axis=axis)


def _mean(sample: NDArray[np.float64], axis: int) -> Any:
    return np.mean(sample, axis=axis)


def _mean_square(sample: NDArray[np.float64], axis: int) -> Any:
    return np.mean(np.square(sample), axis=axis)


_STATISTICS: dict[_Statistic, Callable[[NDArray[np.float64], int], Any]] = {
    "median": _median,
    "mean": _mean,
    "mean_square": _mean_square,
}


def _sample(values: Values, name: str) -> NDArray[np.float64]:
    """Float64, one-dimensional, not empty, finite."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name} has shape {sample.shape}: give a sequence of at least one number")
    if not np.isfinite(sample).all():
        bad = float(sample[~np.isfinite(sample)][0])
        raise ValueError(
            f"{name} contains {bad}: leave out the pairs that have no value, and report how many"
        )
    return sample


def _paired(a: Values, b: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _sample(a, "a"), _sample(b, "b")
    if first.size != second.size:
        raise ValueError(
            f"{first.size} and {second.size} values are not pairs; give both in the same order"
        )
    return first, second


def _renamed(interval: Interval, method: str) -> Interval:
    return Interval(
        interval.estimate, interval.low, interval.high, interval.level, interval.n, method
    )
