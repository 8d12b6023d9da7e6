r"""w86763777/pytorch-ddpm: `GaussianDiffusionTrainer` and `GaussianDiffusionSampler` of `diffusion.py`.

**Index.** Its t = 0 is our t = 1. **Tables** are float64 buffers, read as float32 by `extract`, but for float64 inputs, which
meet them unrounded; β by `linspace` in float32. The trainer draws t and noise
itself: both are handed to it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ref.conformance.adapters.instruments import Recorder, replaced
from ddpm_ref.conformance.adapters.repositories.checkout import commit, file_module
from ddpm_ref.conformance.adapters.repositories.openai import UNCLIPPED, image, unclipped
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.setting import Setting

_MEANS = {"eps": "epsilon", "x0": "xstart", "mean": "xprev"}
_VARIANCES = {"posterior": "fixedsmall", "beta": "fixedlarge"}


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The two classes, and the sampler with the mean type that its own check refuses."""
    wide, plain = (
        file_module(root / "diffusion.py", f"checkout_of_pytorch_ddpm_{kind}")
        for kind in ("wide", "plain")
    )
    vars(wide)["extract"] = lambda table, t, shape: table[t].view(-1, *[1] * (len(shape) - 1))
    return (PytorchDdpm(commit(root), wide, plain), _AsWritten(commit(root), plain))


class Drawn:
    """The module `torch`, which draws what was chosen before."""

    def __init__(self, t: Tensor, noise: Tensor) -> None:
        self.t, self.noise = t, noise

    def randint(self, *_: object, **__: object) -> Tensor:
        """The steps."""
        return self.t

    def randn_like(self, like: Tensor) -> Tensor:
        """The noise."""
        return self.noise.to(like.dtype).reshape(like.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class PytorchDdpm(Implementation):
    """Its sampler is built with `epsilon`, the one of its three mean types that it accepts, and told the others afterwards."""

    name = "pytorch-ddpm"
    first_index = 0
    dtypes = (torch.float64, torch.float32)
    table_dtype = torch.float32  # of β

    def __init__(self, version: str, wide: ModuleType, plain: ModuleType) -> None:
        self.version, self._wide, self._plain = version, wide, plain
        self._sampler = lru_cache(maxsize=32)(self._built)
        self.conventions = (
            Convention(*UNCLIPPED, "diffusion.py, GaussianDiffusionSampler.__init__", _Unclipped, ("I20-first",)),
        )  # fmt: skip

    def settings(self) -> Sequence[Setting]:
        """β from 1e-4 to 0.02 at two lengths."""
        return (Setting("linear", 1000), Setting("linear", 2))

    def _module(self, x: Tensor) -> ModuleType:
        return self._wide if x.dtype == torch.float64 else self._plain

    def _built(self, T: int, variance: str, module: ModuleType) -> Any:
        return module.GaussianDiffusionSampler(
            nn.Identity(), 1e-4, 0.02, T, mean_type="epsilon", var_type=_VARIANCES[variance]
        )

    def _answering(
        self, setting: Setting, answer: Tensor, source: str, variance: str = "posterior"
    ) -> Any:
        if source not in _MEANS:
            raise NotOffered(
                f"pytorch-ddpm has networks for eps, x0 and the mean, not for {source}"
            )
        sampler = self._sampler(setting.T, variance, self._module(answer))
        sampler.mean_type, sampler.model = _MEANS[source], Recorder(answer)
        return sampler

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Buffers of the trainer and the sampler."""
        trainer = self._wide.GaussianDiffusionTrainer(nn.Identity(), 1e-4, 0.02, setting.T)
        sampler = self._sampler(setting.T, "posterior", self._wide)
        return {
            "beta": trainer.betas,
            "alpha_bar": trainer.sqrt_alphas_bar**2,
            "one_minus_alpha_bar": trainer.sqrt_one_minus_alphas_bar**2,
            "posterior_variance": sampler.posterior_var,
        }

    def _trained(
        self,
        setting: Setting,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        answer: Tensor | Callable[..., Tensor] | None,
    ) -> tuple[Recorder, Tensor]:
        network = Recorder(answer)
        trainer = self._module(x0).GaussianDiffusionTrainer(network, 1e-4, 0.02, setting.T)
        with replaced(self._module(x0), "torch", Drawn(self.index(t), noise)):
            loss = trainer(x0)
        return network, loss

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the trainer shows to its network."""
        return self._trained(setting, x0, t, noise, None)[0].seen[0]

    def loss(
        self, setting: Setting, prediction: Tensor, x0: Tensor, eps: Tensor, t: Tensor, parameterization: str, weighting: str
    ) -> Tensor:  # fmt: skip
        """The trainer's loss, which it leaves elementwise, averaged over dims."""
        if (parameterization, weighting) != ("eps", "simple"):
            raise NotOffered("pytorch-ddpm trains eps by its plain squared error")
        return self._trained(setting, x0, t, eps, prediction)[1].flatten(1).mean(1)

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_mean_variance`, which has no variance but its clipped logarithm."""
        mean, log_variance = self._sampler(
            setting.T, "posterior", self._module(x_t)
        ).q_mean_variance(x0, x_t, self.index(t))
        return Posterior(mean, None, log_variance)

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`p_mean_variance` for the mean, `predict_xstart_from_…` for x0."""
        if to == "mean":
            mean: Tensor = self._answering(setting, image(prediction), source).p_mean_variance(
                image(x_t), self.index(t)
            )[0]
            return mean.reshape(x_t.shape)
        sampler = self._sampler(setting.T, "posterior", self._module(x_t))
        if (source, to) == ("eps", "x0"):
            x0: Tensor = sampler.predict_xstart_from_eps(x_t, self.index(t), prediction)
            return x0
        if (source, to) == ("mean", "x0"):
            x0 = sampler.predict_xstart_from_xprev(x_t, self.index(t), prediction)
            return x0
        raise NotOffered(f"pytorch-ddpm does not convert {source} to {to}")


class _Unclipped(PytorchDdpm):
    """ln β̃_1 = −∞ in place of the repeated entry."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        return unclipped(super().posterior(setting, x0, x_t, t), t)


class _AsWritten(Implementation):
    """The sampler's constructor asked for an x0 network, as its signature offers it."""

    name = "pytorch-ddpm: mean_type xstart"
    first_index = 0
    dtypes = (torch.float32,)
    table_dtype = torch.float32

    def __init__(self, version: str, module: ModuleType) -> None:
        self.version, self._module = version, module

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`GaussianDiffusionSampler(mean_type="xstart")`."""
        if (source, to) != ("x0", "mean"):
            raise NotOffered("only what this option changes")
        sampler = self._module.GaussianDiffusionSampler(
            Recorder(image(prediction)),
            1e-4,
            0.02,
            setting.T,
            mean_type="xstart",
            var_type="fixedsmall",
        )
        mean: Tensor = sampler.p_mean_variance(image(x_t), self.index(t))[0]
        return mean.reshape(x_t.shape)
