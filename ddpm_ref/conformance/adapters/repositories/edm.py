r"""NVlabs/edm: `VPLoss` of `training/loss.py`.

**Space.** x = x_0 + σn, divided by √(1+σ²). **Time** is continuous; the setting takes t = i/100, i = 1 … 100, of its own σ(t)² = e^{β_d t²/2 + β_min t} − 1, in
float64. The loss weights the denoiser's squared error by 1/σ² = SNR: our `simple`, in x0 space. It draws t and noise itself: both are handed to it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import replaced
from ddpm_ref.conformance.adapters.repositories.checkout import commit, first_on_path, stand_ins
from ddpm_ref.conformance.adapters.repositories.openai import image
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

_STEPS = 100


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The variance-preserving loss."""
    with stand_ins("requests"), first_on_path(root, "training", "torch_utils", "dnnlib"):
        import training.loss as module  # type: ignore[import-not-found]

        return (
            Edm(commit(root), module),
        )  # while its own modules can be found: its objects pickle themselves


class _Drawn:
    """The module `torch`, which draws what was chosen before."""

    def __init__(self, uniform: Tensor, noise: Tensor) -> None:
        self.uniform, self.noise = uniform, noise

    def rand(self, *_: object, **__: object) -> Tensor:
        return self.uniform

    def randn_like(self, like: Tensor) -> Tensor:
        return self.noise.to(like.dtype).reshape(like.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Edm(Implementation):
    """`VPLoss`, its noise level and its weight."""

    name = "edm"
    dtypes = (torch.float64, torch.float32)

    def __init__(self, version: str, module: ModuleType) -> None:
        self.version, self._module, self._loss = version, module, module.VPLoss()

    def settings(self) -> Sequence[Setting]:
        """λ = −ln σ² of the formula above."""
        d, least = self._loss.beta_d, self._loss.beta_min
        times = [i / _STEPS for i in range(1, _STEPS + 1)]
        log_snr = tuple(-math.log(math.expm1(0.5 * d * t * t + least * t)) for t in times)
        return (Setting("edm VP", _STEPS, log_snr=log_snr),)

    def _sigma(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        sigma: Tensor = self._loss.sigma(t.to(dtype) / _STEPS)
        return sigma

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """SNR = 1/σ²."""
        return {"snr": 1 / self._sigma(torch.arange(1, setting.T + 1), torch.float64) ** 2}

    def _called(
        self, x0: Tensor, t: Tensor, noise: Tensor, answer: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(what the network saw, σ, the elementwise loss)."""
        seen = []
        epsilon = self._loss.epsilon_t
        uniform = ((t.to(x0.dtype) / _STEPS - 1) / (epsilon - 1)).view(-1, 1, 1, 1)

        def network(x: Tensor, sigma: Tensor, *_: object, augment_labels: object = None) -> Tensor:
            seen.append((x, sigma))
            return torch.zeros_like(x) if answer is None else image(answer)

        with replaced(self._module, "torch", _Drawn(uniform, image(noise))):
            loss = self._loss(network, image(x0), None)
        return *seen[0], loss

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the loss shows to its network, divided by √(1+σ²)."""
        x, sigma, _ = self._called(x0, t, noise, None)
        return (x / (1 + sigma**2).sqrt()).reshape(x0.shape)

    def loss(
        self, setting: Setting, prediction: Tensor, x0: Tensor, eps: Tensor, t: Tensor, parameterization: str, weighting: str
    ) -> Tensor:  # fmt: skip
        """The loss of a denoiser, averaged over dims."""
        if (parameterization, weighting) != ("x0", "simple"):
            raise NotOffered("edm's VP loss is 1/sigma^2 on the error of the denoiser")
        return self._called(x0, t, eps, prediction)[2].flatten(1).mean(1)
