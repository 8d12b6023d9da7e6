r"""The laws' own truth: schedules and coefficients in 50 digits, from the definitions, with nothing of the code under test.

Everything that a law compares with is a closed form in the numbers of one step t (a `Row`). They are computed once per
setting with mpmath, where no formula needs to be stable, and rounded to float64 last:

    β_t by the schedule's definition,  ᾱ_t = ∏_{s≤t}(1−β_s),  s²_t = 1−ᾱ_t,  λ_t = ln ᾱ_t/s²_t,         (1)
    β̃_t = β_t s²_{t−1}/s²_t                                           (Ho et al. 2020, eq. 7).         (2)

**A parameterization** is the row (p, q) of prediction = p x_0 + q ε:

    eps (0, 1)   x0 (1, 0)   v (−s, a)   score (0, −1/s)   mean (c_0 + c_t a, c_t s)   flow (1, −1)      (3)

with a = √ᾱ_t, μ̃ = c_0 x_0 + c_t x_t, c_0 = √ᾱ_{t−1} β_t/s², c_t = √(1−β_t) s²_{t−1}/s². With x_t = a x_0 + s ε any two
of these are two linear equations in (x_0, ε); with δ = a q − s p (their determinant, δ' that of another row (p', q'))

    prediction' = [δ' prediction + (p' q − q' p) x_t]/δ.                                                (4)

At fixed x_t an error e in x_0 is therefore an error κ e in that space, κ = p − q a/s = −δ/s.           (5)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
from mpmath import MPContext
from torch import Tensor

from ddpm_ref.conformance.agreement.bounded import (
    Bounded,
    at_least,
    at_most,
    either,
    given,
    log,
    sqrt,
    stored,
)
from ddpm_ref.conformance.implementation import NotOffered
from ddpm_ref.conformance.setting import Setting

Number = Any
"""An mpmath real of 50 digits."""

MP = MPContext()
MP.dps = 50

PARAMETERIZATIONS = ("eps", "x0", "v", "score", "mean", "flow")
VARIANCES = ("posterior", "beta")
_MIN_SNR_GAMMA = 5


@dataclass(frozen=True, eq=False)
class Row:
    """The numbers of one step in 50 digits, or of many steps as `Bounded` columns; `previous_…` belong to the step before.

    Every formula below is a sum of terms of one sign, a product or a quotient: nothing cancels in it, but for a − s between v and flow.
    """

    step: Number
    original: int
    beta: Number
    alpha_bar: Number
    rest: Number
    previous_alpha_bar: Number
    previous_rest: Number
    first: "bool | Tensor" = False

    @cached_property
    def a(self) -> Number:
        """√ᾱ_t."""
        return sqrt(self.alpha_bar)

    @cached_property
    def s(self) -> Number:
        """√(1−ᾱ_t)."""
        return sqrt(self.rest)

    @cached_property
    def snr(self) -> Number:
        """ᾱ/(1−ᾱ)."""
        return self.alpha_bar / self.rest

    @cached_property
    def log_snr(self) -> Number:
        """λ_t; −∞ where ᾱ_t = 0."""
        if isinstance(self.snr, Bounded):
            return log(self.snr)
        return MP.log(self.snr) if self.alpha_bar > 0 else MP.ninf

    @cached_property
    def posterior_variance(self) -> Number:
        """β̃_t, eq. (2); 0 at t = 1."""
        return self.beta * self.previous_rest / self.rest

    @cached_property
    def clean_part(self) -> Number:
        """c_0, the coefficient of x_0 in μ̃."""
        return sqrt(self.previous_alpha_bar) * self.beta / self.rest

    @cached_property
    def noisy_part(self) -> Number:
        """c_t, the coefficient of x_t in μ̃."""
        return sqrt(1 - self.beta) * self.previous_rest / self.rest

    @cached_property
    def predictions(self) -> dict[str, tuple[Number, Number]]:
        """(p, q) of eq. (3) by parameterization."""
        return {
            "eps": (0, 1),
            "x0": (1, 0),
            "v": (-self.s, self.a),
            "score": (0, -1 / self.s),
            "mean": (self.clean_part + self.noisy_part * self.a, self.noisy_part * self.s),
            "flow": (1, -1),
        }

    def prediction(self, parameterization: str) -> tuple[Number, Number]:
        """(p, q) of eq. (3)."""
        return self.predictions[parameterization]

    def determinant(self, parameterization: str) -> Number:
        """δ = a q − s p of eq. (4), simplified by a² + s² = 1 and the definition of c_0: a sum of terms of one sign."""
        found: dict[str, Callable[[], Number]] = {
            "eps": lambda: self.a,
            "x0": lambda: -self.s,
            "v": lambda: self.a * self.a + self.s * self.s,
            "score": lambda: -self.a / self.s,
            "mean": lambda: -self.s * self.clean_part,
            "flow": lambda: -(self.a + self.s),
        }
        return found[parameterization]()

    def determines(self, source: str, to: str) -> bool:
        """A prediction in `source` says what it is in `to`: not where ᾱ = 0 and it is nothing but the noise, which is x_t."""
        noise = ("eps", "score")
        return source not in noise or to in noise or bool(self.alpha_bar > 0)

    def conversion(self, source: str, to: str) -> tuple[Number, Number] | None:
        """Factors of (prediction, x_t), eq. (4); None where the two do not determine the result. For one step."""
        return self.factors(source, to) if self.determines(source, to) else None

    def factors(self, source: str, to: str) -> tuple[Number, Number]:
        """As `conversion`, where it is known to exist."""
        found: tuple[Number, Number]
        found = self.once(("factors", source, to), lambda: self._solved(source, to))
        return found

    def once(self, key: tuple[Any, ...], computed: Callable[[], Number]) -> Number:
        """What is computed from these numbers alone, the first time that it is asked for."""
        if key not in self._kept:
            self._kept[key] = computed()
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[tuple[Any, ...], Number]:
        return {}

    def _solved(self, source: str, to: str) -> tuple[Number, Number]:
        (p, q), (p2, q2) = self.prediction(source), self.prediction(to)
        if source in ("eps", "score") and to in ("eps", "score"):
            return q2 / q, 0 * self.s
        determinant = self.determinant(source)
        return self.determinant(to) / determinant, (p2 * q - q2 * p) / determinant

    def error_factor(self, parameterization: str) -> Number:
        """κ of eq. (5)."""
        return self.once(
            ("error", parameterization), lambda: -self.determinant(parameterization) / self.s
        )


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def _stored(self) -> tuple[Bounded, ...]:
        """β, ᾱ, 1−ᾱ and the two of the step before, `[T+1]`, each with how far its rounding moves it (`_movements`)."""
        values = torch.tensor(
            [
                [
                    float(v)
                    for v in (r.beta, r.alpha_bar, r.rest, r.previous_alpha_bar, r.previous_rest)
                ]
                for r in self.rows
            ],
            dtype=torch.float64,
        ).T
        originals = torch.tensor([row.original for row in self.rows], dtype=torch.float64)
        before = torch.cat([torch.zeros(1).double(), originals[:-1]])
        return tuple(map(stored, values, _movements(values, originals, before)))

    @cached_property
    def fragility(self) -> float:
        """The largest relative movement of a table entry, the roundings of all T steps added up."""
        moved = torch.stack([v.bound[1] / v.value.abs().clamp(min=1e-300) for v in self._stored])
        return float(moved.max()) * float(max(self.T, 1) ** 0.5)

    def columns(self, t: Tensor, ndim: int = 1) -> Row:
        """The numbers of the steps t `[B]` as `Bounded` columns `[B, 1, …]` with `ndim` axes."""
        key = (tuple(t.tolist()), ndim)
        if key not in self._columns:
            self._columns[key] = self._columns_of(t, (-1, *[1] * (ndim - 1)))
        return self._columns[key]

    @cached_property
    def _columns(self) -> dict[tuple[tuple[int, ...], int], Row]:
        return {}

    def _columns_of(self, t: Tensor, shape: tuple[int, ...]) -> Row:
        parts = [
            Bounded(v.value[t].reshape(shape), v.bound[:, t].reshape(2, *shape))
            for v in self._stored
        ]
        first = (t == 1).reshape(shape)
        beta, kept, rest, previous, previous_rest = parts
        return Row(given(t.reshape(shape)), 0, beta, kept, rest, previous, previous_rest, first)

    def table(self, quantity: Callable[[Row], Number]) -> Tensor:
        """A coefficient at t = 1 … T, float64 `[T]`."""
        return torch.tensor([float(quantity(row)) for row in self.rows[1:]], dtype=torch.float64)

    def by_original(self, *quantities: Callable[[Row], Number]) -> Tensor:
        """Coefficients by original step, `[len(quantities), …]`; NaN at steps that the chain does not visit, so that whoever asks there is found out."""
        originals = torch.tensor([row.original for row in self.rows[1:]])
        tables = torch.full(
            (len(quantities), int(originals[-1]) + 1), math.nan, dtype=torch.float64
        )
        for place, quantity in enumerate(quantities):
            tables[place, originals] = self.table(quantity)
        return tables


def at_steps(tables: Tensor, t: Tensor) -> Tensor:
    """Columns of `Truth.by_original` at original steps `t`, `[…, B]`.

    Raises:
        KeyError: a step below 0, which would be counted from the end.
    """
    if bool((t < 0).any()):
        raise KeyError(int(t.min()))
    return tables[:, t]


def _movements(values: Tensor, originals: Tensor, before: Tensor) -> Tensor:
    """Relative movements of β, ᾱ, 1−ᾱ, ᾱ_{t−1}, 1−ᾱ_{t−1} in roundings of themselves, as tables are usually formed.

    ᾱ_t is a running product: t roundings of 1−β and t of the product, which add up like a random walk. 1−ᾱ is its difference from 1, and β one
    minus the ratio of two neighbours, each with an absolute error of a rounding of 1 or two.
    """
    beta, kept, rest, previous, previous_rest = values

    def products(t: Tensor) -> Tensor:
        return torch.where(t > 0, 2 + 2 * t.sqrt(), 0.0)

    def over(numerator: Tensor, table: Tensor) -> Tensor:
        return torch.where(table > 0, numerator / table, 0.0)

    now, then = products(originals), products(before)
    return torch.stack(
        [
            1 + over(2 * (1 - beta), beta),
            now,
            1 + over(now * kept, rest),
            then,
            1 + over(then * previous, previous_rest),
        ]
    )


def _linear(T: int, beta_start: str = "1e-4", beta_end: str = "0.02") -> list[Number]:
    low, high = MP.mpf(beta_start), MP.mpf(beta_end)
    return [low + (high - low) * k / max(T - 1, 1) for k in range(T)]


def _capped_ratios(kept: Sequence[Number]) -> list[Number]:
    cap = MP.mpf("0.999")
    return [min(1 - kept[k] / kept[k - 1], cap) for k in range(1, len(kept))]


def _cosine(T: int, s: Any = "0.008") -> list[Number]:
    s = MP.mpf(s)
    kept = [MP.cos((MP.mpf(k) / T + s) / (1 + s) * MP.pi / 2) ** 2 for k in range(T + 1)]
    return _capped_ratios(kept)


def _sigmoid(T: int, start: float = -3, end: float = 3, tau: float = 1) -> list[Number]:
    def logistic(u: Number) -> Number:
        return 1 / (1 + MP.exp(-u))

    first, last = MP.mpf(start) / tau, MP.mpf(end) / tau
    top, bottom = logistic(last), logistic(first)
    points = [first + (last - first) * k / T for k in range(T + 1)]
    kept = [(top - logistic(x)) / (top - bottom) for x in points]
    return _capped_ratios(kept)


DEFINITIONS: dict[str, Callable[..., list[Number]]] = {
    "linear": _linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
}
"""β_1 … β_T by name: Ho et al. 2020, section 4; Nichol & Dhariwal 2021, eq. 17; Jabri et al. 2023, with β ≤ 0.999."""


@cache
def _products(
    name: str, T: int, beta: tuple[float, ...] | None, parameters: tuple[tuple[str, float], ...]
) -> tuple[Number, ...]:
    """ᾱ_0 … ᾱ_T from the definition, or from the given β."""
    steps = (
        DEFINITIONS[name](T, **dict(parameters))
        if beta is None
        else [MP.mpf(value) for value in beta]
    )
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
        kept: Sequence[Number] = _products(
            setting.name, setting.T, setting.beta, setting.parameters
        )
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
        numbers = (beta, kept_now, rest, previous, previous_rest)
        rows.append(Row(len(rows), now, *numbers, first=previous_rest == 0))
    return Truth(setting, tuple(rows))


def _elbo_weight(row: Row) -> Number:
    """½(SNR(t−1) − SNR(t)) = ᾱ_{t−1} β_t/(2 (1−ᾱ_{t−1})(1−ᾱ_t)); at t = 1 the decoder of variance β_1: 1/(2β_1)."""
    return either(
        row.first,
        lambda: 1 / (2 * row.beta),
        lambda: row.previous_alpha_bar * row.beta / (2 * row.previous_rest * row.rest),
    )


_WEIGHTS_IN_X0: dict[str, Callable[[Row], Number]] = {
    "simple": lambda row: row.snr,
    "simple_x0": lambda row: 1 + 0 * row.rest,
    "simple_v": lambda row: row.snr + 1,
    "elbo": _elbo_weight,
    "truncated_snr": lambda row: at_least(row.snr, 1),
    "min_snr": lambda row: at_most(row.snr, _MIN_SNR_GAMMA),
    "p2": lambda row: row.snr / (1 + row.snr),
    "edm": lambda row: row.snr + 4,
    "simple_flow": lambda row: (1 + sqrt(row.snr)) ** 2,
}
"""The factor on ‖error of x_0‖² by weighting: the definitions."""

WEIGHTINGS = tuple(_WEIGHTS_IN_X0)

OTHER_WEIGHTS_IN_X0: dict[str, Callable[[Row], Number]] = {
    "min_snr(gamma=1)": lambda row: at_most(row.snr, 1),
    "p2(k=2, gamma=0.5)": lambda row: row.snr / sqrt(2 + row.snr),
    "p2(k=0.5, gamma=2)": lambda row: 4 * row.snr / (1 + 2 * row.snr) ** 2,
}
"""Weightings with other constants, for those who declare `other_parameters`."""


def weight_in_x0(weighting: str, row: Row) -> Number:
    """The factor on ‖error of x_0‖², by definition of the weighting."""
    return {**_WEIGHTS_IN_X0, **OTHER_WEIGHTS_IN_X0}[weighting](row)


_ZERO_SNR_LIMIT_IN_EPS = {"simple": 1, "min_snr": 1, "p2": 1}
"""w_x0/SNR as SNR → 0, where that is finite."""


def weight(weighting: str, row: Row, parameterization: str) -> Number | None:
    """The factor on the squared error in that space: w_x0/κ²; its limit at ᾱ = 0, None where that is infinite. For one step."""
    if row.alpha_bar > 0 or parameterization not in ("eps", "score"):
        return weight_in_x0(weighting, row) / row.error_factor(parameterization) ** 2
    limit = _ZERO_SNR_LIMIT_IN_EPS.get(weighting)
    scale = row.rest if parameterization == "score" else MP.one
    return None if limit is None else limit * scale


def reverse_variance(variance: str, row: Row) -> Number:
    """β_t or β̃_t; at t = 1 both are the decoder's β_1."""
    if variance == "beta":
        return row.beta
    return either(row.first, lambda: row.beta, lambda: row.posterior_variance)


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
