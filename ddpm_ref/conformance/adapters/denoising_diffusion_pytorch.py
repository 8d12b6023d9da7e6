r"""lucidrains' denoising-diffusion-pytorch: `GaussianDiffusion`, `LearnedGaussianDiffusion`, their densities.

**Index.** Its t = 0 is our t = 1. **Tables** are computed in float64 (but for two constants of the sigmoid) and registered in float32; float64
inputs meet tables that its own constructor left in float64 (`instruments.float64_tables`), lower ones meet them as installed.

The linear schedule is scaled by 1000/T, as in improved-diffusion: it is ours at T = 1000 alone. A stub takes the network's place and
answers the prediction under test; images are viewed as `[B, 1, 1, D]`, because some functions ask for four axes. Its samplers clip x_0
always; the adapter turns that off by overriding the argument, and hands its own draw of noise the law's noise.
"""

import importlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.denoising_diffusion_calls import (
    PACKAGE,
    answering,
    diffusion,
    image,
    learned_library,
    library,
    shown,
)
from ddpm_ref.conformance.adapters.instruments import given_noise, installed_version, replaced
from ddpm_ref.conformance.implementation import (
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
)
from ddpm_ref.conformance.setting import Setting

_OBJECTIVES = {"eps": "pred_noise", "x0": "pred_x0", "v": "pred_v"}


class DenoisingDiffusion(Implementation):
    """`GaussianDiffusion` with a stub for its network."""

    name = "denoising-diffusion-pytorch"
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module(PACKAGE)
        self.version = installed_version("denoising-diffusion-pytorch")
        self.conventions = (
            Convention(
                "log-variance clipped at t = 1",
                "β̃_1 = 0 has no logarithm, so `posterior_log_variance_clipped` is ln 1e-20 there, as its name says; "
                "nothing in this class uses it at t = 1",
                "denoising_diffusion_pytorch.py, GaussianDiffusion.__init__ and p_sample (`if t > 0`)",
                _UnclippedLogarithm,
                ("I20-first",),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Its three named schedules, and short chains of those that are not scaled by T."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 1000),
            Setting("sigmoid", 1000),
            Setting("cosine", 1),
            Setting("cosine", 13),
        )

    def kept(self, dtype: torch.dtype) -> torch.dtype:
        """In which dtype the library's code makes its tables for samples of that dtype."""
        return dtype

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its buffers, and `loss_weight` of pred_x0, which is the SNR; by its own code, left in float64."""
        chain = diffusion(setting, "pred_noise", self.kept(torch.float64))
        return {
            "beta": chain.betas,
            "alpha_bar": chain.alphas_cumprod,
            "one_minus_alpha_bar": chain.sqrt_one_minus_alphas_cumprod**2,
            "snr": diffusion(setting, "pred_x0", self.kept(torch.float64)).loss_weight,
            "posterior_variance": chain.posterior_variance,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = diffusion(setting, "pred_noise", self.kept(x0.dtype)).q_sample(
            x0, self.index(t), noise
        )
        return noisy

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What `p_losses` shows to the network, and the noise that its target then is."""
        return shown(setting, x0, self.index(t), seed)

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_posterior`: mean, variance, clipped log-variance."""
        chain = diffusion(setting, "pred_noise", self.kept(x_t.dtype))
        return Posterior(*chain.q_posterior(x0, x_t, self.index(t)))

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """`predict_v`; the other targets are the tensors themselves."""
        if parameterization != "v":
            raise NotOffered(f"{self.name} computes a target for v only (`predict_v`)")
        velocity: Tensor = diffusion(setting, "pred_v", self.kept(x0.dtype)).predict_v(
            x0, self.index(t), eps
        )
        return velocity

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`model_predictions` (eps and x0 from eps, x0, v), and `p_mean_variance` for the mean."""
        if source not in _OBJECTIVES or to not in ("eps", "x0", "mean"):
            raise NotOffered(
                f"{self.name} converts eps, x0 and v to eps, x0 and mean, not {source} to {to}"
            )
        chain = answering(
            setting, _OBJECTIVES[source], prediction, dtype=self.kept(prediction.dtype)
        )
        if to == "mean":
            mean: Tensor = chain.p_mean_variance(x_t, self.index(t), clip_denoised=False)[0]
            return mean
        found = chain.model_predictions(x_t, self.index(t))
        converted: Tensor = found.pred_noise if to == "eps" else found.pred_x_start
        return converted

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """The buffer `loss_weight`: plain (our `simple`) or with `min_snr_loss_weight`."""
        if weighting not in ("simple", "min_snr") or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} weights eps, x0 and v with simple and min_snr")
        chain = diffusion(
            setting,
            _OBJECTIVES[parameterization],
            self.kept(torch.float64),
            min_snr=weighting == "min_snr",
        )
        factor: Tensor = chain.loss_weight[self.index(t)]
        return factor

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
        """`p_losses(…, loss_reduction="none")`."""
        if weighting not in ("simple", "min_snr") or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} has losses for eps, x0 and v, simple and min_snr")
        chain = answering(
            setting,
            _OBJECTIVES[parameterization],
            image(prediction),
            min_snr=weighting == "min_snr",
            dtype=self.kept(prediction.dtype),
        )
        value: Tensor = chain.p_losses(
            image(x0), self.index(t), noise=image(eps), loss_reduction="none"
        )
        return value

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
        """`p_sample`, one sample at a time, without its clipping; its DDIM exists as a whole loop only."""
        if sampler != "ddpm" or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} offers single ddpm steps from eps, x0 and v")
        steps = [
            self._ancestral(setting, _OBJECTIVES[parameterization], *one)
            for one in zip(
                prediction.split(1),
                x_t.split(1),
                noise.split(1),
                self.index(t).tolist(),
                strict=True,
            )
        ]
        return torch.cat(steps)

    def _ancestral(
        self,
        setting: Setting,
        objective: str,
        prediction: Tensor,
        x_t: Tensor,
        noise: Tensor,
        index: int,
    ) -> Tensor:
        """One `p_sample` whose draw of noise is the given one."""
        chain = answering(setting, objective, prediction, dtype=self.kept(x_t.dtype))
        with given_noise(library(), noise):
            stepped: Tensor = chain.p_sample(x_t, index)[0]
        return stepped.clone()

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """`p_sample_loop` or `ddim_sample`, without clipping."""
        if parameterization not in _OBJECTIVES or sampler not in ("ddpm", "ddim"):
            raise NotOffered(f"{self.name} samples from eps, x0 and v with ddpm and ddim")

        def network(x: Tensor, index: Tensor, *unused: object) -> Tensor:
            return image(model(x.reshape(shape), index + 1 - self.first_index))

        chain = answering(
            setting, _OBJECTIVES[parameterization], network, dtype=self.kept(torch.float64)
        )
        loop = chain.p_sample_loop if sampler == "ddpm" else chain.ddim_sample
        with replaced(library(), "tqdm", _silent):
            drawn: Tensor = loop((shape[0], 1, 1, prod(shape[1:])))
        return drawn.clone().reshape(shape)

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """`normal_kl`."""
        value: Tensor = learned_library().normal_kl(mean1, log_var1, mean2, log_var2)
        return value

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """`discretized_gaussian_log_likelihood`: 256 levels."""
        if levels != 256:
            raise NotOffered(f"{self.name} has the lattice of 256 levels only, not {levels}")
        value: Tensor = learned_library().discretized_gaussian_log_likelihood(
            *torch.broadcast_tensors(x), means=mean.expand_as(x), log_scales=log_scale.expand_as(x)
        )
        return value


class _UnclippedLogarithm(DenoisingDiffusion):
    """Reads the clipped log-variance as "minus infinity" where the variance is 0."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """As the base class, with ln 0 = −∞."""
        chain = diffusion(setting, "pred_noise", self.kept(x_t.dtype))
        mean, variance, clipped = chain.q_posterior(x0, x_t, self.index(t))
        return Posterior(mean, variance, clipped.masked_fill(variance == 0, -torch.inf))


def implementations() -> tuple[Implementation, ...]:
    """The library, then its options."""
    from ddpm_ref.conformance.adapters import denoising_diffusion_classes as classes
    from ddpm_ref.conformance.adapters import denoising_diffusion_options as options

    return (DenoisingDiffusion(), *options.implementations(), *classes.implementations())


def _silent(iterable: Any, **options: object) -> Any:
    """In the place of tqdm."""
    return iterable
