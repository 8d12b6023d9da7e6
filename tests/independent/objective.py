"""Targets, conversions and weights.

Each prediction is a row (a, b): p = a x_0 + b ε. With x_t = √ᾱ x_0 + σ ε, a prediction q with the row (c, d) is

    q = u p + w x_t,   u = (c σ − d √ᾱ) / Δ,   w = (a d − b c) / Δ,   Δ = a σ − b √ᾱ                                (1)

v: Salimans & Ho 2022, section 4 and appendix D. A weight in x_0 space becomes one in p space by dividing by (dp/dx_0)² at fixed x_t,
dp/dx_0 = −Δ/σ up to sign. min-SNR: Hang et al. 2023, eq. 8; truncated SNR: Salimans & Ho 2022, section 4; p2: Choi et al. 2022, eq. 8.
"""

import torch
from torch import Tensor

from ddpm_ref.conformance import Setting
from tests.independent.process import Process, same_shape

PARAMETERIZATIONS = ("eps", "x0", "v", "score", "mean")
WEIGHTINGS = ("simple", "simple_x0", "simple_v", "elbo", "truncated_snr", "min_snr", "p2")


def _known_name(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{kind} {name!r}: use one of {', '.join(known)}")


def _refuse_where(undefined: Tensor, what: str) -> None:
    if bool(undefined.any()):
        raise ValueError(f"{what} is undefined where alpha_bar = 0: choose another space or t < T")


class Objective(Process):
    """What a network is trained to say, and how its error is weighted."""

    def _row(self, setting: Setting, name: str, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) of (1), `[B, 1, …]` each."""
        _known_name("parameterization", name, PARAMETERIZATIONS)
        known = self.known(setting)
        signal, sigma = known.at("alpha_bar", t, like).sqrt(), known.at("sigma2", t, like).sqrt()
        one = torch.ones_like(signal)
        if name == "mean":
            clean, noisy = self.mean_coefficients(setting, t, like)
            return clean + noisy * signal, noisy * sigma
        return {
            "eps": (0 * one, one),
            "x0": (one, 0 * one),
            "v": (-sigma, signal),
            "score": (0 * one, -1 / sigma),
        }[name]

    def _determinant(self, setting: Setting, name: str, t: Tensor, like: Tensor) -> Tensor:
        """Δ of (1), each without a difference."""
        _known_name("parameterization", name, PARAMETERIZATIONS)
        known = self.known(setting)
        signal, sigma = known.at("alpha_bar", t, like).sqrt(), known.at("sigma2", t, like).sqrt()
        clean, _ = self.mean_coefficients(setting, t, like)
        return {
            "eps": -signal,
            "x0": sigma,
            "v": -torch.ones_like(sigma),
            "score": signal / sigma,
            "mean": clean * sigma,
        }[name]

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        same_shape(x0, eps)
        a, b = self._row(setting, parameterization, t, x0)
        if parameterization in ("eps", "x0"):
            return (eps if parameterization == "eps" else x0).clone()
        return (a * x0.double() + b * eps.double()).to(x0.dtype)

    def _converted(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """Equation (1) in float64."""
        same_shape(prediction, x_t)
        wide = prediction.double()
        determinant = self._determinant(setting, source, t, x_t)
        a, b = self._row(setting, source, t, x_t)
        c, d = self._row(setting, to, t, x_t)
        if source == to:
            return wide
        if {source, to} == {"eps", "score"}:
            return wide * (d / b)
        _refuse_where(determinant == 0, f"{source} to {to}")
        signal = self.known(setting).at("alpha_bar", t, x_t).sqrt()
        sigma = self.known(setting).at("sigma2", t, x_t).sqrt()
        u, w = self._determinant(setting, to, t, x_t) / determinant, (a * d - b * c) / determinant
        if {source, to} == {"eps", "x0"}:  # two exact coefficients instead of products with 0
            u, w = (-sigma / signal, 1 / signal) if to == "x0" else (-signal / sigma, 1 / sigma)
        return u * wide + w * x_t.double()

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        return self._converted(setting, prediction, x_t, t, source, to).to(
            prediction.dtype, copy=True
        )

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        _known_name("weighting", weighting, WEIGHTINGS)
        _known_name("parameterization", parameterization, PARAMETERIZATIONS)
        return self._weight_in_x0(setting, weighting, t) * self._to_space(
            setting, weighting, t, parameterization
        )

    def _weight_in_x0(self, setting: Setting, weighting: str, t: Tensor) -> Tensor:
        """The factor on |x_0 − x̂_0|², divided by SNR where the weighting vanishes with it (see `_to_space`)."""
        known = self.known(setting)
        snr = known.at("snr", t)
        if weighting == "elbo":
            return self._elbo_weight(setting, t)
        if weighting in ("simple", "p2"):
            return torch.ones_like(snr) if weighting == "simple" else known.at("sigma2", t)
        if weighting == "simple_v":
            return 1 / known.at("sigma2", t)
        if weighting == "min_snr":
            return torch.where(snr > 5, 5 / snr, torch.ones_like(snr))
        return snr.clamp(min=1) if weighting == "truncated_snr" else torch.ones_like(snr)

    def _elbo_weight(self, setting: Setting, t: Tensor) -> Tensor:
        """½(SNR(t−1) − SNR(t)) = ½ ᾱ_{t−1} β_t / ((1−ᾱ_{t−1})(1−ᾱ_t)) for t ≥ 2; 1/(2β_1) at t = 1."""
        known = self.known(setting)
        beta, before = known.at("beta", t), known.at("alpha_bar", t, shift=-1)
        left = torch.where(t == 1, torch.ones_like(beta), known.at("sigma2", t, shift=-1))
        later = before * beta / (2 * left * known.at("sigma2", t))
        return torch.where(t == 1, 1 / (2 * beta), later)

    def _to_space(
        self, setting: Setting, weighting: str, t: Tensor, parameterization: str
    ) -> Tensor:
        """The factor from `_weight_in_x0` to this space: (dx_0/dp)², with the SNR that `simple`, `p2` and `min_snr` carry."""
        known = self.known(setting)
        signal2, sigma2, snr = (known.at(name, t) for name in ("alpha_bar", "sigma2", "snr"))
        clean, _ = self.mean_coefficients(setting, t, t.double())
        vanishes = weighting in ("simple", "p2", "min_snr")
        if parameterization in ("eps", "score"):
            factor = torch.ones_like(snr) if vanishes else 1 / snr
            _refuse_where(torch.isinf(factor), f"{weighting} in {parameterization} space")
            return factor if parameterization == "eps" else factor * sigma2
        plain = {"x0": torch.ones_like(snr), "v": sigma2, "mean": 1 / clean.square()}[
            parameterization
        ]
        if not vanishes:
            return plain
        return signal2 if parameterization == "v" else plain * snr

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        same_shape(x0, eps)
        same_shape(prediction, x0)
        a, b = self._row(setting, parameterization, t, x0)
        error = prediction.double() - (a * x0.double() + b * eps.double())
        weight = self.weight(setting, weighting, t, parameterization)
        return weight * error.square().flatten(1).mean(1)

    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        return simple + 0.001 * setting.steps * bound_term
