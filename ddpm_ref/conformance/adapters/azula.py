r"""azula: schedules, `SimpleDenoiser`, `KarrasDenoiser`, `GaussianDenoiser`, DDPM and DDIM steps.

**Time** is continuous in [0, 1]; our t = 1 … T are its times (t − 1)/(T − 1): time 0 is not clean data but its smallest noise σ_min, so
the step from our t = 1 to data does not exist there. **Scale**: α² + σ² ≠ 1. x/√(α²+σ²) is a variance-preserving x_t with
ᾱ = α²/(α²+σ²), and the adapter divides and multiplies by that root. The schedules are its own, and the laws' truth is written
from the formulas of their docstrings:

    VP         α = α_min^{t²}               σ² = 1 − α² + σ_min²
    cosine     α = cos(t arccos α_min)      σ² = 1 − α² + σ_min²
    rectified  α = 1 − t + t α_min          σ = t + (1 − t) σ_min          with α_min = σ_min = 1e-3.

The Karras denoiser's network answers −v: x̂_0 = √ᾱ x_t + √(1−ᾱ)·output, in variance-preserving units.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    column,
    each_step,
    given_noise,
    installed_version,
)
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.setting import Setting

_SMALLEST = 1e-3
_T = 101


def _vp(time: float) -> tuple[float, float]:
    alpha = _SMALLEST ** (time**2)
    return alpha, math.sqrt(-math.expm1(2 * time**2 * math.log(_SMALLEST)) + _SMALLEST**2)


def _cosine(time: float) -> tuple[float, float]:
    angle = time * math.acos(_SMALLEST)
    return math.cos(angle), math.hypot(math.sin(angle), _SMALLEST)


def _rectified(time: float) -> tuple[float, float]:
    return (1 - time) + time * _SMALLEST, time + (1 - time) * _SMALLEST


_FORMULAS: dict[str, Callable[[float], tuple[float, float]]] = {
    "VPSchedule": _vp,
    "CosineSchedule": _cosine,
    "RectifiedSchedule": _rectified,
}
"""(α, σ) as the docstrings state them, for the truth."""


def _setting(name: str) -> Setting:
    pairs = [_FORMULAS[name](k / (_T - 1)) for k in range(_T)]
    return Setting(name, _T, log_snr=tuple(2 * math.log(a / s) for a, s in pairs))


class Azula(Implementation):
    """azula with its VP, cosine and rectified schedules on 101 evenly spaced times."""

    one_step_a_call = True
    name = "azula"
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("azula")
        self.version = installed_version("azula")
        self.conventions = (
            Convention(
                "η of DDIM scales the variance",
                "DDIMSampler adds noise of variance η σ²_ddpm, where Song et al. 2021 have η² σ²_ddpm; its docstring says so",
                "azula/sample.py, DDIMSampler",
                _SquaredEta,
                ("I16-ddim", "I31-gradient"),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Three schedules."""
        return tuple(_setting(name) for name in _FORMULAS)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """log-SNR and ᾱ from `schedule(t)`."""
        alpha, sigma = _schedule(setting)(torch.arange(_T, dtype=torch.float64) / (_T - 1))
        power = alpha**2 + sigma**2
        return {
            "log_snr": 2 * torch.log(alpha / sigma),
            "alpha_bar": alpha**2 / power,
            "one_minus_alpha_bar": sigma**2 / power,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What `SimpleDenoiser.loss` shows to its network, which it scales by 1/√(α²+σ²) itself."""
        network = _network(torch.zeros_like(x0))
        denoiser = _denoise().SimpleDenoiser(network, _schedule(setting))
        with given_noise(_denoise(), noise):
            denoiser.loss(x0, self._time(t, x0))
        return network.seen[0]

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """The mean: a `DDPMSampler` step without noise, whose denoiser answers x_0."""
        return Posterior(
            self.sampler_step(setting, x0, x_t, t, torch.zeros_like(x_t), "x0", "ddpm", 0.0)
        )

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """v to x0 by `KarrasDenoiser`, whose network answers −v."""
        if (source, to) != ("v", "x0"):
            raise NotOffered("azula converts v to x0 (the output of its Karras denoiser)")
        time = self._time(t, x_t)
        denoiser = _denoise().KarrasDenoiser(_network(-prediction), _schedule(setting))
        mean: Tensor = denoiser(x_t * _scale(setting, time, x_t), time).mean
        return mean

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
        """`loss` of the simple (x0) and the Karras (v) denoiser, once per sample: both weight with SNR + 1 in x0 space."""
        if weighting != "simple_v" or parameterization not in ("x0", "v"):
            raise NotOffered("azula has x0 and v losses, both with the weight SNR + 1 in x0 space")

        def one(step: int, i: slice) -> Tensor:
            time = self._time(torch.tensor([step]), x0)
            with given_noise(_denoise(), eps[i]):
                return self._loss(setting, parameterization, prediction[i], x0[i], time)

        return each_step(t, one)

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """`GaussianDenoiser` with a `FullCovariance`."""
        values, vectors = torch.linalg.eigh(covariance)
        full = importlib.import_module("azula.linalg.covariance").FullCovariance(vectors, values)
        denoiser = _denoise().GaussianDenoiser(mean, full, _schedule(setting))
        time = self._time(t, x_t)
        x = x_t * _scale(setting, time, x_t)
        return each_step(t, lambda step, i: denoiser(x[i], time[i][0]).mean)

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
        """`DDPMSampler.step` or `DDIMSampler.step`, from t to t − 1, t ≥ 2, on the denoiser's prediction of x0 or v."""
        if bool((t < 2).any()) or parameterization not in ("x0", "v"):
            raise NotOffered("azula steps between noisy times, from predictions of x0 or v")
        now, then = self._time(t, x_t), self._time(t - 1, x_t)
        x = x_t * _scale(setting, now, x_t)

        def one(step: int, i: slice) -> Tensor:
            stepper = _stepper(setting, sampler, eta, parameterization, prediction[i])
            with given_noise(_sampling(), noise[i]):
                stepped: Tensor = stepper.step(x[i], now[i][0], then[i][0])
            return stepped

        return each_step(t, one) / _scale(setting, then, x_t)

    def _time(self, t: Tensor, like: Tensor) -> Tensor:
        """Our steps as its times, in the samples' dtype but not below float32."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return (self.index(t).to(torch.float64) / (_T - 1)).to(dtype)

    def _loss(
        self, setting: Setting, parameterization: str, prediction: Tensor, x0: Tensor, time: Tensor
    ) -> Tensor:
        if parameterization == "x0":
            simple = _denoise().SimpleDenoiser(_network(prediction), _schedule(setting))
            return torch.as_tensor(simple.loss(x0, time, max_weight=math.inf)).reshape(1)
        karras = _denoise().KarrasDenoiser(_network(-prediction), _schedule(setting))
        return torch.as_tensor(karras.loss(x0, time)).reshape(1)


class _SquaredEta(Azula):
    """Hands azula's DDIM the square of Song et al.'s η."""

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
        """As the base class, with η²."""
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta**2
        )


class _Part(Azula):
    """A call as installed, and nothing that the library's other row has already."""

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """As in the other adapter, so not asked again."""
        raise self._missing("tables of its own")

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """As in the other adapter, so not asked again."""
        raise self._missing("q_sample of its own")

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """As in the other adapter, so not asked again."""
        raise self._missing("posterior of its own")

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """As in the other adapter, so not asked again."""
        raise self._missing("conversion of its own")

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
        """As in the other adapter, so not asked again."""
        raise self._missing("sampler step of its own")


class CappedWeight(_Part):
    """`SimpleDenoiser.loss(x, t)` as installed: its weight (α²+σ²)/σ² is at most `max_weight = 1e4`."""

    name = "azula: SimpleDenoiser.loss, max_weight = 1e4"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "the weight is capped at 1e4",
                "the loss clips SNR + 1 at `max_weight`, an argument that its formula leaves out; only infinity gives the formula",
                "azula/denoise.py, SimpleDenoiser.loss",
                _Uncapped,
                ("I5", "I7", "I10", "I17"),
            ),
        )

    most: float = 1e4

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """As in the other adapter, so not asked again."""
        raise self._missing("Gaussian denoiser of its own")

    def _loss(
        self, setting: Setting, parameterization: str, prediction: Tensor, x0: Tensor, time: Tensor
    ) -> Tensor:
        if parameterization != "x0":
            raise NotOffered("the cap is in the simple denoiser's loss, of x0")
        simple = _denoise().SimpleDenoiser(_network(prediction), _schedule(setting))
        return torch.as_tensor(simple.loss(x0, time, max_weight=self.most)).reshape(1)


class _Uncapped(CappedWeight):
    """Reads it with `max_weight=math.inf`, as the library's other row does."""

    most = math.inf


class TimesOfABatch(_Part):
    """`GaussianDenoiser(x_t [B, D], t [B])`, which the abstract `Denoiser.forward` allows, and this one's docstring does not."""

    name = "azula: GaussianDenoiser, a time for each sample"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "one time for the whole batch",
                "t has shape (): α_t [B] would multiply the mean [D] along its last axis, which raises, or is wrong where B = D",
                "azula/denoise.py, GaussianDenoiser.forward",
                _OneTime,
                ("I30", "I17", "I18", "I27", "I14-finite", "I32-layout"),
            ),
        )

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
        """As in the other adapter, so not asked again."""
        raise self._missing("loss of its own")

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """`GaussianDenoiser` at all times at once."""
        values, vectors = torch.linalg.eigh(covariance)
        full = importlib.import_module("azula.linalg.covariance").FullCovariance(vectors, values)
        time = self._time(t, x_t)
        denoiser = _denoise().GaussianDenoiser(mean, full, _schedule(setting))
        found: Tensor = denoiser(x_t * _scale(setting, time, x_t), time).mean
        return found


class _OneTime(TimesOfABatch):
    """Reads it sample by sample, as the library's other row does."""

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """One call for each sample."""
        return Azula.gaussian_denoise(self, setting, mean, covariance, x_t, t)


def implementations() -> tuple[Implementation, ...]:
    """The library, and two of its calls as installed."""
    return (Azula(), CappedWeight(), TimesOfABatch())


def _denoise() -> ModuleType:
    return importlib.import_module("azula.denoise")


def _sampling() -> ModuleType:
    return importlib.import_module("azula.sample")


def _schedule(setting: Setting) -> Any:
    if setting.name not in _FORMULAS:
        raise NotOffered(f"azula has no discrete schedule {setting}")
    return getattr(importlib.import_module("azula.noise"), setting.name)()


def _scale(setting: Setting, time: Tensor, like: Tensor) -> Tensor:
    """√(α²+σ²) `[B, 1, …]`: azula's x over ours."""
    alpha, sigma = _schedule(setting)(time)
    return column((alpha**2 + sigma**2).sqrt(), like)


def _network(answer: Tensor) -> Recorder:
    """A recording network with a dtype, for which azula looks among the buffers."""
    network = Recorder(answer)
    network.register_buffer("precision", torch.zeros((), dtype=answer.dtype))
    return network


def _stepper(
    setting: Setting, sampler: str, eta: float, parameterization: str, prediction: Tensor
) -> Any:
    kind = "SimpleDenoiser" if parameterization == "x0" else "KarrasDenoiser"
    answer = prediction if parameterization == "x0" else -prediction
    denoiser = getattr(_denoise(), kind)(_network(answer), _schedule(setting))
    if sampler == "ddpm":
        return _sampling().DDPMSampler(denoiser)
    return _sampling().DDIMSampler(denoiser, eta=eta)
