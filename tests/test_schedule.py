"""Schedules against 50-digit arithmetic, their respacing, and what they refuse."""

from collections.abc import Callable

import mpmath as mp
import pytest
import torch

from ddpm_ref.conformance.lawbook import truth
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
    schedule_from_log_snr,
    sigmoid_schedule,
)

mp.mp.dps = 50
STEPS = (1, 2, 7, 1000)


def exact_linear(T: int) -> list[mp.mpf]:
    low, high = mp.mpf(1e-4), mp.mpf(0.02)
    return [low + (high - low) * k / max(T - 1, 1) for k in range(T)]


def exact_cosine(T: int) -> list[mp.mpf]:
    s, cap = mp.mpf(0.008), mp.mpf(0.999)

    def f(t: int) -> mp.mpf:
        return mp.cos((mp.mpf(t) / T + s) / (1 + s) * mp.pi / 2) ** 2

    return [min(1 - f(t) / f(t - 1), cap) for t in range(1, T + 1)]


def exact_sigmoid(T: int) -> list[mp.mpf]:
    def kept(t: int) -> mp.mpf:
        x = -3 + mp.mpf(6 * t) / T
        return (1 / (1 + mp.exp(-3)) - 1 / (1 + mp.exp(-x))) / (
            1 / (1 + mp.exp(-3)) - 1 / (1 + mp.exp(3))
        )

    return [min(1 - kept(t) / kept(t - 1), mp.mpf(0.999)) for t in range(1, T + 1)]


def of_the_laws(name: str) -> Callable[[int], list[mp.mpf]]:
    return lambda T: [mp.mpf(beta) for beta in truth.DEFINITIONS[name](T)]


EXACT = {name: of_the_laws(name) for name in truth.DEFINITIONS} | {
    "linear": exact_linear,
    "cosine": exact_cosine,
    "sigmoid": exact_sigmoid,
}
"""A schedule without a formula of this file's own is compared with the second formula that the laws have of it."""


def assert_tables(schedule: Schedule, beta: list[mp.mpf]) -> None:
    """All tables to 1e-12: relative for β, ᾱ, 1−ᾱ, β̃; absolute for log-SNR."""
    kept = mp.mpf(1)
    left_before = mp.mpf(0)
    for t, b in enumerate(beta, start=1):
        kept *= 1 - b
        left = 1 - kept
        exact = {
            "beta": b,
            "alpha_bar": kept,
            "one_minus_alpha_bar": left,
            "posterior_variance": b * left_before / left,
        }
        for name, value in exact.items():
            got = mp.mpf(getattr(schedule, name)[t].item())
            assert abs(got - value) <= mp.mpf(1e-12) * abs(value), (name, t)
        assert abs(mp.mpf(schedule.log_snr[t].item()) - mp.log(kept / left)) <= 1e-12, t
        left_before = left


@pytest.mark.parametrize("T", STEPS)
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_tables_agree_with_fifty_digits(name: str, T: int) -> None:
    assert_tables(SCHEDULES[name](T), EXACT[name](T))


def test_options_of_the_sigmoid_schedule_agree_with_fifty_digits() -> None:
    T, start, end, tau = 7, -2.0, 4.0, 0.5

    def kept(t: int) -> mp.mpf:
        ends = [1 / (1 + mp.exp(-mp.mpf(x) / tau)) for x in (start, end)]
        x = (start + mp.mpf(end - start) * t / T) / tau
        return (ends[1] - 1 / (1 + mp.exp(-x))) / (ends[1] - ends[0])

    beta = [min(1 - kept(t) / kept(t - 1), mp.mpf(0.9)) for t in range(1, T + 1)]
    assert_tables(sigmoid_schedule(T, start=start, end=end, tau=tau, max_beta=0.9), beta)


def test_options_of_the_cosine_schedule_agree_with_fifty_digits() -> None:
    T, s = 9, mp.mpf(0.25)

    def f(t: int) -> mp.mpf:
        return mp.cos((mp.mpf(t) / T + s) / (1 + s) * mp.pi / 2) ** 2

    beta = [min(1 - f(t) / f(t - 1), mp.mpf(0.75)) for t in range(1, T + 1)]
    assert_tables(cosine_schedule(T, s=0.25, max_beta=0.75), beta)


def test_every_constructor_has_an_oracle() -> None:
    assert set(EXACT) == set(SCHEDULES)


def test_clean_data_stands_at_index_zero() -> None:
    schedule = cosine_schedule(5)
    assert schedule.beta[0] == 0
    assert schedule.alpha_bar[0] == 1
    assert schedule.one_minus_alpha_bar[0] == 0
    assert schedule.log_snr[0] == torch.inf
    assert schedule.posterior_variance[:2].tolist() == [0, 0]
    assert schedule.timesteps.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("T", [2, 5, 101])
def test_from_log_snr(T: int) -> None:
    log_snr = torch.linspace(9.5, -11.25, T, dtype=torch.float64)
    kept = [1 / (1 + mp.exp(-mp.mpf(x))) for x in log_snr.tolist()]
    beta = [1 - now / before for before, now in zip([mp.mpf(1), *kept[:-1]], kept, strict=True)]
    assert_tables(schedule_from_log_snr(log_snr), beta)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_zero_terminal_snr_agrees_with_fifty_digits(name: str) -> None:
    T = 53
    schedule = rescale_to_zero_terminal_snr(SCHEDULES[name](T))
    roots, kept = [], mp.mpf(1)
    for b in EXACT[name](T):
        kept *= 1 - b
        roots.append(mp.sqrt(kept))
    scaled = [(r - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for r in roots]
    squares = [mp.mpf(1), *(r**2 for r in scaled)]
    for t in range(1, T + 1):
        beta = 1 - squares[t] / squares[t - 1]
        assert abs(mp.mpf(schedule.beta[t].item()) - beta) <= 1e-12 * beta, t
        assert abs(mp.mpf(schedule.alpha_bar[t].item()) - squares[t]) <= 1e-12 * squares[t], t
        left = mp.mpf(schedule.one_minus_alpha_bar[t].item())
        assert abs(left - (1 - squares[t])) <= 1e-12 * (1 - squares[t]), t
    assert schedule.alpha_bar[T] == 0
    assert schedule.log_snr[T] == -torch.inf
    assert schedule.beta[T] == 1


def test_zero_terminal_snr_is_idempotent_and_refuses_one_step() -> None:
    once = rescale_to_zero_terminal_snr(linear_schedule(11))
    twice = rescale_to_zero_terminal_snr(once)
    torch.testing.assert_close(twice.alpha_bar, once.alpha_bar, rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="T >= 2"):
        rescale_to_zero_terminal_snr(linear_schedule(1))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_respacing_keeps_alpha_bar_and_maps_back(name: str) -> None:
    schedule = SCHEDULES[name](29)
    chosen = [1, 2, 7, 20, 29]
    few = schedule.respaced(chosen)
    assert few.timesteps.tolist() == chosen
    assert few.T == 5
    assert torch.equal(few.log_snr[1:], schedule.log_snr[chosen])
    product = torch.cumprod(1 - few.beta, 0)
    # 1 − β near the cap of 0.999 loses three digits, in this product only
    torch.testing.assert_close(product, few.alpha_bar, rtol=3e-12, atol=0)
    assert few.beta[2] == schedule.beta[2]  # t = 2 follows 1 directly: nothing was merged
    again = few.respaced([2, 5])
    assert again.timesteps.tolist() == [2, 29]


def test_respacing_reaches_zero_terminal_snr() -> None:
    few = rescale_to_zero_terminal_snr(linear_schedule(17)).respaced([3, 17])
    assert few.beta[2] == 1
    assert few.alpha_bar[2] == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: linear_schedule(0), ValueError, "T = 0"),
        (lambda: linear_schedule(2.0), TypeError, "int"),
        (lambda: linear_schedule(5, beta_end=1.0), ValueError, "outside \\(0, 1\\)"),
        (lambda: linear_schedule(5, beta_start=0.0), ValueError, "outside \\(0, 1\\)"),
        (lambda: linear_schedule(5, beta_end=float("nan")), ValueError, "outside \\(0, 1\\)"),
        (lambda: cosine_schedule(5, s=-1.0), ValueError, "offset"),
        (lambda: cosine_schedule(5, max_beta=1.0), ValueError, "max_beta"),
        (lambda: sigmoid_schedule(5, start=3.0), ValueError, "start < end"),
        (lambda: schedule_from_beta([]), ValueError, "T >= 1"),
        (lambda: schedule_from_beta([[0.1, 0.2]]), ValueError, r"shape \[1, 2\]"),
        (lambda: schedule_from_log_snr([]), ValueError, "T >= 1"),
        (lambda: schedule_from_log_snr([[2.0, 1.0]]), ValueError, r"shape \[1, 2\]"),
        (lambda: schedule_from_log_snr([1.0, 1.0]), ValueError, "strictly decreasing"),
        (lambda: schedule_from_log_snr([1.0, float("nan")]), ValueError, r"log_snr\[2\] = nan"),
        (
            lambda: schedule_from_log_snr([2.0, 1.0, 1.5]),
            ValueError,
            "1.0 at t = 2, then 1.5 at t = 3",
        ),
        (lambda: schedule_from_beta([0.1, 0.2, 1.5]), ValueError, r"beta\[3\] = 1.5"),
        (lambda: schedule_from_log_snr([float("inf"), 1.0]), ValueError, "finite"),
        (lambda: linear_schedule(5).respaced([1, 3]), ValueError, "append 5"),
        (lambda: linear_schedule(5).respaced([3, 3, 5]), ValueError, "strictly"),
        (lambda: linear_schedule(5).respaced([0, 5]), ValueError, "1 … 5"),
        (lambda: linear_schedule(5).respaced([2.5, 5.0]), TypeError, "integers"),
        (lambda: linear_schedule(5).lookup("alpha", torch.tensor([1])), ValueError, "tables"),
    ],
)
def test_refuses_bad_input(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


def test_extreme_log_snr_stays_finite() -> None:
    schedule = schedule_from_log_snr([30.0, 0.0, -300.0])
    assert torch.isfinite(schedule.beta).all()
    assert schedule.one_minus_alpha_bar[1] == pytest.approx(float(mp.exp(-30)), rel=1e-12)
    assert schedule.alpha_bar[3] == pytest.approx(float(mp.exp(-300)), rel=1e-12)


@pytest.mark.parametrize(
    ("T", "beta_start", "beta_end"),
    [(1000, 1e-4, 0.9999), (4000, 1e-4, 0.5), (100, 0.9999, 0.9999)],
)
def test_so_much_noise_that_alpha_bar_underflows_is_refused_at_its_first_step(
    T: int, beta_start: float, beta_end: float
) -> None:
    kept, t = mp.mpf(1), 0
    while kept >= mp.exp(-700):  # as in schedule_from_log_snr
        t += 1
        kept *= 1 - (beta_start + (mp.mpf(beta_end) - beta_start) * (t - 1) / (T - 1))
    with pytest.raises(ValueError, match=rf"alpha_bar\[{t}\].*underflows.*beta_end.*fewer steps"):
        linear_schedule(T, beta_start, beta_end)
    with pytest.raises(ValueError, match=rf"alpha_bar\[{t}\]"):
        schedule_from_beta(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


def test_the_last_schedule_above_the_underflow_has_all_its_tables() -> None:
    """Steps of β = ½: ln ᾱ_t = −t ln 2 passes −700 between t = 1009 and 1010."""
    schedule = schedule_from_beta([0.5] * 1009)
    assert schedule.alpha_bar[-1].item() == pytest.approx(2.0**-1009, rel=1e-12, abs=0)
    with pytest.raises(ValueError, match=r"alpha_bar\[1010\]"):
        schedule_from_beta([0.5] * 1010)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_default_schedules_keep_signal_up_to_four_thousand_steps(name: str) -> None:
    schedule = SCHEDULES[name](4000)
    assert (schedule.alpha_bar > 0).all()
    assert (rescale_to_zero_terminal_snr(schedule).alpha_bar[:-1] > 0).all()


def test_zero_terminal_snr_is_reached_at_the_last_step_only() -> None:
    """A last β of 1e-310 leaves √ᾱ' ≈ β/2 at the step before: its square is 0 in float64."""
    with pytest.raises(ValueError, match=r"alpha_bar\[2\].*raise beta_end"):
        rescale_to_zero_terminal_snr(schedule_from_beta([0.5, 0.5, 1e-310]))
