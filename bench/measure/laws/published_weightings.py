"""Weightings that people train with elsewhere, as factors on the squared error of x0 for t drawn uniformly from *this* schedule.

A method that draws its own noise level λ = ln SNR with density p(λ) and weights the error there by g(λ) has the objective
∫ p(λ) g(λ) ‖x_0 − x̂_0‖² dλ. On a schedule with uniform t the same objective has the factor

    w(t) = p(λ_t) g(λ_t) d_t,        d_t = (λ_{t−1} − λ_{t+1})/2,  one-sided at t = 1 and T,                     (1)

but for a constant. In the notation of Kingma & Gao 2023, ½∫ w̃(λ) ‖ε − ε̂‖² dλ, the factor is ½ w̃(λ) S d, S = e^λ.

| name | p(λ) g(λ) | from |
|---|---|---|
| `continuous_elbo` | S/2: w̃ = 1 | the bound in continuous time, Kingma et al. 2021, eq. 15 |
| `flow_velocity` | p uniform in s, g = 1/s² = (1 + √S)²: √S/2, w̃ = e^{−λ/2} | x_s = (1−s)x_0 + sε, output ε − x_0: Lipman et al. 2023, Liu et al. 2023 |
| `flow_logit_normal` | N(λ; 0, 2²)(1 + √S)² | logit s ~ N(0, 1): Esser et al. 2024, section 3.1 |
| `edm` | N(λ; 2.4, 2.4²)(S + 1/σ_d²), σ_d = ½ | ln σ ~ N(−1.2, 1.2²): Karras et al. 2022, table 1 |
| `sigmoid` | ½ S σ(2 − λ): w̃ = sigmoid(2 − λ) | Kingma & Gao 2023 |

Two more are factors alone, for whatever schedule t is drawn from: `debiased`, 1/√S on the error of ε (Yu et al. 2023), √S in x0 space, and
`soft_min_snr`, γS/(γ + S) in x0 space with γ = 4 (Crowson et al. 2024, HDiT; k-diffusion).
"""

import math

import torch
from torch import Tensor

from ddpm_ref.objective import Weighting
from ddpm_ref.schedule import Schedule

GAMMA, SIGMA_DATA, BIAS = 4.0, 0.5, 2.0


def spacing(t: Tensor, schedule: Schedule) -> Tensor:
    """d_t of (1), float64 `[B]`; infinite where zero terminal SNR or T = 1 leaves no neighbour."""
    before = schedule.log_snr[(t - 1).clamp(min=1)]
    after = schedule.log_snr[(t + 1).clamp(max=schedule.T)]
    steps = (t + 1).clamp(max=schedule.T) - (t - 1).clamp(min=1)
    if schedule.T == 1:
        return torch.full_like(before, math.inf)
    return (before - after) / steps


def _log_normal(x: Tensor, mean: float, deviation: float) -> Tensor:
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _log_d(t: Tensor, schedule: Schedule) -> Tensor:
    return spacing(t, schedule).log()


DRAWN = ("continuous_elbo", "flow_velocity", "flow_logit_normal", "edm", "sigmoid")
"""Those whose factor contains d_t."""

PUBLISHED: dict[str, Weighting] = {
    w.name: w
    for w in (
        Weighting(
            "continuous_elbo",
            "S*d/2",
            lambda s, t, schedule: s - math.log(2) + _log_d(t, schedule),
            "Kingma et al. 2021, eq. 15",
        ),
        Weighting(
            "flow_velocity",
            "sqrt(S)*d/2",
            lambda s, t, schedule: s / 2 - math.log(2) + _log_d(t, schedule),
            "Lipman et al. 2023, Liu et al. 2023: s uniform",
        ),
        Weighting(
            "flow_logit_normal",
            "normal(log(S), 0, 2)*(1 + sqrt(S))**2*d",
            lambda s, t, schedule: (
                _log_normal(s, 0, 2) + 2 * _softplus(s / 2) + _log_d(t, schedule)
            ),
            "Esser et al. 2024, section 3.1: logit(s) ~ N(0, 1)",
        ),
        Weighting(
            "edm",
            "normal(log(S), 2.4, 2.4)*(S + 4)*d",
            lambda s, t, schedule: (
                _log_normal(s, 2.4, 2.4)
                + torch.logaddexp(s, torch.full_like(s, -2 * math.log(SIGMA_DATA)))
                + _log_d(t, schedule)
            ),
            "Karras et al. 2022, table 1",
        ),
        Weighting(
            "sigmoid",
            "S*d/(2*(1 + S*exp(-2)))",
            lambda s, t, schedule: s - math.log(2) - _softplus(s - BIAS) + _log_d(t, schedule),
            "Kingma & Gao 2023, sigmoid(2 - log SNR)",
        ),
        Weighting(
            "debiased",
            "sqrt(S)",
            lambda s, t, schedule: s / 2,
            "Yu et al. 2023, eq. 10: 1/sqrt(S) in eps space",
        ),
        Weighting(
            "soft_min_snr",
            "4*S/(4 + S)",
            lambda s, t, schedule: s - _softplus(s - math.log(GAMMA)),
            "Crowson et al. 2024; k-diffusion",
        ),
    )
}
"""By name; each is a weighting that `ddpm_ref.weight` and `loss` take as an object."""
