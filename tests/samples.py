"""Distributions that several test files draw from: small, seeded, in float64."""

import math

import torch
from torch import Tensor

from ddpm_ref.oracle import GaussianOracle, MixtureOracle


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(size: int, seed: int = 1) -> GaussianOracle:
    root = random(size, size, seed=seed) / math.sqrt(size)
    covariance = root @ root.T + 0.05 * torch.eye(size, dtype=torch.float64)
    return GaussianOracle(random(size, seed=seed + 100), covariance)


def mixture(size: int = 3) -> MixtureOracle:
    roots = random(2, size, size, seed=5)
    covariances = roots @ roots.transpose(1, 2) / size + 0.02 * torch.eye(size)
    return MixtureOracle(torch.tensor([0.3, 0.7]), 2 * random(2, size, seed=6), covariances)


def line() -> MixtureOracle:
    return MixtureOracle(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
        torch.tensor([[[0.01]], [[0.09]]], dtype=torch.float64),
    )


def draw(oracle: GaussianOracle, count: int, seed: int = 2) -> Tensor:
    z = random(count, oracle.size, seed=seed) * oracle.spectrum.sqrt()
    return (z @ oracle.basis.T + oracle.mean).view(count, *oracle.dims)


def skewed_clusters(count: int, dims: int) -> Tensor:
    """Far from Gaussian: two skewed clusters."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(count, dims, generator=generator, dtype=torch.float64).exp() / 3
    return torch.where(torch.arange(count)[:, None] % 3 == 0, rows, 1.5 - rows)
