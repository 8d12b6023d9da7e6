r"""Hugging Face diffusers: `DDPMScheduler`, `DDPMParallelScheduler`, `DDIMScheduler`, `EMAModel`.

**Index.** Its timestep 0 is our t = 1. **Tables** are float32 from the start (`betas`, then a float32 cumulative product); float64
inputs meet tables that its own code computed in float64 (`instruments.float64_tables`), lower ones meet them as installed. **No bound**,
no likelihood, no weightings but the SNR: those are not offered.

Names: `squaredcos_cap_v2` is cosine; its `sigmoid` is GeoDiff's (a sigmoid in β, not in ᾱ) and so is no schedule of ours.
`step` takes one timestep for the whole batch: the adapter calls it once per sample. Clipping is off.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import (
    each_step,
    float64_tables,
    installed_version,
    replaced,
)
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.setting import Setting

_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
_CUSTOM = (1, 2, 5, 17, 101, 499, 997, 1000)


def trailing(T: int, count: int) -> tuple[int, ...]:
    """The steps, ours, that Lin et al.'s "trailing" spacing visits: T − k T/count, rounded."""
    return tuple(sorted(round(T - k * T / count) for k in range(count)))


class Diffusers(Implementation):
    """`DDPMScheduler` and `DDIMScheduler` with `clip_sample=False`."""

    name = "diffusers"
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def settings(self) -> Sequence[Setting]:
        """Its two named schedules, short chains, zero terminal SNR, custom steps, and DDIM's "trailing" spacing."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 1000),
            Setting("linear", 2),
            Setting("cosine", 1),
            Setting("cosine", 13),
            Setting("linear", 1000, zero_terminal_snr=True),
            Setting("linear", 1000, timesteps=_CUSTOM),
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """`betas`, `alphas_cumprod`, `1 - alphas_cumprod` as its formulas take it, `_get_variance`; by its own code, in float64."""
        chain = _scheduler("DDPMScheduler", setting, "epsilon", torch.float64)
        chosen = self.index(_visited(setting))
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
        chain = _scheduler("DDPMScheduler", setting, "epsilon", x0.dtype)
        noisy: Tensor = chain.add_noise(x0, noise, self._timesteps(setting, t))
        return noisy

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`step` with `prediction_type="sample"` and no noise; `_get_variance`."""
        steps = self._timesteps(setting, t)
        mean = self._mean(setting, "x0", x0, x_t, steps)
        chain = _scheduler("DDPMScheduler", setting, "sample", x_t.dtype)
        return Posterior(mean, variance=_variances(chain, steps, "fixed_small", x_t))

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`_get_variance`: `fixed_small` or `fixed_large`, and the ends of `learned_range` as their logarithms."""
        chain = _scheduler("DDPMScheduler", setting, "epsilon", torch.float64)
        end = torch.tensor(-1.0 if variance == "posterior" else 1.0, dtype=torch.float64)
        kind = "fixed_small" if variance == "posterior" else "fixed_large"
        steps = self._timesteps(setting, t).tolist()
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
        chain = _scheduler("DDPMScheduler", setting, "epsilon", x0.dtype)
        velocity: Tensor = chain.get_velocity(x0, eps, self._timesteps(setting, t))
        return velocity

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """eps, x0 or v to x0 (`step(…)[1]`) or to the posterior mean (`step` without noise)."""
        if source not in _PREDICTIONS or to not in ("x0", "mean"):
            raise NotOffered(
                f"diffusers converts eps, x0 and v to x0 and mean, not {source} to {to}"
            )
        steps = self._timesteps(setting, t)
        if to == "mean":
            return self._mean(setting, source, prediction, x_t, steps)
        chain = _scheduler("DDPMScheduler", setting, _PREDICTIONS[source], x_t.dtype)
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
        if parameterization not in _PREDICTIONS:
            raise NotOffered(f"diffusers has no prediction type for {parameterization}")
        kind = _PREDICTIONS[parameterization]
        steps = self._timesteps(setting, t)
        if sampler == "ddim":
            return self._ddim(setting, prediction, x_t, steps, noise, kind, eta)
        chain = _scheduler("DDPMScheduler", setting, kind, x_t.dtype)
        return each_step(steps, lambda step, i: _step(chain, prediction[i], step, x_t[i], noise[i]))

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """`EMAModel` without its warm-up (`min_decay = decay`); its first update copies, so it starts at `values[0]`."""
        from diffusers.training_utils import EMAModel

        parameter = torch.nn.Parameter(values[:1].clone())
        average = EMAModel([parameter], decay=decay, min_decay=decay)
        seen = []
        for value in values:
            parameter.data.fill_(value)
            average.step([parameter])
            seen.append(average.shadow_params[0].clone())
        return torch.cat(seen)

    def _timesteps(self, setting: Setting, t: Tensor) -> Tensor:
        """Its own timesteps: what our t of a respaced setting is called in the full chain."""
        return self.index(_visited(setting)[t - 1])

    def _mean(
        self, setting: Setting, source: str, prediction: Tensor, x_t: Tensor, steps: Tensor
    ) -> Tensor:
        chain = _scheduler("DDPMScheduler", setting, _PREDICTIONS[source], x_t.dtype)
        still = torch.zeros_like(x_t)
        return each_step(steps, lambda step, i: _step(chain, prediction[i], step, x_t[i], still[i]))

    def _ddim(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        steps: Tensor,
        noise: Tensor,
        kind: str,
        eta: float,
    ) -> Tensor:
        if setting.timesteps not in (None, trailing(setting.T, setting.steps)):
            raise NotOffered("DDIMScheduler visits evenly spaced timesteps only")
        chain = _scheduler("DDIMScheduler", setting, kind, x_t.dtype)
        return each_step(
            steps,
            lambda step, i: chain.step(
                prediction[i], step, x_t[i], eta=eta, variance_noise=noise[i], return_dict=False
            )[0],
        )


class Snr(Implementation):
    """`training_utils.compute_snr`, which casts to float32 whatever it is given: the only place where an SNR comes from."""

    name = "diffusers: compute_snr"
    first_index = 0
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """`compute_snr` of a scheduler whose tables are float64."""
        training: Any = importlib.import_module("diffusers.training_utils")
        chain = _scheduler("DDPMScheduler", setting, "epsilon", torch.float64)
        return {"snr": training.compute_snr(chain, self.index(_visited(setting)))}


class TrailingDDIM(Implementation):
    """`DDIMScheduler(timestep_spacing="trailing")` with 7 of 1000 steps: the step before is t − T//7, not the list's."""

    name = "diffusers: DDIMScheduler, trailing spacing, 7 steps"
    first_index = 0

    def __init__(self) -> None:
        self._library = Diffusers()
        self.version = self._library.version

    def settings(self) -> Sequence[Setting]:
        """The linear schedule on the 7 steps that "trailing" visits."""
        return (Setting("linear", 1000, timesteps=trailing(1000, 7)),)

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
        """`DDIMScheduler.step` only."""
        if sampler != "ddim":
            raise NotOffered("this option is about DDIM")
        return self._library.sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


class ParallelSteps(Implementation):
    """`DDPMParallelScheduler.batch_step_no_noise` with `set_timesteps(timesteps=…)`."""

    name = "diffusers: DDPMParallelScheduler, custom timesteps"
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def settings(self) -> Sequence[Setting]:
        """All steps, and a list of its own choosing."""
        return (Setting("linear", 1000), Setting("linear", 1000, timesteps=_CUSTOM))

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """The mean from `batch_step_no_noise` with `prediction_type="sample"`."""
        chain = _scheduler("DDPMParallelScheduler", setting, "sample", x_t.dtype)
        steps = self.index(_visited(setting)[t - 1])
        return Posterior(chain.batch_step_no_noise(x0, steps, x_t))


class FixedLargeLog(Implementation):
    """`DDPMScheduler(variance_type="fixed_large_log")`: its step takes the root of a logarithm."""

    name = 'diffusers: variance_type="fixed_large_log"'
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """The square of what `step` multiplies unit noise with (t ≥ 2), and `_get_variance` as the logarithm."""
        if variance != "beta":
            raise NotOffered("fixed_large is beta")
        chain = _scheduler(
            "DDPMScheduler", setting, "sample", torch.float64, variance_type="fixed_large_log"
        )
        logarithms = torch.stack([chain._get_variance(s) for s in self.index(t).tolist()])
        used = torch.cat([_noise_scale(chain, s).flatten() for s in self.index(t).tolist()]) ** 2
        return torch.where(t == 1, logarithms.exp(), used), logarithms


class _LearnedOption(Implementation):
    """`DDPMScheduler` whose `step` splits the network's output into a prediction and what it says about the variance."""

    first_index = 0
    variance_type: str
    meaning: str

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def settings(self) -> Sequence[Setting]:
        """All steps, and a list of its own choosing."""
        return (Setting("linear", 1000), Setting("linear", 1000, timesteps=_CUSTOM))

    def encoded(self, said: Tensor) -> Tensor:
        """What the library's network has to say for `said`."""
        raise NotImplementedError

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The square of what `step` multiplies unit noise with (t ≥ 2; at t = 1 it adds none), and `_get_variance` as the logarithm."""
        if meaning != self.meaning:
            raise NotOffered(f"{self.name} is a {self.meaning}")
        chain = _scheduler(
            "DDPMScheduler", setting, "sample", torch.float64, variance_type=self.variance_type
        )
        steps = self.index(_visited(setting)[t - 1])
        theirs = self.encoded(said.double())
        logarithms = each_step(steps, lambda step, i: self.read(chain, step, theirs[i]))
        used = each_step(steps, lambda step, i: _noise_scale(chain, step, theirs[i]) ** 2)
        at_first = (t == 1).reshape(-1, *[1] * (said.ndim - 1))
        return torch.where(at_first, logarithms.exp(), used), logarithms

    def read(self, chain: Any, step: int, theirs: Tensor) -> Tensor:
        """ln σ² from `_get_variance`."""
        found: Tensor = chain._get_variance(step, predicted_variance=theirs)
        return found


class LearnedRange(_LearnedOption):
    """`variance_type="learned_range"`: at t = 1 the range begins at the logarithm of the clamp that guards β̃_1 = 0.

    `step` adds no noise at t = 1 and so never shows it; a likelihood that reads `_get_variance` there does.
    """

    name = 'diffusers: variance_type="learned_range"'
    variance_type = "learned_range"
    meaning = "range"

    def encoded(self, said: Tensor) -> Tensor:
        """−1 … 1."""
        return 2 * said - 1


class LearnedVariance(_LearnedOption):
    """`variance_type="learned"`: `step` takes the square root of what the network says."""

    name = 'diffusers: variance_type="learned"'
    variance_type = "learned"
    meaning = "log"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                '"learned" is the variance itself',
                "the network says σ², where Nichol & Dhariwal's code (ModelVarType.LEARNED) takes it for ln σ²; `step` multiplies noise "
                "with its square root, which is NaN where an unbounded output is negative",
                "scheduling_ddpm.py, DDPMScheduler._get_variance ('the predicted variance from the model') and step",
                _VarianceItself,
                ("I20-learned",),
            ),
        )

    def encoded(self, said: Tensor) -> Tensor:
        """As it is."""
        return said


class _VarianceItself(LearnedVariance):
    """Hands the library exp(said), and takes the logarithm of what it answers."""

    def encoded(self, said: Tensor) -> Tensor:
        """The variance."""
        return said.exp()

    def read(self, chain: Any, step: int, theirs: Tensor) -> Tensor:
        """ln of the variance from `_get_variance`."""
        return super().read(chain, step, theirs).log()


def implementations() -> tuple[Implementation, ...]:
    """The library, then its options."""
    return (
        Diffusers(),
        Snr(),
        TrailingDDIM(),
        ParallelSteps(),
        FixedLargeLog(),
        LearnedRange(),
        LearnedVariance(),
    )


def _visited(setting: Setting) -> Tensor:
    """Original steps 1 … T in visiting order of our index."""
    return torch.tensor(setting.timesteps or range(1, setting.T + 1))


@lru_cache(maxsize=64)
def _scheduler(
    kind: str,
    setting: Setting,
    prediction: str,
    dtype: torch.dtype,
    variance_type: str = "fixed_small",
) -> Any:
    """A scheduler of the library for a setting; with tables in float64 where samples are float64."""
    module = _module(kind)
    if dtype == torch.float64:
        with float64_tables(module):
            return _built(module, kind, setting, prediction, variance_type)
    return _built(module, kind, setting, prediction, variance_type)


def _built(
    module: ModuleType, kind: str, setting: Setting, prediction: str, variance_type: str
) -> Any:
    if setting.beta is None and setting.name not in _SCHEDULES:
        raise NotOffered(f"diffusers has no schedule that it calls {setting.name!r} in our sense")
    options: dict[str, Any] = {
        "num_train_timesteps": setting.T,
        "beta_schedule": _SCHEDULES.get(setting.name, "linear"),
        "prediction_type": prediction,
        "clip_sample": False,
        "rescale_betas_zero_snr": setting.zero_terminal_snr,
    }
    if setting.beta is not None:
        options["trained_betas"] = list(setting.beta)
    if kind == "DDIMScheduler":
        options["timestep_spacing"] = "trailing"
    else:
        options["variance_type"] = variance_type
    chain = getattr(module, kind)(**options)
    _choose_steps(chain, kind, setting)
    return chain


def _choose_steps(chain: Any, kind: str, setting: Setting) -> None:
    if kind == "DDIMScheduler":
        chain.set_timesteps(setting.steps)
    elif setting.timesteps is not None:
        chain.set_timesteps(timesteps=[step - 1 for step in reversed(setting.timesteps)])


def _module(kind: str) -> ModuleType:
    names = {
        "DDPMScheduler": "scheduling_ddpm",
        "DDPMParallelScheduler": "scheduling_ddpm_parallel",
        "DDIMScheduler": "scheduling_ddim",
    }
    return importlib.import_module(f"diffusers.schedulers.{names[kind]}")


def _step(chain: Any, prediction: Tensor, step: int, x_t: Tensor, noise: Tensor) -> Tensor:
    """One `step` whose draw of noise is the given one."""

    def drawn(shape: object, **options: object) -> Tensor:
        return noise

    with replaced(_module("DDPMScheduler"), "randn_tensor", drawn):
        stepped: Tensor = chain.step(prediction, step, x_t, return_dict=False)[0]
    return stepped


def _noise_scale(chain: Any, step: int, said: Tensor | None = None) -> Tensor:
    """What `step` multiplies noise with: its answer to unit noise and x_t = x_0 = 0, the second half of the output being `said`."""
    zero = torch.zeros(1, 1, dtype=torch.float64) if said is None else torch.zeros_like(said)
    output = zero if said is None else torch.cat([zero, said], dim=1)
    return _step(chain, output, step, zero, torch.ones_like(zero))


def _variances(chain: Any, steps: Tensor, kind: str, like: Tensor) -> Tensor:
    values = torch.stack([chain._get_variance(s, variance_type=kind) for s in steps.tolist()])
    return values.reshape(-1, *[1] * (like.ndim - 1))
