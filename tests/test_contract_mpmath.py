"""Every value that the notation table promises, against fifty digits: 1e-12 for all schedules, T from 1 to 4000.

The formulas below are written from the papers and use nothing of `ddpm_ref`. They need no care about cancellation:
fifty digits survive it.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from mpmath import MPContext
from torch import Tensor

from ddpm_ref.conformance.lawbook import truth
from ddpm_ref.gaussian import discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.objective import WEIGHTINGS, weight
from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)
from ddpm_ref.terms import prior_kl

MP = MPContext()
MP.dps = 50
TOLERANCE = 1e-12
LENGTHS = (1, 2, 3, 17, 250, 1000, 4000)
SPACES = ("eps", "x0", "v", "score", "mean")


def sigmoid(u: Any) -> Any:
    return 1 / (1 + MP.exp(-u))


def linear(T: int) -> list[Any]:
    low, high = MP.mpf(1e-4), MP.mpf(0.02)
    return [low if T == 1 else low + (high - low) * k / (T - 1) for k in range(T)]


def from_fractions(kept: Sequence[Any]) -> list[Any]:
    return [min(1 - kept[k] / kept[k - 1], MP.mpf(0.999)) for k in range(1, len(kept))]


def cosine(T: int) -> list[Any]:
    s = MP.mpf(0.008)
    return from_fractions(
        [MP.cos((MP.mpf(k) / T + s) / (1 + s) * MP.pi / 2) ** 2 for k in range(T + 1)]
    )


def logistic(T: int) -> list[Any]:
    return from_fractions(
        [sigmoid(MP.mpf(3)) - sigmoid(-3 + MP.mpf(6) * k / T) for k in range(T + 1)]
    )


def of_the_laws(name: str) -> Callable[[int], list[Any]]:
    return lambda T: [MP.mpf(beta) for beta in truth.DEFINITIONS[name](T)]


DEFINITIONS = {name: of_the_laws(name) for name in truth.DEFINITIONS} | {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": logistic,
}
"""A schedule without a formula of this file's own is compared with the second formula that the laws have of it."""


@cache
def exact(name: str, T: int, terminal: bool = False) -> list[tuple[Any, Any]]:
    """(β_t, ᾱ_t) for t = 0 … T."""
    kept = [MP.one]
    for beta in DEFINITIONS[name](T):
        kept.append(kept[-1] * (1 - beta))
    if terminal:
        root = [MP.sqrt(k) for k in kept]
        kept = [MP.one] + [((r - root[-1]) * root[1] / (root[1] - root[-1])) ** 2 for r in root[1:]]
    return [(MP.zero, MP.one)] + [(1 - kept[k] / kept[k - 1], kept[k]) for k in range(1, T + 1)]


def ours(name: str, T: int, terminal: bool = False) -> Schedule:
    schedule = SCHEDULES[name](T)
    return rescale_to_zero_terminal_snr(schedule) if terminal else schedule


def relative(measured: Tensor, truth: Sequence[Any]) -> float:
    """Largest error relative to the truth; an exact 0 must be met exactly."""
    worst = 0.0
    for value, right in zip(measured.tolist(), truth, strict=True):
        if right == 0:
            assert value == 0
        else:
            worst = max(worst, float(abs((MP.mpf(value) - right) / right)))
    return worst


def log_snr(kept: Any) -> Any:
    return MP.log(kept / (1 - kept)) if 0 < kept < 1 else (MP.inf if kept else MP.ninf)


def tilde(rows: list[tuple[Any, Any]], t: int) -> Any:
    (beta, kept), (_, before) = rows[t], rows[t - 1]
    return beta * (1 - before) / (1 - kept)


CASES = [(name, T, False) for name in DEFINITIONS for T in LENGTHS]
CASES += [(name, T, True) for name in DEFINITIONS for T in (2, 17, 1000)]


@pytest.mark.parametrize(("name", "T", "terminal"), CASES)
def test_tables(name: str, T: int, terminal: bool) -> None:
    schedule, rows = ours(name, T, terminal), exact(name, T, terminal)
    assert relative(schedule.beta, [beta for beta, _ in rows]) <= TOLERANCE
    assert relative(schedule.alpha_bar, [kept for _, kept in rows]) <= TOLERANCE
    assert relative(schedule.one_minus_alpha_bar, [1 - kept for _, kept in rows]) <= TOLERANCE
    variances = [MP.zero] + [tilde(rows, t) for t in range(1, T + 1)]
    assert relative(schedule.posterior_variance, variances) <= TOLERANCE
    for value, (_, kept) in zip(schedule.log_snr.tolist(), rows, strict=True):
        right = log_snr(kept)
        assert value == float(right) or abs(MP.mpf(value) - right) <= TOLERANCE


def test_every_named_schedule_is_checked() -> None:
    assert set(SCHEDULES) == set(DEFINITIONS)


@pytest.mark.parametrize("T", [2, 17, 1000, 4000])
def test_from_log_snr(T: int) -> None:
    ramp = torch.linspace(9.0, -11.0, T, dtype=torch.float64)
    schedule = schedule_from_log_snr(ramp)
    kept = [MP.one] + [sigmoid(MP.mpf(v)) for v in ramp.tolist()]
    beta = [MP.zero] + [1 - kept[k] / kept[k - 1] for k in range(1, T + 1)]
    assert relative(schedule.alpha_bar, kept) <= TOLERANCE
    assert relative(schedule.one_minus_alpha_bar, [1 - k for k in kept]) <= TOLERANCE
    assert relative(schedule.beta, beta) <= TOLERANCE


@pytest.mark.parametrize("name", list(DEFINITIONS))
def test_respaced(name: str) -> None:
    T, chosen = 1000, [1, 2, 3, 11, 97, 499, 500, 997, 1000]
    rows = exact(name, T)
    schedule = SCHEDULES[name](T).respaced(chosen)
    kept = [MP.one] + [rows[t][1] for t in chosen]
    beta = [MP.zero] + [1 - kept[k] / kept[k - 1] for k in range(1, len(kept))]
    assert relative(schedule.alpha_bar, kept) <= TOLERANCE
    assert relative(schedule.one_minus_alpha_bar, [1 - k for k in kept]) <= TOLERANCE
    assert relative(schedule.beta, beta) <= TOLERANCE


def in_x0(weighting: str, rows: list[tuple[Any, Any]], t: int) -> Any:
    kept = rows[t][1]
    snr = kept / (1 - kept)
    if weighting == "elbo":
        if t == 1:
            return 1 / (2 * rows[1][0])
        before = rows[t - 1][1]
        return (before / (1 - before) - snr) / 2
    return {
        "simple": snr,
        "simple_x0": MP.one,
        "simple_v": snr + 1,
        "truncated_snr": max(snr, MP.one),
        "min_snr": min(snr, MP.mpf(5)),
        "p2": snr / (1 + snr),
    }[weighting]


def squared_factor(space: str, rows: list[tuple[Any, Any]], t: int) -> Any:
    """(error in that space / error in x0)² at fixed x_t, from each formula solved for x0."""
    beta, kept = rows[t]
    rest, before = 1 - kept, rows[t - 1][1]
    return {
        "x0": MP.one,
        "eps": kept / rest,  # ε = (x_t − √ᾱ x0)/√(1−ᾱ)
        "v": 1 / rest,  # v = (√ᾱ x_t − x0)/√(1−ᾱ)
        "score": kept / rest**2,  # score = (√ᾱ x0 − x_t)/(1−ᾱ)
        "mean": before * beta**2 / rest**2,  # μ̃ = √ᾱ_{t−1} β/(1−ᾱ) x0 + …
    }[space]


@pytest.mark.parametrize(
    ("name", "T"), [(n, T) for n in DEFINITIONS for T in (1, 2, 17, 1000, 4000)]
)
def test_weights(name: str, T: int) -> None:
    rows, schedule = exact(name, T), ours(name, T)
    steps = sorted({1, min(2, T), (T + 1) // 2, max(T - 1, 1), T})
    t = torch.tensor(steps)
    for weighting in WEIGHTINGS:
        for space in SPACES:
            truth = [in_x0(weighting, rows, k) / squared_factor(space, rows, k) for k in steps]
            measured = weight(weighting, t, schedule, parameterization=space)
            assert relative(measured, truth) <= TOLERANCE, (weighting, space)


def test_weight_in_x0_that_is_in_circulation() -> None:
    """T = 1000 linear, t = 2: exactly 2726.3, where 0.50 and 1136.7 are in use."""
    schedule = linear_schedule(1000)
    measured = weight("elbo", torch.tensor([2]), schedule, parameterization="x0")
    assert measured.item() == pytest.approx(2726.3, abs=0.05)
    assert relative(measured, [in_x0("elbo", exact("linear", 1000), 2)]) <= TOLERANCE


@pytest.mark.parametrize("gap", [1e-14, 1e-10, 1e-5, 0.3, 3.0])
@pytest.mark.parametrize("shift", [0.0, 1e-8, 0.7])
def test_kl(gap: float, shift: float) -> None:
    log_vars = (-7.0 + gap, -7.0)
    d = MP.mpf(log_vars[0]) - MP.mpf(log_vars[1])
    truth = (MP.expm1(d) - d + MP.mpf(shift) ** 2 * MP.exp(-MP.mpf(log_vars[1]))) / 2
    inputs = [
        torch.tensor([v], dtype=torch.float64) for v in (shift, log_vars[0], 0.0, log_vars[1])
    ]
    assert relative(gaussian_kl(*inputs), [truth]) <= TOLERANCE


def mass(x: float, mean: float, log_scale: float, levels: int) -> Any:
    sigma, half = MP.exp(MP.mpf(log_scale)), MP.one / (levels - 1)
    centre = 2 * MP.nint((MP.mpf(x) + 1) * (levels - 1) / 2) / (levels - 1) - 1
    low = MP.ninf if x == -1 else (centre - half - MP.mpf(mean)) / sigma
    high = MP.inf if x == 1 else (centre + half - MP.mpf(mean)) / sigma
    if low > 0:  # the upper tail, where both values of the CDF are 1 to fifty digits
        low, high = -high, -low
    return MP.log((MP.erfc(-high / MP.sqrt(2)) - MP.erfc(-low / MP.sqrt(2))) / 2)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 1.0])
def test_decoder_out_to_twelve_sigma(levels: int, log_scale: float) -> None:
    """Absolute 1e-12 near the mean; relative in the tails, where the log is of order −72."""
    worst = 0.0
    for sigmas in (-12.0, -5.0, -1.0, 0.0, 0.3, 2.0, 8.0, 12.0):
        for k in sorted({0, 1, levels // 2, levels - 1}):
            x = 2.0 * k / (levels - 1) - 1
            mean = x + sigmas * math.exp(log_scale)
            truth = mass(x, mean, log_scale, levels)
            arguments = [torch.tensor([v], dtype=torch.float64) for v in (x, mean, log_scale)]
            value = discretized_gaussian_log_likelihood(*arguments, levels).item()
            # (x − mean)/σ inherits the rounding of its inputs, 1e-16/σ, times the slope |z| of the logarithm
            condition = 2.2e-16 * math.exp(-log_scale) * (1 + abs(sigmas))
            allowed = TOLERANCE * max(1.0, abs(float(truth))) + condition
            worst = max(worst, float(abs(value - truth)) / allowed)
    assert worst <= 1


@pytest.mark.parametrize(("name", "T"), [(n, T) for n in DEFINITIONS for T in (1, 17, 1000, 4000)])
def test_prior_kl(name: str, T: int) -> None:
    """Relative to its size, which is 1e-10 nats and less for the cosine schedule."""
    kept = exact(name, T)[-1][1]
    x0 = torch.tensor([[0.0, 0.0], [0.25, -1.0], [1e-5, 1e-5]], dtype=torch.float64)
    truth = [
        sum(kept * MP.mpf(v) ** 2 - kept - MP.log(1 - kept) for v in row) / 2 for row in x0.tolist()
    ]
    assert relative(prior_kl(x0, SCHEDULES[name](T)), truth) <= TOLERANCE


@pytest.mark.parametrize("name", list(DEFINITIONS))
def test_posterior(name: str) -> None:
    """Precision-weighted mean of the two Gaussians, at data 1 and 0 in turn, which shows each coefficient."""
    rows, schedule = exact(name, 1000), SCHEDULES[name](1000)
    for t in (2, 3, 500, 999, 1000):
        (beta, kept), (_, before) = rows[t], rows[t - 1]
        precision = 1 / (1 - before) + (1 - beta) / beta
        on_x0 = MP.sqrt(before) / (1 - before) / precision
        on_x_t = MP.sqrt(1 - beta) / beta / precision
        one, zero = (torch.tensor([[v]], dtype=torch.float64) for v in (1.0, 0.0))
        step = torch.tensor([t])
        clean = q_posterior(one, zero, step, schedule)
        noisy = q_posterior(zero, one, step, schedule)
        assert relative(clean.mean[0], [on_x0]) <= TOLERANCE
        assert relative(noisy.mean[0], [on_x_t]) <= TOLERANCE
        assert relative(clean.log_var[0].exp(), [1 / precision]) <= TOLERANCE
        assert kept < before


@pytest.mark.parametrize("name", list(DEFINITIONS))
def test_q_sample(name: str) -> None:
    rows, schedule = exact(name, 1000), SCHEDULES[name](1000)
    for t in (1, 2, 500, 1000):
        kept, step = rows[t][1], torch.tensor([t])
        one, zero = (torch.tensor([[v]], dtype=torch.float64) for v in (1.0, 0.0))
        assert relative(q_sample(one, step, schedule, zero)[0], [MP.sqrt(kept)]) <= TOLERANCE
        noise = q_sample(zero, step, schedule, one)[0]
        assert relative(noise, [MP.sqrt(1 - kept)]) <= TOLERANCE
