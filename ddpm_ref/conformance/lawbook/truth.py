r"""The laws' own truth: schedules and coefficients in 50 digits, from the definitions, with nothing of the code under test.

Everything that a law compares with is a closed form in the numbers of one step t (a `Row`). They are computed once per
setting with mpmath, where no formula needs to be stable, and rounded to float64 last:

    β_t by the schedule's definition,  ᾱ_t = ∏_{s≤t}(1−β_s),  s²_t = 1−ᾱ_t,  λ_t = ln ᾱ_t/s²_t,         (1)
    β̃_t = β_t s²_{t−1}/s²_t                                           (Ho et al. 2020, eq. 7).         (2)

**A parameterization** is the row (p, q) of prediction = p x_0 + q ε:

    eps (0, 1)   x0 (1, 0)   v (−s, a)   score (0, −1/s)   mean (c_0 + c_t a, c_t s)                    (3)

with a = √ᾱ_t, μ̃ = c_0 x_0 + c_t x_t, c_0 = √ᾱ_{t−1} β_t/s², c_t = √(1−β_t) s²_{t−1}/s². With x_t = a x_0 + s ε any two
of these are two linear equations in (x_0, ε); with δ = a q − s p (their determinant) another row (p', q') is

    prediction' = [(q' a − p' s) prediction + (p' q − q' p) x_t]/δ.                                     (4)

At fixed x_t an error e in x_0 is therefore an error κ e in that space, κ = p − q a/s.                  (5)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
from mpmath import MPContext
from torch import Tensor

from ddpm_ref.conformance.implementation import NotOffered
from ddpm_ref.conformance.setting import Setting

Number = Any
"""An mpmath real of 50 digits."""

MP = MPContext()
MP.dps = 50

PARAMETERIZATIONS = ("eps", "x0", "v", "score", "mean")
WEIGHTINGS = ("simple", "simple_x0", "simple_v", "elbo", "truncated_snr", "min_snr", "p2")
MIN_SNR_GAMMA = 5


@dataclass(frozen=True, eq=False)
class Row:
    """The numbers of one step in 50 digits; `previous_…` belong to the step before it in the setting's list."""

    step: int
    original: int
    beta: Number
    alpha_bar: Number
    rest: Number
    previous_alpha_bar: Number
    previous_rest: Number

    @cached_property
    def a(self) -> Number:
        """√ᾱ_t."""
        return MP.sqrt(self.alpha_bar)

    @cached_property
    def s(self) -> Number:
        """√(1−ᾱ_t)."""
        return MP.sqrt(self.rest)

    @cached_property
    def snr(self) -> Number:
        """ᾱ/(1−ᾱ)."""
        return self.alpha_bar / self.rest

    @cached_property
    def log_snr(self) -> Number:
        """λ_t; −∞ where ᾱ_t = 0."""
        return MP.log(self.snr) if self.alpha_bar > 0 else MP.ninf

    @cached_property
    def posterior_variance(self) -> Number:
        """β̃_t, eq. (2); 0 at t = 1."""
        return self.beta * self.previous_rest / self.rest

    @cached_property
    def clean_part(self) -> Number:
        """c_0, the coefficient of x_0 in μ̃."""
        return MP.sqrt(self.previous_alpha_bar) * self.beta / self.rest

    @cached_property
    def noisy_part(self) -> Number:
        """c_t, the coefficient of x_t in μ̃."""
        return MP.sqrt(1 - self.beta) * self.previous_rest / self.rest

    @cached_property
    def predictions(self) -> dict[str, tuple[Number, Number]]:
        """(p, q) of eq. (3) by parameterization."""
        return {
            "eps": (MP.zero, MP.one),
            "x0": (MP.one, MP.zero),
            "v": (-self.s, self.a),
            "score": (MP.zero, -1 / self.s),
            "mean": (self.clean_part + self.noisy_part * self.a, self.noisy_part * self.s),
        }

    def prediction(self, parameterization: str) -> tuple[Number, Number]:
        """(p, q) of eq. (3)."""
        return self.predictions[parameterization]

    @cached_property
    def conversions(self) -> dict[tuple[str, str], tuple[Number, Number] | None]:
        """Factors of (prediction, x_t) by (source, to), eq. (4); None where the two do not determine the result."""
        names = self.predictions
        return {
            (source, to): self._solved(names[source], names[to]) for source in names for to in names
        }

    def conversion(self, source: str, to: str) -> tuple[Number, Number] | None:
        """Factors of (prediction, x_t), eq. (4)."""
        return self.conversions[source, to]

    def _solved(
        self, given: tuple[Number, Number], wanted: tuple[Number, Number]
    ) -> tuple[Number, Number] | None:
        (p, q), (p2, q2) = given, wanted
        determinant = self.a * q - self.s * p
        if determinant != 0:
            return (
                (q2 * self.a - p2 * self.s) / determinant,
                (p2 * q - q2 * p) / determinant,
            )
        return (q2 / q, MP.zero) if p2 == 0 else None

    def error_factor(self, parameterization: str) -> Number:
        """κ of eq. (5)."""
        p, q = self.prediction(parameterization)
        return p - q * self.a / self.s


@dataclass(frozen=True)
class Truth:
    """All rows of a setting; `rows[k]` is the k-th visited step, `rows[0]` clean data."""

    setting: Setting
    rows: tuple[Row, ...]

    @property
    def T(self) -> int:
        """Number of visited steps."""
        return len(self.rows) - 1

    def steps(self, first: int = 1) -> Tensor:
        """The visited steps from `first` to T, int64."""
        return torch.arange(first, self.T + 1)

    def column(self, quantity: Callable[[Row], Number], t: Tensor, ndim: int = 1) -> Tensor:
        """A coefficient at the steps t, float64 `[B, 1, …]` with `ndim` axes."""
        values = torch.tensor(
            [float(quantity(self.rows[k])) for k in t.tolist()], dtype=torch.float64
        )
        return values.reshape(-1, *[1] * (ndim - 1))

    def table(self, quantity: Callable[[Row], Number]) -> Tensor:
        """A coefficient at t = 1 … T, float64 `[T]`."""
        return torch.tensor([float(quantity(row)) for row in self.rows[1:]], dtype=torch.float64)


def _linear(T: int) -> list[Number]:
    low, high = MP.mpf("1e-4"), MP.mpf("0.02")
    return [low + (high - low) * k / max(T - 1, 1) for k in range(T)]


def _capped_ratios(kept: Sequence[Number]) -> list[Number]:
    cap = MP.mpf("0.999")
    return [min(1 - kept[k] / kept[k - 1], cap) for k in range(1, len(kept))]


def _cosine(T: int) -> list[Number]:
    s = MP.mpf("0.008")
    kept = [MP.cos((MP.mpf(k) / T + s) / (1 + s) * MP.pi / 2) ** 2 for k in range(T + 1)]
    return _capped_ratios(kept)


def _sigmoid(T: int) -> list[Number]:
    def logistic(u: Number) -> Number:
        return 1 / (1 + MP.exp(-u))

    top, bottom = logistic(MP.mpf(3)), logistic(MP.mpf(-3))
    kept = [(top - logistic(MP.mpf(6 * k) / T - 3)) / (top - bottom) for k in range(T + 1)]
    return _capped_ratios(kept)


DEFINITIONS: dict[str, Callable[[int], list[Number]]] = {
    "linear": _linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
}
"""β_1 … β_T by name: Ho et al. 2020, section 4; Nichol & Dhariwal 2021, eq. 17; Jabri et al. 2023, with β ≤ 0.999."""


@cache
def _products(name: str, T: int, beta: tuple[float, ...] | None) -> tuple[Number, ...]:
    """ᾱ_0 … ᾱ_T from the definition, or from the given β."""
    steps = DEFINITIONS[name](T) if beta is None else [MP.mpf(value) for value in beta]
    kept = [MP.one]
    for value in steps:
        kept.append(kept[-1] * (1 - value))
    return tuple(kept)


def _logistic_pairs(log_snr: Sequence[float]) -> list[tuple[Number, Number]]:
    return [(1 / (1 + MP.exp(-MP.mpf(v))), 1 / (1 + MP.exp(MP.mpf(v)))) for v in log_snr]


def _rescaled(kept: Sequence[Number]) -> list[Number]:
    """Lin et al. 2024, algorithm 1: shift √ᾱ so that the last is 0, scale so that the first stays."""
    roots = [MP.sqrt(value) for value in kept[1:]]
    factor = roots[0] / (roots[0] - roots[-1])
    return [MP.one] + [((root - roots[-1]) * factor) ** 2 for root in roots]


@lru_cache(maxsize=64)
def truth(setting: Setting) -> Truth:
    """The rows of a setting; `NotOffered` for a schedule that has neither a known name nor a table."""
    if setting.log_snr is not None:
        pairs = [(MP.one, MP.zero), *_logistic_pairs(setting.log_snr)]
    elif setting.beta is not None or setting.name in DEFINITIONS:
        kept: Sequence[Number] = _products(setting.name, setting.T, setting.beta)
        kept = _rescaled(kept) if setting.zero_terminal_snr else kept
        pairs = [(value, 1 - value) for value in kept]
    else:
        raise NotOffered(
            f"no definition of the schedule {setting.name!r}: give its beta or log_snr"
        )
    chosen = (0, *(setting.timesteps or range(1, len(pairs))))
    rows = [Row(0, 0, MP.zero, MP.one, MP.zero, MP.one, MP.zero)]
    for before, now in pairwise(chosen):
        (previous, previous_rest), (kept_now, rest) = pairs[before], pairs[now]
        beta = (previous - kept_now) / previous
        rows.append(Row(len(rows), now, beta, kept_now, rest, previous, previous_rest))
    return Truth(setting, tuple(rows))


def _elbo_weight(row: Row) -> Number:
    """½(SNR(t−1) − SNR(t)); at t = 1 the decoder of variance β_1: 1/(2β_1)."""
    if row.previous_rest == 0:
        return 1 / (2 * row.beta)
    return (row.previous_alpha_bar / row.previous_rest - row.snr) / 2


def weight_in_x0(weighting: str, row: Row) -> Number:
    """The factor on ‖error of x_0‖², by definition of the weighting."""
    definitions: dict[str, Callable[[], Number]] = {
        "simple": lambda: row.snr,
        "simple_x0": lambda: MP.one,
        "simple_v": lambda: row.snr + 1,
        "elbo": lambda: _elbo_weight(row),
        "truncated_snr": lambda: max(row.snr, MP.one),
        "min_snr": lambda: min(row.snr, MP.mpf(MIN_SNR_GAMMA)),
        "p2": lambda: row.snr / (1 + row.snr),
    }
    return definitions[weighting]()


_ZERO_SNR_LIMIT_IN_EPS = {"simple": 1, "min_snr": 1, "p2": 1}
"""w_x0/SNR as SNR → 0, where that is finite."""


def weight(weighting: str, row: Row, parameterization: str) -> Number | None:
    """The factor on the squared error in that space: w_x0/κ²; its limit at ᾱ = 0, None where that is infinite."""
    if row.alpha_bar > 0 or parameterization not in ("eps", "score"):
        return weight_in_x0(weighting, row) / row.error_factor(parameterization) ** 2
    limit = _ZERO_SNR_LIMIT_IN_EPS.get(weighting)
    scale = row.rest if parameterization == "score" else MP.one
    return None if limit is None else limit * scale


def reverse_variance(variance: str, row: Row) -> Number:
    """β_t or β̃_t; at t = 1 both are the decoder's β_1."""
    return row.beta if variance == "beta" or row.previous_rest == 0 else row.posterior_variance


def gaussian_kl(mean1: Number, var1: Number, mean2: Number, var2: Number) -> Number:
    """KL(N(mean1, var1) ‖ N(mean2, var2)) in nats."""
    return (MP.log(var2 / var1) + (var1 + (mean1 - mean2) ** 2) / var2 - 1) / 2


def bin_log_mass(x: Number, mean: Number, scale: Number, levels: int) -> Number:
    """ln of the normal mass in x's bin; the first and last bin are open."""
    half = MP.one / (levels - 1)
    position = MP.nint((MP.mpf(x) + 1) * (levels - 1) / 2)
    centre = 2 * position / (levels - 1) - 1
    if position == 0:
        return MP.log(_tail(-(centre + half - mean) / scale))
    if position == levels - 1:
        return MP.log(_tail((centre - half - mean) / scale))
    low, high = (centre - half - mean) / scale, (centre + half - mean) / scale
    low, high = (low, high) if low + high > 0 else (-high, -low)
    return MP.log(_tail(low) - _tail(high))


def _tail(z: Number) -> Number:
    """P(Z > z)."""
    return MP.erfc(z / MP.sqrt(2)) / 2


def digits(value: Number) -> str:
    """50 significant digits, for records."""
    return str(MP.nstr(value, 50, strip_zeros=False)) if MP.isfinite(value) else str(value)
