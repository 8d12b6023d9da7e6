"""One weighting, all spaces; the bound's weight by an independent route; limits."""

import itertools
import math

import mpmath as mp
import pytest
import torch

from ddpm_ref.gaussian import gaussian_kl
from ddpm_ref.objective import WEIGHTINGS, Weighting, loss, min_snr, p2, weight
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert
from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)

mp.mp.dps = 50


def exact_in_x0(name: str, kept: mp.mpf, kept_before: mp.mpf, t: int) -> mp.mpf:
    snr = kept / (1 - kept)
    if name == "elbo":
        return 1 / (2 * (1 - kept)) if t == 1 else (kept_before / (1 - kept_before) - snr) / 2
    return {
        "simple": snr,
        "simple_x0": mp.mpf(1),
        "simple_v": snr + 1,
        "truncated_snr": max(snr, mp.mpf(1)),
        "min_snr": min(snr, mp.mpf(5)),
        "p2": snr / (1 + snr),
    }[name]


def exact_ratio(parameterization: str, kept: mp.mpf, kept_before: mp.mpf) -> mp.mpf:
    """(error of x0/error of y)², from what each prediction says of x0."""
    left = 1 - kept
    beta = 1 - kept / kept_before
    return {
        "x0": mp.mpf(1),
        "eps": left / kept,
        "v": left,
        "score": left**2 / kept,
        "mean": (left / (mp.sqrt(kept_before) * beta)) ** 2,
        "flow": left / (mp.sqrt(kept) + mp.sqrt(left)) ** 2,
    }[parameterization]


@pytest.mark.parametrize("parameterization", sorted(PARAMETERIZATIONS))
@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@pytest.mark.parametrize("schedule", [linear_schedule(1000), cosine_schedule(59)], ids=str)
def test_weights_agree_with_fifty_digits(schedule, name: str, parameterization: str) -> None:
    steps = sorted({1, 2, 3, schedule.T // 2, schedule.T - 1, schedule.T})
    got = weight(name, torch.tensor(steps), schedule, parameterization=parameterization)
    kept = [mp.mpf(1)]
    for beta in schedule.beta[1:].tolist():
        kept.append(kept[-1] * (1 - mp.mpf(beta)))
    for value, t in zip(got.tolist(), steps, strict=True):
        exact = exact_in_x0(name, kept[t], kept[t - 1], t)
        exact *= exact_ratio(parameterization, kept[t], kept[t - 1])
        assert abs(value - exact) <= 1e-12 * exact, t


def test_elbo_weight_at_the_first_two_steps_of_the_linear_schedule() -> None:
    """The published VLB weight for x0 is 0.50 at t = 2 and its circulated correction 1136.7; the bound has 2726.3."""
    schedule = linear_schedule(1000)
    got = weight("elbo", torch.tensor([1, 2]), schedule, parameterization="x0")
    beta1, beta2 = schedule.beta[1].item(), schedule.beta[2].item()
    kept = (1 - beta1) * (1 - beta2)
    assert got[0].item() == pytest.approx(1 / (2 * beta1), rel=1e-12)
    assert got[1].item() == pytest.approx(((1 - beta1) / beta1 - kept / (1 - kept)) / 2, rel=1e-9)
    assert got[1].item() == pytest.approx(2726.3, abs=0.05)
    in_eps = weight("elbo", torch.tensor([1]), schedule, parameterization="eps")
    assert in_eps.item() == pytest.approx(1 / (2 * (1 - beta1)), rel=1e-12)


def test_elbo_weights_telescope() -> None:
    """Σ_{t≥2} ½[SNR(t−1) − SNR(t)] = ½[SNR(1) − SNR(T)]."""
    schedule = cosine_schedule(200)
    total = weight("elbo", torch.arange(2, 201), schedule, parameterization="x0").sum()
    ends = schedule.log_snr[[1, 200]].exp()
    assert total.item() == pytest.approx(((ends[0] - ends[1]) / 2).item(), rel=1e-12)


@pytest.mark.parametrize("parameterization", sorted(PARAMETERIZATIONS))
def test_elbo_loss_is_the_kl_in_nats(parameterization: str) -> None:
    """By the other route: the KL between the true posterior and the model's, from its mean."""
    T, dims = 31, (2, 3)
    schedule = linear_schedule(T, beta_end=0.3)
    generator = torch.Generator().manual_seed(3)
    t = torch.arange(2, T + 1)
    x0, eps, guess = torch.randn(3, T - 1, *dims, generator=generator, dtype=torch.float64)
    x_t = q_sample(x0, t, schedule, eps)
    prediction = convert(guess, x_t, t, schedule, source="x0", to=parameterization)
    got = loss(
        prediction, x0, eps, t, schedule, parameterization=parameterization, weighting="elbo"
    )
    truth = q_posterior(x0, x_t, t, schedule)
    model = q_posterior(guess, x_t, t, schedule)
    kl = gaussian_kl(truth.mean, truth.log_var, model.mean, truth.log_var).flatten(1).sum(1)
    torch.testing.assert_close(got * 6, kl, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(sorted(PARAMETERIZATIONS), 2)))
@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_a_loss_has_one_value_in_all_spaces(name: str, a: str, b: str) -> None:
    schedule = schedule_from_log_snr(torch.linspace(6, -6, 11, dtype=torch.float64))
    generator = torch.Generator().manual_seed(11)
    t = torch.arange(1, 12)
    x0, eps, guess = torch.randn(3, 11, 11, generator=generator, dtype=torch.float64)
    x_t = q_sample(x0, t, schedule, eps)
    values = [
        loss(
            convert(guess, x_t, t, schedule, source="x0", to=space),
            x0,
            eps,
            t,
            schedule,
            parameterization=space,
            weighting=name,
        )
        for space in (a, b)
    ]
    assert values[0].shape == (11,)
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=0)


def test_zero_terminal_snr_gives_the_finite_limits() -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(9))
    last = torch.tensor([9])
    finite = {("simple", "eps"): 1, ("simple", "v"): 0, ("min_snr", "eps"): 1, ("p2", "eps"): 1}
    finite |= {(n, "v"): 1 for n in ("simple_x0", "simple_v", "truncated_snr")}
    for (name, space), value in finite.items():
        got = weight(name, last, schedule, parameterization=space).item()
        assert got == pytest.approx(value, rel=1e-12, abs=0), (name, space)
    before = schedule.log_snr[8].exp().item()
    got = weight("elbo", last, schedule, parameterization="v").item()
    assert got == pytest.approx(before / 2, rel=1e-12)
    for name in ("simple_x0", "simple_v", "truncated_snr", "elbo"):
        for space in ("eps", "score"):
            with pytest.raises(ValueError, match="infinite"):
                weight(name, last, schedule, parameterization=space)


def test_parameters_of_weightings() -> None:
    schedule = linear_schedule(100)
    t = torch.arange(1, 101)
    snr = schedule.log_snr[1:].exp()
    got = weight(min_snr(gamma=2.5), t, schedule, parameterization="x0")
    torch.testing.assert_close(got, snr.clamp(max=2.5), rtol=1e-12, atol=0)
    got = weight(p2(k=2.0, gamma=0.5), t, schedule, parameterization="eps")
    torch.testing.assert_close(got, (2 + snr) ** -0.5, rtol=1e-12, atol=0)
    plain = weight(p2(gamma=0), t, schedule, parameterization="eps")
    torch.testing.assert_close(plain, torch.ones(100, dtype=torch.float64), rtol=1e-12, atol=0)
    assert str(min_snr()) == "min_snr"
    assert str(min_snr(gamma=2)) == "min_snr(gamma=2)"
    with pytest.raises(ValueError, match="gamma"):
        min_snr(gamma=0)
    with pytest.raises(ValueError, match="k > 0"):
        p2(k=0)


def test_weightings_are_equal_where_their_parameters_are_and_only_there() -> None:
    assert min_snr(5) == min_snr() == min_snr(gamma=5.0) == WEIGHTINGS["min_snr"]
    assert p2() == p2(1, 1) == WEIGHTINGS["p2"]
    assert p2(k=2.0, gamma=0.5) == p2(k=2.0, gamma=0.5)
    # names and formulas show six digits, in which the last of each pair agrees
    different = [min_snr(5), min_snr(2.5), min_snr(2.5000001)]
    different += [p2(), p2(k=2), p2(gamma=2), p2(k=2, gamma=2), p2(k=2, gamma=2.0000001)]
    assert len(set(different)) == len(different)
    again = [min_snr(5), min_snr(2.5), p2(k=2), p2(gamma=2)]
    assert set(again) < set(different)


def test_p2_with_a_tiny_stabilizer_does_not_overflow() -> None:
    """With k = e^−460 and SNR = e^500, S/(k + S) = 1, although S/k is e^960, beyond float64."""
    schedule = schedule_from_log_snr([500.0, -500.0])
    got = weight(p2(k=1e-200), torch.tensor([1, 2]), schedule, parameterization="x0")
    ratio = math.exp(-500 + 200 * math.log(10))  # S/k at t = 2, 7e-18: S/(k + S) to rounding
    exact = torch.tensor([1.0, ratio], dtype=torch.float64)
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=0)


def test_a_weighting_of_ones_own() -> None:
    schedule = linear_schedule(5)
    own = Weighting("mine", "S²", lambda log_snr, t, s: 2 * log_snr)
    got = weight(own, torch.arange(1, 6), schedule, parameterization="eps")
    torch.testing.assert_close(got, schedule.log_snr[1:].exp(), rtol=1e-12, atol=0)


def test_fractional_powers_of_the_snr_reach_their_limits_at_zero_terminal_snr() -> None:
    """√SNR is 0 in x0 space and 1/√SNR infinite in eps space, not e^±(half the floor of ln SNR)."""
    root = Weighting("root", "√S", lambda log_snr, t, s: 0.5 * log_snr)
    schedule, last = rescale_to_zero_terminal_snr(linear_schedule(5)), torch.tensor([5])
    for space in ("x0", "v"):
        assert weight(root, last, schedule, parameterization=space).item() == 0
    with pytest.raises(ValueError, match="root is infinite in eps space at t = 5"):
        weight(root, last, schedule, parameterization="eps")


def test_loss_dtype_gradient_and_purity() -> None:
    schedule = linear_schedule(10)
    t = torch.tensor([1, 10])
    prediction = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    x0, eps = torch.zeros(2, 3), torch.zeros(2, 3)
    value = loss(prediction, x0, eps, t, schedule, parameterization="eps", weighting="simple")
    assert value.dtype == torch.float32
    value.sum().backward()
    torch.testing.assert_close(prediction.grad, torch.full((2, 3), 2 / 3, dtype=torch.bfloat16))
    assert (x0 == 0).all()


def test_unknown_weighting() -> None:
    with pytest.raises(ValueError, match="did you mean 'min_snr'"):
        weight("min-snr", torch.tensor([1]), linear_schedule(3), parameterization="x0")
    with pytest.raises(ValueError, match="unknown parameterization"):
        weight("simple", torch.tensor([1]), linear_schedule(3), parameterization="noise")


@pytest.mark.parametrize("wrong", range(3))
def test_integer_images_are_refused(wrong: int) -> None:
    tensors = [torch.zeros(1, 3) for _ in range(3)]
    tensors[wrong] = torch.full((1, 3), 255, dtype=torch.uint8)
    with pytest.raises(TypeError, match=("prediction", "x0", "eps")[wrong] + " has dtype"):
        loss(
            *tensors,
            torch.tensor([1]),
            linear_schedule(3),
            parameterization="x0",
            weighting="simple",
        )
