"""Options of diffusers, each a row of a table: as installed, spacings, variances, schedules, the moving average, the pipeline's loop."""

import importlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.diffusers import Diffusers
from ddpm_ref.conformance.adapters.diffusers_calls import (
    CUSTOM,
    PREDICTIONS,
    Installed,
    Wanted,
    noise_scale,
    scheduler,
    step,
    visited,
)
from ddpm_ref.conformance.adapters.instruments import Recorder, each_step
from ddpm_ref.conformance.implementation import (
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
)
from ddpm_ref.conformance.setting import Setting

_LINEAR = Setting("linear", 1000)
_COUNTS = (7, 10, 50)
"""Numbers of steps asked of each spacing: 7 does not divide 1,000, the others do."""
_SPACINGS = ("leading", "linspace", "trailing")
_KINDS = ("DDPMScheduler", "DDIMScheduler", "DDIMParallelScheduler")


class AsInstalled(Diffusers):
    """The same calls on the float32 tables that the library has, float64 samples included."""

    name = "diffusers: tables as installed"
    dtypes = (torch.float64, torch.float32)
    table_dtype = torch.float32

    def settings(self) -> Sequence[Setting]:
        """The linear schedule."""
        return (_LINEAR,)

    def kept(self, dtype: torch.dtype) -> torch.dtype:
        """Float32, whatever the samples are."""
        return torch.float32 if dtype == torch.float64 else dtype


class Snr(Installed):
    """`training_utils.compute_snr`, which casts to float32 whatever it is given: the only place where an SNR comes from."""

    name = "diffusers: compute_snr"
    table_dtype = torch.float32

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """`compute_snr` of a scheduler whose tables are float64."""
        training: Any = importlib.import_module("diffusers.training_utils")
        chain = scheduler(Wanted("DDPMScheduler", "epsilon"), setting, torch.float64)
        return {"snr": training.compute_snr(chain, self.index(visited(setting)))}


class Spaced(Installed):
    """A scheduler with one of the three spacings of Lin et al. 2024, table 2, at several numbers of steps."""

    def __init__(self, kind: str, spacing: str) -> None:
        super().__init__()
        self.name = f"diffusers: {kind}, {spacing} spacing"
        self.kind, self.spacing = kind, spacing

    def settings(self) -> Sequence[Setting]:
        """The steps that `set_timesteps` visits, from its own `timesteps`."""
        chosen = []
        for count in _COUNTS:
            blank = Setting("linear", 1000, timesteps=tuple(range(1001 - count, 1001)))
            chain = scheduler(self._wanted("epsilon"), blank, torch.float64)
            steps = tuple(int(t) + 1 for t in chain.timesteps.flip(0))
            chosen.append(Setting("linear", 1000, timesteps=steps))
        return tuple(chosen)

    def _wanted(self, prediction: str) -> Wanted:
        return Wanted(self.kind, prediction, spacing=self.spacing)

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
        """`step`."""
        if sampler != self.kind[:4].lower() or parameterization not in PREDICTIONS:
            raise NotOffered(f"{self.kind} steps from eps, x0 and v")
        chain = scheduler(self._wanted(PREDICTIONS[parameterization]), setting, x_t.dtype)
        return each_step(
            self.timesteps(setting, t),
            lambda at, i: step(chain, prediction[i], at, x_t[i], noise[i], eta),
        )


class ParallelSteps(Installed):
    """`DDPMParallelScheduler.batch_step_no_noise` with `set_timesteps(timesteps=…)`."""

    name = "diffusers: DDPMParallelScheduler, custom timesteps"

    def settings(self) -> Sequence[Setting]:
        """All steps, and a list of its own choosing."""
        return (Setting("linear", 1000), Setting("linear", 1000, timesteps=CUSTOM))

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """The mean from `batch_step_no_noise` with `prediction_type="sample"`."""
        chain = scheduler(Wanted("DDPMParallelScheduler", "sample"), setting, x_t.dtype)
        steps = self.timesteps(setting, t)
        return Posterior(chain.batch_step_no_noise(x0, steps, x_t))


class FixedVariance(Installed):
    """`DDPMScheduler(variance_type=…)` of the four fixed kinds: what `step` multiplies noise with."""

    def __init__(self, variance_type: str) -> None:
        super().__init__()
        self.name = f'diffusers: variance_type="{variance_type}"'
        self.variance_type = variance_type

    def settings(self) -> Sequence[Setting]:
        """All steps, and a list of its own choosing."""
        return (_LINEAR, Setting("linear", 1000, timesteps=CUSTOM))

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """The square of what `step` multiplies unit noise with (t ≥ 2), and its logarithm: `_get_variance` where that is one."""
        if variance != ("posterior" if "small" in self.variance_type else "beta"):
            raise NotOffered(f"{self.variance_type} is the other variance")
        chain = scheduler(
            Wanted(prediction="sample", variance=self.variance_type), setting, torch.float64
        )
        steps = self.timesteps(setting, t).tolist()
        used = torch.cat([noise_scale(chain, at).flatten() for at in steps]) ** 2
        if self.variance_type != "fixed_large_log":
            return used, used.log()
        logarithms = torch.stack([chain._get_variance(at) for at in steps])
        return torch.where(t == 1, logarithms.exp(), used), logarithms


class _LearnedOption(Installed):
    """`DDPMScheduler` whose `step` splits the network's output into a prediction and what it says about the variance."""

    variance_type: str
    meaning: str

    def settings(self) -> Sequence[Setting]:
        """All steps, and a list of its own choosing."""
        return (Setting("linear", 1000), Setting("linear", 1000, timesteps=CUSTOM))

    def encoded(self, said: Tensor) -> Tensor:
        """What the library's network has to say for `said`."""
        raise NotImplementedError

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The square of what `step` multiplies unit noise with (t ≥ 2; at t = 1 it adds none), and `_get_variance` as the logarithm."""
        if meaning != self.meaning:
            raise NotOffered(f"{self.name} is a {self.meaning}")
        wanted = Wanted(prediction="sample", variance=self.variance_type)
        chain = scheduler(wanted, setting, torch.float64)
        steps = self.timesteps(setting, t)
        theirs = self.encoded(said.double())
        logarithms = each_step(steps, lambda at, i: self.read(chain, at, theirs[i]))
        used = each_step(steps, lambda at, i: noise_scale(chain, at, theirs[i]) ** 2)
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
                ("I20-learned", "I14-finite"),
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


class OwnSchedules(Installed):
    """`beta_schedule` of other formulas: √β linear (latent diffusion), a sigmoid in β (GeoDiff), Laplace (Hang et al. 2024)."""

    name = "diffusers: schedules of its own"

    def settings(self) -> Sequence[Setting]:
        """Each by its numbers, from the formula in the paper that it names."""
        return tuple(
            Setting(name, len(beta), beta=tuple(beta)) for name, beta in _own_schedules().items()
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """`betas` and `alphas_cumprod`, by its own code, in float64."""
        chain = scheduler(Wanted(schedule=setting.name), setting, torch.float64)
        return {"beta": chain.betas, "alpha_bar": chain.alphas_cumprod}


class Laplace(OwnSchedules):
    """`beta_schedule="laplace"`: the function that should give ᾱ ends in a root, and gives √ᾱ."""

    name = 'diffusers: beta_schedule="laplace"'

    def settings(self) -> Sequence[Setting]:
        """λ = −½ sgn(½−u) ln(1 − 2|½−u| + 10⁻⁶), ᾱ = e^λ/(1 + e^λ), with the library's 10⁻⁶ and cap."""
        return (Setting("laplace", 1000, beta=_capped([_laplace(k / 1000) for k in range(1001)])),)


class MovingAverage(Installed):
    """`EMAModel(parameters, decay=…)` as constructed: its decay begins at 2/11 and rises with the count of updates."""

    name = "diffusers: EMAModel as constructed"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "the decay is warmed up",
                "without `min_decay` the decay of update n is min(decay, (n + 1)/(n + 10)), also where `use_ema_warmup` is off",
                "diffusers/training_utils.py, EMAModel.get_decay",
                _FixedDecay,
                ("I22",),
            ),
        )

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """`step` after each value; its first update copies, so it starts at `values[0]`."""
        return _averaged(values, decay, 0.0)


class _FixedDecay(MovingAverage):
    """Reads it with `min_decay = decay`, which leaves no room for a warm-up."""

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """As the base class, at one decay."""
        return _averaged(values, decay, decay)


def _averaged(values: Tensor, decay: float, least: float) -> Tensor:
    from diffusers.training_utils import EMAModel

    parameter = torch.nn.Parameter(values[:1].clone())
    average = EMAModel([parameter], decay=decay, min_decay=least)
    seen = []
    for value in values:
        parameter.data.fill_(value)
        average.step([parameter])
        seen.append(average.shadow_params[0].clone())
    return torch.cat(seen)


class PipelineLoop(Installed):
    """`DDPMPipeline`'s loop over `DDPMScheduler` and `DDIMScheduler`, seen before it is clamped into an image."""

    name = "diffusers: DDPMPipeline"

    def settings(self) -> Sequence[Setting]:
        """Short chains of every step."""
        return (Setting("linear", 100), Setting("cosine", 13))

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """`DDPMPipeline(unet, scheduler)(batch_size, num_inference_steps=T)`; the last `prev_sample` of `step`."""
        if parameterization not in PREDICTIONS or sampler not in ("ddpm", "ddim"):
            raise NotOffered("DDPMPipeline runs ddpm and ddim from eps, x0 and v")
        kind = f"{sampler.upper()}Scheduler"
        chain = scheduler(Wanted(kind, PREDICTIONS[parameterization]), setting, torch.float32)
        last: list[Tensor] = []

        class Watched(type(chain)):  # type: ignore[misc] # the class is known when it runs
            """Keeps what `step` answers."""

            def step(self, *inputs: Any, **named: Any) -> Any:
                found = super().step(*inputs, **named)
                last[:] = [found.prev_sample]
                return found

        pipeline = importlib.import_module("diffusers").DDPMPipeline(
            _Unet(model, shape, self.first_index), Watched.from_config(chain.config)
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline(batch_size=shape[0], num_inference_steps=setting.T, output_type="pt")
        return last[0].reshape(shape)


class _Unet(Recorder):
    """A network of the pipeline's form around a law's model."""

    dtype = torch.float32

    def __init__(self, model: Model, shape: tuple[int, ...], first_index: int) -> None:
        super().__init__()
        self._model, self._shape, self._first = model, shape, first_index
        width = 1
        for size in shape[1:]:
            width *= size
        self.config = type("Config", (), {"in_channels": width, "sample_size": 1})()
        self.device = torch.device("cpu")

    def forward(self, x: Tensor, t: Any = None, *unused: object, **options: object) -> Any:
        """`.sample` of shape x at one time for the batch."""
        steps = torch.full((self._shape[0],), int(t) + 1 - self._first)
        said = self._model(x.reshape(self._shape), steps)
        return type("Output", (), {"sample": said.reshape(x.shape)})()


def implementations() -> tuple[Implementation, ...]:
    """Each option once."""
    spaced = [Spaced(kind, spacing) for kind in _KINDS for spacing in _SPACINGS]
    kinds = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
    return (
        AsInstalled(),
        Snr(),
        *spaced,
        ParallelSteps(),
        *(FixedVariance(kind) for kind in kinds),
        LearnedRange(),
        LearnedVariance(),
        OwnSchedules(),
        Laplace(),
        MovingAverage(),
        PipelineLoop(),
    )


def _spaced(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * k / (count - 1) for k in range(count)]


def _capped(kept: Sequence[float]) -> tuple[float, ...]:
    """β of ᾱ(0) … ᾱ(T), at most 0.999."""
    return tuple(min(1 - now / before, 0.999) for before, now in pairwise(kept))


def _laplace(u: float) -> float:
    """ᾱ at u = t/T."""
    distance = abs(0.5 - u)
    log_snr = (-0.5 if u < 0.5 else 0.5) * log(1 - 2 * distance + 1e-6)
    return 1 / (1 + exp(-log_snr))


def _own_schedules() -> dict[str, list[float]]:
    """β by the library's name."""
    sigmoid = [1 / (1 + exp(-u)) * (0.02 - 1e-4) + 1e-4 for u in _spaced(-6, 6, 1000)]
    return {
        "scaled_linear": [root**2 for root in _spaced(1e-4**0.5, 0.02**0.5, 1000)],
        "sigmoid": sigmoid,
    }
