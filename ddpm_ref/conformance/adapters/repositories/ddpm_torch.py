r"""tqch/ddpm-torch: `GaussianDiffusion` of `ddpm_torch/diffusion.py`.

**Index.** Its t = 0 is our t = 1. **Tables** are float64, read in the samples' dtype. Its `linear` is not scaled by T. **Units** are bits per dimension, a
mean over dims; here nats, summed.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.repositories.checkout import commit, package_module
from ddpm_ref.conformance.adapters.repositories.openai import UNCLIPPED, image, unclipped, unit
from ddpm_ref.conformance.implementation import (
    Bound,
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
)
from ddpm_ref.conformance.setting import Setting

_MEANS = {"eps": "eps", "x0": "x_0", "mean": "mean"}
_VARIANCES = {"posterior": "fixed-small", "beta": "fixed-large"}


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The one adapter."""
    alias = "checkout_of_ddpm_torch"
    module = package_module(root / "ddpm_torch", "diffusion", alias)
    return (DdpmTorch(commit(root), module),)


class DdpmTorch(Implementation):
    """`GaussianDiffusion`, its densities and its bound."""

    name = "ddpm-torch"
    first_index = 0
    dtypes = (torch.float64, torch.float32)

    def __init__(self, version: str, module: ModuleType) -> None:
        self.version, self._module = version, module
        self._chain = lru_cache(maxsize=32)(self._built)
        self.conventions = (
            Convention(*UNCLIPPED, "ddpm_torch/diffusion.py, GaussianDiffusion.__init__", _Unclipped, ("I20-first", "I20-consistent")),
        )  # fmt: skip

    def settings(self) -> Sequence[Setting]:
        """`get_beta_schedule("linear", …)` at two lengths."""
        return (Setting("linear", 1000), Setting("linear", 2))

    def _built(self, T: int, mean: str, variance: str) -> Any:
        betas = self._module.get_beta_schedule("linear", 1e-4, 0.02, T)
        return self._module.GaussianDiffusion(betas, mean, variance, "mse")

    def _of(self, setting: Setting, mean: str = "eps", variance: str = "posterior") -> Any:
        if mean not in _MEANS:
            raise NotOffered(f"ddpm-torch has networks for eps, x0 and the mean, not for {mean}")
        return self._chain(setting.T, _MEANS[mean], _VARIANCES[variance])

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its tensors."""
        chain = self._of(setting)
        return {
            "beta": chain.betas,
            "alpha_bar": chain.alphas_bar,
            "posterior_variance": chain.posterior_var,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = self._of(setting).q_sample(x0, self.index(t), noise)
        return noisy

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_posterior_mean_var`."""
        return Posterior(*self._of(setting).q_posterior_mean_var(x0, x_t, self.index(t)))

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`p_mean_var`."""
        x = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
        found = self._of(setting, "eps", variance).p_mean_var(
            lambda seen, step: x, x, self.index(t), False, False
        )
        return found[1].flatten(), found[2].flatten()

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`p_mean_var(…, return_pred=True)`."""
        if to not in ("x0", "mean"):
            raise NotOffered(f"ddpm-torch converts to x0 and the mean, not to {to}")
        mean, _, _, x0 = self._of(setting, source).p_mean_var(
            lambda seen, step: image(prediction), image(x_t), self.index(t), False, True
        )
        found: Tensor = x0 if to == "x0" else mean
        return found.reshape(x_t.shape)

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """`normal_kl`."""
        kl: Tensor = self._module.normal_kl(mean1, log_var1, mean2, log_var2)
        return kl

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """`discretized_gaussian_loglik`, for 256 levels."""
        if levels != 256:
            raise NotOffered(f"ddpm-torch has its decoder for 256 levels, not {levels}")
        x, mean, log_scale = torch.broadcast_tensors(x, mean, log_scale)
        mass: Tensor = self._module.discretized_gaussian_loglik(x, mean, log_scale)
        return mass

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        """`_prior_bpd`."""
        bits: Tensor = self._of(setting)._prior_bpd(x0)
        return bits * unit(x0)

    def bound_term(
        self, setting: Setting, prediction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, parameterization: str, variance: str
    ) -> Tensor:  # fmt: skip
        """`_loss_term_bpd`."""
        chain = self._of(setting, parameterization, variance)
        bits: Tensor = chain._loss_term_bpd(
            lambda seen, step: image(prediction), image(x0), image(x_t), self.index(t), False, False
        )
        return bits * unit(x0)

    def bound(
        self, setting: Setting, model: Model, x0: Tensor, parameterization: str, variance: str, decoder: str, levels: int | None
    ) -> Bound:  # fmt: skip
        """`calc_all_bpd`."""
        if decoder != "discretized" or levels != 256:
            raise NotOffered("ddpm-torch has a discretized decoder for 256 levels")

        def network(seen: Tensor, step: Tensor) -> Tensor:
            return image(model(seen.reshape(x0.shape), step + 1))

        total, terms, prior, _ = self._of(setting, parameterization, variance).calc_all_bpd(
            network, image(x0), False
        )
        nats = terms * unit(x0)
        return Bound(prior * unit(x0), nats[:, 1:], nats[:, 0], total * unit(x0), total)


class _Unclipped(DdpmTorch):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        return unclipped(super().posterior(setting, x0, x_t, t), t)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        found, logarithm = super().reverse_variance(setting, variance, t)
        return found, logarithm.masked_fill((t == 1) & (found == 0), -math.inf)
