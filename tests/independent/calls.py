"""One ordinary call of every method, to see that a defect answers at all."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance import Setting

SETTINGS = (
    Setting("linear", 40),
    Setting("cosine", 7),
    Setting("sigmoid", 20),
    Setting("linear", 50, timesteps=(1, 4, 9, 10, 30, 50)),
    Setting("cosine", 12, zero_terminal_snr=True),
    Setting("given", 4, beta=(0.1, 0.3, 0.2, 0.7)),
    Setting("given", 3, log_snr=(9.0, 0.5, -10.0)),
)


def numbers(*shape: int, salt: int = 0) -> Tensor:
    """Normal float64 numbers of a seed."""
    generator = torch.Generator().manual_seed(salt)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def clean(x_t: Tensor, t: Tensor) -> Tensor:
    """A network that says x_0 = 0.3 x_t."""
    return 0.3 * x_t


def calls(
    setting: Setting, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(method, arguments); steps below T, where everything is defined."""
    B, dims = 3, (2, 3, 3)
    x0, eps, x_t, said = (numbers(B, *dims, salt=k).to(dtype) for k in range(4))
    t = torch.tensor([2, 1, max(2, setting.steps - 1)])
    late = t.clamp(min=2)
    lattice = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=dtype)
    D = 3
    row, spread = numbers(B, D, salt=5).to(dtype), torch.eye(D, dtype=torch.float64) + 0.5
    yield "tables", (setting,)
    yield "q_sample", (setting, x0, t, eps)
    yield "noised", (setting, x0, t, 7)
    yield "posterior", (setting, x0, x_t, t)
    for variance in ("posterior", "beta"):
        yield "reverse_variance", (setting, variance, late)
        yield "bound_term", (setting, said, x0, x_t, late, "v", variance)
        yield "gaussian_bound", (setting, row[0].double(), spread, variance)
        yield "bound", (setting, clean, x0, "x0", variance, "gaussian", None)
    images = (numbers(2, 1, 2, 2).sign() * 0.5).to(dtype)
    yield "bound", (setting, clean, images, "x0", "posterior", "discretized", 5)
    for meaning in ("log", "range"):
        yield "learned_variance", (setting, meaning, said.sigmoid(), t)
    for space in ("eps", "x0", "v", "score", "mean"):
        yield "target", (setting, space, x0, eps, t)
        yield "convert", (setting, said, x_t, t, space, "x0")
        yield "convert", (setting, said, x_t, t, "v", space)
        for weighting in ("simple", "elbo", "min_snr", "p2"):
            yield "weight", (setting, weighting, t, space)
            yield "loss", (setting, said, x0, eps, t, space, weighting)
        for sampler in ("ddpm", "ddim"):
            yield "sampler_step", (setting, said, x_t, t, eps, space, sampler, 0.5)
    if not setting.zero_terminal_snr:
        for sampler in ("ddpm", "ddim"):
            yield "sample", (setting, clean, (2, 3), "x0", sampler)
    yield "hybrid_loss", (setting, row[:, 0], row[:, 1])
    yield "gaussian_kl", (row, row / 2, row + 1, row)
    yield "discretized_log_likelihood", (lattice, 0.1 * lattice, lattice - 2, 5)
    yield "prior_kl", (setting, x0)
    yield "bits_per_dim", (row[:, 0], 18)
    means, covariances = numbers(2, D, salt=6), torch.stack([spread, spread + 0.1])
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    yield "gaussian_denoise", (setting, means[0], spread, row, t)
    yield "mixture_denoise", (setting, weights, means, covariances, row, t)
    yield "empirical_denoise", (setting, numbers(7, D, salt=8), row, t)
    yield "gaussian_log_prob", (means[0], spread, row)
    yield "mixture_log_prob", (weights, means, covariances, row)
    yield "gaussian_entropy", (spread,)
    for space in ("eps", "x0", "v"):
        yield "rank_limited_excess", (setting, torch.tensor([2.0, 0.5, 1.0]).double(), 1, t, space)
    yield "noise", ((4, 5), 3, 9, 0)
    yield "time_steps", (17, 10, 3)
    yield "ema", (numbers(9).to(dtype), 0.9)
    pictures = numbers(30, 3, 8, 8, salt=9).clamp(-1, 1)
    yield "features", (pictures,)
    yield "frechet_distance", (pictures, pictures.roll(1, 0) * 0.5)
    yield "frechet_label", ("inception", 10_000)
