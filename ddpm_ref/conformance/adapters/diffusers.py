r"""Hugging Face diffusers: `DDPMScheduler`, `DDPMParallelScheduler`, `DDIMScheduler`; its options in `diffusers_options`, its σ space in `diffusers_space`.

**Index.** Its timestep 0 is our t = 1. **Tables** are float32 from the start (`betas`, then a float32 cumulative product); float64
inputs meet tables that its own code computed in float64 (`instruments.float64_tables`), lower ones meet them as installed; a row of its own
has them as installed throughout. **No bound**,
no likelihood, no weightings but the SNR: those are not offered.

Names: `squaredcos_cap_v2` is cosine; its `sigmoid` is GeoDiff's (a sigmoid in β, not in ᾱ) and so is no schedule of ours.
`step` takes one timestep for the whole batch: the adapter calls it once per sample. Clipping is off.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.diffusers_calls import (
    CUSTOM,
    PREDICTIONS,
    Installed,
    Wanted,
    scheduler,
    step,
    visited,
)
from ddpm_ref.conformance.adapters.instruments import each_step
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.setting import Setting


class Diffusers(Installed):
    """`DDPMScheduler` and `DDIMScheduler` with `clip_sample=False`."""

    name = "diffusers"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "a variance is at least 1e-20",
                "β̃_1 = 0 is kept as 1e-20, because its logarithm is always taken; no noise is added at that step",
                "diffusers/schedulers/scheduling_ddpm.py, DDPMScheduler._get_variance",
                _WithoutFloor,
                ("I2-posterior-variance",),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Its two named schedules, short chains, zero terminal SNR, custom steps."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 1000),
            Setting("linear", 2),
            Setting("cosine", 1),
            Setting("cosine", 13),
            Setting("linear", 1000, zero_terminal_snr=True),
            Setting("linear", 1000, timesteps=CUSTOM),
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """`betas`, `alphas_cumprod`, `1 - alphas_cumprod` as its formulas take it, `_get_variance`; by its own code, in float64."""
        chain = scheduler(Wanted("DDPMScheduler", "epsilon"), setting, self.kept(torch.float64))
        chosen = self.index(visited(setting))
        kept: Tensor = chain.alphas_cumprod[chosen]
        found = {"alpha_bar": kept, "one_minus_alpha_bar": 1 - kept}
        if setting.timesteps is None:
            found["beta"] = chain.betas
        found["posterior_variance"] = torch.stack(
            [chain._get_variance(int(step), variance_type="fixed_small") for step in chosen]
        )
        return found

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`add_noise`."""
        chain = scheduler(Wanted("DDPMScheduler", "epsilon"), setting, self.kept(x0.dtype))
        noisy: Tensor = chain.add_noise(x0, noise, self.timesteps(setting, t))
        return noisy

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`step` with `prediction_type="sample"` and no noise; `_get_variance`."""
        steps = self.timesteps(setting, t)
        mean = self._mean(setting, "x0", x0, x_t, steps)
        chain = scheduler(Wanted("DDPMScheduler", "sample"), setting, self.kept(x_t.dtype))
        variances = torch.stack([chain._get_variance(at) for at in steps.tolist()])
        return Posterior(mean, variance=variances.reshape(-1, *[1] * (x_t.ndim - 1)))

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`_get_variance`: `fixed_small` or `fixed_large`, and the ends of `learned_range` as their logarithms."""
        chain = scheduler(Wanted("DDPMScheduler", "epsilon"), setting, self.kept(torch.float64))
        end = torch.tensor(-1.0 if variance == "posterior" else 1.0, dtype=torch.float64)
        kind = "fixed_small" if variance == "posterior" else "fixed_large"
        steps = self.timesteps(setting, t).tolist()
        logarithm = [
            chain._get_variance(s, predicted_variance=end, variance_type="learned_range")
            for s in steps
        ]
        values = [chain._get_variance(s, variance_type=kind) for s in steps]
        return torch.tensor(values, dtype=torch.float64), torch.tensor(
            logarithm, dtype=torch.float64
        )

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """`get_velocity`; the other targets are the tensors themselves, which nobody computes."""
        if parameterization != "v":
            raise NotOffered("diffusers computes a target for v only (`get_velocity`)")
        chain = scheduler(Wanted("DDPMScheduler", "epsilon"), setting, self.kept(x0.dtype))
        velocity: Tensor = chain.get_velocity(x0, eps, self.timesteps(setting, t))
        return velocity

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """eps, x0 or v to x0 (`step(…)[1]`) or to the posterior mean (`step` without noise)."""
        if source not in PREDICTIONS or to not in ("x0", "mean"):
            raise NotOffered(
                f"diffusers converts eps, x0 and v to x0 and mean, not {source} to {to}"
            )
        steps = self.timesteps(setting, t)
        if to == "mean":
            return self._mean(setting, source, prediction, x_t, steps)
        chain = scheduler(
            Wanted("DDPMScheduler", PREDICTIONS[source]), setting, self.kept(x_t.dtype)
        )
        return each_step(
            steps,
            lambda step, i: chain.step(prediction[i], step, x_t[i], return_dict=False)[1],
        )

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
        """`DDPMScheduler.step`, `DDIMScheduler.step(eta=…)`, each with the law's noise for its own draw."""
        if parameterization not in PREDICTIONS:
            raise NotOffered(f"diffusers has no prediction type for {parameterization}")
        kind = PREDICTIONS[parameterization]
        steps = self.timesteps(setting, t)
        if sampler == "ddim" and setting.timesteps is not None:
            raise NotOffered("DDIMScheduler visits evenly spaced timesteps only")
        name = "DDIMScheduler" if sampler == "ddim" else "DDPMScheduler"
        chain = scheduler(Wanted(name, kind), setting, self.kept(x_t.dtype))
        return each_step(steps, lambda at, i: step(chain, prediction[i], at, x_t[i], noise[i], eta))

    def kept(self, dtype: torch.dtype) -> torch.dtype:
        """In which dtype the library's code makes its tables for samples of that dtype."""
        return dtype

    def _mean(
        self, setting: Setting, source: str, prediction: Tensor, x_t: Tensor, steps: Tensor
    ) -> Tensor:
        chain = scheduler(
            Wanted("DDPMScheduler", PREDICTIONS[source]), setting, self.kept(x_t.dtype)
        )
        still = torch.zeros_like(x_t)
        return each_step(steps, lambda at, i: step(chain, prediction[i], at, x_t[i], still[i]))


class _WithoutFloor(Diffusers):
    """Reads the floor as 0."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """As the base class; no variance of these schedules is so small but the first."""
        found = super().posterior(setting, x0, x_t, t)
        assert found.variance is not None
        return Posterior(found.mean, torch.where(found.variance > 2e-20, found.variance, 0.0))


def implementations() -> tuple[Implementation, ...]:
    """The library, then its options."""
    from ddpm_ref.conformance.adapters import diffusers_options, diffusers_space

    return (Diffusers(), *diffusers_options.implementations(), *diffusers_space.implementations())
