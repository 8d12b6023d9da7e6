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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch

from ddpm_ref.config.checks import (
    TRAINING_SCHEDULES,
    WEIGHTING_MAKERS,
    check_combinations,
    check_names,
    check_options,
    check_ranges,
    constructors,
    typed,
)
from ddpm_ref.learned import HYBRID_SCALE
from ddpm_ref.network import (
    FOREIGN,
    NETWORKS,
    LearnedRange,
    LearnedSkip,
    Preconditioned,
)
from ddpm_ref.network.foreign import built, file_factory, is_file_factory
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import TRAINING_WEIGHTINGS, WEIGHTINGS, Weighting, weight
from ddpm_ref.schedule import (
    Schedule,
    rescale_to_zero_terminal_snr,
)
from ddpm_ref.times import Times, make_times
from ddpm_ref.toml import parse_toml, to_toml
from ddpm_ref.validation import unknown_name

__all__ = ["TRAINING_SCHEDULES", "TrainConfig", "parse_toml"]

Option: TypeAlias = (
    "bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
)
Options: TypeAlias = Mapping[str, Option]


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
            object.__setattr__(self, entry.name, typed(entry, getattr(self, entry.name)))
        check_names(self)
        check_ranges(self)
        for what, constructor in constructors(self).items():
            check_options(self, what, constructor)
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
        return WEIGHTING_MAKERS[self.weighting](**self.weighting_options)

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
