"""Targets from their definitions, conversions against the truth: x0 and eps are known."""

import itertools

import pytest
import torch

from ddpm_ref.parameterization import PARAMETERIZATIONS, convert, target
from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.schedule import cosine_schedule, linear_schedule, rescale_to_zero_terminal_snr

PAIRS = list(itertools.product(PARAMETERIZATIONS, repeat=2))


def batch(T: int, dims: tuple[int, ...] = (3, 5)) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    t = torch.arange(1, T + 1)
    x0 = torch.randn(T, *dims, generator=generator, dtype=torch.float64)
    eps = torch.randn(T, *dims, generator=generator, dtype=torch.float64)
    return t, x0, eps


def test_targets_follow_their_definitions() -> None:
    schedule = cosine_schedule(13)
    t, x0, eps = batch(13)
    signal = schedule.alpha_bar[t].sqrt().view(-1, 1, 1)
    sigma = schedule.one_minus_alpha_bar[t].sqrt().view(-1, 1, 1)
    x_t = q_sample(x0, t, schedule, eps)
    exact = {
        "eps": eps,
        "x0": x0,
        "v": signal * eps - sigma * x0,
        "score": -(x_t - signal * x0) / sigma**2,  # the gradient of ln q(x_t | x0) itself
        "mean": q_posterior(x0, x_t, t, schedule).mean,
        "flow": x0 - eps,
    }
    assert set(exact) == set(PARAMETERIZATIONS)
    for name, value in exact.items():
        torch.testing.assert_close(
            target(name, x0, eps, t, schedule), value, rtol=1e-9, atol=1e-12, msg=name
        )


@pytest.mark.parametrize(("source", "to"), PAIRS)
@pytest.mark.parametrize("schedule", [linear_schedule(100), cosine_schedule(41)], ids=str)
def test_every_conversion_reaches_the_truth(schedule, source: str, to: str) -> None:
    """Relative to the conditioning: through x0 or eps at most one factor 1/√ᾱ or 1/√(1−ᾱ) is lost on each side."""
    t, x0, eps = batch(schedule.T)
    x_t = q_sample(x0, t, schedule, eps)
    got = convert(target(source, x0, eps, t, schedule), x_t, t, schedule, source=source, to=to)
    exact = target(to, x0, eps, t, schedule)
    worst = (schedule.alpha_bar * schedule.one_minus_alpha_bar)[t].rsqrt().view(-1, 1, 1)
    assert ((got - exact).abs() <= 1e-13 * worst**2 * (1 + exact.abs())).all()


@pytest.mark.parametrize(("source", "to"), PAIRS)
def test_conversion_of_wrong_predictions_round_trips(source: str, to: str) -> None:
    """A prediction need not be a truth: there and back again is the identity for any tensor."""
    schedule = linear_schedule(23, beta_end=0.2)
    t, wrong, x_t = batch(23)
    there = convert(wrong, x_t, t, schedule, source=source, to=to)
    back = convert(there, x_t, t, schedule, source=to, to=source)
    torch.testing.assert_close(back, wrong, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("source", ["v", "x0", "mean"])
@pytest.mark.parametrize("to", sorted(PARAMETERIZATIONS))
def test_zero_terminal_snr_has_the_finite_conversions(source: str, to: str) -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(9))
    t, x0, eps = batch(9)
    x_t = q_sample(x0, t, schedule, eps)
    got = convert(target(source, x0, eps, t, schedule), x_t, t, schedule, source=source, to=to)
    torch.testing.assert_close(got, target(to, x0, eps, t, schedule), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("source", ["eps", "score"])
def test_zero_terminal_snr_refuses_what_is_undefined(source: str) -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(9))
    x_t, t = torch.randn(2, 3), torch.tensor([4, 9])
    for to in ("x0", "v", "mean"):
        with pytest.raises(ValueError, match="undefined at t = 9"):
            convert(x_t, x_t, t, schedule, source=source, to=to)
    for to in ("eps", "score"):  # at sigma = 1 they differ by the sign alone
        got = convert(x_t, x_t, t, schedule, source=source, to=to)
        sign = 1 if source == to else -1
        torch.testing.assert_close(got[1], sign * x_t[1])


def test_half_precision_is_computed_in_float32() -> None:
    schedule = linear_schedule(1000)
    t, x0, eps = (a[:5] for a in batch(1000))
    low = target("v", x0.bfloat16(), eps.bfloat16(), t, schedule)
    exact = target("v", x0.bfloat16().double(), eps.bfloat16().double(), t, schedule)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), exact, rtol=2**-8, atol=1e-5)


def test_unknown_names_come_with_the_nearest() -> None:
    t, x0, eps = batch(3)
    with pytest.raises(ValueError, match="did you mean 'eps'"):
        target("epsilon", x0, eps, t, linear_schedule(3))
    with pytest.raises(ValueError, match="unknown parameterization 'noise'"):
        convert(x0, eps, t, linear_schedule(3), source="noise", to="x0")
