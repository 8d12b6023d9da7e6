r"""The expected bound of any denoiser whose squared error is known.

The means of q(x_{t−1} | x_t, x_0) and of p(x_{t−1} | x_t) differ by c_0 (x_0 − x̂_0), c_0 = √ᾱ_{t−1} β_t/(1−ᾱ_t), whence with
r = β̃_t/σ_t² and the expected squared error e_t = E‖x_0 − x̂_0(x_t)‖²

    E L_{t−1} = ½ [D (r − 1 − ln r) + c_0² e_t/σ_t²],                                                         (1)
    E L_0 = ½ [D ln 2πσ_1² + e_1/σ_1²],        E L_T = ½ [ᾱ_T E‖x_0‖² + D (−ᾱ_T − ln(1−ᾱ_T))],                 (2)

the last with the bracket −a − ln(1−a) = Σ_{k≥2} a^k/k, summed as that series where a is small and the difference would cancel.
Nothing here is shared with `ddpm_ref.terms` or `ddpm_ref.elbo`, which these closed forms check.

The bound is linear in the errors. The variance that minimizes (1) is σ_t² = β̃_t + c_0² e_t/D (Bao et al. 2022, theorem 1),          (3)
which leaves ½ D ln σ_t²/β̃_t, and for t = 1, from (2), σ_1² = e_1/D.
"""

import math

from torch import Tensor

from ddpm_ref.gaussian import expm1_minus
from ddpm_ref.reverse import Variance, reverse_variance
from ddpm_ref.schedule import Schedule
from ddpm_ref.terms import ElboTerms


def expected_terms(
    error: Tensor, energy: Tensor, size: int, schedule: Schedule, variance: Variance = "posterior"
) -> ElboTerms:
    """The terms (1), (2) of the bound with a Gaussian decoder, float64 nats.

    Args:
        error: e_t = E‖x0 − x̂0‖² for t = 1 … T, float64 `[B, T]`.
        energy: E‖x0‖², float64 `[B]`.
        size: D, number of dimensions.
        schedule: T steps.
        variance: `posterior`, `beta` or a `[T+1]` table.
    """
    sigma2 = reverse_variance(variance, schedule)[1:]
    ratio = schedule.posterior_variance[1:] / sigma2
    cost = expm1_minus(ratio.log())
    cost[0] = sigma2[0].log() + math.log(2 * math.pi)
    terms = 0.5 * (mean_gain(schedule)[1:] * error / sigma2 + size * cost)
    last = schedule.alpha_bar[-1].item()
    prior = 0.5 * (last * energy + size * _bracket(last, schedule))
    return ElboTerms(prior, terms[:, 1:], terms[:, 0], size)


def _bracket(a: float, schedule: Schedule) -> float:
    """−a − ln(1−a) of a = ᾱ_T, ≥ 0: the variances' part of L_T per dimension, times 2."""
    if a < 0.25:  # the 30th term is below 1e-18 of the first
        return math.fsum(a**k / k for k in range(2, 31))
    return -a - math.log(schedule.one_minus_alpha_bar[-1].item())


def optimal_variance(error: Tensor, size: int, schedule: Schedule) -> Tensor:
    """The `[T+1]` table of one variance per step that minimizes the bound; eq. (3).

    Args:
        error: e_t averaged over the data, float64 `[T]`.
        size: D, number of dimensions.
        schedule: T steps.
    """
    table = schedule.posterior_variance.clone()
    table[1:] += mean_gain(schedule)[1:] * error / size
    return table


def mean_gain(schedule: Schedule) -> Tensor:
    """c_0², float64 `[T+1]` (entry 0 is 0): what a squared error of x̂0 becomes in the mean of p(x_{t−1} | x_t)."""
    table = schedule.beta.clone()
    table[1:] = (
        schedule.alpha_bar[:-1] * (schedule.beta[1:] / schedule.one_minus_alpha_bar[1:]) ** 2
    )
    return table
