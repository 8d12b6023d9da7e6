"""The denoiser of a finite data set: the weighted mean, in blocks, and between near examples at low noise."""

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor

from ddpm_ref.oracle import EmpiricalOracle
from ddpm_ref.oracle.empirical import _exponents
from ddpm_ref.schedule import linear_schedule, schedule_from_log_snr
from tests.samples import random


def test_empirical_denoiser_is_the_weighted_mean_and_blocks_change_nothing(monkeypatch) -> None:
    data, schedule, t = random(11, 2, 3), linear_schedule(50), 20
    oracle = EmpiricalOracle(data)
    bar = schedule.alpha_bar[t]
    x_t = random(5, 2, 3, seed=3)
    distance = ((x_t[:, None] - bar.sqrt() * data) ** 2).sum(dim=(2, 3))
    share = torch.softmax(-distance / (2 * (1 - bar)), dim=1)
    expected = torch.einsum("bn,nij->bij", share, data)
    steps = torch.full((5,), t)
    torch.testing.assert_close(oracle.denoise(x_t, steps, schedule), expected)
    rows = []

    def spy(x_t: Tensor, signal: Tensor, sigma: Tensor, block: Tensor) -> Tensor:
        rows.append(len(block))
        return _exponents(x_t, signal, sigma, block)

    monkeypatch.setattr("ddpm_ref.oracle.empirical._exponents", spy)
    for differences, blocks in [(1, [1] * 11), (5 * 6 * 3, [3, 3, 3, 2])]:
        monkeypatch.setattr("ddpm_ref.oracle.empirical._DIFFERENCES", differences)
        torch.testing.assert_close(oracle.denoise(x_t, steps, schedule), expected)
        assert rows == blocks
        rows.clear()
    assert oracle.denoise(x_t[:0], steps[:0], schedule).shape == (0, 2, 3)


NEAR_PAIRS = {
    "one pair": [[0.5], [0.500001]],
    "pairs far apart": [[0.5], [0.500001], [-700.0], [-700.000001]],
    "two dims": [[3.0, -40.0], [3.000001, -40.0], [3.0, -40.000001]],
}


@pytest.mark.parametrize("name", NEAR_PAIRS)
def test_empirical_denoiser_tells_near_examples_apart_at_low_noise(name: str) -> None:
    """ᾱ = 1 − 1e-12, so σ = 1e-6 like the gaps, while ‖x‖²/σ² is up to 5e17, whose last place is 64 nats."""
    data = torch.tensor(NEAR_PAIRS[name], dtype=torch.float64)
    schedule = linear_schedule(5, 1e-12, 1e-12)
    x_t = data + 4e-7 * random(*data.shape)
    found = EmpiricalOracle(data).denoise(x_t, torch.ones(len(data)).long(), schedule)
    exact = exact_empirical_means(x_t, data, schedule.beta[1].item())
    # x_t − √ᾱ x rounds to 1e-16 |x|, times the gap of 1e-6 over σ² in the exponent, times the gap again
    torch.testing.assert_close(found, exact, rtol=0, atol=4e-16 * data.abs().max().item())


def exact_empirical_means(x_t: Tensor, data: Tensor, left: float) -> Tensor:
    """E[x0 | x_t] in 60 digits, for 1−ᾱ = left."""
    points = [mp.matrix(point) for point in data.tolist()]
    means = []
    with mp.workdps(60):
        root = mp.sqrt(1 - mp.mpf(left))
        for noisy in x_t.tolist():
            gaps = [mp.norm(mp.matrix(noisy) - root * point) for point in points]
            share = [mp.exp(-(gap**2) / (2 * mp.mpf(left))) for gap in gaps]
            pulls = [r * point for r, point in zip(share, points, strict=True)]
            means.append([float(m) for m in sum(pulls[1:], pulls[0]) / sum(share)])
    return torch.tensor(means, dtype=torch.float64)


def test_empirical_denoiser_returns_the_example_at_low_noise_and_the_mean_at_none() -> None:
    data = random(13, 4)
    schedule = schedule_from_log_snr([25.0, 0.0, -math.inf])
    oracle = EmpiricalOracle(data)
    near = oracle.denoise(data * schedule.sqrt_alpha_bar[1], torch.full((13,), 1), schedule)
    torch.testing.assert_close(near, data)
    far = oracle.denoise(random(2, 4), torch.full((2,), 3), schedule)
    torch.testing.assert_close(far, data.mean(dim=0).expand(2, 4))
