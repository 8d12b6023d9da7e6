r"""What each reverse variance costs: an answer to "Σ is usually the identity".

Given the denoiser's squared error e_td per step and dimension, the diffusion term of step t ≥ 2 under a variance σ² is

    ½ Σ_d [β̃_t/σ² − 1 − ln β̃_t/σ² + c_0² e_td/σ²],                                                          (1)

least over one number per step at σ² = β̃_t + c_0² mean_d e_td (Bao et al. 2022), and over one number per step and dimension at
σ_d² = β̃_t + c_0² e_td, where (1) becomes ½ Σ_d ln σ_d²/β̃_t. The decoder, t = 1, is left out: its variance is another choice.
"""

import math

import torch
from torch import Tensor

from bench.data.synthetic import gaussian_oracle
from ddpm_ref.kernels import fast_normal
from ddpm_ref.noise import NoiseStream
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.oracle.expected import mean_gain
from ddpm_ref.parameterization import convert
from ddpm_ref.process import q_sample
from ddpm_ref.reverse import Model, evaluation_mode
from ddpm_ref.schedule import Schedule, linear_schedule


def prices(error: Tensor, schedule: Schedule) -> dict[str, float]:
    """Σ_{t≥2} of (1) in bits/dim for each choice.

    Args:
        error: e_td = E(x0 − x̂0)² per step and dimension, float64 `[T, D]`.
        schedule: T ≥ 2 steps.
    """
    floor = schedule.posterior_variance[2:, None]
    extra = mean_gain(schedule)[2:, None] * error[1:]
    variances = {
        "identity": torch.ones_like(floor),
        "beta": schedule.beta[2:, None],
        "posterior": floor,
        "isotropic": floor + extra.mean(dim=1, keepdim=True),
        "diagonal": floor + extra,
    }
    unit = 2 * math.log(2) * error.shape[1]
    return {
        name: float(((floor + extra) / variance - 1 - (floor / variance).log()).sum() / unit)
        for name, variance in ((name, v.expand_as(extra)) for name, v in variances.items())
    }


def gaussian_errors(oracle: GaussianOracle, schedule: Schedule) -> Tensor:
    """e_td of the exact denoiser in closed form: diag(U diag(s b/c) Uᵀ), float64 `[T, D]`."""
    a, b = schedule.alpha_bar[1:, None], schedule.one_minus_alpha_bar[1:, None]
    posterior = oracle.spectrum * b / (a * oracle.spectrum + b)
    errors: Tensor = posterior @ (oracle.basis**2).T
    return errors


def measured_errors(
    model: Model, images: Tensor, schedule: Schedule, parameterization: str, seed: int = 0
) -> Tensor:
    """e_td of a trained model, one noise draw per image and step, float64 `[T, D]`."""
    stream, rows = NoiseStream(seed), []
    with evaluation_mode(model):
        for step in range(1, schedule.T + 1):
            t = torch.full((len(images),), step, device=images.device)
            noise = fast_normal(
                stream, images.shape, step=step, device=images.device, dtype=images.dtype
            )
            x_t = q_sample(images, t, schedule, noise)
            output = model(x_t, schedule.original_timesteps(t))
            prediction = output[0] if isinstance(output, tuple) else output
            x0 = convert(
                prediction.double(), x_t.double(), t, schedule, source=parameterization, to="x0"
            )
            rows.append((x0 - images.double()).square().flatten(1).mean(dim=0).cpu())
    return torch.stack(rows)


def gaussian_prices(steps: tuple[int, ...]) -> list[dict[str, object]]:
    """Prices for the exact denoiser of the 64-dimensional field, linear schedule (respaced from T = 1000 for fewer steps)."""
    oracle, full = gaussian_oracle(), linear_schedule(1000)
    rows: list[dict[str, object]] = []
    for T in steps:
        schedule = respaced(full, T)
        rows.append({"T": T, **prices(gaussian_errors(oracle, schedule), schedule)})
    return rows


def respaced(schedule: Schedule, T: int) -> Schedule:
    """T steps spread evenly over those of `schedule`, ending with its last."""
    chosen = torch.linspace(schedule.T / T, schedule.T, T, dtype=torch.float64).round().long()
    return schedule if schedule.T == T else schedule.respaced(chosen)


def model_prices(
    model: Model,
    images: Tensor,
    schedule: Schedule,
    parameterization: str,
    steps: tuple[int, ...],
) -> list[dict[str, object]]:
    """Prices for a trained model on held-out images, at its own number of steps and at fewer."""
    rows: list[dict[str, object]] = []
    for T in steps:
        fewer = respaced(schedule, T)
        error = measured_errors(model, images, fewer, parameterization)
        rows.append({"T": T, **prices(error, fewer)})
    return rows
