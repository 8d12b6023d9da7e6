"""The forward process against float64 and 50 digits, in every dtype."""

import mpmath as mp
import pytest
import torch

from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.schedule import SCHEDULES, linear_schedule, rescale_to_zero_terminal_snr

mp.mp.dps = 50
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def ulp(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Spacing of `dtype` at |x|, in float64."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(x.abs().clamp(min=info.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(x, info.eps), exponent)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_q_sample_is_within_its_bound(name: str, dtype: torch.dtype) -> None:
    T, dims = 1000, (3, 5, 7)
    schedule = SCHEDULES[name](T)
    t = torch.arange(1, T + 1)
    generator = torch.Generator().manual_seed(5)
    x0 = torch.rand(T, *dims, generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)
    noise = torch.randn(T, *dims, generator=generator, dtype=torch.float64).to(dtype)
    signal = schedule.alpha_bar[t].sqrt().view(-1, 1, 1, 1) * x0.double()
    added = schedule.one_minus_alpha_bar[t].sqrt().view(-1, 1, 1, 1) * noise.double()
    got = q_sample(x0, t, schedule, noise)
    assert got.dtype == dtype
    error = (got.double() - (signal + added)).abs()
    largest = torch.maximum(signal.abs(), added.abs())
    if dtype == torch.float64:
        bound = 1e-12 * largest
    else:
        # Half a unit of a sum that crosses a binade is one unit of the larger term; the three float32 roundings
        # before it can turn a near tie, by 4 · 2^-24 / 2^-11 of a unit at most.
        bound = ulp(largest, dtype) * (4 if dtype == torch.float32 else 1 + 2**-11)
    assert (error <= bound).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_its_noise_at_every_step(dtype: torch.dtype) -> None:
    """With x0 = 0 the coefficient of the noise itself is seen: it must never vanish."""
    schedule = linear_schedule(1000)
    t = torch.arange(1, 1001)
    got = q_sample(torch.zeros(1000, 1, dtype=dtype), t, schedule, torch.ones(1000, 1, dtype=dtype))
    exact = schedule.one_minus_alpha_bar[1:].sqrt()
    torch.testing.assert_close(
        got[:, 0].double(), exact, rtol=torch.finfo(dtype).eps / 2 * 1.01, atol=0
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_of_the_size_of_the_data_is_not_broadcast(batch: int) -> None:
    schedule = linear_schedule(10)
    t = torch.arange(1, batch + 1)
    x0, noise = torch.ones(batch, batch), torch.zeros(batch, batch)
    expected = schedule.alpha_bar[t].sqrt().float().view(-1, 1).expand(batch, batch)
    torch.testing.assert_close(q_sample(x0, t, schedule, noise), expected)


def test_posterior_is_the_product_of_its_two_gaussians() -> None:
    """Precisions add and precision-weighted means add: computed here with 50 digits."""
    schedule = linear_schedule(11)
    t = torch.arange(2, 12)
    x0 = torch.linspace(-1, 1, 10, dtype=torch.float64).view(-1, 1)
    x_t = torch.linspace(2, -3, 10, dtype=torch.float64).view(-1, 1)
    posterior = q_posterior(x0, x_t, t, schedule)
    for i, step in enumerate(t.tolist()):
        beta = mp.mpf(schedule.beta[step].item())
        before = mp.fprod(1 - mp.mpf(b) for b in schedule.beta[1:step].tolist())
        prior, likelihood = 1 / (1 - before), (1 - beta) / beta
        variance = 1 / (prior + likelihood)
        mean = variance * (
            prior * mp.sqrt(before) * mp.mpf(x0[i].item())
            + likelihood * mp.mpf(x_t[i].item()) / mp.sqrt(1 - beta)
        )
        assert posterior.mean[i].item() == pytest.approx(float(mean), rel=1e-12)
        assert posterior.log_var[i].item() == pytest.approx(float(mp.log(variance)), abs=1e-12)


def test_posterior_at_the_first_step_is_the_data() -> None:
    x0 = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    posterior = q_posterior(x0, x0 + 7, torch.ones(3, dtype=torch.int64), linear_schedule(4))
    assert torch.equal(posterior.mean, x0)
    assert (posterior.log_var == -torch.inf).all()
    assert posterior.log_var.shape == x0.shape


def test_zero_terminal_snr_is_pure_noise() -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(7))
    noise = torch.randn(2, 3)
    t = torch.full((2,), 7)
    assert torch.equal(q_sample(torch.ones(2, 3), t, schedule, noise), noise)
    posterior = q_posterior(torch.ones(2, 3), noise, t, schedule)
    expected = schedule.alpha_bar[6].sqrt().float()  # nothing of x_T enters
    torch.testing.assert_close(posterior.mean, expected.expand(2, 3))


def test_empty_batch() -> None:
    got = q_sample(
        torch.ones(0, 3), torch.ones(0, dtype=torch.int64), linear_schedule(4), torch.ones(0, 3)
    )
    assert got.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"t": torch.tensor([0, 1])}, ValueError, "t = 0"),
        ({"t": torch.tensor([1, 5])}, ValueError, "t = 5"),
        ({"t": torch.tensor([1.0, 2.0])}, TypeError, "integers"),
        ({"t": torch.tensor([1])}, ValueError, "one step index per sample"),
        ({"t": 3}, TypeError, "tensor"),
        ({"noise": torch.zeros(2, 4)}, ValueError, "noise has shape"),
        ({"noise": torch.zeros(1, 3)}, ValueError, "noise has shape"),
        ({"x0": torch.zeros(2, 3, dtype=torch.uint8)}, TypeError, "127.5"),
    ],
)
def test_refuses_bad_input(change, error, words) -> None:
    arguments = {
        "x0": torch.zeros(2, 3),
        "t": torch.tensor([1, 4]),
        "schedule": linear_schedule(4),
        "noise": torch.zeros(2, 3),
    } | change
    with pytest.raises(error, match=words):
        q_sample(**arguments)
