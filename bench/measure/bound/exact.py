r"""Closed forms about the gap between the bound and the entropy.

**Why 1/T.** With σ_t² = β̃_t the term of step t exceeds the least possible one, ½ ln(1 + x_t) per dimension with x_t = c_0² e_t/(D β̃_t)
(`oracle.expected`, 3), by ½[x_t − ln(1 + x_t)] ≈ x_t²/4. Where log-SNR falls by δ = O(1/T) a step, x_t = O(δ), and T terms of O(1/T²) remain.

**Why not for linear and cosine.** Near clean data the error of the denoiser is the noise itself, e_t ≈ D(1−ᾱ_t), and β_t is constant over
the first steps, so 1−ᾱ_t ≈ tβ and x_t ≈ 1/(t−1) whatever T is: the log-SNR jumps by ln(t/(t−1)) however fine the schedule. The excess is

    Σ_{k ≥ 1} ½[1/k − ln(1 + 1/k)] = γ/2 = 0.2886… nats per dimension,     γ = 0.5772… Euler's constant,          (1)

because Σ_{k ≤ n} 1/k − ln(n+1) → γ, as long as β_1 is far below the variances of the data (linear, whose β_1 is fixed, stays a little
below where it is not). It does not fall with T. It falls away with the optimal variance, and with σ_t² = β_t, whose ratio
β_t/β̃_t = t/(t−1) is just what is needed there.

**Continuous time.** As the steps shrink, the diffusion terms tend to ½∫ mmse(γ) dγ over the SNR, in which the schedule's interior
does not occur (Kingma et al. 2021): only its end points matter.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from bench.data.synthetic import gaussian_oracle
from ddpm_ref.noise import NoiseStream
from ddpm_ref.oracle import GaussianOracle, MixtureOracle
from ddpm_ref.oracle.expected import expected_terms, optimal_variance
from ddpm_ref.reverse import Variance
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    schedule_from_log_snr,
)

END = 14.0
"""Log-SNR runs from +END to −END where its ends are fixed."""
EULER = 0.5772156649015329


def fixed_ends(T: int) -> Schedule:
    """Log-SNR in equal steps from +14 to −14."""
    return schedule_from_log_snr(torch.linspace(END, -END, T, dtype=torch.float64))


_FAMILIES: dict[str, Callable[[int], Schedule]] = {"fixed log-SNR ends": fixed_ends, **SCHEDULES}
VARIANCES = ("posterior", "beta", "optimal")
Exact: TypeAlias = GaussianOracle | MixtureOracle
_QUADRATURE_LIMIT = 300


def unit_gaussian(size: int = 3) -> GaussianOracle:
    """N(0, I)."""
    return GaussianOracle(torch.zeros(size), torch.eye(size))


def line_mixture() -> MixtureOracle:
    """Two unlike modes on the line, 0.3 N(−1, 0.1²) + 0.7 N(0.8, 0.3²)."""
    return MixtureOracle(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
        torch.tensor([[[0.01]], [[0.09]]], dtype=torch.float64),
    )


def gaps_by_variance(oracle: Exact, schedule: Schedule) -> dict[str, float]:
    """Expected bound − entropy, nats per dimension, for each variance; `optimal` is the best isotropic one."""
    error = oracle.mmse(schedule.log_snr[1:])
    tables: dict[str, Variance] = {
        "posterior": "posterior",
        "beta": "beta",
        "optimal": optimal_variance(error, oracle.size, schedule),
    }
    entropy = float(oracle.entropy())
    bounds = {
        name: expected_terms(error[None], energy(oracle)[None], oracle.size, schedule, table).total
        for name, table in tables.items()
    }
    return {name: (float(bound) - entropy) / oracle.size for name, bound in bounds.items()}


def energy(oracle: Exact) -> Tensor:
    """E‖x0‖²."""
    if isinstance(oracle, GaussianOracle):
        return oracle.spectrum.sum() + oracle.mean.square().sum()
    return oracle.weights @ (oracle.spectra.sum(dim=1) + oracle.means.square().sum(dim=1))


def gaps(steps: tuple[int, ...]) -> list[dict[str, object]]:
    """Gap over T for every schedule family and variance: a 64-dimensional field, N(0, I), a mixture on the line."""
    sources: dict[str, Exact] = {
        "field": gaussian_oracle(),
        "unit": unit_gaussian(),
        "mixture": line_mixture(),
    }
    rows: list[dict[str, object]] = []
    for family, make in _FAMILIES.items():
        for T in steps:
            schedule = make(T)
            for data, oracle in sources.items():
                if data == "mixture" and T > _QUADRATURE_LIMIT:
                    continue
                rows += [
                    {"data": data, "schedule": family, "T": T, "variance": variance, "gap": value}
                    for variance, value in gaps_by_variance(oracle, schedule).items()
                ]
    return rows


def interiors(T: int) -> dict[str, Schedule]:
    """Schedules with the same end points and unlike interiors."""
    s = torch.linspace(-1, 1, T, dtype=torch.float64)
    shapes = {"straight": s, "cubic": 0.5 * (s + s**3), "sine": s + 0.25 * torch.sin(math.pi * s)}
    return {name: schedule_from_log_snr(-END * shape) for name, shape in shapes.items()}


def interior_spread(steps: tuple[int, ...]) -> list[dict[str, object]]:
    """Bound per dimension for three interiors, and the largest difference, which falls with T."""
    oracle = gaussian_oracle()
    rows: list[dict[str, object]] = []
    for T in steps:
        bounds = {
            name: float(oracle.expected_elbo(schedule, "posterior").total / oracle.size)
            for name, schedule in interiors(T).items()
        }
        values = list(bounds.values())
        rows.append({"T": T, **bounds, "spread": max(values) - min(values)})
    return rows


def exact_equality(steps: tuple[int, ...]) -> float:
    """Largest |bound − entropy| for N(0, I) with σ_t² = β_t, nats: it is 0 in exact arithmetic."""
    oracle = unit_gaussian()
    return max(
        abs(gaps_by_variance(oracle, make(T))["beta"]) * oracle.size
        for make in SCHEDULES.values()
        for T in steps
    )


def pointwise_slack(steps: tuple[int, ...], points: int = 200) -> list[dict[str, object]]:
    """Bound for x0 + ln p_model(x0), nats: least, median and largest over points. Never negative at any x0."""
    oracle = gaussian_oracle()
    noise = NoiseStream(1).normal((points, oracle.size), step=0, dtype=torch.float64)
    x0 = (noise * oracle.spectrum.sqrt()) @ oracle.basis.T + oracle.mean
    x0 = x0.view(points, *oracle.dims)
    rows: list[dict[str, object]] = []
    for family, make in SCHEDULES.items():
        for T in steps:
            for variance in ("posterior", "beta"):
                schedule = make(T)
                bound = oracle.expected_elbo(schedule, variance, x0).total
                slack = bound + oracle.model_log_prob(x0, schedule, variance)
                rows.append(
                    {
                        "schedule": family,
                        "T": T,
                        "variance": variance,
                        "least": float(slack.min()),
                        "median": float(slack.median()),
                        "largest": float(slack.max()),
                    }
                )
    return rows


def i_mmse() -> list[dict[str, object]]:
    """Entropy by integrating the denoising error over the SNR, and the exact one; nats.

    −E ln p = (D/2) ln 2πe − ½∫[D/(1+γ) − mmse(γ)] dγ (Guo, Shamai & Verdú 2005), over ln γ from −32 to 32.
    The trapezoidal rule converges exponentially for an analytic integrand that decays at both ends. Every fourth value of
    γ[D/(1+γ) − mmse(γ)]/D, the integrand over ln γ, is kept for a picture.
    """
    log_snr = torch.linspace(-32, 32, 401, dtype=torch.float64)
    rows: list[dict[str, object]] = []
    oracles: dict[str, Exact] = {
        "field": gaussian_oracle(),
        "mixture": line_mixture(),
    }
    for data, oracle in oracles.items():
        excess = oracle.size * torch.sigmoid(-log_snr) - oracle.mmse(log_snr)
        integrand = excess * log_snr.exp()
        area = float(torch.trapezoid(integrand, log_snr))
        entropy = 0.5 * oracle.size * math.log(2 * math.pi * math.e) - 0.5 * area
        rows.append(
            {
                "data": data,
                "by_integral": entropy,
                "exact": float(oracle.entropy()),
                "log_snr": log_snr[::4].tolist(),
                "integrand": (integrand[::4] / oracle.size).tolist(),
            }
        )
    return rows
