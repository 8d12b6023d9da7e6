"""What a training run is: one frozen table of choices, which round-trips through TOML.

Everything that decides a bit of the result is here, so that equal configurations (with equal data, device and library) give
equal runs, and two runs that differ in one entry differ because of it. Choices with parameters of their own come as a
name and a table of options,

    schedule = "cosine"                network = "unet"                    weighting = "min_snr"
    [schedule_options]                 [network_options]                   [weighting_options]
    s = 0.008                          base = 32                           gamma = 5.0

and the options of a name are the arguments of its constructor, so that nothing new has to be declared here.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch

from ddpm_ref.kernels.providers import PROVIDERS
from ddpm_ref.network import FOREIGN, NETWORKS, SKIPS, LearnedSkip, Preconditioned
from ddpm_ref.network.foreign import built, file_factory, is_file_factory
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import WEIGHTINGS, Weighting, min_snr, p2, weight
from ddpm_ref.parameterization import PARAMETERIZATIONS
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    log_snr_schedule,
    rescale_to_zero_terminal_snr,
)
from ddpm_ref.toml import parse_toml, to_toml
from ddpm_ref.validation import unknown_name

__all__ = ["TRAINING_SCHEDULES", "TrainConfig", "parse_toml"]

Option: TypeAlias = (
    "bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
)
Options: TypeAlias = Mapping[str, Option]

PRECISIONS = ("float32", "bfloat16", "float64")
TIMESTEPS = ("uniform", "low-discrepancy")
_SUPPLIED = frozenset({"T", "channels", "shape", "steps", "outputs", "inner", "schedule"})
_WEIGHTING_MAKERS: dict[str, Callable[..., Weighting]] = {"min_snr": min_snr, "p2": p2}
_LEAST = {
    "T": 1,
    "seed": 0,
    "steps": 1,
    "batch_size": 1,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "clip_factor": 1.0,
}
_BELOW_ONE = ("adam_beta1", "adam_beta2", "ema_decay", "clip_decay")


TRAINING_SCHEDULES: dict[str, Callable[..., Schedule]] = {**SCHEDULES, "log_snr": log_snr_schedule}
"""`SCHEDULES` and the one that is even in log-SNR: what a configuration may name."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: name of the data; loaded by `train` if embedded (`digits`), else passed to it.
        seed: of the `NoiseStream` that supplies weights, order, steps t and noise; shared by paired runs.
        schedule: name in `TRAINING_SCHEDULES`; `schedule_options` are its other arguments.
        T: number of diffusion steps.
        zero_terminal_snr: rescale the schedule so that x_T is pure noise (Lin et al. 2024).
        parameterization: what the network predicts.
        weighting: name in `WEIGHTINGS`; `min_snr` and `p2` take `weighting_options`.
        normalize_weights: divide the weights by their mean over t = 1 … T (in the space of the prediction), so that
            the weighting does not set the size of the loss.
        network: name in `NETWORKS` or `FOREIGN`, or `FILE.py:FACTORY`, which **runs that file** when the network is made;
            `network_options` are its other arguments.
        skip: `none`; `learned`, a scalar c(t) times x_t is added to the output; or `edm`, EDM's preconditioning of an `x0` output
            (`ddpm_ref.network.output`), with `skip_options`.
        steps: optimizer steps.
        batch_size: images per step over all processes together.
        learning_rate: of AdamW, reached after the warm-up.
        weight_decay: of AdamW, decoupled.
        adam_beta1: decay of AdamW's first moment.
        adam_beta2: decay of AdamW's second moment.
        warmup_steps: the learning rate rises linearly over so many steps; 0 = at once.
        ema_decay: ceiling of the weight average's decay (`ddpm_ref.optimization`).
        clip_factor: clip gradients longer than this multiple of their own running norm; ≥ 1, `inf` = never.
        clip_decay: decay of that running norm.
        timesteps: `uniform` (independent) or `low-discrepancy` (evenly spaced, one random shift per step).
        precision: `float32`, `bfloat16` (autocast; weights stay float32) or `float64`.
        provider: of `fused_q_sample`; it has no influence on the bits.
        device: where to train.
        schedule_options: see `schedule`.
        weighting_options: see `weighting`.
        network_options: see `network`.
        skip_options: see `skip`.

    Raises:
        ValueError: unknown names, options that the chosen name does not have, values out of range.
        TypeError: a value of the wrong type.
    """

    data: str = "digits"
    seed: int = 0
    schedule: str = "linear"
    T: int = 1000
    zero_terminal_snr: bool = False
    parameterization: str = "eps"
    weighting: str = "simple"
    normalize_weights: bool = False
    network: str = "unet"
    skip: str = "none"
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    warmup_steps: int = 100
    ema_decay: float = 0.998
    clip_factor: float = 3.0
    clip_decay: float = 0.98
    timesteps: str = "uniform"
    precision: str = "float32"
    provider: str = "auto"
    device: str = "cpu"
    schedule_options: Options = field(default_factory=dict)
    weighting_options: Options = field(default_factory=dict)
    network_options: Options = field(default_factory=dict)
    skip_options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _typed(entry, getattr(self, entry.name)))
        _check_names(self)
        _check_ranges(self)
        for what, constructor in _constructors(self).items():
            _check_options(self, what, constructor)
        self._check_by_making()

    def _check_by_making(self) -> None:
        """Let what the configuration describes refuse what it cannot be made of, weights at ᾱ_T = 0 included."""
        NoiseStream(self.seed)
        if self.skip == "edm" and self.parameterization != "x0":
            raise ValueError(
                f"skip = 'edm' with parameterization = {self.parameterization!r}: EDM's preconditioning predicts x0; "
                'set parameterization = "x0"'
            )
        schedule = self.make_schedule()
        last = torch.tensor([schedule.T])
        weight(self.make_weighting(), last, schedule, parameterization=self.parameterization)
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(
                f"device = {self.device!r}: torch knows no such device; cpu and cuda are the usual ones"
            ) from error

    def make_schedule(self) -> Schedule:
        """The noise schedule that the configuration describes."""
        schedule = TRAINING_SCHEDULES[self.schedule](self.T, **self.schedule_options)
        return rescale_to_zero_terminal_snr(schedule) if self.zero_terminal_snr else schedule

    def make_weighting(self) -> Weighting:
        """The weighting, with its options."""
        if not self.weighting_options:
            return WEIGHTINGS[self.weighting]
        return _WEIGHTING_MAKERS[self.weighting](**self.weighting_options)

    def make_network(self, shape: Sequence[int] | int) -> torch.nn.Module:
        """The network for examples of a shape, (C, H, W) or (D,), with PyTorch's own initial weights.

        Args:
            shape: dims of one example; a number of channels alone serves the networks that need nothing more.

        Raises:
            ValueError: options that no network can be made of, or a `FILE.py:FACTORY` that is not there.
        """
        known = (shape,) if isinstance(shape, int) else tuple(shape)
        supplied: dict[str, object] = {"channels": known[0], "steps": self.T, "outputs": known[0]}
        if not isinstance(shape, int):
            supplied["shape"] = known
        network = built(self._network_maker(), supplied, self.network_options)
        if self.skip == "learned":
            return LearnedSkip(network, self.T)
        if self.skip == "edm":
            sigma_data = self.skip_options.get("sigma_data", 0.5)
            return Preconditioned(network, self.make_schedule(), cast(float, sigma_data))
        return network

    @property
    def runs_code(self) -> bool:
        """Whether making the network runs a file of the user's."""
        return is_file_factory(self.network)

    def _network_maker(self) -> Callable[..., torch.nn.Module]:
        if self.runs_code:
            return file_factory(self.network)
        return {**NETWORKS, **FOREIGN}[self.network]

    def to_toml(self) -> str:
        """The configuration as TOML; `from_toml` reads it back unchanged."""
        return to_toml(dataclasses.asdict(self))

    @classmethod
    def from_toml(cls, text: str) -> "TrainConfig":
        """Read a configuration; what is not mentioned keeps its default.

        Raises:
            ValueError: not TOML (the line is shown), a key that does not exist (the nearest are named), a value out of range.
            TypeError: a value of the wrong type.
        """
        return cls.from_entries(parse_toml(text))

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> "TrainConfig":
        """A configuration from names and values, checked like `from_toml`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        for name in entries:
            if name not in known:
                raise unknown_name("configuration key", name, known)
        return cls(**entries)


def _typed(entry: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value in its field's type: whole numbers become floats where a float belongs, lists become tuples."""
    if entry.default is dataclasses.MISSING:
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{entry.name} = {value!r}; a table of options is expected: {{}} for none"
            )
        return {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
    wanted = type(entry.default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise TypeError(
            f"{entry.name} = {value!r} is a {type(value).__name__}; it must be a {wanted.__name__}, "
            f"such as {entry.default!r}"
        )
    return value


def _check_names(config: TrainConfig) -> None:
    registries: dict[str, tuple[str, ...]] = {
        "schedule": tuple(TRAINING_SCHEDULES),
        "parameterization": tuple(PARAMETERIZATIONS),
        "weighting": tuple(WEIGHTINGS),
        "network": (*NETWORKS, *FOREIGN, *((config.network,) if config.runs_code else ())),
        "skip": SKIPS,
        "timesteps": TIMESTEPS,
        "precision": PRECISIONS,
        "provider": (*PROVIDERS, "auto"),
    }
    for what, known in registries.items():
        if getattr(config, what) not in known:
            raise unknown_name(what, getattr(config, what), known)


def _check_ranges(config: TrainConfig) -> None:
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if not value >= least or (value == math.inf and name != "clip_factor"):
            raise ValueError(f"{name} = {value}; it must be finite and at least {least}")
    for name in _BELOW_ONE:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} = {value}; a decay lies in [0, 1): nearer 1 is slower")


def _constructors(config: TrainConfig) -> dict[str, Callable[..., Any] | None]:
    return {
        "schedule": TRAINING_SCHEDULES[config.schedule],
        "weighting": _WEIGHTING_MAKERS.get(config.weighting),
        "skip": Preconditioned if config.skip == "edm" else None,
        **({} if config.runs_code else {"network": {**NETWORKS, **FOREIGN}[config.network]}),
    }


def _check_options(config: TrainConfig, what: str, constructor: Callable[..., Any] | None) -> None:
    known = set(inspect.signature(constructor).parameters) - _SUPPLIED if constructor else set()
    for option in getattr(config, f"{what}_options"):
        if option not in known:
            raise unknown_name(f"option of {what} {getattr(config, what)!r}", option, known)
