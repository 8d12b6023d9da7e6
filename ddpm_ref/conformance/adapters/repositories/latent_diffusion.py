r"""CompVis/latent-diffusion: `DDPM.register_schedule` and the methods around it, of `ldm/models/diffusion/ddpm.py`.

**Index.** Its t = 0 is our t = 1. **Tables** are float32 buffers; float64 inputs meet those that its own code makes with float32 read as
float64. Its `linear` is the squared linear √β (the setting states the numbers), its `sqrt_linear`
ours. The class is made without its constructor, which builds networks from a configuration; training's packages are stood in for.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ref.conformance.adapters.instruments import Recorder, float64_tables
from ddpm_ref.conformance.adapters.repositories.checkout import commit, first_on_path, stand_ins
from ddpm_ref.conformance.adapters.repositories.openai import image
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.setting import Setting

_UNUSED = (
    "pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.utilities.distributed",
    "einops", "taming", "taming.modules", "taming.modules.vqvae", "taming.modules.vqvae.quantize",
)  # fmt: skip
_SCHEDULES = {"linear": "sqrt_linear", "cosine": "cosine"}


def implementations(root: Path) -> tuple[Implementation, ...]:
    """Networks for eps and for x0, which differ in the weight of the bound."""
    with stand_ins(*_UNUSED), first_on_path(root, "ldm"):
        import ldm.models.diffusion.ddpm as module  # type: ignore[import-not-found]
    return (LatentDiffusion(commit(root), module, "eps"), _X0(commit(root), module, "x0"))


class LatentDiffusion(Implementation):
    """`DDPM` without a network."""

    name = "latent-diffusion"
    first_index = 0
    dtypes = (torch.float64, torch.float32)

    def __init__(self, version: str, module: Any, output: str) -> None:
        self.version, self._module, self._output = version, module, output
        self._cached = lru_cache(maxsize=8)(self._built)
        self.conventions = (
            Convention(
                "log-variance clipped at t = 1", "β̃_1 = 0 has no logarithm: ln 1e-20 stands in its place, and no noise is added at t = 1",
                "ldm/models/diffusion/ddpm.py, register_schedule and p_sample (nonzero_mask)", _Unclipped, ("I20-first",),
            ),
        )  # fmt: skip

    def settings(self) -> Sequence[Setting]:
        """`sqrt_linear`, which is ours, and the cosine."""
        return (Setting("linear", 1000), Setting("cosine", 1000), Setting("cosine", 13))

    def _chain(self, setting: Setting, x: Tensor | None = None) -> Any:
        return self._cached(setting.name, setting.T, x is None or x.dtype == torch.float64)

    def _built(self, name: str, T: int, wide: bool) -> Any:
        chain = self._module.DDPM.__new__(self._module.DDPM)
        nn.Module.__init__(chain)
        chain.v_posterior, chain.parameterization, chain.loss_type = 0.0, self._output, "l2"
        chain.l_simple_weight, chain.original_elbo_weight = 0.0, 1.0
        with float64_tables(self._module) if wide else nullcontext():
            chain.register_schedule(
                beta_schedule=_SCHEDULES[name], timesteps=T, linear_start=1e-4, linear_end=2e-2
            )
        return chain

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its buffers."""
        chain = self._chain(setting)
        return {
            "beta": chain.betas,
            "alpha_bar": chain.alphas_cumprod,
            "posterior_variance": chain.posterior_variance,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = self._chain(setting, x0).q_sample(x0, self.index(t), noise)
        return noisy

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_posterior`."""
        return Posterior(*self._chain(setting, x_t).q_posterior(x0, x_t, self.index(t)))

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`predict_start_from_noise`, and `p_mean_variance` for the mean."""
        chain = self._chain(setting, x_t)
        if (source, to) == ("eps", "x0"):
            x0: Tensor = chain.predict_start_from_noise(x_t, self.index(t), prediction)
            return x0
        if (source, to) == (self._output, "mean"):
            chain.model = Recorder(image(prediction))
            mean: Tensor = chain.p_mean_variance(image(x_t), self.index(t), clip_denoised=False)[0]
            return mean.reshape(x_t.shape)
        raise NotOffered(f"latent-diffusion does not convert {source} to {to}")

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """`lvlb_weights`, which multiply the mean squared error; t = 1 repeats t = 2, as its comment says."""
        if weighting != "elbo" or parameterization != self._output:
            raise NotOffered("latent-diffusion has the weight of the bound for its own output")
        if bool((t == 1).any()):
            raise NotOffered("its weight at t = 1 is that of t = 2: 'TODO how to choose this term'")
        factor: Tensor = self._chain(setting).lvlb_weights[self.index(t)].double()
        return factor


class _Unclipped(LatentDiffusion):
    """ln β̃_1 = −∞ in place of the floor."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        from ddpm_ref.conformance.adapters.repositories.openai import unclipped

        return unclipped(super().posterior(setting, x0, x_t, t), t)


class _X0(LatentDiffusion):
    """An x0 network: what its option changes."""

    name = "latent-diffusion: parameterization x0"

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        raise NotOffered("only what this option changes")

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        raise NotOffered("only what this option changes")

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        raise NotOffered("only what this option changes")
