r"""Which formula belongs to which weighting in which space: the table that people ask for, computed.

One weighting is one objective. Written on the squared error of x0 with the factor w, the same objective reads in any
other space with w divided by the square of that space's Jacobian, because each error is the x0 error times a number that depends
on t only (S = ᾱ/(1−ᾱ) is the signal-to-noise ratio):

    eps:   ε̂ − ε = −√S (x̂0 − x0)                      factor w/S                               (1)
    v:     v̂ − v = −√(S+1) (x̂0 − x0)                  factor w/(S+1)                           (2)
    score: ŝ − s = √(S(S+1)) (x̂0 − x0)                factor w/(S(S+1))                        (3)
    mean:  μ̂ − μ = √ᾱ_{t−1} β/(1−ᾱ) (x̂0 − x0)        factor w/c,  c = ᾱ_{t−1} β²/(1−ᾱ)²       (4)

The formulas below are those quotients, simplified by hand and written as Python expressions, so that a test can evaluate every
one of them with 50 digits and compare it with `ddpm_ref.weight`. The values in a printed table never come from these strings: they
come from `ddpm_ref.weight`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpm_ref.objective import Weighting
    from ddpm_ref.schedule import Schedule

SPACES = ("x0", "eps", "v", "score", "mean")

SYMBOLS = {
    "S": "alpha_bar[t] / (1 - alpha_bar[t]), the signal-to-noise ratio",
    "S_prev": "the signal-to-noise ratio at t - 1",
    "beta": "beta[t]",
    "c": "alpha_bar[t-1] * beta[t]**2 / (1 - alpha_bar[t])**2, the square of the posterior mean's coefficient of x0",
    "posterior_variance": "beta[t] * (1 - alpha_bar[t-1]) / (1 - alpha_bar[t])",
    "d": "(log_snr[t-1] - log_snr[t+1])/2, one-sided at 1 and T: the step in log SNR that turns a density into a factor under uniform t",
    "normal": "normal(x, mean, deviation), the normal density",
}

FORMULAS: dict[str, dict[str, str]] = {
    "simple": {
        "x0": "S",
        "eps": "1",
        "v": "S/(S + 1)",
        "score": "1/(S + 1)",
        "mean": "S/c",
    },
    "simple_x0": {
        "x0": "1",
        "eps": "1/S",
        "v": "1/(S + 1)",
        "score": "1/(S*(S + 1))",
        "mean": "1/c",
    },
    "simple_v": {
        "x0": "S + 1",
        "eps": "1 + 1/S",
        "v": "1",
        "score": "1/S",
        "mean": "(S + 1)/c",
    },
    "elbo": {
        "x0": "(S_prev - S)/2",
        "eps": "(S_prev/S - 1)/2",
        "v": "(S_prev - S)/(2*(S + 1))",
        "score": "(S_prev - S)/(2*S*(S + 1))",
        "mean": "1/(2*posterior_variance)",
    },
    "truncated_snr": {
        "x0": "max(S, 1)",
        "eps": "max(1, 1/S)",
        "v": "max(S, 1)/(S + 1)",
        "score": "max(S, 1)/(S*(S + 1))",
        "mean": "max(S, 1)/c",
    },
    "min_snr": {
        "x0": "min(S, gamma)",
        "eps": "min(1, gamma/S)",
        "v": "min(S, gamma)/(S + 1)",
        "score": "min(S, gamma)/(S*(S + 1))",
        "mean": "min(S, gamma)/c",
    },
    "p2": {
        "x0": "S/(k + S)**gamma",
        "eps": "1/(k + S)**gamma",
        "v": "S/((S + 1)*(k + S)**gamma)",
        "score": "1/((S + 1)*(k + S)**gamma)",
        "mean": "S/(c*(k + S)**gamma)",
    },
}

FIRST_STEP = {
    "elbo": {
        "x0": "1/(2*beta)",
        "eps": "1/(2*(1 - beta))",
        "v": "1/2",
        "score": "beta/(2*(1 - beta))",
        "mean": "1/(2*beta)",
    },
}
"""Formulas that differ at t = 1, where the bound's term is the decoder's and its variance is β₁."""


_QUOTIENT = {
    "x0": "{}",
    "eps": "{}/S",
    "v": "{}/(S + 1)",
    "score": "{}/(S*(S + 1))",
    "mean": "{}/c",
}


@dataclass(frozen=True)
class WeightRow:
    """One weighting in one space: its formula and its values at the steps that were asked for.

    Attributes:
        weighting: name in `ddpm_ref.WEIGHTINGS`.
        space: the space whose squared error the factor multiplies.
        formula: Python expression in the symbols of `SYMBOLS` (plus the weighting's own parameters).
        values: the factor at each step; None where it is undefined or infinite.
        reasons: beside each None why, else an empty text.
        source: where it comes from.
    """

    weighting: str
    space: str
    formula: str
    values: tuple[float | None, ...]
    reasons: tuple[str, ...]
    source: str = ""


def formula(weighting: str, space: str) -> str:
    """The formula of one weighting in one space; a weighting without a row of its own gets the general quotient."""
    rows = FORMULAS.get(weighting)
    if rows is not None:
        return rows[space]
    from bench.measure.laws.published_weightings import PUBLISHED

    if weighting in PUBLISHED:
        return _QUOTIENT[space].format(PUBLISHED[weighting].formula)
    general = {"x0": "w", "eps": "w/S", "v": "w/(S + 1)", "score": "w/(S*(S + 1))", "mean": "w/c"}
    return general[space]


def weight_rows(schedule: "Schedule", steps: Sequence[int]) -> list[WeightRow]:
    """Every registered and every published weighting in every space at `steps`, through `ddpm_ref.weight`."""
    from bench.measure.laws.published_weightings import PUBLISHED
    from ddpm_ref.objective import WEIGHTINGS

    return [
        _row(weighting, space, schedule, steps)
        for weighting in (*WEIGHTINGS.values(), *PUBLISHED.values())
        for space in SPACES
    ]


def _row(
    weighting: "Weighting", space: str, schedule: "Schedule", steps: Sequence[int]
) -> WeightRow:
    cells = [_value(weighting, space, schedule, step) for step in steps]
    return WeightRow(
        weighting=weighting.name,
        space=space,
        formula=formula(weighting.name, space),
        values=tuple(value for value, _ in cells),
        reasons=tuple(reason for _, reason in cells),
        source=weighting.source,
    )


def _value(
    weighting: "Weighting", space: str, schedule: "Schedule", step: int
) -> tuple[float | None, str]:
    """One cell; where zero terminal SNR leaves the factor undefined, None and the library's reason."""
    import math

    import torch

    from ddpm_ref.objective import weight

    try:
        value = weight(weighting, torch.tensor([step]), schedule, parameterization=space).item()
    except ValueError as error:
        return None, str(error)
    if math.isfinite(value):
        return value, ""
    return None, f"{value} at t = {step}"
