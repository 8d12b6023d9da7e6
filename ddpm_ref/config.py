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
from ddpm_ref.learned import HYBRID_SCALE
from ddpm_ref.network import (
    FOREIGN,
    NETWORKS,
    SKIPS,
    LearnedRange,
    LearnedSkip,
    Preconditioned,
)
from ddpm_ref.network.foreign import built, file_factory, is_file_factory
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import TRAINING_WEIGHTINGS, WEIGHTINGS, Weighting, edm, min_snr, p2, weight
from ddpm_ref.parameterization import PARAMETERIZATIONS
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    flow_schedule,
    log_snr_schedule,
    rescale_to_zero_terminal_snr,
)
from ddpm_ref.times import BELLS, IMPORTANCE, TIMES, Times, make_times
from ddpm_ref.toml import parse_toml, to_toml
from ddpm_ref.validation import check_number, unknown_name

__all__ = ["TRAINING_SCHEDULES", "TrainConfig", "parse_toml"]

Option: TypeAlias = (
    "bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
)
Options: TypeAlias = Mapping[str, Option]

PRECISIONS = ("float32", "bfloat16", "float64")
VARIANCES = ("fixed", "learned")
_SUPPLIED = frozenset({"T", "channels", "shape", "steps", "outputs", "inner", "schedule"})
_WEIGHTING_MAKERS: dict[str, Callable[..., Weighting]] = {"min_snr": min_snr, "p2": p2, "edm": edm}
_LEAST = {
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
_BELOW_ONE = ("adam_beta1", "adam_beta2", "ema_decay", "clip_decay")


TRAINING_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    **SCHEDULES,
    "log_snr": log_snr_schedule,
    "flow": flow_schedule,
}
"""`SCHEDULES`, the one that is even in log-SNR and the path of flow matching: what a configuration may name."""


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
        weighting: name in `WEIGHTINGS` or `TRAINING_WEIGHTINGS`; `min_snr`, `p2` and `edm` take `weighting_options`.
        normalize_weights: divide the weights by their mean over t = 1 … T (in the space of the prediction), so that
            the weighting does not set the size of the loss.
        network: name in `NETWORKS` or `FOREIGN`, or `FILE.py:FACTORY`, which **runs that file** when the network is made;
            `network_options` are its other arguments.
        skip: `none`; `learned`, a scalar c(t) times x_t is added to the output; or `edm`, EDM's preconditioning of an `x0` output
            (`ddpm_ref.network.output`), with `skip_options`.
        steps: optimizer steps.
        batch_size: images per step over all processes together.
        accumulation: backward passes per step, each on an equal part of the batch: less memory, the same step up to rounding.
        learning_rate: of AdamW, reached after the warm-up.
        weight_decay: of AdamW, decoupled.
        adam_beta1: decay of AdamW's first moment.
        adam_beta2: decay of AdamW's second moment.
        warmup_steps: the learning rate rises linearly over so many steps; 0 = at once.
        decay_steps: after the warm-up it falls along half a cosine to 0 at this step; 0 = it stays.
        ema_decay: ceiling of the weight average's decay (`ddpm_ref.optimization`).
        ema_half_lives: of further averages, in steps; `Step.averages` holds them.
        clip_factor: clip gradients longer than this multiple of their own running norm; ≥ 1, `inf` = never.
        clip_decay: decay of that running norm.
        timesteps: how t is drawn, a name in `ddpm_ref.times.TIMES`: `uniform` (independent), `low-discrepancy` (evenly spaced, one random
            shift per step), a density in log-SNR, or `loss_aware`. `timesteps_options` are the density's own, `stratified`, `uniform_share`.
        importance: `unbiased` weighs each example by 1/(T p_t), so that the loss is that of uniform t; `none` does not; `density` draws
            uniform t and weighs by T p_t.
        continuous: t between the steps, at a log-SNR interpolated between theirs.
        variance: `fixed`; or `learned`, in a second output of the network, by the hybrid loss (`ddpm_ref.learned`).
        hybrid_scale: λ of the hybrid loss.
        levels: grey levels of the data, for the hybrid loss at t = 1; 0 = continuous data.
        precision: `float32`, `bfloat16` (autocast; weights stay float32) or `float64`.
        compile: run the network through `torch.compile`; `Step.compile_seconds` says what that took.
        channels_last: keep feature maps with the channels side by side, which some convolutions prefer.
        provider: of `fused_q_sample`; it has no influence on the bits.
        device: where to train.
        schedule_options: see `schedule`.
        weighting_options: see `weighting`.
        network_options: see `network`.
        skip_options: see `skip`.
        timesteps_options: see `timesteps`.

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
    accumulation: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    warmup_steps: int = 100
    decay_steps: int = 0
    ema_decay: float = 0.998
    ema_half_lives: tuple[float, ...] = ()
    clip_factor: float = 3.0
    clip_decay: float = 0.98
    timesteps: str = "uniform"
    importance: str = "unbiased"
    continuous: bool = False
    variance: str = "fixed"
    hybrid_scale: float = HYBRID_SCALE
    levels: int = 0
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    provider: str = "auto"
    device: str = "cpu"
    schedule_options: Options = field(default_factory=dict)
    weighting_options: Options = field(default_factory=dict)
    network_options: Options = field(default_factory=dict)
    skip_options: Options = field(default_factory=dict)
    timesteps_options: Options = field(default_factory=dict)

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
        schedule = self.make_schedule()
        last = torch.tensor([schedule.T])
        weight(self.make_weighting(), last, schedule, parameterization=self.parameterization)
        self.make_times(schedule)
        check_combinations(self, schedule)
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
            return {**WEIGHTINGS, **TRAINING_WEIGHTINGS}[self.weighting]
        return _WEIGHTING_MAKERS[self.weighting](**self.weighting_options)

    def make_times(self, schedule: Schedule) -> Times:
        """How t is drawn on that schedule."""
        options = dict(self.timesteps_options)
        share = options.pop("uniform_share", None)
        return make_times(
            self.timesteps,
            schedule,
            importance=self.importance,
            stratified=bool(options.pop("stratified", False)),
            uniform_share=None if share is None else float(cast(float, share)),
            options=options,
        )

    def make_network(self, shape: Sequence[int] | int) -> torch.nn.Module:
        """The network for examples of a shape, (C, H, W) or (D,), with PyTorch's own initial weights.

        Args:
            shape: dims of one example; a number of channels alone serves the networks that need nothing more.

        Raises:
            ValueError: options that no network can be made of, or a `FILE.py:FACTORY` that is not there.
        """
        known = (shape,) if isinstance(shape, int) else tuple(shape)
        outputs = 2 * known[0] if self.variance == "learned" else known[0]
        supplied: dict[str, object] = {"channels": known[0], "steps": self.T, "outputs": outputs}
        if not isinstance(shape, int):
            supplied["shape"] = known
        network = built(self._network_maker(), supplied, self.network_options)
        if self.skip == "learned":
            network = LearnedSkip(network, self.T)
        if self.skip == "edm":
            sigma_data = self.skip_options.get("sigma_data", 0.5)
            network = Preconditioned(network, self.make_schedule(), cast(float, sigma_data))
        if self.variance == "learned":
            network = LearnedRange(network, self.make_schedule(), self.T)
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
    if wanted is tuple and isinstance(value, list | tuple):
        return tuple(
            check_number(f"{entry.name}[{k}]", each, 100.0) for k, each in enumerate(value)
        )
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
        "weighting": (*WEIGHTINGS, *TRAINING_WEIGHTINGS),
        "network": (*NETWORKS, *FOREIGN, *((config.network,) if config.runs_code else ())),
        "skip": SKIPS,
        "timesteps": TIMES,
        "importance": IMPORTANCE,
        "variance": VARIANCES,
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
    for half_life in config.ema_half_lives:
        if not 0 < half_life < math.inf:
            raise ValueError(
                f"ema_half_lives = {config.ema_half_lives}; a half-life is a positive number of steps"
            )
    for name in _BELOW_ONE:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} = {value}; a decay lies in [0, 1): nearer 1 is slower")


def _constructors(config: TrainConfig) -> dict[str, Callable[..., Any] | None]:
    return {
        "schedule": TRAINING_SCHEDULES[config.schedule],
        "weighting": _WEIGHTING_MAKERS.get(config.weighting),
        "skip": Preconditioned if config.skip == "edm" else None,
        "timesteps": BELLS.get(config.timesteps),
        **({} if config.runs_code else {"network": {**NETWORKS, **FOREIGN}[config.network]}),
    }


def _check_options(config: TrainConfig, what: str, constructor: Callable[..., Any] | None) -> None:
    known = _known_options(what, constructor)
    for option in getattr(config, f"{what}_options"):
        if option not in known:
            raise unknown_name(f"option of {what} {getattr(config, what)!r}", option, known)


def _known_options(what: str, constructor: Callable[..., Any] | None) -> set[str]:
    own = set(inspect.signature(constructor).parameters) - _SUPPLIED if constructor else set()
    return own | {"stratified", "uniform_share"} if what == "timesteps" else own


def check_combinations(config: TrainConfig, schedule: Schedule) -> None:
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


def _continuous_faults(config: TrainConfig, schedule: Schedule) -> dict[str, bool]:
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
