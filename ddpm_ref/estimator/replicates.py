r"""Two replicates for each of m examples out of N: the error of their mean, and how well that error is known.

**Standard error** (two-stage sampling, Cochran 1977, section 10.3). m of N examples are drawn without replacement; with Ȳ_i the mean of
both replicates, s_b² the variance of Ȳ_i between examples and s_w² the mean of (Y_i1 − Y_i2)²/4, which estimates Var Ȳ_i given i,

    Var θ̂ ≈ (1 − m/N) s_b²/m + (m/N) s_w²/m.                                                                   (1)

Where all examples are asked, m = N, the variation between them drops out of the error altogether.

**Degrees of freedom.** Each d_i = Y_i1 − Y_i2 knows the variance of its own example with one degree of freedom. Satterthwaite's (1946) for
a sum of variances v_i is (Σ v_i)²/Σ v_i²; for normal d_i, E d_i² = 2 v_i and E d_i⁴ = 12 v_i², so that replacing both sums by what is
unbiased for them gives

    ν_w = 3 (Σ d_i²)²/Σ d_i⁴ − 2,            at most m, and at least max(1, m/3).                                    (2)

It is 1 where a single d_i is all there is. Among many examples that is more likely one replicate which met a rare event than one example
with all the variance, and then θ̂ errs by about one standard error, for which no wider interval is due: hence the floor. With the m − 1
of s_b², the two terms B and W of (1) together have ν = (B + W)²/[B²/(m − 1) + W²/ν_w]. The interval is Student's t for ν: for a single
example it is 6.5 times as wide as the normal one, since two replicates hardly tell how much they vary.
"""

import math

import torch
from torch import Tensor

from ddpm_ref.estimator.surrogate import unit_of


def student_interval(
    value: float, stderr: float, degrees_of_freedom: float, level: float
) -> tuple[float, float]:
    """value ± t·stderr with Student's t.

    Raises:
        ValueError: level outside (0, 1).
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level = {level}; a probability between 0 and 1: pass level=0.95")
    reach = float(t.ppf(0.5 + level / 2, degrees_of_freedom)) * stderr
    return value - reach, value + reach


def two_stage_error(replicates: Tensor, size: int) -> float:
    """Eq. (1): the standard error of the mean of `[m, 2]` replicates of m out of `size` examples."""
    unit = unit_of(replicates)
    return unit * math.sqrt(sum(_variance_parts(replicates / unit, size)))


def degrees_of_freedom(replicates: Tensor, size: int) -> float:
    """ν of `two_stage_error`, eq. (2): less than m where few examples have most of the variance."""
    many, replicates = len(replicates), replicates / unit_of(replicates)
    between, within = _variance_parts(replicates, size)
    if not 0 < between + within < math.inf:  # nothing varies, or the model diverged
        return float(many)
    squares = (replicates[:, 0] - replicates[:, 1]).square()
    squares = squares / squares.max().clamp(min=torch.finfo(squares.dtype).tiny)
    alike = (squares.sum().square() / squares.square().sum()).item()
    share = within / (between + within)
    inside = min(many, max(3 * alike - 2, 1, many / 3))
    inverse = share**2 / inside
    if many < size:
        inverse += (1 - share) ** 2 / (many - 1)
    return 1 / inverse


def _variance_parts(replicates: Tensor, size: int) -> tuple[float, float]:
    """The terms of (1): between examples, which is none where all are visited, and within them."""
    many = len(replicates)
    share = many / size
    within = (replicates[:, 0] - replicates[:, 1]).square().mean().item() / 4
    between = replicates.mean(dim=1).var().item() if many < size else 0.0
    return (1 - share) * between / many, share * within / many
