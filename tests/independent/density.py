"""Gaussian densities, the discretized decoder, and posterior means of exactly known data.

KL between Gaussians: with d = ln σ_1² − ln σ_2², ½(e^d − 1 − d + (μ_1 − μ_2)² / σ_2²). Decoder: Ho et al. 2020, eq. 13.
E[x_0 | x_t] by the Gaussian conditional (Bishop 2006, eq. 2.113 to 2.117).
"""

import math

import numpy as np
import torch
from torch import Tensor

from ddpm_ref.conformance import Setting
from tests.independent.objective import Objective

_SERIES = 0.25
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))


def exp_minus_one_minus(d: Tensor) -> Tensor:
    """e^d − 1 − d ≥ 0, by its series near 0 where the difference would cancel."""
    near = d.abs() < _SERIES
    small = torch.where(near, d, torch.zeros_like(d))
    series = torch.zeros_like(d)
    for k in range(18, 1, -1):
        series = series * small + 1 / math.factorial(k)
    far = torch.where(near, torch.ones_like(d), d)
    return torch.where(near, series * small.square(), torch.expm1(far) - far)


def _log_mass_narrow(middle: Tensor, width: Tensor) -> Tensor:
    """ln ∫ φ over a bin much narrower than φ: Gauss-Legendre of e^(−m s − s²/2) about the middle, 40 nodes."""
    s = width.unsqueeze(-1) / 2 * _NODES.to(middle)
    exponent = -middle.unsqueeze(-1) * s - s.square() / 2
    mean = torch.logsumexp(exponent + (_WEIGHTS.to(middle) / 2).log(), -1)
    return -middle.square() / 2 - math.log(2 * math.pi) / 2 + width.log() + mean


def _log_mass_wide(low: Tensor, high: Tensor) -> Tensor:
    """ln(Φ(high) − Φ(low)), mirrored into the lower tail."""
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return upper + torch.log1p(-torch.exp(lower - upper))


class Density(Objective):
    """Densities and exact denoisers, all in float64."""

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        m1, v1, m2, v2 = (value.double() for value in (mean1, log_var1, mean2, log_var2))
        nats = 0.5 * (exp_minus_one_minus(v1 - v2) + (m1 - m2).square() * torch.exp(-v2))
        return nats.to(mean1.dtype)

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        half = 1 / (levels - 1)
        bin_index = ((x.double() + 1) / (2 * half)).round().clamp(0, levels - 1)
        snapped = bin_index * (2 * half) - 1
        slack = max(1e-3, 4 * torch.finfo(x.dtype).eps)
        if bool(((x.double() - snapped).abs() > slack).any()):
            raise ValueError(
                f"x is not on the lattice of {levels} values in [-1, 1]: scale it by k * 2 / {levels - 1} - 1"
            )
        centred, inverse, _ = torch.broadcast_tensors(
            snapped - mean.double(), torch.exp(-log_scale.double()), snapped
        )
        low, high = (centred - half) * inverse, (centred + half) * inverse
        first = (bin_index == 0).expand(low.shape)
        last = (bin_index == levels - 1).expand(low.shape)
        width, middle = 2 * half * inverse, centred * inverse
        narrow = (width < 1) & (width * middle.abs() < 10)
        ones = torch.ones_like(low)
        quiet = narrow | first | last
        inner = torch.where(
            narrow,
            _log_mass_narrow(
                torch.where(narrow, middle, 0 * ones), torch.where(narrow, width, 0.5 * ones)
            ),
            _log_mass_wide(torch.where(quiet, -ones, low), torch.where(quiet, ones, high)),
        )
        below = torch.special.log_ndtr(torch.where(first, high, ones))
        above = torch.special.log_ndtr(torch.where(last, -low, ones))
        return torch.where(first, below, torch.where(last, above, inner)).to(mean.dtype)

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        ones = torch.ones(1, dtype=torch.float64)
        return self.mixture_denoise(setting, ones, mean[None], covariance[None], x_t, t)

    def mixture_denoise(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        x_t: Tensor,
        t: Tensor,
    ) -> Tensor:
        known = self.known(setting)
        w, m, S = weights.double(), means.double(), covariances.double()
        signal2 = known.at("alpha_bar", t, x_t)[..., None, None]
        noise = known.at("sigma2", t, x_t)[..., None, None] * torch.eye(S.shape[-1]).to(S)
        root = torch.linalg.cholesky(signal2 * S + noise)  # [B, K, D, D]
        rest = x_t.double()[:, None] - signal2[..., 0].sqrt() * m  # [B, K, D]
        white = torch.linalg.solve_triangular(root, rest[..., None], upper=False)
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        share = torch.softmax(w.log() - volume - white.square().sum((-1, -2)) / 2, 1)
        solved = torch.cholesky_solve(rest[..., None], root)
        each = m + signal2[..., 0].sqrt() * (S @ solved)[..., 0]
        return (share[..., None] * each).sum(1).to(x_t.dtype)

    def empirical_denoise(self, setting: Setting, data: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        known, wide = self.known(setting), data.double()
        signal = known.at("alpha_bar", t, x_t).sqrt()[..., None]
        distance = (x_t.double()[:, None] - signal * wide).square().sum(-1)
        share = torch.softmax(-distance / (2 * known.at("sigma2", t, x_t)), 1)
        return (share @ wide).to(x_t.dtype)

    def gaussian_log_prob(self, mean: Tensor, covariance: Tensor, x0: Tensor) -> Tensor:
        ones = torch.ones(1, dtype=torch.float64)
        return self.mixture_log_prob(ones, mean[None], covariance[None], x0)

    def mixture_log_prob(
        self, weights: Tensor, means: Tensor, covariances: Tensor, x0: Tensor
    ) -> Tensor:
        root = torch.linalg.cholesky(covariances.double())  # [K, D, D]
        rest = (x0.double()[:, None] - means.double())[..., None]
        white = torch.linalg.solve_triangular(root, rest, upper=False)[..., 0]
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = means.shape[-1] * math.log(2 * math.pi) / 2
        each = weights.double().log() - volume - white.square().sum(-1) / 2 - constant
        return torch.logsumexp(each, 1)

    def gaussian_entropy(self, covariance: Tensor) -> float:
        root = torch.linalg.cholesky(covariance.double())
        constant = len(covariance) * (1 + math.log(2 * math.pi)) / 2
        return float(root.diagonal().log().sum()) + constant

    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        """Reduced-rank regression (Izenman 1975) of y = a x_0 + b ε on x_t, coordinate by coordinate in the eigenbasis.

        With s = ᾱ λ + σ² and c = a √ᾱ λ + b σ a coordinate explains c²/s of y; the `rank` largest are kept, and what is
        lost of x̂_0 = u y + w x_t is u² times the rest, u = σ / (a σ − b √ᾱ).
        """
        spectrum = eigenvalues.double()
        if not 0 <= rank <= len(spectrum):
            raise ValueError(f"rank {rank} of {len(spectrum)} dims: pass 0 ... {len(spectrum)}")
        like = t[:, None].double()
        a, b = self._row(setting, parameterization, t, like)
        known = self.known(setting)
        signal2, sigma2 = known.at("alpha_bar", t, like), known.at("sigma2", t, like)
        covariance = a * signal2.sqrt() * spectrum + b * sigma2.sqrt()
        explained = covariance.square() / (signal2 * spectrum + sigma2)
        lost = explained.sort(1).values[:, : len(spectrum) - rank].sum(1)
        determinant = self._determinant(setting, parameterization, t, like)[:, 0]
        if bool((determinant == 0).any()):
            raise ValueError(f"{parameterization} says nothing of x0 where alpha_bar = 0")
        return lost * sigma2[:, 0] / determinant.square()
