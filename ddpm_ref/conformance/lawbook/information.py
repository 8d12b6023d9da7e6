r"""The law that ties denoising to density: what a denoiser errs, integrated over the noise level, is what its data are worth in nats.

At the signal-to-noise ratio γ let mmse(γ) = E‖x_0 − E[x_0 | √γ x_0 + ε]‖². Then (Guo, Shamai & Verdú 2005)

    −E ln p(x_0) = (D/2) ln 2πe − ½∫_0^∞ [D/(1+γ) − mmse(γ)] dγ.                                     (1)

The left side knows no denoiser, the right side no density. A denoiser that errs more than the best one, at whatever noise level,
raises the right side by ½∫[mse − mmse] dγ: for the denoiser of other data q that is KL(p ‖ q) (Verdú 2010). So (1) watches
all levels at once, where a comparison at chosen steps watches only those.

**How it is computed.** Over λ = ln γ at about a hundred of the setting's own steps, by a cubic spline; beyond the first and the last step by
the exact error. The expectation over (x_0, ε) is a Gauss–Hermite sum for each part: exact for a Gaussian, whose best denoiser is linear.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import Case, Law, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting

_LEAST_STEPS, _KNOTS, _BEYOND = 200, 120, 30.0

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x̂_0 `[N, D]` from x_t `[N, D]` and log-SNR `[N]`."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k w_k N(m_k, S_k diagonal); a Gaussian is one part.

    Attributes:
        weights: `[K]`.
        means: `[K, D]`.
        spreads: variances `[K, D]`.
        nodes: Gauss–Hermite nodes for each of the 2D coordinates of (x_0, ε).
    """

    weights: Tensor
    means: Tensor
    spreads: Tensor
    nodes: int

    def grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0 `[N, D]`, ε `[N, D]`, weights `[N]`) of a quadrature over (x_0, ε)."""
        points, masses = np.polynomial.hermite_e.hermegauss(self.nodes)
        dims = self.means.shape[1]
        axes = [torch.as_tensor(points)] * (2 * dims)
        z = torch.cartesian_prod(*axes)
        mass = torch.cartesian_prod(*[torch.as_tensor(masses / masses.sum())] * (2 * dims)).prod(1)
        clean = [m + s.sqrt() * z[:, :dims] for m, s in zip(self.means, self.spreads, strict=True)]
        share = torch.cat([w * mass for w in self.weights])
        return torch.cat(clean), z[:, dims:].repeat(len(self.weights), 1), share

    def best(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """E[x_0 | x_t] by Bayes' rule."""
        kept, rest = (torch.sigmoid(sign * log_snr)[:, None, None] for sign in (1, -1))
        variance = kept * self.spreads + rest
        gap = x_t[:, None] - kept.sqrt() * self.means
        logs = self.weights.log() - 0.5 * (gap**2 / variance + variance.log()).sum(2)
        parts = self.means + kept.sqrt() * self.spreads * gap / variance
        answer: Tensor = (torch.softmax(logs, 1)[:, :, None] * parts).sum(1)
        return answer

    def entropy(self) -> float:
        """−E ln p: closed for one part; on the line the trapezoidal rule, exponentially accurate for a smooth density."""
        if len(self.weights) == 1:
            return float(0.5 * (2 * math.pi * math.e * self.spreads).log().sum())
        x = torch.linspace(-12, 12, 48001, dtype=torch.float64)[:, None]
        scales = self.spreads[:, 0].sqrt()
        logs = self.weights.log() - 0.5 * ((x - self.means[:, 0]) / scales) ** 2
        density = torch.logsumexp(logs - (scales * math.sqrt(2 * math.pi)).log(), 1)
        return float(-torch.trapezoid(density.exp() * density, x[:, 0]))


def squared_errors(data: Mixture, denoiser: Denoiser, log_snr: Tensor) -> Tensor:
    """E‖x_0 − x̂_0‖² at each λ, `[N]`."""
    clean, noise, share = data.grid()
    kept, rest = (torch.sigmoid(sign * log_snr)[:, None, None] for sign in (1, -1))
    x_t = (kept.sqrt() * clean + rest.sqrt() * noise).flatten(0, 1)
    said = denoiser(x_t, log_snr.repeat_interleave(len(clean))).double()
    gaps = said.view(len(log_snr), *clean.shape) - clean
    return gaps.square().sum(2) @ share


def entropy_by_denoising(data: Mixture, denoiser: Denoiser, log_snr: Tensor) -> Tensor:
    """The right side of eq. (1), `[1]` nats: this denoiser between the ends of `log_snr` (rising), the best one beyond."""
    low, high = log_snr[0].item(), log_snr[-1].item()
    pieces = [
        (data.best, torch.linspace(low - _BEYOND, low, _KNOTS, dtype=torch.float64)),
        (denoiser, log_snr),
        (data.best, torch.linspace(high, high + _BEYOND, _KNOTS, dtype=torch.float64)),
    ]
    dims = data.means.shape[1]
    area = sum(_area(points, squared_errors(data, who, points), dims) for who, points in pieces)
    return torch.tensor([0.5 * (dims * math.log(2 * math.pi * math.e) - area)]).double()


def _area(log_snr: Tensor, error: Tensor, dims: int) -> float:
    """∫[D/(1+γ) − error] dγ over λ = ln γ."""
    from scipy.interpolate import CubicSpline

    integrand = dims * torch.sigmoid(log_snr) - error * log_snr.exp()
    return float(CubicSpline(log_snr.numpy(), integrand.numpy()).integrate(log_snr[0], log_snr[-1]))


def _chosen(known: Truth) -> Tensor:
    """Steps T−1 … 1, about a hundred of them, evenly in log-SNR; the last step is a leap where β is capped."""
    levels = known.table(lambda row: row.log_snr)[:-1]
    wanted = torch.linspace(float(levels[-1]), float(levels[0]), _KNOTS, dtype=torch.float64)
    nearest = (levels[:, None] - wanted).abs().argmin(0)
    chosen: Tensor = nearest.unique().flip(0) + 1
    return chosen


def _float64(values: Sequence[object]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _line() -> Mixture:
    """Two unlike modes that overlap; 32 nodes resolve the share of each to 1e-7."""
    return Mixture(_float64([0.3, 0.7]), _float64([[-1.0], [0.8]]), _float64([[0.4], [0.9]]), 32)


def _plane() -> Mixture:
    """One part, two unlike variances; 2 nodes are exact for a linear denoiser."""
    return Mixture(_float64([1.0]), _float64([[0.5, -1.5]]), _float64([[0.09, 2.0]]), 2)


def _i_mmse(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        if known.T >= _LEAST_STEPS and known.rows[-1].alpha_bar > 0:
            for data in (_plane(), _line()):
                yield _case(setting, known, data)


def _case(setting: Setting, known: Truth, data: Mixture) -> Case:
    steps = _chosen(known)
    levels = known.table(lambda row: row.log_snr)[steps - 1]
    given = (data.weights, data.means, torch.diag_embed(data.spreads))

    def integral(candidate: Implementation) -> Tensor:
        def denoiser(x_t: Tensor, log_snr: Tensor) -> Tensor:
            t = steps.repeat_interleave(len(x_t) // len(steps))
            return candidate.mixture_denoise(setting, *given, x_t, t)

        return entropy_by_denoising(data, denoiser, levels)

    return Case(
        "mixture_denoise",
        {"setting": setting, "weights": given[0], "means": given[1], "covariances": given[2]},
        torch.tensor([data.entropy()], dtype=torch.float64),
        run=integral,
        label="(D/2) ln 2πe − ½∫[D/(1+γ) − error of mixture_denoise] dγ",
    )


LAWS = (
    Law(
        "I27-i-mmse",
        "entropy by denoising",
        "−E ln p(x0) = (D/2) ln 2πe − ½∫[D/(1+γ) − mmse(γ)] dγ, with the denoiser's own error at γ = SNR(t) for mmse.",
        "d/dγ of the mutual information of x0 and √γ x0 + ε is ½ mmse(γ); a denoiser that errs more, at any level, raises "
        "the right side by half the area between the errors.",
        "Guo, Shamai & Verdú 2005, theorem 2; Verdú 2010; Kong et al. 2023.",
        {torch.float64: 1e-4},
        "Absolute, nats: a cubic spline leaves 3e-6 at T = 1000 and 2e-5 at T = 200.",
        _i_mmse,
        measures="discretization",
    ),
)
