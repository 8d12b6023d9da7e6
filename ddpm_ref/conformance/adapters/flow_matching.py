r"""flow_matching (Meta, CC-BY-NC: only called): `AffineProbPath` and its conversions.

**Time** is reversed: its time 1 is data, 0 is noise; our t = 1 … T are its times 1 − t/(T + 1), so that neither end (σ = 0 or α = 0, where its
conversions divide by 0) is asked for. **Names**: its x_1 is our x0, its x_0 our ε, its target our x0. **Scale**: α² + σ² ≠ 1 on
the straight path; the adapter divides by the root. `epsilon_to_target` and its five relatives do not expand t: the adapter does.

The laws' truth is written from the formulas of its schedulers, s being 1 − time:

    CondOT  α = 1 − s, σ = s        VP  α² = e^{−B(s)}, σ² = 1 − α², B = ½ s²(20 − 0.1) + 0.1 s        cosine  α = cos(πs/2), σ = sin(πs/2).
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import column, installed_version
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

_T = 101
_LOWEST, _HIGHEST = 0.1, 20.0


def _vp_log_snr(s: float) -> float:
    return -math.log(math.expm1(0.5 * s**2 * (_HIGHEST - _LOWEST) + s * _LOWEST))


_FORMULAS: dict[str, Callable[[float], float]] = {
    "CondOTScheduler": lambda s: 2 * math.log((1 - s) / s),
    "VPScheduler": _vp_log_snr,
    "CosineScheduler": lambda s: -2 * math.log(math.tan(math.pi * s / 2)),
}
"""log-SNR at s = 1 − time, for the truth."""

_Routes = dict[tuple[str, str], tuple[str, ...]]

_CONVERSIONS: _Routes = {
    ("eps", "x0"): ("epsilon_to_target",),
    ("x0", "eps"): ("target_to_epsilon",),
    ("eps", "flow"): ("epsilon_to_velocity",),
    ("x0", "flow"): ("target_to_velocity",),
    ("flow", "eps"): ("velocity_to_epsilon",),
    ("flow", "x0"): ("velocity_to_target",),
}
_THROUGH_VELOCITY: _Routes = {
    ("eps", "x0"): ("epsilon_to_velocity", "velocity_to_target"),
    ("x0", "eps"): ("target_to_velocity", "velocity_to_epsilon"),
}


class FlowMatching(Implementation):
    """`AffineProbPath` with the CondOT, VP and cosine schedulers on 101 times."""

    name = "flow-matching"
    parameterizations = ("eps", "x0", "flow")
    routes = _CONVERSIONS
    """Which of its methods make a conversion."""

    def __init__(self) -> None:
        importlib.import_module("flow_matching")
        self.version = installed_version("flow-matching")

    def settings(self) -> Sequence[Setting]:
        """Three schedulers."""
        return tuple(
            Setting(name, _T, log_snr=tuple(formula(k / (_T + 1)) for k in range(1, _T + 1)))
            for name, formula in _FORMULAS.items()
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """log-SNR and ᾱ from `scheduler(t)`."""
        given = _path(setting).scheduler(self._time(torch.arange(1, _T + 1), torch.float64))
        power = given.alpha_t**2 + given.sigma_t**2
        return {
            "log_snr": 2 * torch.log(given.alpha_t / given.sigma_t),
            "alpha_bar": given.alpha_t**2 / power,
            "one_minus_alpha_bar": given.sigma_t**2 / power,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`path.sample(x_0=noise, x_1=data, t)`."""
        time = self._time(t, x0.dtype)
        x: Tensor = _path(setting).sample(x_0=noise, x_1=x0, t=time).x_t
        return x / self._scale(setting, time, x0)

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`epsilon_to_target` and its five relatives; the velocity is x0 − ε on the straight path (CondOT) alone."""
        straight = setting.name == "CondOTScheduler" or "flow" not in (source, to)
        if (source, to) not in self.routes or not straight:
            raise NotOffered("flow_matching converts between eps, x0 and the velocity of its path")
        path, time = _path(setting), self._time(t, x_t.dtype)
        wide, x = column(time, x_t), x_t * self._scale(setting, time, x_t)
        for method in self.routes[source, to]:
            prediction = getattr(path, method)(prediction, x, wide)
        return prediction

    def _time(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Our steps as its times, in the samples' dtype but not below float32."""
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        return (1 - t.to(torch.float64) / (_T + 1)).to(wanted)

    def _scale(self, setting: Setting, time: Tensor, like: Tensor) -> Tensor:
        given = _path(setting).scheduler(time)
        return column((given.alpha_t**2 + given.sigma_t**2).sqrt(), like)


class ThroughVelocity(FlowMatching):
    """The same conversions by the four methods that go through the velocity."""

    name = "flow-matching: conversions through the velocity"
    routes = _THROUGH_VELOCITY

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """As in the other adapter, so not asked again."""
        raise self._missing("tables of its own")

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """As in the other adapter, so not asked again."""
        raise self._missing("q_sample of its own")


def implementations() -> tuple[Implementation, ...]:
    """The library, and its longer way between eps and x0."""
    return FlowMatching(), ThroughVelocity()


def _path(setting: Setting) -> Any:
    if setting.name not in _FORMULAS:
        raise NotOffered(f"flow_matching has no discrete schedule {setting}")
    library = importlib.import_module("flow_matching.path")
    schedulers = importlib.import_module("flow_matching.path.scheduler")
    return library.AffineProbPath(getattr(schedulers, setting.name)())
