r"""yang-song/score_sde_pytorch: the discrete tables of `VPSDE` and its prior's density, of `sde_lib.py`.

**Index.** Its entry 0 is our t = 1. **Tables** are float32; float64 inputs meet those that its own code makes in float64; β from 0.1/N to 20/N is our linear schedule at N = 1000. `prior_logp` is a standard normal
log-density of images.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import float64_tables
from ddpm_ref.conformance.adapters.repositories.checkout import commit, file_module
from ddpm_ref.conformance.adapters.repositories.openai import image
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The one adapter."""
    return (ScoreSde(commit(root), file_module(root / "sde_lib.py", "checkout_of_score_sde")),)


class ScoreSde(Implementation):
    """`VPSDE`."""

    name = "score_sde_pytorch"
    first_index = 0
    dtypes = (torch.float64, torch.float32)

    def __init__(self, version: str, module: ModuleType) -> None:
        self.version, self._module = version, module

    def _sde(self, T: int, *, wide: bool) -> Any:
        with float64_tables(self._module) if wide else nullcontext():
            return self._module.VPSDE(N=T)

    def settings(self) -> Sequence[Setting]:
        """N = 1000."""
        return (Setting("linear", 1000),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """β, ᾱ and 1−ᾱ of the discrete process."""
        sde = self._sde(setting.T, wide=True)
        return {
            "beta": sde.discrete_betas,
            "alpha_bar": sde.alphas_cumprod,
            "one_minus_alpha_bar": sde.sqrt_1m_alphas_cumprod**2,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Its two tables, as `get_ddpm_loss_fn` multiplies them."""
        sde = self._sde(setting.T, wide=x0.dtype == torch.float64)
        shape = (-1, *[1] * (x0.ndim - 1))
        kept = sde.sqrt_alphas_cumprod[self.index(t)].view(shape)
        left = sde.sqrt_1m_alphas_cumprod[self.index(t)].view(shape)
        noisy: Tensor = kept * x0 + left * noise
        return noisy

    def gaussian_log_prob(self, mean: Tensor, covariance: Tensor, x0: Tensor) -> Tensor:
        """`prior_logp`, of N(0, I) alone."""
        eye = torch.eye(len(mean), dtype=covariance.dtype)
        if bool(mean.any()) or not torch.equal(covariance, eye):
            raise NotOffered("its density is that of N(0, I)")
        density: Tensor = self._module.VPSDE().prior_logp(image(x0))
        return density
