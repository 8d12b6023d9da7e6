r"""Vectors on a plane or a subspace of R^D: how many dimensions there are is a dial, and the truth is exact.

    x = P u,        P ∈ R^{D×d} with orthonormal columns, drawn at random (the orthogonal factor of a normal matrix).          (1)

**`spiral:D`**, after the toy of Li & He 2025: u ∈ R² is a mixture of 64 Gaussians of standard deviation 0.02, equally likely and at equal
distances along two turns of the spiral r = θ/(2π·2), moved so that its mean is 0. Its best denoiser is that of the mixture on the two
coordinates (`EmbeddedOracle`), whatever D is. D ≥ 2.

**`subspace:D`**: u ~ N(0, diag ℓ) with the intrinsic dimension d = ⌈D/4⌉ and the spectrum

    ℓ_i = 4 · 100^{−(i−1)/(d−1)},        i = 1 … d,                                                          (2)

from 4 to 0.04 in equal ratios (4 alone where d = 1): variances above and below 1, and D − d directions of which the data know nothing.

Vectors are `[N, D]`; `levels` is None. There is no density in R^D, and the bound of such data has no lower limit; their losses and distances do.
"""

import math

import torch
from torch import Tensor

from bench.data.dataset import DataSet, content_hash
from bench.terminal.usage import UsageError
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.oracle import EmbeddedOracle, GaussianOracle, MixtureOracle

_COUNTS = (8000, 500, 2000)
_SEED = 20_26
_COMPONENTS, _TURNS, _WIDTH = 64, 2, 0.02
_LARGEST, _RANGE = 4.0, 100.0
_MOST = 4096


def spiral_mixture() -> MixtureOracle:
    """The distribution of u in `spiral:D`."""
    fine = torch.linspace(0, _TURNS, 20001, dtype=torch.float64)  # θ/2π
    curve = (fine / _TURNS)[:, None] * torch.stack(
        [torch.cos(2 * math.pi * fine), torch.sin(2 * math.pi * fine)], dim=1
    )
    length = torch.cat([fine.new_zeros(1), curve.diff(dim=0).norm(dim=1).cumsum(0)])
    places = (torch.arange(_COMPONENTS) + 0.5) / _COMPONENTS * length[-1]
    means = curve[torch.searchsorted(length, places)]
    covariance = _WIDTH**2 * torch.eye(2, dtype=torch.float64)
    return MixtureOracle(
        torch.full((_COMPONENTS,), 1 / _COMPONENTS, dtype=torch.float64),
        means - means.mean(dim=0),
        covariance.expand(_COMPONENTS, -1, -1),
    )


def subspace_spectrum(size: int) -> Tensor:
    """ℓ of (2), float64 `[⌈D/4⌉]`."""
    d = math.ceil(size / 4)
    place = torch.arange(d, dtype=torch.float64) / max(d - 1, 1)
    return _LARGEST * _RANGE**-place


def embedding(size: int, inner: int) -> Tensor:
    """P of (1), float64 `[D, d]`, the same for the same sizes."""
    normal = NoiseStream(_SEED).normal((size, inner), step=0, dtype=torch.float64)
    factor, triangle = torch.linalg.qr(normal)
    columns: Tensor = factor * triangle.diagonal().sign()  # the factor that is unique
    return columns


def load_spiral(size: int) -> DataSet:
    """`spiral:D`: 8,000 vectors for training, 500 for tuning, 2,000 held out."""
    _check_size("spiral", size, least=2)
    plane, mixture = embedding(size, 2), spiral_mixture()
    count, stream = sum(_COUNTS), NoiseStream(_SEED)
    component = stream.integers((count,), low=0, high=_COMPONENTS, use=Use.ORDER, step=1)
    noise = stream.normal((count, 2), step=1, dtype=torch.float64)
    u = mixture.means[component] + _WIDTH * noise
    return _data_set(f"spiral:{size}", u @ plane.T, EmbeddedOracle(mixture, plane))


def load_subspace(size: int) -> DataSet:
    """`subspace:D`: 8,000 vectors for training, 500 for tuning, 2,000 held out."""
    _check_size("subspace", size, least=1)
    spectrum = subspace_spectrum(size)
    basis = embedding(size, len(spectrum))
    noise = NoiseStream(_SEED).normal((sum(_COUNTS), len(spectrum)), step=1, dtype=torch.float64)
    oracle = GaussianOracle(torch.zeros(size), basis @ spectrum.diag() @ basis.T)
    return _data_set(f"subspace:{size}", (spectrum.sqrt() * noise) @ basis.T, oracle)


def _check_size(name: str, size: int, least: int) -> None:
    if not least <= size <= _MOST:
        raise UsageError(
            f"{name}:{size}: the number of dimensions lies in {least} … {_MOST}; try {name}:64"
        )


def _data_set(name: str, vectors: Tensor, oracle: GaussianOracle | EmbeddedOracle) -> DataSet:
    train, tune, heldout = vectors.float().split(_COUNTS)
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
