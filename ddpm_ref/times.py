r"""At which t a network is trained: densities over the steps, how points are laid under them, and the weight that undoes them.

The uniform loss of a run is (1/T) Σ_t f_t, f_t the expected weighted error at t. Drawing t with probability p_t instead and weighting by

    1/(T p_t)        gives        Σ_t p_t · f_t/(T p_t) = (1/T) Σ_t f_t,                                           (1)

the same loss with another variance (`importance = "unbiased"`; every p_t must be positive). Without the weight (`"none"`) the loss is Σ p_t f_t:
the density *is* a weighting, T p_t. That loss again can be had from uniform t with the weight T p_t (`"density"`), so that "where t is
drawn" and "how the error is weighted" can be told apart: by (1) the two have equal expected gradients.

**Densities in log-SNR.** λ_t is the place of step t on the axis of log-SNR. A density on that axis gives step t the mass of its cell, which
reaches halfway to its neighbours, the outer cells to ±∞ (towards λ_T = −∞ as far as on the other side of λ_{T−1}):

    name           of what                                      λ                      default        source
    uniform        t                                            –                                     Ho et al. 2020, algorithm 1
    log_normal     ln σ, σ = √(1−ᾱ)/√ᾱ                          −2 ln σ                −1.2, 1.2      Karras et al. 2022, table 1
    logit_normal   ln s/(1−s), s the time of a flow             −2 ln s/(1−s)          0, 1           Esser et al. 2024, eq. 19
    laplace        λ itself                                     λ                      0, 0.5         Hang et al. 2024, table 1
    loss_aware     t, p_t ∝ √(mean of the last 10 losses²)      –                                     Nichol & Dhariwal 2021, eq. 18

Each is mixed with a share of the uniform: p_t ← (1−q) p_t + q/T, which bounds the weight (1) by 1/q.

**Points.** t is the inverse of the distribution function at a point u of [0, 1). Independent points, one per example; or *stratified*
(Kingma et al. 2021, appendix I.1), u_i = (u + i/B) mod 1 with one u per step: every u_i is uniform by itself, so (1) holds for each
position of the batch, and together they cover the density evenly. `low-discrepancy` is `uniform`, stratified.

**Between the steps.** With continuous t the place is τ ∈ [1, T], and λ(τ) is linear between the steps' λ_t. `uniform` is uniform in τ; a density
in log-SNR is cut off at λ_1 and λ_T; the sums of (1) become integrals over τ/(T−1).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.schedule import Schedule
from ddpm_ref.validation import check_name, check_number

IMPORTANCE = ("unbiased", "none", "density")
_SHARES = {"loss_aware": 0.001}  # Nichol & Dhariwal's, so that no step is forgotten
HISTORY = 10
"""Losses of a step that `loss_aware` remembers."""


@dataclass(frozen=True)
class Bell:
    """A density on the axis of log-SNR, symmetric about its centre.

    Attributes:
        center: where it is.
        scale: how wide.
        below: (x − centre)/scale → mass to the left of x; accurate for negative arguments.
        quantile: the inverse of `below` for arguments up to ½.
        height: (x − centre)/scale → density · scale.
    """

    center: float
    scale: float
    below: Callable[[Tensor], Tensor]
    quantile: Callable[[Tensor], Tensor]
    height: Callable[[Tensor], Tensor]

    def between(self, low: Tensor, high: Tensor) -> Tensor:
        """Mass of [low, high] without cancellation in either tail, float64."""
        a, b = (low - self.center) / self.scale, (high - self.center) / self.scale
        right = a + b > 0
        return torch.where(right, self.below(-a) - self.below(-b), self.below(b) - self.below(a))

    def density(self, x: Tensor) -> Tensor:
        """The density at x."""
        return self.height((x - self.center) / self.scale) / self.scale

    def inverse(self, mass: Tensor) -> Tensor:
        """The x with that mass to its left."""
        half = torch.minimum(mass, 1 - mass)
        return self.center + self.scale * self.quantile(half) * torch.where(mass > 0.5, -1.0, 1.0)


def _normal(center: float, scale: float) -> Bell:
    return Bell(
        center,
        scale,
        lambda z: 0.5 * torch.erfc(-z / math.sqrt(2)),  # torch's ndtr is (1 + erf)/2: no left tail
        torch.special.ndtri,
        lambda z: torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi),
    )


def log_normal(mean: float = -1.2, std: float = 1.2) -> Bell:
    """ln σ ~ N(mean, std²) for σ = √(1−ᾱ)/√ᾱ, that is λ ~ N(−2·mean, (2·std)²) (Karras et al. 2022, table 1)."""
    return _normal(-2 * _number("mean", mean, -1.2), 2 * _positive("std", std, 1.2))


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Bell:
    """ln s/(1−s) ~ N(mean, std²) for the time s of x = (1−s)x_0 + sε, that is λ ~ N(−2·mean, (2·std)²) (Esser et al. 2024)."""
    return _normal(-2 * _number("mean", mean, 0.0), 2 * _positive("std", std, 1.0))


def laplace(center: float = 0.0, scale: float = 0.5) -> Bell:
    """λ ~ Laplace(center, scale) (Hang et al. 2024, table 1)."""
    return Bell(
        _number("center", center, 0.0),
        _positive("scale", scale, 0.5),
        lambda z: torch.where(z < 0, 0.5 * torch.exp(z), 1 - 0.5 * torch.exp(-z)),
        lambda mass: torch.log(2 * mass),
        lambda z: 0.5 * torch.exp(-z.abs()),
    )


BELLS: dict[str, Callable[..., Bell]] = {
    "log_normal": log_normal,
    "logit_normal": logit_normal,
    "laplace": laplace,
}
"""Densities in log-SNR by name."""

TIMES = ("uniform", "low-discrepancy", *BELLS, "loss_aware")
"""Ways to draw t by name."""


def cells(schedule: Schedule) -> Tensor:
    """Edges of the steps' cells on the axis of log-SNR, falling, float64 `[T+1]`: cell t lies between entries t−1 and t."""
    places = schedule.log_snr[1:]
    middle = (places[:-1] + places[1:]) / 2
    if schedule.T > 1 and bool(torch.isinf(places[-1])):
        middle[-1] = places[-2] - ((places[-3] - places[-2]) / 2 if schedule.T > 2 else 1.0)
    ends = places.new_tensor([math.inf, -math.inf])
    return torch.cat([ends[:1], middle, ends[1:]])


@dataclass(frozen=True, eq=False)
class Times:
    """One way to draw t on one schedule.

    Attributes:
        schedule: the steps.
        bell: the density in log-SNR; None = uniform, or `given`.
        given: probabilities `[T]` before the mixture, float64.
        stratified: points are laid evenly; else they are independent.
        uniform_share: q.
        importance: `unbiased`, `none` or `density`.
    """

    schedule: Schedule
    bell: Bell | None = None
    given: Tensor | None = None
    stratified: bool = False
    uniform_share: float = 0.0
    importance: str = "unbiased"

    @cached_property
    def density(self) -> Tensor:
        """p_t of the name, float64 `[T]`; sums to 1."""
        T = self.schedule.T
        if self.given is not None:
            return self.mixed(self.given)
        if self.bell is None:
            return torch.full((T,), 1 / T, dtype=torch.float64)
        edges = cells(self.schedule)
        mass = self.bell.between(edges[1:], edges[:-1])
        return self.mixed(mass / mass.sum())

    def mixed(self, mass: Tensor) -> Tensor:
        """(1−q) p + q/T."""
        return (1 - self.uniform_share) * mass + self.uniform_share / self.schedule.T

    @cached_property
    def probabilities(self) -> Tensor:
        """With which probability t = 1 … T is drawn, float64 `[T]`: `density`, or 1/T where that is made a weight."""
        if self.importance == "density":
            return torch.full_like(self.density, 1 / self.schedule.T)
        return self.density

    @cached_property
    def weights(self) -> Tensor:
        """The factor on the loss at t = 1 … T, float64 `[T]`: 1/(T p_t), 1 or T p_t."""
        T = self.schedule.T
        if self.importance == "density":
            return T * self.density
        if self.importance == "none" or self._plain:
            return torch.ones(T, dtype=torch.float64)
        return 1 / (T * self.density)

    @cached_property
    def weighted(self) -> bool:
        """Whether some step counts more than another."""
        return bool((self.weights != 1).any())

    @cached_property
    def effective(self) -> Tensor:
        """Σ over draws of probability × weight, times T: what the expected loss weights f_t with, float64 `[T]`."""
        return self.schedule.T * self.probabilities * self.weights

    def check(self) -> None:
        """Every step is drawn now and then.

        Raises:
            ValueError: p_t = 0 somewhere, so that the weight 1/(T p_t) is infinite.
        """
        if self.importance == "unbiased" and bool((self.density < 1e-300).any()):
            t = int((self.density < 1e-300).nonzero()[0]) + 1
            raise ValueError(
                f"t = {t} has probability {self.density[t - 1].item():.3g} and would have to weigh {math.inf}: mix in "
                'uniform t with uniform_share = 0.01, or set importance = "none"'
            )

    def draw(
        self, stream: NoiseStream, step: int, first: int, count: int, batch_size: int
    ) -> Tensor:
        """t of positions `first` … `first + count − 1` of a batch, int64 `[count]`."""
        T = self.schedule.T
        if self._plain and not self.stratified:
            return stream.integers(
                (count,), low=1, high=T + 1, use=Use.TIMESTEP, step=step, first_index=first
            )
        points = self.points(stream, step, first, count, batch_size)
        return self.at(points)

    @property
    def _plain(self) -> bool:
        """Whether t itself is uniform."""
        return self.importance == "density" or (self.bell is None and self.given is None)

    def points(
        self, stream: NoiseStream, step: int, first: int, count: int, batch_size: int
    ) -> Tensor:
        """u of [0, 1), float64 `[count]`: independent, or evenly spaced with one random shift."""
        if self.stratified:
            shift = stream.uniform((1,), use=Use.TIMESTEP, step=step, dtype=torch.float64)
            position = torch.arange(first, first + count, dtype=torch.float64)
            return (shift + position / batch_size) % 1.0
        return stream.uniform(
            (count,), use=Use.TIMESTEP, step=step, first_index=first, dtype=torch.float64
        )

    def at(self, points: Tensor) -> Tensor:
        """The t that a point stands for: the inverse of the distribution function, int64."""
        T = self.schedule.T
        if self._plain:
            return 1 + (points * T).long().clamp(max=T - 1)
        return inverse(self.probabilities, points)

    # ------------------------------------------------------------ between the steps

    def between(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(τ, λ(τ), weight) of points of [0, 1), float64 each: continuous t.

        The weight is p_uniform/p in log-SNR for `unbiased`, its inverse at uniform τ for `density`, 1 for `none`.
        """
        places = self.schedule.log_snr[1:]
        T = self.schedule.T
        even = 1 + points * (T - 1)
        if self.bell is None:
            return even, self._log_snr(even), torch.ones_like(points)
        if self.importance == "density":
            log_snr = self._log_snr(even)
            return even, log_snr, self._against_uniform(even, log_snr)
        q = self.uniform_share
        by_bell = points >= q
        low, inside = self._mass_below, self._mass_inside
        share = ((points - q) / (1 - q)).clamp(min=0.0)
        # u falls with t, λ rises with mass: from the noisy end up.
        drawn = self.bell.inverse(low + inside * (1 - share)).clamp(places[-1], places[0])
        tau = torch.where(by_bell, self._place(drawn), 1 + points / max(q, 1e-300) * (T - 1))
        tau = tau.clamp(1.0, float(T))
        log_snr = torch.where(by_bell, drawn, self._log_snr(tau))
        if self.importance == "none":
            return tau, log_snr, torch.ones_like(points)
        return tau, log_snr, 1 / self._against_uniform(tau, log_snr)

    @cached_property
    def _mass_below(self) -> Tensor:
        assert self.bell is not None
        places = self.schedule.log_snr[1:]
        return self.bell.between(places.new_tensor(-math.inf), places[-1])

    @cached_property
    def _mass_inside(self) -> Tensor:
        assert self.bell is not None
        places = self.schedule.log_snr[1:]
        return self.bell.between(places[-1], places[0])

    def _against_uniform(self, tau: Tensor, log_snr: Tensor) -> Tensor:
        """(density drawn)/(density of uniform τ), both on the axis of log-SNR."""
        assert self.bell is not None
        places, T = self.schedule.log_snr[1:], self.schedule.T
        slope = (places[:-1] - places[1:])[self._interval(tau)]
        ratio = self.bell.density(log_snr) / self._mass_inside * slope * (T - 1)
        return (1 - self.uniform_share) * ratio + self.uniform_share

    def _interval(self, tau: Tensor) -> Tensor:
        return (tau.long() - 1).clamp(0, self.schedule.T - 2)

    def _log_snr(self, tau: Tensor) -> Tensor:
        places, low = self.schedule.log_snr[1:], self._interval(tau)
        return places[low] + (places[low + 1] - places[low]) * (tau - 1 - low)

    def _place(self, log_snr: Tensor) -> Tensor:
        """τ with λ(τ) = `log_snr`."""
        places = self.schedule.log_snr[1:]
        low = (torch.searchsorted(-places, -log_snr) - 1).clamp(0, self.schedule.T - 2)
        return 1 + low + (log_snr - places[low]) / (places[low + 1] - places[low])


def inverse(probabilities: Tensor, points: Tensor) -> Tensor:
    """t = 1 … T with Σ_{s<t} p_s ≤ u < Σ_{s≤t} p_s, int64: probability p_t for a uniform u."""
    edges = probabilities.cumsum(0)
    edges[-1] = 1.0
    return 1 + torch.searchsorted(edges, points, right=True).clamp(max=len(edges) - 1)


class LossHistory:
    """The last losses at every t, from which `loss_aware` draws (Nichol & Dhariwal 2021, eq. 18).

        p_t ∝ √( (1/10) Σ of the last ten L_t² )        once every t has ten of them; uniform before.                (2)

    L_t is an example's weighted error, without the weight (1). The probabilities of a step depend on earlier steps only, so (1) holds.

    Args:
        T: number of steps.
    """

    def __init__(self, T: int) -> None:
        self.losses = torch.zeros(T, HISTORY, dtype=torch.float64)
        self.seen = torch.zeros(T, dtype=torch.int64)

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Remember the losses of one batch, in its order; both `[B]` on the CPU."""
        for place, value in zip((t - 1).tolist(), losses.tolist(), strict=True):
            self.losses[place, int(self.seen[place]) % HISTORY] = value
            self.seen[place] += 1

    def density(self) -> Tensor:
        """Eq. (2), float64 `[T]`."""
        if bool((self.seen < HISTORY).any()):
            return torch.full((len(self.seen),), 1 / len(self.seen), dtype=torch.float64)
        size = self.losses.square().mean(1).sqrt()
        return size / size.sum() if bool(size.sum() > 0) else torch.ones_like(size) / len(size)


def make_times(
    name: str,
    schedule: Schedule,
    *,
    importance: str = "unbiased",
    stratified: bool = False,
    uniform_share: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Times:
    """The way to draw t that a name stands for; `loss_aware` is uniform until it has seen losses (`with_losses`).

    Args:
        name: in `TIMES`.
        schedule: the steps.
        importance: `unbiased`, `none` or `density`.
        stratified: points are laid evenly over a batch.
        uniform_share: q; None = 0, and 0.001 for `loss_aware`.
        options: of the name's density.

    Raises:
        ValueError: an unknown name or option, a share outside [0, 1), or a weight that would be infinite.
    """
    check_name("timesteps", name, TIMES)
    check_name("importance", importance, IMPORTANCE)
    share = _SHARES.get(name, 0.0) if uniform_share is None else uniform_share
    if not 0 <= share < 1:
        raise ValueError(
            f"uniform_share = {uniform_share}; the share of uniform t lies in [0, 1): 0.01 is usual"
        )
    if name == "loss_aware" and importance != "unbiased":
        raise ValueError(
            f"timesteps = 'loss_aware' with importance = {importance!r}: what is drawn changes with the losses, and the "
            'objective with it; set importance = "unbiased"'
        )
    bell = BELLS[name](**(options or {})) if name in BELLS else None
    spaced = stratified or name == "low-discrepancy"
    times = Times(schedule, bell, None, spaced, share, importance)
    times.check()
    return times


def with_losses(times: Times, history: LossHistory) -> Times:
    """`times` as the losses of earlier steps make it."""
    return replace(times, given=history.density())


def _number(name: str, value: float, usual: float) -> float:
    checked = check_number(name, value, usual)
    if not math.isfinite(checked):
        raise ValueError(f"{name} = {value}; it must be finite: the usual value is {usual}")
    return checked


def _positive(name: str, value: float, usual: float) -> float:
    checked = _number(name, value, usual)
    if checked <= 0:
        raise ValueError(f"{name} = {value}; a width is positive: the usual value is {usual}")
    return checked
