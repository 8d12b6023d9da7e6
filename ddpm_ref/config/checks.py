"""What a configuration must not say: values of a wrong type or range, unknown names, and choices that contradict each other."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ddpm_ref.kernels.providers import PROVIDERS
from ddpm_ref.network import (
    FOREIGN,
    NETWORKS,
    SKIPS,
    Preconditioned,
)
from ddpm_ref.objective import TRAINING_WEIGHTINGS, WEIGHTINGS, Weighting, edm, min_snr, p2
from ddpm_ref.parameterization import PARAMETERIZATIONS
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    flow_schedule,
    log_snr_schedule,
)
from ddpm_ref.times import BELLS, IMPORTANCE, TIMES
from ddpm_ref.validation import check_count, check_number, shown, unknown_name

if TYPE_CHECKING:
    from ddpm_ref.config import TrainConfig

_PRECISIONS = ("float32", "bfloat16", "float64")
VARIANCES = ("fixed", "learned")
_SUPPLIED = frozenset({"T", "channels", "shape", "steps", "outputs", "inner", "schedule"})
WEIGHTING_MAKERS: dict[str, Callable[..., Weighting]] = {"min_snr": min_snr, "p2": p2, "edm": edm}
_LEAST: Mapping[str, float] = {
    "T": 1,
    "seed": 0,
    "steps": 1,
    "batch_size": 1,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "clip_factor": 1.0,
    "accumulation": 1,
    "decay_steps": 0,
    "hybrid_scale": 0.0,
    "levels": 0,
}
_LARGEST = (1 << 64) - 1
"""Of whole numbers: a seed's end."""
_BELOW_ONE = ("adam_beta1", "adam_beta2", "ema_decay", "clip_decay")


TRAINING_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    **SCHEDULES,
    "log_snr": log_snr_schedule,
    "flow": flow_schedule,
}
"""`SCHEDULES`, the one that is even in log-SNR and the path of flow matching: what a configuration may name."""


def typed(entry: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value in its field's type: whole numbers become floats where a float belongs, lists become tuples."""
    if entry.default is dataclasses.MISSING:
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{entry.name} = {shown(value)}; a table of options is expected: {{}} for none"
            )
        for key, each in value.items():
            if isinstance(each, str):
                _check_text(f"{entry.name}.{key}", each)
        return {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
    wanted = type(entry.default)
    if wanted is tuple and isinstance(value, list | tuple):
        return tuple(
            check_number(f"{entry.name}[{k}]", each, 100.0) for k, each in enumerate(value)
        )
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return check_number(entry.name, value, entry.default)
    if type(value) is not wanted:
        raise TypeError(
            f"{entry.name} = {shown(value)} is a {type(value).__name__}; it must be a {wanted.__name__}, "
            f"such as {entry.default!r}"
        )
    if isinstance(value, str):
        _check_text(entry.name, value)
    return value


def _check_text(name: str, value: str) -> None:
    """What a file of a configuration can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} = {value!a} is not UTF-8: rename the file or folder") from error


def check_names(config: "TrainConfig") -> None:
    """Every name is in its registry."""
    registries: dict[str, tuple[str, ...]] = {
        "schedule": tuple(TRAINING_SCHEDULES),
        "parameterization": tuple(PARAMETERIZATIONS),
        "weighting": (*WEIGHTINGS, *TRAINING_WEIGHTINGS),
        "network": (*NETWORKS, *FOREIGN, *((config.network,) if config.runs_code else ())),
        "skip": SKIPS,
        "timesteps": TIMES,
        "importance": IMPORTANCE,
        "variance": VARIANCES,
        "precision": _PRECISIONS,
        "provider": (*PROVIDERS, "auto"),
    }
    for what, known in registries.items():
        if getattr(config, what) not in known:
            raise unknown_name(what, getattr(config, what), known)


def check_ranges(config: "TrainConfig") -> None:
    """Every number lies where it means something."""
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if isinstance(value, int):
            check_count(name, value, int(least), most=_LARGEST)
        elif not value >= least or (value == math.inf and name != "clip_factor"):
            raise ValueError(f"{name} = {value}; it must be finite and at least {least}")
    for half_life in config.ema_half_lives:
        if not 0 < half_life < math.inf:
            raise ValueError(
                f"ema_half_lives = {config.ema_half_lives}; a half-life is a positive number of steps"
            )
    for name in _BELOW_ONE:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} = {value}; a decay lies in [0, 1): nearer 1 is slower")


def constructors(config: "TrainConfig") -> dict[str, Callable[..., Any] | None]:
    """Whose arguments the options of each name are; None where it has none."""
    return {
        "schedule": TRAINING_SCHEDULES[config.schedule],
        "weighting": WEIGHTING_MAKERS.get(config.weighting),
        "skip": Preconditioned if config.skip == "edm" else None,
        "timesteps": BELLS.get(config.timesteps),
        **({} if config.runs_code else {"network": {**NETWORKS, **FOREIGN}[config.network]}),
    }


def check_options(config: "TrainConfig", what: str, constructor: Callable[..., Any] | None) -> None:
    """Every option of `what` is an argument of its constructor."""
    known = _known_options(what, constructor)
    for option in getattr(config, f"{what}_options"):
        if option not in known:
            raise unknown_name(f"option of {what} {getattr(config, what)!r}", option, known)


def _known_options(what: str, constructor: Callable[..., Any] | None) -> set[str]:
    own = set(inspect.signature(constructor).parameters) - _SUPPLIED if constructor else set()
    return own | {"stratified", "uniform_share"} if what == "timesteps" else own


def check_combinations(config: "TrainConfig", schedule: Schedule) -> None:
    """Choices that are right one by one and wrong together, before the first step is paid for.

    Raises:
        ValueError: the two that contradict each other, and which to change.
    """
    space, terminal = config.parameterization, math.isinf(schedule.log_snr[-1].item())
    faults = {
        f"skip = 'edm' with parameterization = {space!r}: EDM's preconditioning predicts x0; set parameterization = \"x0\"": (
            config.skip == "edm" and space != "x0"
        ),
        f"parameterization = {space!r} where alpha_bar[T] = 0 (zero terminal SNR): x_T is pure noise, from which {space} says "
        'nothing about x0, so that no sample could be drawn; set parameterization = "v" or "x0"': (
            terminal and space in ("eps", "score")
        ),
        f"batch_size = {config.batch_size} cannot be cut into accumulation = {config.accumulation} equal parts; choose a "
        "batch_size that is a multiple of it": config.batch_size % config.accumulation != 0,
        f"decay_steps = {config.decay_steps} lies within warmup_steps = {config.warmup_steps}: the learning rate falls after it "
        "has risen; raise decay_steps, or set it to 0": 0
        < config.decay_steps
        <= config.warmup_steps,
        **(_continuous_faults(config, schedule) if config.continuous else {}),
    }
    for message, wrong in faults.items():
        if wrong:
            raise ValueError(message)


def _continuous_faults(config: "TrainConfig", schedule: Schedule) -> dict[str, bool]:
    """What is defined on the steps alone."""
    return {
        "continuous t needs T >= 2 steps to lie between": schedule.T < 2,
        "continuous t with zero terminal SNR: log-SNR cannot be interpolated towards -inf; set zero_terminal_snr = false": (
            math.isinf(schedule.log_snr[-1].item())
        ),
        "weighting = 'elbo' is a difference of neighbouring steps, which continuous t has none of; choose another weighting": (
            config.weighting == "elbo"
        ),
        "parameterization = 'mean' is that of the step before, which continuous t has none of; choose another": (
            config.parameterization == "mean"
        ),
        "variance = 'learned' lies between two steps' variances, which continuous t has none of; set variance = \"fixed\"": (
            config.variance == "learned"
        ),
        "timesteps = 'loss_aware' remembers losses by step; with continuous t choose another": (
            config.timesteps == "loss_aware"
        ),
        "network = 'low-rank' has one map per step and none between: set continuous = false": (
            config.network == "low-rank"
        ),
    }
