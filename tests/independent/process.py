"""Forward process and its posterior (Ho et al. 2020, eqs. 4, 6, 7; Nichol & Dhariwal 2021, eq. 15).

Everything is computed in float64 and rounded once, to the dtype of the sample.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ddpm_ref.conformance import Implementation, Posterior, Setting
from tests.independent.random_bits import normal
from tests.independent.tables import Tables, tables


def same_shape(first: Tensor, second: Tensor) -> None:
    """ValueError where two operands are not alike: broadcasting would hide a mistake."""
    if first.shape != second.shape:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)}: pass equal ones")


class Process(Implementation):
    """Tables, q(x_t | x_0), q(x_{t−1} | x_t, x_0) and the variances of the reverse step."""

    def known(self, setting: Setting) -> Tables:
        """The tables that every method here reads."""
        return tables(setting)

    def mean_coefficients(self, setting: Setting, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(c_0, c_t) of μ̃ = c_0 x_0 + c_t x_t: √ᾱ_{t−1} β_t / (1 − ᾱ_t) and √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t)."""
        known = self.known(setting)
        sigma2 = known.at("sigma2", t, like)
        before = known.at("alpha_bar", t, like, shift=-1)
        left = known.at("sigma2", t, like, shift=-1)
        clean = before.sqrt() * known.at("beta", t, like) / sigma2
        return clean, known.at("alpha", t, like).sqrt() * left / sigma2

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        known = self.known(setting)
        names = {
            "beta": "beta",
            "alpha_bar": "alpha_bar",
            "one_minus_alpha_bar": "sigma2",
            "log_snr": "log_snr",
            "snr": "snr",
            "posterior_variance": "tilde",
        }
        return {key: getattr(known, field)[1:].clone() for key, field in names.items()}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        same_shape(x0, noise)
        known = self.known(setting)
        signal = known.at("alpha_bar", t, x0).sqrt()
        spread = known.at("sigma2", t, x0).sqrt()
        return (signal * x0.double() + spread * noise.double()).to(x0.dtype)

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        eps = normal(tuple(x0.shape), seed, 0, 0).to(x0)
        return self.q_sample(setting, x0, t, eps), eps

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        same_shape(x0, x_t)
        known = self.known(setting)
        clean, noisy = self.mean_coefficients(setting, t, x0)
        mean = (clean * x0.double() + noisy * x_t.double()).to(x0.dtype)
        variance, log_variance = (
            known.at(name, t, x0).to(x0.dtype).expand(x0.shape).clone()
            for name in ("tilde", "log_tilde")
        )
        return Posterior(mean, variance, log_variance)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        names = {"posterior": ("tilde", "log_tilde"), "beta": ("beta", "log_beta")}
        if variance not in names:
            raise ValueError(f"variance {variance!r}: use posterior or beta")
        known = self.known(setting)
        value, logarithm = (known.at(name, t) for name in names[variance])
        return value, logarithm

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        if meaning not in ("log", "range"):
            raise ValueError(f"meaning {meaning!r}: use log or range")
        wide = said.double()
        if meaning == "range":
            known = self.known(setting)
            high = known.at("log_beta", t, said)
            low = known.at("clipped_log_tilde", t, said)
            wide = wide * high + (1 - wide) * low
        return torch.exp(wide).to(said.dtype), wide.to(said.dtype, copy=True)
