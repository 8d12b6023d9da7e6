"""How the adapters of denoising-diffusion-pytorch build and call the library: chains around a stub, tables in float64 on demand."""

import importlib
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import Recorder, float64_tables, replaced
from ddpm_ref.conformance.implementation import NotOffered
from ddpm_ref.conformance.setting import Setting

PACKAGE = "denoising_diffusion_pytorch"
IMAGE_SIZE = 4
"""A constructor argument that nothing under test reads."""


def library() -> ModuleType:
    """Its main module."""
    return importlib.import_module(f"{PACKAGE}.denoising_diffusion_pytorch")


def learned_library() -> ModuleType:
    """Its module with learned variances, densities and the decoder."""
    return importlib.import_module(f"{PACKAGE}.learned_gaussian_diffusion")


def options(setting: Setting, objective: str) -> dict[str, Any]:
    """Constructor arguments for a setting that the library has."""
    plain = (setting.beta, setting.log_snr, setting.timesteps) == (None, None, None)
    if (
        setting.name not in ("linear", "cosine", "sigmoid")
        or setting.zero_terminal_snr
        or not plain
    ):
        raise NotOffered(f"denoising-diffusion-pytorch has no schedule {setting}")
    return {
        "image_size": IMAGE_SIZE,
        "timesteps": setting.T,
        "beta_schedule": setting.name,
        "objective": objective,
        "auto_normalize": False,
    }


@lru_cache(maxsize=64)
def diffusion(
    setting: Setting, objective: str, dtype: torch.dtype, *, min_snr: bool = False
) -> Any:
    """A `GaussianDiffusion` around a stub; with tables in float64 where samples are float64."""
    arguments = {**options(setting, objective), "min_snr_loss_weight": min_snr}
    if dtype == torch.float64:
        with float64_tables(library()):
            return unclipped()(Recorder(), **arguments)
    return unclipped()(Recorder(), **arguments)


@lru_cache(maxsize=1)
def unclipped() -> type[Any]:
    """`GaussianDiffusion` whose samplers do not clip x_0: the two arguments that they hard-code are overridden."""
    base: type[Any] = library().GaussianDiffusion

    def p_mean_variance(
        self: Any, x: Tensor, t: Tensor, x_self_cond: object = None, clip_denoised: bool = False
    ) -> Any:
        return base.p_mean_variance(self, x, t, x_self_cond, clip_denoised=False)

    def model_predictions(
        self: Any,
        x: Tensor,
        t: Tensor,
        x_self_cond: object = None,
        clip_x_start: bool = False,
        rederive_pred_noise: bool = False,
    ) -> Any:
        return base.model_predictions(self, x, t, x_self_cond)

    methods = {"p_mean_variance": p_mean_variance, "model_predictions": model_predictions}
    return type("Unclipped", (base,), methods)


def answering(
    setting: Setting,
    objective: str,
    answer: Any,
    *,
    min_snr: bool = False,
    dtype: torch.dtype | None = None,
) -> Any:
    """The chain of `diffusion`, whose stub now answers `answer`; made for its dtype unless another is named."""
    if dtype is None:
        dtype = answer.dtype if isinstance(answer, Tensor) else torch.float64
    chain = diffusion(setting, objective, dtype, min_snr=min_snr)
    chain.model = Recorder(answer)
    return chain


def learned(setting: Setting, answer: Tensor, objective: str = "pred_noise") -> Any:
    """A `LearnedGaussianDiffusion` with float64 tables, whose network answers prediction and variance."""
    stub = Recorder(answer)
    stub.out_dim = 2
    with float64_tables(library()):
        return learned_library().LearnedGaussianDiffusion(stub, **options(setting, objective))


def image(x: Tensor) -> Tensor:
    """`[B, *dims]` as the four axes that `p_losses` unpacks; a view, so that a change in place is seen."""
    return x.reshape(len(x), 1, 1, -1)


def shown(
    setting: Setting, x0: Tensor, index: Tensor, seed: int, *, immiscible: bool = False
) -> tuple[Tensor, Tensor]:
    """(x_t that `p_losses` shows to the network, the noise that is its target)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0.dtype)
    chain = answering(setting, "pred_noise", torch.zeros_like(image(x0)))
    stub = chain.model
    with replaced(chain, "immiscible", immiscible):
        chain.p_losses(image(x0), index, noise=image(noise))
    x_t: Tensor = stub.seen[-1]
    return x_t.reshape(x0.shape), noise
