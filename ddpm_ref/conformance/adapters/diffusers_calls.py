"""How the adapters of diffusers build and call the library: one table of what a scheduler may be asked for, tables in float64 on demand."""

import importlib
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import float64_tables, installed_version, replaced
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Ours that it has, by its own names."""
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
CUSTOM = (1, 2, 5, 17, 101, 499, 997, 1000)
"""A list of steps that no spacing visits."""

_MODULES = {
    "DDPMScheduler": "scheduling_ddpm",
    "DDPMParallelScheduler": "scheduling_ddpm_parallel",
    "DDIMScheduler": "scheduling_ddim",
    "DDIMParallelScheduler": "scheduling_ddim_parallel",
}


@dataclass(frozen=True)
class Wanted:
    """A scheduler as somebody would construct it, with clipping off.

    Attributes:
        kind: the class.
        prediction: its `prediction_type`.
        variance: its `variance_type`, where it has one.
        schedule: its `beta_schedule`, where that is none of ours.
        spacing: its `timestep_spacing`, and as many steps as the setting has; None for the setting's own list.
    """

    kind: str = "DDPMScheduler"
    prediction: str = "epsilon"
    variance: str = "fixed_small"
    schedule: str | None = None
    spacing: str | None = None


class Installed(Implementation):
    """What every adapter of the library shares: its version, and that its first step is 0."""

    one_step_a_call = True
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("diffusers")
        self.version = installed_version("diffusers")

    def timesteps(self, setting: Setting, t: Tensor) -> Tensor:
        """Its own timesteps: what our t of a respaced setting is called in the full chain."""
        return self.index(visited(setting)[t - 1])


def module(kind: str) -> ModuleType:
    """Where a scheduler is defined."""
    return importlib.import_module(f"diffusers.schedulers.{_MODULES[kind]}")


def visited(setting: Setting) -> Tensor:
    """Original steps 1 … T in the order of our index."""
    return torch.tensor(setting.timesteps or range(1, setting.T + 1))


@lru_cache(maxsize=128)
def scheduler(wanted: Wanted, setting: Setting, dtype: torch.dtype) -> Any:
    """A scheduler of the library for a setting; its own code makes the tables in float64 where samples are float64."""
    if dtype == torch.float64:
        with float64_tables(module(wanted.kind)):
            return _built(wanted, setting)
    return _built(wanted, setting)


def _built(wanted: Wanted, setting: Setting) -> Any:
    known = setting.beta is not None or wanted.schedule or setting.name in SCHEDULES
    if not known:
        raise NotOffered(f"diffusers has no schedule that it calls {setting.name!r} in our sense")
    options: dict[str, Any] = {
        "num_train_timesteps": setting.T,
        "beta_schedule": wanted.schedule or SCHEDULES.get(setting.name, "linear"),
        "prediction_type": wanted.prediction,
        "clip_sample": False,
        "rescale_betas_zero_snr": setting.zero_terminal_snr,
    }
    if setting.beta is not None and wanted.schedule is None:
        options["trained_betas"] = list(setting.beta)
    if wanted.kind.startswith("DDIM"):
        options["timestep_spacing"] = "trailing"
    else:
        options["variance_type"] = wanted.variance
    if wanted.spacing is not None:
        options["timestep_spacing"] = wanted.spacing
    chain = getattr(module(wanted.kind), wanted.kind)(**options)
    _choose_steps(chain, wanted, setting)
    return chain


def _choose_steps(chain: Any, wanted: Wanted, setting: Setting) -> None:
    if wanted.kind.startswith("DDIM") or wanted.spacing is not None:
        chain.set_timesteps(setting.steps)
    elif setting.timesteps is not None:
        chain.set_timesteps(timesteps=[step - 1 for step in reversed(setting.timesteps)])


def step(
    chain: Any, prediction: Tensor, timestep: int, x_t: Tensor, noise: Tensor, eta: float = 0.0
) -> Tensor:
    """One `step` whose draw of noise is the given one."""

    def drawn(shape: object, **options: object) -> Tensor:
        return noise

    extra = {"eta": eta} if type(chain).__name__.startswith("DDIM") else {}
    with replaced(module(type(chain).__name__), "randn_tensor", drawn):
        stepped: Tensor = chain.step(prediction, timestep, x_t, return_dict=False, **extra)[0]
    return stepped


def noise_scale(chain: Any, timestep: int, said: Tensor | None = None) -> Tensor:
    """What `step` multiplies noise with: its answer to unit noise and x_t = x_0 = 0, the second half of the output being `said`."""
    zero = torch.zeros(1, 1, dtype=torch.float64) if said is None else torch.zeros_like(said)
    output = zero if said is None else torch.cat([zero, said], dim=1)
    return step(chain, output, timestep, zero, torch.ones_like(zero))
