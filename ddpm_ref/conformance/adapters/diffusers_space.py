r"""Schedulers of diffusers that live in other units, read in ours: `EulerAncestralDiscreteScheduler`, `FlowMatchEulerDiscreteScheduler`.

**σ space.** x = x_0 + σ ε with σ² = (1−ᾱ)/ᾱ is our x_t/√ᾱ. Euler's ancestral step to σ' has σ_up² = σ'²(σ²−σ'²)/σ² and σ_down = σ'²/σ: the
posterior's mean and β̃ of Ho et al. in these units, so that it is the ancestral step of every law.

**Straight path.** x = (1−σ) x_0 + σ ε, velocity ε − x_0; x/√((1−σ)²+σ²) is a variance-preserving x_t with log-SNR 2 ln((1−σ)/σ).

Both cast what they are given to float32.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.diffusers_calls import PREDICTIONS, Installed, visited
from ddpm_ref.conformance.adapters.instruments import column, each_step, replaced
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

_EULER = "diffusers.schedulers.scheduling_euler_ancestral_discrete"
_FLOW = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
_FLOW_STEPS = 100


class EulerAncestral(Installed):
    """`EulerAncestralDiscreteScheduler`, its x times √ᾱ."""

    name = "diffusers: EulerAncestralDiscreteScheduler"
    dtypes = (torch.float32,)
    table_dtype = torch.float32

    def settings(self) -> Sequence[Setting]:
        """All steps, and the ten of its default spacing, which are whole numbers."""
        tenth = tuple(range(1, 1001, 111))
        return (Setting("linear", 1000), Setting("linear", 1000, timesteps=tenth))

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """1/σ² and 1/(1+σ²) of `sigmas`."""
        sigma = _euler(setting, "epsilon").sigmas[:-1].flip(0)
        return {"snr": 1 / sigma**2, "alpha_bar": 1 / (1 + sigma**2)}

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
        """`scale_model_input`, then `step`, from eps or v (it says itself that x0 is not implemented)."""
        if sampler != "ddpm" or parameterization not in ("eps", "v"):
            raise NotOffered("an ancestral step from eps or v")
        chain = _euler(setting, PREDICTIONS[parameterization])
        steps = (visited(setting)[t - 1] - 1).to(t)

        def one(at: int, i: slice) -> Tensor:
            time = torch.tensor(float(at))
            place = int((chain.timesteps == time).nonzero()[0])
            chain._step_index = place
            now, then = chain.sigmas[place], chain.sigmas[place + 1]
            x = x_t[i] * (1 + now**2).sqrt()
            chain.scale_model_input(x, time)
            with replaced(importlib.import_module(_EULER), "randn_tensor", _drawing(noise[i])):
                stepped: Tensor = chain.step(prediction[i], time, x, return_dict=False)[0]
            found: Tensor = stepped / (1 + then**2).sqrt()
            return found

        return each_step(steps, one)


class FlowMatchEuler(Installed):
    """`FlowMatchEulerDiscreteScheduler`: `scale_noise` and `step` on the straight path."""

    name = "diffusers: FlowMatchEulerDiscreteScheduler"
    parameterizations = ("x0", "flow")
    dtypes = (torch.float32,)
    table_dtype = torch.float32

    def settings(self) -> Sequence[Setting]:
        """Its 100 training steps, σ = t/100, but for the last, which has no data left."""
        levels = [k / _FLOW_STEPS for k in range(1, _FLOW_STEPS)]
        log_snr = tuple(2 * math.log((1 - s) / s) for s in levels)
        return (Setting("straight path", len(levels), log_snr=log_snr),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """log-SNR of `sigmas`."""
        sigma = _flow().sigmas[1:_FLOW_STEPS].flip(0)
        return {"log_snr": 2 * torch.log((1 - sigma) / sigma)}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`scale_noise`, divided by √((1−σ)²+σ²)."""
        chain = _flow()
        x: Tensor = chain.scale_noise(x0, chain.timesteps[_FLOW_STEPS - t], noise)
        return x / self._scale(t, x0)

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
        """`step` from the velocity ε − x_0, which for an estimate of x_0 is (x − x_0)/σ: DDIM with η = 0."""
        if (sampler, eta) != ("ddim", 0.0) or parameterization not in self.parameterizations:
            raise NotOffered("a deterministic step, from the velocity or here from x0")
        chain, x = _flow(), x_t * self._scale(t, x_t)
        sigmas = chain.sigmas.flip(0)

        def one(at: int, i: slice) -> Tensor:
            chain._step_index = _FLOW_STEPS - at
            said = prediction[i]
            velocity = -said if parameterization == "flow" else (x[i] - said) / sigmas[at]
            time = chain.timesteps[_FLOW_STEPS - at]
            stepped: Tensor = chain.step(velocity, time, x[i], return_dict=False)[0]
            return stepped

        return each_step(t, one) / self._scale(t - 1, x_t)

    def _scale(self, t: Tensor, like: Tensor) -> Tensor:
        sigma = t.to(torch.float64) / _FLOW_STEPS
        return column(((1 - sigma) ** 2 + sigma**2).sqrt(), like).to(like.dtype)


def implementations() -> tuple[Implementation, ...]:
    """Both."""
    return (EulerAncestral(), FlowMatchEuler())


@lru_cache(maxsize=16)
def _euler(setting: Setting, prediction: str) -> Any:
    kind = importlib.import_module(_EULER).EulerAncestralDiscreteScheduler
    chain = kind(num_train_timesteps=setting.T, prediction_type=prediction)
    chain.set_timesteps(setting.steps)
    return chain


@lru_cache(maxsize=1)
def _flow() -> Any:
    kind = importlib.import_module(_FLOW).FlowMatchEulerDiscreteScheduler
    chain = kind(num_train_timesteps=_FLOW_STEPS)
    chain.set_timesteps(_FLOW_STEPS)  # appends the 0 that the last step goes to
    return chain


def _drawing(noise: Tensor) -> Any:
    def drawn(shape: object, **options: object) -> Tensor:
        return noise

    return drawn
