"""Reverse steps and whole chains (Ho et al. 2020, algorithm 2; Song, Meng & Ermon 2021, eqs. 12 and 16)."""

import torch
from torch import Tensor

from ddpm_ref.conformance import Model, Setting
from tests.independent.bound import LikelihoodBound
from tests.independent.process import same_shape


class Chain(LikelihoodBound):
    """Ancestral and implicit sampling."""

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        same_shape(x_t, noise)
        if sampler not in ("ddpm", "ddim"):
            raise ValueError(f"sampler {sampler!r}: use ddpm or ddim")
        known = self.known(setting)
        tilde = known.at("tilde", t, x_t)
        if sampler == "ddpm":
            mean = self._converted(setting, prediction, x_t, t, parameterization, "mean")
            return (mean + tilde.sqrt() * noise.double()).to(x_t.dtype)
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0")
        eps = self._converted(setting, prediction, x_t, t, parameterization, "eps")
        signal = known.at("alpha_bar", t, x_t, shift=-1).sqrt()
        return (
            signal * clean
            + self._direction(setting, t, x_t, eta) * eps
            + eta * tilde.sqrt() * noise.double()
        ).to(x_t.dtype)

    def _direction(self, setting: Setting, t: Tensor, like: Tensor, eta: float) -> Tensor:
        """√(1 − ᾱ_{t−1} − η² β̃_t), as √((1 − ᾱ_{t−1}) (1 − η² + η² α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t)))."""
        known = self.known(setting)
        left = known.at("sigma2", t, like, shift=-1)
        kept = known.at("alpha", t, like) * left / known.at("sigma2", t, like)
        return (left * ((1 - eta) * (1 + eta) + eta**2 * kept)).sqrt()

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        known = self.known(setting)
        x = torch.randn(shape, dtype=torch.float32)
        for step in range(known.steps, 0, -1):
            t = torch.full((shape[0],), step)
            prediction = model(x, known.timesteps[t])
            x = self.sampler_step(
                setting, prediction, x, t, torch.randn_like(x), parameterization, sampler, 0.0
            )
        return x
