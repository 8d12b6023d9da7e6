r"""improved-diffusion, guided-diffusion and DiT: three copies of `GaussianDiffusion`, called as each stands.

**Index.** Their t = 0 is our t = 1. **Tables** are float64 NumPy, read as float32 by `_extract_into_tensor`; float64 inputs meet them without that
rounding, so that a wrong formula can be told from a rounded table. The linear schedule is scaled by
1000/T: ours at T = 1000 alone. **Units** are bits per dimension, a mean over dims; here nats, summed.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import replaced
from ddpm_ref.conformance.adapters.repositories.checkout import commit, package_module
from ddpm_ref.conformance.implementation import (
    Bound,
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
)
from ddpm_ref.conformance.setting import Setting

_PACKAGES = {
    "improved-diffusion": "improved_diffusion",
    "guided-diffusion": "guided_diffusion",
    "DiT": "diffusion",
}
_MEANS = {"eps": "EPSILON", "x0": "START_X", "mean": "PREVIOUS_X"}
_VARIANCES = {"posterior": "FIXED_SMALL", "beta": "FIXED_LARGE"}
_LEARNED = {"log": "LEARNED", "range": "LEARNED_RANGE"}


UNCLIPPED = (
    "log-variance of t = 2 at t = 1",
    "the clipped posterior log-variance repeats t = 2 at t = 1, where β̃_1 = 0 has no logarithm; there it is the decoder's variance",
)
"""Name and statement of the convention that Ho et al.'s code began."""


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The one adapter; which of the three it is, the checkout's package says."""
    name = next(
        n
        for n, package in _PACKAGES.items()
        if (root / package / "gaussian_diffusion.py").is_file()
    )
    alias = f"checkout_of_{_PACKAGES[name]}"
    folder = root / _PACKAGES[name]
    wide, plain = (_loaded(folder, f"{alias}_{kind}") for kind in ("wide", "plain"))
    vars(wide[0])["_extract_into_tensor"] = _extract_unrounded
    return (OpenAI(name, commit(root), wide, plain),)


def _loaded(folder: Path, alias: str) -> tuple[ModuleType, ModuleType]:
    module = package_module(folder, "gaussian_diffusion", alias)
    return module, importlib.import_module(f"{alias}.respace")


def _extract_unrounded(table: Any, t: Tensor, shape: Sequence[int]) -> Tensor:
    """Their `_extract_into_tensor` without its `.float()`."""
    return torch.from_numpy(table)[t].view(-1, *[1] * (len(shape) - 1)).expand(shape)


class _Torch:
    """The module `torch`, whose `randn_like` gives a noise that was chosen before."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def randn_like(self, like: Tensor) -> Tensor:
        return self.noise.to(like.dtype).reshape(like.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class OpenAI(Implementation):
    """`GaussianDiffusion`, and `SpacedDiffusion` for respaced settings."""

    first_index = 0
    dtypes = (torch.float64, torch.float32)

    def __init__(
        self, name: str, version: str, wide: tuple[ModuleType, ModuleType], plain: tuple[ModuleType, ModuleType]
    ) -> None:  # fmt: skip
        self.name, self.version, self._wide, self._plain = name, version, wide, plain
        self._module = plain[0]
        self._chain = lru_cache(maxsize=32)(self._built)
        self.conventions = (
            Convention(
                *UNCLIPPED,
                "gaussian_diffusion.py, GaussianDiffusion.__init__",
                _Unclipped,
                ("I20-first", "I20-consistent"),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Named schedules as `get_named_beta_schedule` has them, and respaced ones."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 13),
            Setting("linear", 1000, timesteps=(1, 2, 5, 17, 101, 499, 997, 1000)),
        )

    def _called(self, name: str) -> str:
        """DiT has the cosine schedule by another name."""
        return "squaredcos_cap_v2" if (self.name, name) == ("DiT", "cosine") else name

    def _built(self, setting: Setting, mean: str, variance: str, wide: bool) -> Any:
        module, respace = self._wide if wide else self._plain
        options = {
            "betas": module.get_named_beta_schedule(self._called(setting.name), setting.T),
            "model_mean_type": module.ModelMeanType[_MEANS[mean]],
            "model_var_type": module.ModelVarType[variance],
            "loss_type": module.LossType.MSE,
        }
        if setting.timesteps is None:
            return module.GaussianDiffusion(**options)
        return respace.SpacedDiffusion(use_timesteps={t - 1 for t in setting.timesteps}, **options)

    def _usual(
        self, setting: Setting, x: Tensor, mean: str = "eps", variance: str = "FIXED_SMALL"
    ) -> Any:
        if mean not in _MEANS:
            raise NotOffered(f"{self.name} has networks for eps, x0 and the mean, not for {mean}")
        return self._chain(setting, mean, variance, x.dtype == torch.float64)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its float64 arrays."""
        chain = self._usual(setting, torch.zeros(1, dtype=torch.float64))
        return {
            "beta": torch.from_numpy(np.asarray(chain.betas)),
            "alpha_bar": torch.from_numpy(chain.alphas_cumprod),
            "posterior_variance": torch.from_numpy(chain.posterior_variance),
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = self._usual(setting, x0).q_sample(x0, self.index(t), noise)
        return noisy

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_posterior_mean_variance`."""
        return Posterior(
            *self._usual(setting, x0).q_posterior_mean_variance(x0, x_t, self.index(t))
        )

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`p_mean_variance` with FIXED_SMALL and FIXED_LARGE."""
        x = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
        found = self._predicted(setting, x, x, t, "eps", _VARIANCES[variance])
        return found["variance"].flatten(), found["log_variance"].flatten()

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`p_mean_variance` with LEARNED and LEARNED_RANGE, whose network says −1 … 1."""
        x = image(said)
        answer = 2 * x - 1 if meaning == "range" else x
        chain = self._usual(setting, said, "eps", _LEARNED[meaning])
        found = chain.p_mean_variance(
            lambda seen, step: torch.cat([torch.zeros_like(seen), answer], dim=1), torch.zeros_like(x), self.index(t), clip_denoised=False
        )  # fmt: skip
        return found["variance"].reshape(said.shape), found["log_variance"].reshape(said.shape)

    def _predicted(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        source: str,
        variance: str,
    ) -> Mapping[str, Tensor]:
        chain = self._usual(setting, x_t, source, variance)
        found: Mapping[str, Tensor] = chain.p_mean_variance(
            lambda seen, step: image(prediction), image(x_t), self.index(t), clip_denoised=False
        )
        return found

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`p_mean_variance`, and `_predict_eps_from_xstart` for eps."""
        if to not in ("x0", "eps", "mean"):
            raise NotOffered(f"{self.name} converts to eps, x0 and the mean, not to {to}")
        found = self._predicted(setting, prediction, x_t, t, source, "FIXED_SMALL")
        if to == "eps":
            chain = self._usual(setting, x_t)
            eps: Tensor = chain._predict_eps_from_xstart(
                image(x_t), self.index(t), found["pred_xstart"]
            )
            return eps.reshape(x_t.shape)
        return found["pred_xstart" if to == "x0" else "mean"].reshape(x_t.shape)

    def loss(
        self, setting: Setting, prediction: Tensor, x0: Tensor, eps: Tensor, t: Tensor, parameterization: str, weighting: str
    ) -> Tensor:  # fmt: skip
        """`training_losses`, which knows the plain squared error of each network."""
        plain = {"eps": "simple", "x0": "simple_x0"}
        if plain.get(parameterization) != weighting:
            raise NotOffered(f"{self.name} has the plain squared errors of eps and x0")
        chain = self._usual(setting, x0, parameterization)
        found: Tensor = chain.training_losses(
            lambda seen, step: image(prediction), image(x0), self.index(t), noise=image(eps)
        )["loss"]
        return found

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """`normal_kl`."""
        kl: Tensor = self._module.normal_kl(mean1, log_var1, mean2, log_var2)
        return kl

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """`discretized_gaussian_log_likelihood`, for 256 levels."""
        if levels != 256:
            raise NotOffered(f"{self.name} has its decoder for 256 levels, not {levels}")
        x, mean, log_scale = torch.broadcast_tensors(x, mean, log_scale)
        mass: Tensor = self._module.discretized_gaussian_log_likelihood(
            x, means=mean, log_scales=log_scale
        )
        return mass

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        """`_prior_bpd`."""
        bits: Tensor = self._usual(setting, x0)._prior_bpd(x0)
        return bits * unit(x0)

    def bound_term(
        self, setting: Setting, prediction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, parameterization: str, variance: str
    ) -> Tensor:  # fmt: skip
        """`_vb_terms_bpd`."""
        chain = self._usual(setting, x0, parameterization, _VARIANCES[variance])
        bits: Tensor = chain._vb_terms_bpd(
            lambda seen, step: image(prediction),
            image(x0),
            image(x_t),
            self.index(t),
            clip_denoised=False,
        )["output"]
        return bits * unit(x0)

    def bound(
        self, setting: Setting, model: Model, x0: Tensor, parameterization: str, variance: str, decoder: str, levels: int | None
    ) -> Bound:  # fmt: skip
        """`calc_bpd_loop`."""
        if decoder != "discretized" or levels != 256:
            raise NotOffered(f"{self.name} has a discretized decoder for 256 levels")
        chain = self._usual(setting, x0, parameterization, _VARIANCES[variance])
        found = chain.calc_bpd_loop(self._shown(model, x0, setting), image(x0), clip_denoised=False)
        terms = found["vb"].flip(1) * unit(x0)
        total = found["total_bpd"] * unit(x0)
        prior = found["prior_bpd"] * unit(x0)
        return Bound(prior, terms[:, 1:], terms[:, 0], total, found["total_bpd"])

    def _shown(
        self, model: Model, like: Tensor, setting: Setting
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Our network for theirs: step from 1, samples in the law's shape."""

        def network(seen: Tensor, step: Tensor) -> Tensor:
            said = model(
                seen.reshape(len(seen), *like.shape[1:]), step.long() + 1 - self.first_index
            )
            return image(said)

        return network

    def sampler_step(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, parameterization: str, sampler: str, eta: float
    ) -> Tensor:  # fmt: skip
        """`p_sample` and `ddim_sample`, given the law's noise."""
        chain = self._usual(setting, x_t, parameterization)
        module = (self._wide if x_t.dtype == torch.float64 else self._plain)[0]
        arguments = (lambda seen, step: image(prediction), image(x_t), self.index(t))
        with replaced(module, "th", _Torch(image(noise))):
            if sampler == "ddim":
                found = chain.ddim_sample(*arguments, clip_denoised=False, eta=eta)
            else:
                found = chain.p_sample(*arguments, clip_denoised=False)
        sample: Tensor = found["sample"]
        return sample.reshape(x_t.shape)


class _Unclipped(OpenAI):
    """ln β̃_1 = −∞ in place of the repeated entry."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        return unclipped(super().posterior(setting, x0, x_t, t), t)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        found, logarithm = super().reverse_variance(setting, variance, t)
        return found, logarithm.masked_fill((t == 1) & (found == 0), -math.inf)


def unclipped(found: Posterior, t: Tensor) -> Posterior:
    """The posterior with ln β̃_1 = −∞."""
    assert found.log_variance is not None
    first = (t == 1).view(-1, *[1] * (found.mean.ndim - 1))
    return Posterior(found.mean, found.variance, found.log_variance.masked_fill(first, -math.inf))


def image(x: Tensor) -> Tensor:
    """`[B, 1, 1, D]` of `[B, *dims]`: their functions ask for channels, and some for four axes."""
    return x.reshape(len(x), 1, 1, -1)


def unit(x: Tensor) -> float:
    """Nats per bit per dimension."""
    return math.prod(x.shape[1:]) * math.log(2)
