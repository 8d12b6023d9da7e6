r"""Sampling: one reverse step with two variances is ancestral sampling, DDIM, and everything between.

A model's prediction at x_t is a pair (x̂_0, ε̂) with x_t = √ᾱ_t x̂_0 + √(1−ᾱ_t) ε̂. The family of Song et al. 2021 (DDIM, eq. 12) goes on to

    x_{t−1} = √ᾱ_{t−1} x̂_0 + √(1−ᾱ_{t−1}−ρ_t) ε̂ + √σ²_t z,        z ~ N(0, I):                                (1)

ρ_t is the variance that is *removed* from the direction ε̂, σ²_t the variance that is *added* as fresh noise.

    sampler    ρ_t          σ²_t
    ddim       η² β̃_t       η² β̃_t       marginals are kept for every η; η = 0 is deterministic (Song et al. eq. 16)
    ddpm       β̃_t          σ²_t given    Ho et al. algorithm 2: β̃_t, β_t, a table, or learned

With β̃_t = β_t (1−ᾱ_{t−1})/(1−ᾱ_t) and 1−ᾱ_t = β_t + (1−β_t)(1−ᾱ_{t−1}) the coefficient of ε̂ has no difference of close numbers left. For ρ_t = η²β̃_t

    1−ᾱ_{t−1}−ρ_t = (1−ᾱ_{t−1}) [(1−η²) β_t + (1−β_t)(1−ᾱ_{t−1})]/(1−ᾱ_t),   1−β_t = ᾱ_t/ᾱ_{t−1},               (2)

and for η = 1, ρ_t = β̃_t, the mean of (1) is the posterior mean μ̃_t(x_t, x̂_0) (`ddpm_ref.process` eq. 3): a model that knows x_0 walks back along
the forward posterior.

**The last step is free of noise.** At t = 1 the mean of (1) is x̂_0, and it is returned as it is: σ²_1 belongs to the decoder of the
bound, not to a picture.

**Fewer steps.** `steps = K` visits K of the T steps, evenly spaced with 1 and T among them, through `Schedule.respaced`: each formula above holds with the
respaced tables, the model still receives the index that it was trained with.

**Precision.** A step near the clean end changes x by 1e-4 of itself, which bfloat16 rounds away: the state is kept in float32 or wider, and
only what the network is handed and what the caller gets is in their dtype.

**Randomness.** x_T is step 0 and z of the step at index t is step t of `Use.SAMPLER`; samples depend on (seed, index) and not on how they are batched.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ddpm_ref.gaussian import Gaussian
from ddpm_ref.kernels import fast_normal
from ddpm_ref.network import LearnedRange
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert
from ddpm_ref.reverse import (
    VARIANCES,
    Model,
    Variance,
    check_model,
    checked_output,
    evaluation_mode,
    reverse_variance,
)
from ddpm_ref.schedule import Schedule, check_schedule, compute_dtype, expand
from ddpm_ref.validation import (
    check_count,
    check_device,
    check_floating,
    check_name,
    check_number,
    check_same_shape,
    check_shape,
    check_steps,
    shown,
)

SAMPLERS = ("ddpm", "ddim")


@dataclass(frozen=True)
class SamplerRule:
    """Which member of the family (1).

    Attributes:
        sampler: `ddpm` or `ddim`.
        variance: σ²_t of `ddpm`: `posterior`, `beta` or a `[T+1]` table of the schedule that is walked. Not read by `ddim`.
        eta: η of `ddim`, 0 (deterministic, which `None` stands for) … 1 (ancestral). `ddpm` has none: it is η = 1.
        clip: clamp x̂_0 to [−clip, clip], and make ε̂ agree with it; `True` means 1.0, `None` and `False` never.

    Raises:
        ValueError: an unknown sampler or variance, η outside [0, 1] or other than 1 for `ddpm`, or a clip that is not positive.
        TypeError: a value of the wrong type.
    """

    sampler: str = "ddpm"
    variance: Variance = "posterior"
    eta: float | None = None
    clip: float | bool | None = None

    def __post_init__(self) -> None:
        check_name("sampler", self.sampler, SAMPLERS)
        if isinstance(self.variance, str):
            check_name("variance", self.variance, VARIANCES)
        self._check_eta()
        if self.clip is not None:
            check_number("clip", self.clip, 1.0)
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"clip = {self.clip}; pass the bound of the data, 1.0, or None")

    def _check_eta(self) -> None:
        if self.eta is None:
            return
        check_number("eta", self.eta, 0.0)
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"eta = {self.eta}; 0 is deterministic DDIM, 1 is ancestral: 0 <= eta <= 1"
            )
        if self.sampler == "ddpm" and self.eta != 1:
            raise ValueError(
                f"eta = {self.eta} with sampler 'ddpm', which is eta = 1 and has no other: "
                "leave eta out, or pass sampler='ddim'"
            )

    @property
    def limit(self) -> float | None:
        """The bound that x̂_0 is clamped to, or None."""
        return None if self.clip is None or self.clip is False else float(self.clip)

    @property
    def share(self) -> float:
        """ρ_t/β̃_t: 1 for `ddpm`, η² for `ddim`."""
        return 1.0 if self.sampler == "ddpm" else (self.eta or 0.0) ** 2

    def added_variance(self, schedule: Schedule) -> Tensor:
        """σ²_t, float64 `[T+1]`, with σ²_1 = 0."""
        if self.sampler == "ddim":
            return self.share * schedule.posterior_variance
        table = reverse_variance(self.variance, schedule)
        table[:2] = 0.0
        return table


def step(
    prediction: Tensor,
    x_t: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    parameterization: str,
    rule: SamplerRule,
) -> Gaussian:
    """The distribution of x_{t−1} given a prediction at x_t; eq. (1).

    Args:
        prediction: network output `[B, *dims]`.
        x_t: noisy data, in the same shape.
        t: steps 1 … T of `schedule`, integer `[B]`.
        schedule: the schedule that is walked (respaced or not).
        parameterization: what `prediction` is.
        rule: the sampler.

    Returns:
        `Gaussian` in x_t's shape and dtype; `log_var` is −inf where nothing is added: always at t = 1, everywhere for η = 0.

    Raises:
        ValueError: shapes that differ, t outside 1 … T, or a prediction that says nothing of x_0 (`eps` at zero
            terminal SNR).
        TypeError: a tensor, a schedule or a name of another type.
    """
    check_floating(prediction=prediction, x_t=x_t)
    check_same_shape(prediction=prediction, x_t=x_t)
    check_schedule(schedule)
    check_steps(t, schedule.T, x_t.shape[0])
    dtype = compute_dtype(x_t.dtype)
    x0, eps = _pair(prediction.to(dtype), x_t.to(dtype), t, schedule, parameterization, rule)
    on_x0 = schedule.lookup("sqrt_alpha_bar", t - 1)
    mean = expand(on_x0, x0) * x0 + expand(_direction(t, schedule, rule.share), x0) * eps
    added = rule.added_variance(schedule).to(t.device)[t.long()]
    log_var = expand(added.log(), x_t).to(x_t.dtype).expand_as(x_t)
    return Gaussian(mean.to(x_t.dtype), log_var)


def sample(
    model: Model,
    shape: Sequence[int],
    schedule: Schedule,
    *,
    parameterization: str,
    sampler: str = "ddpm",
    variance: Variance = "posterior",
    steps: int | Sequence[int] | None = None,
    eta: float | None = None,
    clip: float | bool | None = None,
    seed: int = 0,
    first_index: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw samples `[B, *dims]` from a model, called in eval mode without gradient.

    Args:
        model: `model(x_t, t) -> prediction`, or a pair with a log-variance, which `ddpm` then uses.
        shape: `[B, *dims]`.
        schedule: the schedule that the model was trained on.
        parameterization: what the model predicts.
        sampler: `ddpm` or `ddim`.
        variance: of `ddpm`: `posterior` (β̃_t), `beta` (β_t) or a `[T'+1]` table, T' = steps walked.
        steps: how many steps to walk, evenly spaced, or the steps themselves, ending with T; None = all.
        eta: noise of `ddim`, from 0 (none, the default) to 1 (as `ddpm` with the posterior variance). `ddpm` takes no other than 1.
        clip: clamp the predicted x_0 to [−clip, clip]; `True` = 1.0.
        seed: of the noise.
        first_index: index of the first sample: `first_index=64` continues a batch of 64.
        device: default: the model's, else the CPU.
        dtype: of the samples and of what the model is handed; the state between steps is float32 or wider. Default: the model's, else float32.

    Raises:
        ValueError: unknown names, a schedule that cannot be walked so, an eta that the sampler does not use, a model output of
            another shape.
        TypeError: an argument or a model output of the wrong type.
    """
    walk = sample_steps(
        model,
        shape,
        schedule,
        parameterization=parameterization,
        rule=SamplerRule(sampler, variance, eta, clip),
        steps=steps,
        seed=seed,
        first_index=first_index,
        device=device,
        dtype=dtype,
    )
    for x_t in walk:
        last = x_t
    return last


def sample_steps(
    model: Model,
    shape: Sequence[int],
    schedule: Schedule,
    *,
    parameterization: str,
    rule: SamplerRule,
    steps: int | Sequence[int] | None = None,
    seed: int = 0,
    first_index: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """The walk of `sample`: yields x_T, then x at each step walked, the last of which is the sample (T' + 1 tensors)."""
    check_model(model)
    check_schedule(schedule)
    check_name("parameterization", parameterization, PARAMETERIZATIONS)
    sizes = check_shape(shape)
    check_count("first_index", first_index, least=0)
    walked = schedule if steps is None else schedule.respaced(walked_steps(steps, schedule.T))
    device, dtype = _place(model, device, dtype)
    model = _on(model, walked) if steps is not None else model
    noise = _SamplerNoise(NoiseStream(seed), sizes, first_index, device, compute_dtype(dtype))
    return _walk(model, walked, noise, parameterization, rule, dtype)


def _on(model: Model, walked: Schedule) -> Model:
    """A network that learned its variance between the ends of one chain, on another with fewer steps; others as they are."""
    inner = model.module if isinstance(model, AveragedModel) else model
    return inner.on(walked) if isinstance(inner, LearnedRange) else model


@dataclass(frozen=True)
class _SamplerNoise:
    stream: NoiseStream
    shape: tuple[int, ...]
    first_index: int
    device: torch.device
    dtype: torch.dtype

    def at(self, step: int) -> Tensor:
        return fast_normal(
            self.stream,
            self.shape,
            step=step,
            first_index=self.first_index,
            use=Use.SAMPLER,
            device=self.device,
            dtype=self.dtype,
        )


def _walk(
    model: Model,
    schedule: Schedule,
    noise: _SamplerNoise,
    parameterization: str,
    rule: SamplerRule,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    x_t = noise.at(0)
    yield x_t.to(dtype)
    for index in range(schedule.T, 0, -1):
        t = torch.full((noise.shape[0],), index, dtype=torch.int64, device=noise.device)
        with evaluation_mode(model):
            # A copy: a network may begin with a layer that works in place.
            output = model(x_t.to(dtype, copy=True), schedule.original_timesteps(t))
        prediction, learned = checked_output(output, x_t)
        reached = step(
            prediction.to(x_t.dtype), x_t, t, schedule, parameterization=parameterization, rule=rule
        )
        log_var = reached.log_var
        if learned is not None and rule.sampler == "ddpm" and index > 1:
            log_var = learned.to(x_t.dtype)
        quiet = index == 1 or (learned is None and rule.added_variance(schedule)[index] == 0)
        x_t = reached.mean if quiet else reached.mean + torch.exp(0.5 * log_var) * noise.at(index)
        yield x_t.to(dtype)


def _pair(
    prediction: Tensor,
    x_t: Tensor,
    t: Tensor,
    schedule: Schedule,
    parameterization: str,
    rule: SamplerRule,
) -> tuple[Tensor, Tensor]:
    """(x̂_0, ε̂), which together make x_t also where x̂_0 was clipped."""
    x0 = convert(prediction, x_t, t, schedule, source=parameterization, to="x0")
    if rule.limit is None:
        return x0, convert(prediction, x_t, t, schedule, source=parameterization, to="eps")
    x0 = x0.clamp(-rule.limit, rule.limit)
    return x0, convert(x0, x_t, t, schedule, source="x0", to="eps")


def _direction(t: Tensor, schedule: Schedule, share: float) -> Tensor:
    """Coefficient of ε̂ in eq. (1) by eq. (2), float64 `[B]`; 0 at t = 1."""
    before = schedule.lookup("one_minus_alpha_bar", t - 1)
    kept = schedule.lookup("alpha_bar", t) / schedule.lookup("alpha_bar", t - 1)
    left = (1 - share) * schedule.lookup("beta", t) + kept * before
    return (before * left / schedule.lookup("one_minus_alpha_bar", t)).sqrt()


def walked_steps(steps: object, T: int) -> Sequence[int]:
    """The steps that `sample` walks, rising: those given, or K of 1 … T, evenly spaced with 1 and T among them (K = 1: T alone).

    Raises:
        ValueError: K outside 1 … T.
    """
    if isinstance(steps, Iterable) and not isinstance(steps, str):
        return cast(Sequence[int], steps)
    count = check_count("steps", steps, least=0)
    if not 1 <= count <= T:
        raise ValueError(
            f"steps = {shown(count)}; a schedule of T = {T} can be walked in 1 … {T} steps"
        )
    spaced = torch.linspace(T, 1, count, dtype=torch.float64).round().long()
    chosen: list[int] = spaced.flip(0).tolist()
    return chosen


def _place(
    model: object, device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    """Where samples are made: as asked for, else where and as the model's weights are."""
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if device is None:
        device = weight.device if weight is not None else "cpu"
    if dtype is None:
        dtype = weight.dtype if weight is not None else torch.float32
    return check_device(device), dtype
