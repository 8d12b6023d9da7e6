r"""Noise schedules: how much of the data is left after t of T steps.

The forward process (Ho et al. 2020, eq. 2) multiplies and adds noise step by step,

    q(x_t | x_{t−1}) = N(x_t; √(1−β_t) x_{t−1}, β_t I),                    t = 1 … T,              (1)

so that after t steps only one number matters (their eq. 4),

    ᾱ_t = ∏_{s ≤ t} (1−β_s),      q(x_t | x_0) = N(x_t; √ᾱ_t x_0, (1−ᾱ_t) I),                     (2)

or its logarithmic signal-to-noise ratio (Kingma et al. 2021, eq. 3)

    λ_t = ln ᾱ_t/(1−ᾱ_t),         ᾱ_t = sigmoid(λ_t),      1−ᾱ_t = sigmoid(−λ_t).                 (3)

Index 0 of every table is clean data: β_0 = 0, ᾱ_0 = 1, λ_0 = +∞.

**Numerics.** ᾱ alone loses 1−ᾱ for small t (cancellation), 1−ᾱ alone loses ᾱ for large t. λ keeps both. It does not keep β_t,
which is a difference of neighbours,

    β_t = (1−ᾱ_t)(1 − e^{λ_t − λ_{t−1}}),                                                           (4)

and so β and λ are both stored, each computed without cancellation by its constructor, and all other tables follow from them.

**Posterior variance** (Ho et al. eq. 7): β̃_t = β_t (1−ᾱ_{t−1})/(1−ᾱ_t), with β̃_1 = 0.                                   (5)
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ddpm_ref.validation import (
    check_has_values,
    check_indices,
    check_number,
    check_step_count,
)

_LARGEST_LOG_SNR = 700.0
_LOOKUPS = (
    "beta",
    "alpha_bar",
    "one_minus_alpha_bar",
    "sqrt_alpha_bar",
    "sqrt_one_minus_alpha_bar",
    "log_snr",
    "posterior_variance",
)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete noise schedule with T steps; every table is float64 `[T+1]` on the CPU, index 0 = clean data.

    Built by the constructors in `SCHEDULES`, by `schedule_from_log_snr`, or by `schedule_from_beta`.

    Attributes:
        beta: β_t, the step variances (1), `beta[0] = 0`.
        log_snr: λ_t (3), `+inf` at 0 and `−inf` at T under zero terminal SNR.
        timesteps: int64 `[T]`, strictly increasing: the step indices that the model was trained on (1 … T unless respaced).
    """

    beta: Tensor
    log_snr: Tensor
    timesteps: Tensor
    _on_device: dict[tuple[str, torch.device], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __repr__(self) -> str:
        first, last = self.log_snr[1].item(), self.log_snr[-1].item()
        return f"Schedule(T={self.T}, log_snr={first:.4g} … {last:.4g})"

    @property
    def T(self) -> int:
        """Number of steps of this schedule."""
        return self.beta.shape[0] - 1

    @cached_property
    def alpha_bar(self) -> Tensor:
        """ᾱ_t = ∏_{s≤t}(1−β_s), float64 `[T+1]`; eq. (2)."""
        return torch.sigmoid(self.log_snr)

    @cached_property
    def one_minus_alpha_bar(self) -> Tensor:
        """1−ᾱ_t without cancellation, float64 `[T+1]`; eq. (3)."""
        table = torch.sigmoid(-self.log_snr)
        table[1] = self.beta[1]  # an identity: the posterior at t = 1 is then x_0 to the last bit
        return table

    @cached_property
    def sqrt_alpha_bar(self) -> Tensor:
        """√ᾱ_t, the coefficient of the data, float64 `[T+1]`."""
        return self.alpha_bar.sqrt()

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Tensor:
        """√(1−ᾱ_t), the coefficient of the noise, float64 `[T+1]`."""
        return self.one_minus_alpha_bar.sqrt()

    @cached_property
    def posterior_variance(self) -> Tensor:
        """β̃_t, the variance of q(x_{t−1} | x_t, x_0), float64 `[T+1]`; eq. (5); 0 at 0 and 1."""
        table = torch.zeros_like(self.beta)
        remaining = self.one_minus_alpha_bar
        table[2:] = self.beta[2:] * (remaining[1:-1] / remaining[2:])
        return table

    @cached_property
    def moderate(self) -> bool:
        """β_t, 1−ᾱ_t and any ᾱ_t but 0 are at least 1e-12, so that no ratio of two of their products overflows in float32."""
        signal = self.alpha_bar[self.alpha_bar > 0]
        return all(
            part.min().item() >= 1e-12
            for part in (self.beta[1:], self.one_minus_alpha_bar[1:], signal)
        )

    def lookup(self, table: str, t: Tensor) -> Tensor:
        """Entries of one table at the steps `t` `[B]`: float64 `[B]` on t's device (moved there once).

        Raises:
            ValueError: an unknown table, or a step outside 0 … T (checked where t is on the CPU).
            TypeError: t is not an integer tensor.
        """
        if table not in _LOOKUPS:
            raise ValueError(f"no table {table!r}; tables: {', '.join(_LOOKUPS)}")
        check_indices("t", t)
        values: Tensor = getattr(self, table)
        if t.device.type == "cpu":
            return _entries(values, t.long(), 0)
        key = (table, t.device)
        if key not in self._on_device:
            self._on_device[key] = values.to(t.device)
        return self._on_device[key][t.long()]

    def original_timesteps(self, t: Tensor) -> Tensor:
        """What the model receives: the training-time index `timesteps[t−1]`, int64 `[B]` on t's device.

        Raises:
            ValueError: a step outside 1 … T (checked where t is on the CPU).
            TypeError: t is not an integer tensor.
        """
        check_indices("t", t)
        if t.device.type == "cpu":
            return _entries(self.timesteps, t.long() - 1, 1)
        return self.timesteps.to(t.device)[t.long() - 1]

    def respaced(self, timesteps: Sequence[int] | Tensor) -> "Schedule":
        """The schedule that visits only the chosen steps (Nichol & Dhariwal 2021, section 4).

        β'_k = 1 − ∏_{s_{k−1} < s ≤ s_k}(1−β_s): ᾱ at a chosen step is unchanged.

        Args:
            timesteps: strictly increasing indices of *this* schedule, 1 … T, the last of which is T.

        Returns:
            A `Schedule` with T' = len(timesteps); its `timesteps` map back to the indices of the trained model.
        """
        chosen = _checked_subset(timesteps, self.T)
        edges = torch.cat([chosen.new_zeros(1), chosen])
        log_kept = torch.log1p(-self.beta)
        gaps = [
            math.fsum(log_kept[low + 1 : high + 1].tolist())
            for low, high in itertools.pairwise(edges.tolist())
        ]
        beta = -torch.expm1(torch.tensor([0.0, *gaps], dtype=torch.float64))
        adjacent = torch.cat([chosen.new_zeros(1), edges.diff()]) == 1
        beta = torch.where(
            adjacent, self.beta[edges], beta
        )  # an unmerged step keeps its β bit for bit
        return Schedule(beta, self.log_snr[edges], self.timesteps[chosen - 1])


def _entries(table: Tensor, index: Tensor, first: int) -> Tensor:
    """`table[index]` on the CPU; `gather` refuses the negative indices that brackets count from the end."""
    try:
        return table.gather(0, index)
    except (RuntimeError, IndexError) as error:
        worst = int(index.min() if int(index.min()) < 0 else index.max()) + first
        raise ValueError(
            f"t = {worst} lies outside {first} … {len(table) - 1 + first}, the steps of this table: "
            "code that counts from the end passes T + 1 + t"
        ) from error


def check_schedule(schedule: object) -> None:
    """`schedule` is a `Schedule`: tables of other libraries count from 0 and are float32.

    Raises:
        TypeError: it is something else; the message says how to make one of it.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule is a {type(schedule).__name__}; a ddpm_ref.Schedule is expected: make one with "
            "linear_schedule(T), or with schedule_from_beta(betas) from step variances that you have, "
            "such as those of a diffusers scheduler: schedule_from_beta(scheduler.betas)"
        )


def schedule_from_beta(beta: Sequence[float] | Tensor) -> Schedule:
    """The schedule with given step variances.

    ln ᾱ_t = Σ ln(1−β_s) is accumulated with compensation; λ_t = ln ᾱ_t − ln(1−ᾱ_t) with 1−ᾱ_t = −expm1(ln ᾱ_t).

    Args:
        beta: β_1 … β_T, each in (0, 1); a sequence or a tensor `[T]`, used in float64.

    Raises:
        ValueError: a value outside (0, 1), none at all, or so much noise that ᾱ underflows.
        TypeError: not real numbers.
    """
    table = _table("beta", beta)
    if table.ndim != 1 or table.numel() == 0:
        raise ValueError(f"beta has shape {list(table.shape)}; pass T >= 1 values, shape [T]")
    outside = ~((table > 0) & (table < 1))
    if bool(outside.any()):
        t = outside.tolist().index(True) + 1
        raise ValueError(
            f"beta[{t}] = {table[t - 1].item()!r} lies outside (0, 1): a step variance of 1 erases the data; "
            "lower beta_end (or max_beta), or use rescale_to_zero_terminal_snr for that purpose"
        )
    return _from_log_kept(table, torch.log1p(-table))


def schedule_from_log_snr(log_snr: Sequence[float] | Tensor) -> Schedule:
    """The schedule that passes through given log signal-to-noise ratios; β by eq. (4).

    Args:
        log_snr: λ_1 … λ_T, strictly decreasing, finite (the last may be −inf: zero terminal SNR); used in float64.

    Raises:
        ValueError: not strictly decreasing, NaN, or infinite elsewhere than −inf at the end.
        TypeError: not real numbers.
    """
    given = _table("log_snr", log_snr)
    if given.ndim != 1 or given.numel() == 0:
        raise ValueError(f"log_snr has shape {list(given.shape)}; pass T >= 1 values, shape [T]")
    finite = torch.isfinite(given)
    finite[-1] |= given[-1] == -math.inf
    if not bool(finite.all()):
        t = finite.tolist().index(False) + 1
        raise ValueError(
            f"log_snr[{t}] = {given[t - 1].item()}: values must be finite (only the last may be -inf); "
            "clamp the range, for instance to [-20, 20]"
        )
    extreme = torch.isfinite(given) & (given.abs() > _LARGEST_LOG_SNR)
    if bool(extreme.any()):
        t = extreme.tolist().index(True) + 1
        raise ValueError(
            f"log_snr[{t}] = {given[t - 1].item()}: beyond ±{_LARGEST_LOG_SNR:g} alpha_bar or its complement "
            "underflows to 0; clamp the range, for instance to [-20, 20]"
        )
    rising = given.diff() >= 0
    if bool(rising.any()):
        t = rising.tolist().index(True) + 2
        raise ValueError(
            f"log_snr is not strictly decreasing: {given[t - 2].item()} at t = {t - 1}, then "
            f"{given[t - 1].item()} at t = {t}: noise only grows with t; reverse or sort the sequence"
        )
    table = _with_clean(given, math.inf)
    fallen = -torch.expm1(table[1:] - table[:-1])
    beta = _with_clean(torch.sigmoid(-given) * fallen, 0.0)
    return Schedule(beta, table, torch.arange(1, len(given) + 1))


def linear_schedule(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """β_t = beta_start + (beta_end − beta_start)(t−1)/(T−1); T = 1 gives beta_start (Ho et al. 2020, section 4).

    The end points do not scale with T: fewer steps end with more data left.

    Args:
        T: number of steps, ≥ 1.
        beta_start: β_1, in (0, 1).
        beta_end: β_T, in (0, 1).
    """
    check_step_count(T)
    beta_start = check_number("beta_start", beta_start, 1e-4)
    beta_end = check_number("beta_end", beta_end, 0.02)
    fraction = torch.arange(T, dtype=torch.float64) / max(T - 1, 1)
    return schedule_from_beta(beta_start * (1 - fraction) + beta_end * fraction)


def cosine_schedule(T: int, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """ᾱ_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), β_t capped (Nichol & Dhariwal 2021, eq. 17).

    With u_t = π/2 · (1 − t/T)/(1 + s), f(t) = sin² u_t, and
    β_t = 1 − f(t)/f(t−1) = sin(u_{t−1} − u_t) sin(u_{t−1} + u_t)/sin² u_{t−1}: no cancellation at either end.

    Args:
        T: number of steps, ≥ 1.
        s: offset that keeps β_1 from vanishing, ≥ 0.
        max_beta: cap of β_t, in (0, 1); without it ᾱ_T would be 0.
    """
    check_step_count(T)
    max_beta, s = _checked_cap(max_beta), check_number("s", s, 0.008)
    if not 0 <= s < math.inf:
        raise ValueError(
            f"s = {s}; the offset of the cosine is finite and >= 0: the usual value is 0.008"
        )
    t = torch.arange(1, T + 1, dtype=torch.float64)
    unit = math.pi / (2 * T * (1 + s))
    before, total = unit * (T - t + 1), unit * (2 * (T - t) + 1)
    supplement = unit * (2 * T * s + 2 * t - 1)  # π − total, needed where total nears π
    sine_total = torch.sin(torch.minimum(total, supplement))
    beta = math.sin(unit) * sine_total / torch.sin(before) ** 2
    return schedule_from_beta(beta.clamp(max=max_beta))


def sigmoid_schedule(
    T: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Schedule:
    """ᾱ_t = (σ(x_T) − σ(x_t))/(σ(x_T) − σ(x_0)), x_t = (start + (end − start) t/T)/tau (Jabri et al. 2022).

    From σ(b) − σ(a) = σ(b) σ(−a)(1 − e^{a−b}):
    β_t = σ(x_t)/σ(x_T) · (1 − e^{−δ})/(1 − e^{−(T−t+1)δ}), δ = x_1 − x_0; then capped.

    Args:
        T: number of steps, ≥ 1.
        start: sigmoid argument at t = 0, before division by tau.
        end: sigmoid argument at t = T; greater than start.
        tau: temperature, > 0.
        max_beta: cap of β_t, in (0, 1).
    """
    check_step_count(T)
    max_beta = _checked_cap(max_beta)
    start, end = check_number("start", start, -3.0), check_number("end", end, 3.0)
    tau = check_number("tau", tau, 1.0)
    if not (-math.inf < start < end < math.inf and 0 < tau < math.inf):
        raise ValueError(
            f"start = {start}, end = {end}, tau = {tau}: the rule is start < end and tau > 0, all finite; "
            "the usual values are -3, 3 and 1"
        )
    t = torch.arange(1, T + 1, dtype=torch.float64)
    step = (end - start) / (T * tau)
    x = (start + (end - start) * t / T) / tau
    rise = torch.sigmoid(x) / torch.sigmoid(x[-1])
    beta = rise * (math.expm1(-step) / torch.expm1(-(T - t + 1) * step))
    return schedule_from_beta(beta.clamp(max=max_beta))


def log_snr_schedule(T: int, first: float = 10.0, last: float = -10.0) -> Schedule:
    """λ_t = first + (last − first)(t−1)/(T−1): log-SNR falls evenly; the range is the same for every T ≥ 2.

    Args:
        T: number of steps, ≥ 2.
        first: λ_1, above `last`.
        last: λ_T.
    """
    if T < 2:
        raise ValueError(f"T = {T}; a range from {first} to {last} needs T >= 2 steps")
    return schedule_from_log_snr(torch.linspace(first, last, T, dtype=torch.float64))


def flow_schedule(T: int, terminal: float = 1.0) -> Schedule:
    """λ_t = 2 ln((1−s)/s) at s = terminal · t/T: the path x_s = (1−s)x_0 + sε of flow matching, on the scale of x_t.

    x_t = x_s/√((1−s)² + s²) (Lipman et al. 2023; Liu et al. 2023). With `terminal` = 1 it ends in pure noise, ᾱ_T = 0.

    Args:
        T: number of steps, ≥ 1; ≥ 2 with `terminal` = 1.
        terminal: s at T, in (0, 1].
    """
    check_step_count(T)
    if not 0 < terminal <= 1 or (T == 1 and terminal == 1):
        raise ValueError(
            f"terminal = {terminal} with T = {T}: the time of the flow ends in (0, 1], and a single step short of 1; "
            "the usual value is 1"
        )
    s = terminal * torch.arange(1, T + 1, dtype=torch.float64) / T
    return schedule_from_log_snr(2 * (torch.log1p(-s) - s.log()))


def rescale_to_zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Shift and scale √ᾱ so that ᾱ_T = 0 and ᾱ_1 is unchanged (Lin et al. 2024, algorithm 1).

    √ᾱ'_t = (√ᾱ_t − √ᾱ_T) √ᾱ_1/(√ᾱ_1 − √ᾱ_T). Both factors are sums of the positive falls
    √ᾱ_{t−1} − √ᾱ_t = √ᾱ_{t−1} β_t/(1 + √(1−β_t)), so neither β' nor 1−ᾱ' cancels.

    Raises:
        TypeError: not a `Schedule`.
        ValueError: T = 1, where keeping ᾱ_1 and reaching ᾱ_T = 0 contradict each other, or ᾱ underflows before T.
    """
    check_schedule(schedule)
    if schedule.T == 1:
        raise ValueError(
            "T = 1: a schedule of one step cannot keep alpha_bar[1] and reach 0; use T >= 2"
        )
    beta, root = schedule.beta, schedule.sqrt_alpha_bar
    falls = root[:-1] * beta[1:] / (1 + torch.sqrt(1 - beta[1:]))
    to_go = _with_clean(falls.flip(0), 0.0).cumsum(0).flip(0)  # √ᾱ_t − √ᾱ_T for t = 0 … T
    since_first = torch.cat([falls.new_zeros(1), falls[1:].cumsum(0)])  # √ᾱ_1 − √ᾱ_t for t = 1 … T
    kept = root[1] * to_go[1:] / to_go[1]
    lost = falls[0] + root[1] * since_first / to_go[1]  # 1 − √ᾱ'_t
    log_snr = 2 * kept.log() - (lost * (1 + kept)).log()
    _check_kept(
        log_snr[:-1], "raise beta_end: the last step is too small to leave signal before it"
    )
    drop = falls[1:] / to_go[1:-1]  # 1 − √(1−β'_t)
    new_beta = torch.cat([beta[:2], drop * (2 - drop)])
    return Schedule(new_beta, _with_clean(log_snr, math.inf), schedule.timesteps)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "sigmoid": sigmoid_schedule,
}
"""Constructors by name; each takes T first and has defaults for the rest."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which arithmetic on `dtype` is done: float32 for bf16 and fp16, else itself."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """A per-sample float64 coefficient `[B]`, rounded once to like's compute dtype and shaped `[B, 1, …]`."""
    if coefficient.is_meta and not like.is_meta:
        check_has_values("t", coefficient)
    rounded = coefficient.to(device=like.device, dtype=compute_dtype(like.dtype))
    return rounded.view(-1, *(1,) * (like.ndim - 1))


def _with_clean(values: Tensor, clean: float) -> Tensor:
    """Prepend the entry of clean data, t = 0."""
    return torch.cat([values.new_full((1,), clean), values])


def _from_log_kept(beta: Tensor, log_kept: Tensor) -> Schedule:
    log_alpha_bar = _compensated_cumsum(log_kept)
    log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    _check_kept(log_snr, "lower beta_end (or max_beta), or take fewer steps")
    steps = torch.arange(1, len(beta) + 1)
    return Schedule(_with_clean(beta, 0.0), _with_clean(log_snr, math.inf), steps)


def _check_kept(log_snr: Tensor, fix: str) -> None:
    """ᾱ_t = 0 is for zero terminal SNR alone: elsewhere q(x_{t−1} | x_t, x_0) and every conversion divide by it."""
    lost = log_snr < -_LARGEST_LOG_SNR
    if bool(lost.any()):
        t = lost.tolist().index(True) + 1
        raise ValueError(
            f"alpha_bar[{t}] = exp({log_snr[t - 1].item():.6g}) underflows: the rule is "
            f"ln alpha_bar >= -{_LARGEST_LOG_SNR:g} at every step; {fix}"
        )


def _compensated_cumsum(values: Tensor) -> Tensor:
    """Running sums with the rounding error of every step carried along (Kahan), so that T does not enter the accuracy.

    The error is exact unless the value exceeds the sum so far; but then the sum doubles, so such steps cost a last place in all.
    """
    total, carry, sums = 0.0, 0.0, []
    for value in values.tolist():
        new = total + value
        carry += value - (new - total)
        total = new
        sums.append(total + carry)
    return torch.tensor(sums, dtype=torch.float64)


def _checked_cap(max_beta: float) -> float:
    cap = check_number("max_beta", max_beta, 0.999)
    if not 0 < cap < 1:
        raise ValueError(f"max_beta = {max_beta} lies outside (0, 1): the usual cap is 0.999")
    return cap


def _table(name: str, values: Sequence[float] | Tensor) -> Tensor:
    """Numbers as a float64 tensor of its own on the CPU."""
    try:
        given = torch.as_tensor(values)
        if not given.is_complex() and not given.is_meta:
            return torch.as_tensor(values, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"{name} is a {type(values).__name__} that holds no row of real numbers; pass a list or a tensor of floats"
        ) from error
    raise TypeError(
        f"{name} has dtype {given.dtype} on {given.device}; pass real numbers with values"
    )


def _checked_subset(timesteps: Sequence[int] | Tensor, T: int) -> Tensor:
    try:
        chosen = torch.as_tensor(timesteps)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"timesteps is a {type(timesteps).__name__} that holds no row of step indices 1 … {T}; pass a list of ints"
        ) from error
    if chosen.ndim != 1 or chosen.numel() == 0:
        raise ValueError(
            f"timesteps has shape {list(chosen.shape)}; pass at least one index, ending with T = {T}"
        )
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise TypeError(
            f"timesteps has dtype {chosen.dtype}; step indices are integers: round them first"
        )
    check_has_values("timesteps", chosen)
    chosen = chosen.to(device="cpu", dtype=torch.int64)
    if int(chosen[0]) < 1 or int(chosen[-1]) != T or bool((chosen.diff() <= 0).any()):
        raise ValueError(
            f"timesteps = {chosen.tolist()[:8]}{' …' if len(chosen) > 8 else ''}: they must rise strictly within "
            f"1 … {T} and end with T = {T}, where sampling starts; append {T}"
        )
    return chosen
