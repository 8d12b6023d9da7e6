r"""Data whose distribution is known exactly: the measured bound can be held against the entropy.

`gaussian` is a smooth random field on 8×8 pixels,

    x ~ N(μ, Σ),   Σ_{ij} = s² exp(−‖r_i − r_j‖²/2ℓ²) + n² δ_{ij},                                  (1)

`mixture` is three such fields with different means and unequal weights. Both are continuous: `levels` is None, the
decoder is Gaussian, and bits/dim may be negative. The draws come from `NoiseStream`, so they are equal on every
platform up to the rounding of one Cholesky product.
"""

import math

import torch
from torch import Tensor

from bench.data.dataset import DataSet, content_hash
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.oracle import GaussianOracle, MixtureOracle

SIZE = 8
_COUNTS = (1500, 100, 500)
_SEED = 20_20
_WEIGHTS = (0.5, 0.3, 0.2)


def _field_covariance(size: int, *, scale: float, length: float, nugget: float) -> Tensor:
    """Covariance (1) of a smooth field on size×size pixels, float64 `[size², size²]`.

    Args:
        size: pixels per side.
        scale: s, the standard deviation of the smooth part.
        length: ℓ, the correlation length in pixels.
        nugget: n, the standard deviation of the independent part.
    """
    axis = torch.arange(size, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    squared = torch.cdist(points, points).square()
    smooth = scale**2 * torch.exp(-squared / (2 * length**2))
    return smooth + nugget**2 * torch.eye(size * size, dtype=torch.float64)


def _wave(horizontal: float, vertical: float) -> Tensor:
    axis = torch.arange(SIZE, dtype=torch.float64) / SIZE
    phase = horizontal * axis[None, :] + vertical * axis[:, None]
    wave: Tensor = 0.5 * torch.cos(2 * math.pi * phase)[None]
    return wave


def gaussian_oracle() -> GaussianOracle:
    """The distribution of `gaussian`: one smooth field around one wave."""
    covariance = _field_covariance(SIZE, scale=0.3, length=1.5, nugget=0.05)
    return GaussianOracle(_wave(0.5, 0.5), covariance)


def _mixture_oracle() -> MixtureOracle:
    """The distribution of `mixture`: three smooth fields around three waves, weights 0.5, 0.3, 0.2."""
    means = torch.stack([_wave(1, 0), _wave(0, 1), _wave(1, 1)])
    covariance = _field_covariance(SIZE, scale=0.15, length=1.5, nugget=0.05)
    weights = torch.tensor(_WEIGHTS, dtype=torch.float64)
    return MixtureOracle(weights, means, covariance.expand(len(means), -1, -1))


def _fields(covariance: Tensor, count: int) -> Tensor:
    noise = NoiseStream(_SEED).normal((count, SIZE * SIZE), step=0, dtype=torch.float64)
    fields: Tensor = noise @ torch.linalg.cholesky(covariance).T
    return fields.reshape(count, 1, SIZE, SIZE)


def _parts(
    name: str, draws: Tensor, counts: tuple[int, int, int], oracle: GaussianOracle | MixtureOracle
) -> DataSet:
    train, tune, heldout = torch.split(draws.float(), list(counts))
    return DataSet(
        name=name,
        train=train,
        tune=tune,
        heldout=heldout,
        levels=None,
        sha256=content_hash(train, tune, heldout),
        source="synthetic, this project",
        provenance="drawn from a stated seed",
        oracle=oracle,
    )


def load_gaussian(counts: tuple[int, int, int] = _COUNTS) -> DataSet:
    """The Gaussian field (1): `counts` images for training, tuning and evaluation."""
    oracle = gaussian_oracle()
    covariance = _field_covariance(SIZE, scale=0.3, length=1.5, nugget=0.05)
    return _parts("gaussian", _wave(0.5, 0.5) + _fields(covariance, sum(counts)), counts, oracle)


def load_mixture(counts: tuple[int, int, int] = _COUNTS) -> DataSet:
    """The mixture of three fields: `counts` images for training, tuning and evaluation."""
    total = sum(counts)
    covariance = _field_covariance(SIZE, scale=0.15, length=1.5, nugget=0.05)
    means = torch.stack([_wave(1, 0), _wave(0, 1), _wave(1, 1)])
    uniform = NoiseStream(_SEED).uniform((total,), use=Use.ORDER, step=0, dtype=torch.float64)
    edges = torch.tensor(_WEIGHTS, dtype=torch.float64).cumsum(0)[:-1]
    component = torch.bucketize(uniform, edges)
    return _parts(
        "mixture", means[component] + _fields(covariance, total), counts, _mixture_oracle()
    )
