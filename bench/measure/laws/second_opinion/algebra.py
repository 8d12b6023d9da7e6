r"""One step of the process in 50 digits, from the fields of a witness alone: the algebra of `bench.measure.laws.second_opinion.check`.

ᾱ_t is exp Σ ln(1−β_s); the posterior is the precision-weighted product of two Gaussians; a conversion goes through x̂0 and ε̂; a weight is
carried from one space to another by the squared slope between them; a bin's mass is a quadrature. None of it is how `ddpm_ref` or its laws compute.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mpmath import mp

Number = Any
"""An mpmath real."""
Witness = Mapping[str, Any]


def _beta(setting: Witness) -> list[Number]:
    """β_1 … β_T by definition."""
    name, T, constants = setting["name"], setting["T"], dict(setting.get("parameters", ()))
    if "beta" in setting:
        return [mp.mpf(value) for value in setting["beta"]]
    if name == "linear":
        low, high = (
            mp.mpf(constants.get(k, v)) for k, v in (("beta_start", "0.0001"), ("beta_end", "0.02"))
        )
        return [low + (high - low) * k / max(T - 1, 1) for k in range(T)]
    curves: dict[str, Callable[..., Number]] = {"cosine": _cosine, "sigmoid": _sigmoid}
    kept = [curves[name](mp.mpf(k) / T, **constants) for k in range(T + 1)]
    return [min(1 - kept[k + 1] / kept[k], mp.mpf("0.999")) for k in range(T)]


def _cosine(u: Number, s: Any = "0.008") -> Number:
    s = mp.mpf(s)
    return (1 + mp.cos(mp.pi * (u + s) / (1 + s))) / 2


def _sigmoid(u: Number, start: float = -3, end: float = 3, tau: float = 1) -> Number:
    """(σ(b) − σ(x))/(σ(b) − σ(a)) for x from a = start/tau to b = end/tau, with σ(x) = (1 + tanh(x/2))/2."""
    low, high = mp.mpf(start) / tau, mp.mpf(end) / tau
    bottom, top = mp.tanh(low / 2), mp.tanh(high / 2)
    return (top - mp.tanh((low + (high - low) * u) / 2)) / (top - bottom)


def bars(setting: Witness) -> list[Number]:
    """ᾱ at 0 and at each visited step."""
    if "log_snr" in setting:
        every = [mp.one, *(1 / (1 + mp.exp(-mp.mpf(v))) for v in setting["log_snr"])]
    else:
        total, every = mp.zero, [mp.one]
        for value in _beta(setting):
            total += mp.log(1 - value)
            every.append(mp.exp(total))
    if setting.get("zero_terminal_snr"):
        every = _rescaled(every)
    return (
        every
        if "timesteps" not in setting
        else [every[0], *(every[k] for k in setting["timesteps"])]
    )


def _rescaled(kept: Sequence[Number]) -> list[Number]:
    """Lin et al. 2024, algorithm 1."""
    first, last = mp.sqrt(kept[1]), mp.sqrt(kept[-1])
    return [mp.one, *((mp.sqrt(k) - last) ** 2 * (first / (first - last)) ** 2 for k in kept[1:])]


def step_of(setting: Witness, t: int) -> "Step":
    """Step t of a setting."""
    kept = bars(setting)
    return Step(kept[t - 1], kept[t], first=t == 1)


def steps_of(setting: Witness) -> "list[Step]":
    """All steps of a setting, t = 1 … T."""
    kept = bars(setting)
    pairs = enumerate(pairwise(kept), 1)
    return [Step(before, now, first=t == 1) for t, (before, now) in pairs]


class Step:
    """One step: signal a, noise s, ᾱ of the step before it, β, and the two Gaussians that meet in the posterior."""

    def __init__(self, before: Number, kept: Number, *, first: bool) -> None:
        self.before, self.kept, self.first = before, kept, first
        self.a, self.s = mp.sqrt(self.kept), mp.sqrt(1 - self.kept)
        self.beta = 1 - self.kept / self.before

    @property
    def variance(self) -> Number:
        """β̃: inverse of the sum of two precisions; 0 at t = 1."""
        if self.first:
            return 0 * self.beta
        return 1 / (1 / (1 - self.before) + (1 - self.beta) / self.beta)

    def mean(self, x0: Number, x_t: Number) -> Number:
        """μ̃: precision-weighted; x0 at t = 1."""
        if self.first:
            return x0
        prior = mp.sqrt(self.before) * x0 / (1 - self.before)
        return self.variance * (prior + mp.sqrt(1 - self.beta) * x_t / self.beta)

    def clean(self, space: str, said: Number, x_t: Number) -> Number:
        """x̂0 from a prediction."""
        if space == "mean":
            nothing = self.mean(0, x_t)
            return (said - nothing) / (self.mean(1, x_t) - nothing)
        rows: dict[str, Callable[[], Number]] = {
            "x0": lambda: said,
            "eps": lambda: (x_t - self.s * said) / self.a,
            "v": lambda: self.a * x_t - self.s * said,
            "score": lambda: (x_t + self.s**2 * said) / self.a,
            "flow": lambda: (x_t + self.s * said) / (self.a + self.s),
        }
        return rows[space]()

    def say(self, space: str, x0: Number, x_t: Number) -> Number:
        """The prediction that means x̂0 = x0."""
        eps = (x_t - self.a * x0) / self.s
        rows: dict[str, Callable[[], Number]] = {
            "x0": lambda: x0,
            "eps": lambda: eps,
            "v": lambda: self.a * eps - self.s * x0,
            "score": lambda: -eps / self.s,
            "flow": lambda: x0 - eps,
            "mean": lambda: self.mean(x0, x_t),
        }
        return rows[space]()

    def weight(self, weighting: str, space: str) -> Number:
        """The factor in that space, from its definition in one space and the slope between the two."""
        slope = self.say(space, 1, 0) - self.say(space, 0, 0)
        eps_slope = self.say("eps", 1, 0) - self.say("eps", 0, 0)
        snr = (self.a / self.s) ** 2
        definitions: dict[str, Callable[[], Number]] = {
            "simple": lambda: eps_slope**2,
            "simple_x0": lambda: self.kept**0,
            "simple_v": lambda: snr + 1,
            "elbo": lambda: self._elbo(),
            "truncated_snr": lambda: max(snr, 1),
            "min_snr": lambda: min(snr, 5),
            "p2": lambda: snr / (1 + snr),
            "edm": lambda: snr + 4,
            "simple_flow": lambda: (self.say("flow", 1, 0) - self.say("flow", 0, 0)) ** 2,
            "min_snr(gamma=1)": lambda: min(snr, 1),
            "p2(k=2, gamma=0.5)": lambda: snr / mp.sqrt(2 + snr),
            "p2(k=0.5, gamma=2)": lambda: snr / (mp.mpf("0.5") + snr) ** 2,
        }
        return definitions[weighting]() / slope**2

    def _elbo(self) -> Number:
        if self.first:
            return 1 / (2 * self.beta)
        return (self.mean(1, 0) - self.mean(0, 0)) ** 2 / (2 * self.variance)

    def reverse(self, variance: str) -> Number:
        """β_t, or β̃_t with β_1 at t = 1."""
        return self.beta if variance == "beta" or self.first else self.variance


# ------------------------------------------------------------------------------------------------ bins


def bin_edges(x: Number, levels: int) -> tuple[Number, Number]:
    """The bin that x lies in; the outer ends are infinite."""
    half = mp.one / (levels - 1)
    place = int(mp.nint((x + 1) / (2 * half)))
    centre = -1 + 2 * half * place
    low = mp.ninf if place == 0 else centre - half
    return low, mp.inf if place == levels - 1 else centre + half


def bin_mass(x: Number, mean: Number, scale: Number, levels: int) -> Number:
    """∫ of N(mean, scale²) over x's bin."""
    low, high = ((edge - mean) / scale for edge in bin_edges(x, levels))
    if low >= 0:
        return _mass_from(low, high - low)
    if high <= 0:
        return _mass_from(-high, high - low)
    return _mass_from(mp.zero, -low) + _mass_from(mp.zero, high)


def _mass_from(near: Number, width: Number) -> Number:
    """∫ of the normal density over [near, near + width], near ≥ 0: φ(near) ∫ e^{−near·u − u²/2} du.

    The exponential falls over a length of 1/(1 + near), in which the pieces of the quadrature are cut; beyond 150 of them nothing is left.
    """
    length = 1 / (1 + near)
    ends = [mp.zero, *(k * length for k in (1, 4, 12, 30, 70, 150) if k * length < width)]
    ends += [width] if width < 150 * length else []
    inner = mp.quad(lambda u: mp.exp(-near * u - u**2 / 2), ends)
    return mp.npdf(near) * inner
