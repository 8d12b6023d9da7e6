"""Batches are a function of (seed, step, position): split, order, steps and noise."""

import pytest
import torch

from ddpm_ref.batches import Batches
from ddpm_ref.config import TrainConfig
from ddpm_ref.noise import NoiseStream

N, B, T = 13, 5, 7


def images(count: int = N) -> torch.Tensor:
    """Image number n is constant n/100."""
    return (torch.arange(count, dtype=torch.float32) / 100).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)


def batches(count: int = N, **choices) -> Batches:
    config = TrainConfig(**{"batch_size": B, "T": T, "seed": 3} | choices)
    return Batches(config, config.make_schedule(), images(count))


def numbers(x0: torch.Tensor) -> list[int]:
    return (100 * x0[:, 0, 0, 0]).round().long().tolist()


def test_every_epoch_visits_every_image_once_in_another_order():
    drawn = batches()
    run = [n for k in range(1, 3 * N + 1) for n in numbers(drawn.draw(k).x0)]
    epochs = [run[i : i + N] for i in range(0, len(run), N)]
    assert len(epochs) == 3 * B
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_a_batch_larger_than_the_data_spans_epochs():
    drawn = batches(count=3, batch_size=8).draw(2).x0
    run = numbers(batches(count=3, batch_size=16).draw(1).x0)
    assert numbers(drawn) == run[8:]


@pytest.mark.parametrize("timesteps", ["uniform", "low-discrepancy"])
def test_a_split_batch_has_the_bits_of_the_whole(timesteps):
    choices = {"batch_size": 11, "timesteps": timesteps}
    whole = batches(**choices).draw(4)
    parts = [batches(**choices).draw(4, first, count) for first, count in [(0, 4), (4, 1), (5, 6)]]
    for name in ("x0", "t", "x_t", "eps"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name


def test_steps_may_be_asked_for_in_any_order():
    forwards, backwards = batches(), batches()
    first = [forwards.draw(k).x_t for k in (1, 2, 3, 4)]
    last = [backwards.draw(k).x_t for k in (4, 3, 2, 1)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_noise_is_the_streams_and_x_t_is_made_of_it():
    drawn = batches()
    batch, schedule = drawn.draw(6), TrainConfig(T=T).make_schedule()
    assert torch.equal(batch.eps, NoiseStream(3).normal((B, 1, 2, 3), step=6))
    kept = schedule.alpha_bar[batch.t].view(-1, 1, 1, 1)
    wanted = kept.sqrt() * batch.x0 + (1 - kept).sqrt() * batch.eps
    torch.testing.assert_close(batch.x_t.double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("timesteps", ["uniform", "low-discrepancy"])
def test_t_is_uniform_on_1_to_T(timesteps):
    steps, width = 400, 11
    drawn = batches(batch_size=width, timesteps=timesteps)
    t = torch.cat([drawn.draw(k).t for k in range(1, steps + 1)])
    counts = torch.bincount(t, minlength=T + 1)
    assert counts[0] == 0
    assert counts.shape == (T + 1,)
    expected = steps * width / T
    chi_square = ((counts[1:] - expected) ** 2 / expected).sum()
    assert chi_square < 33.1  # 1 - 1e-5 quantile of chi-square with T - 1 = 6 degrees of freedom


@pytest.mark.parametrize("width", [1, 49, 98, 103, 128])
def test_low_discrepancy_steps_are_one_per_stratum(width):
    # With T = B, t_i must take every value exactly once, whatever the shift.
    drawn = batches(batch_size=width, T=width, timesteps="low-discrepancy")
    for k in range(1, 20):
        assert sorted(drawn.draw(k).t.tolist()) == list(range(1, width + 1))


def test_seeds_change_everything_and_providers_nothing():
    here, there = batches(seed=3).draw(1), batches(seed=4).draw(1)
    assert not torch.equal(here.eps, there.eps)
    assert numbers(here.x0) != numbers(there.x0)
    eager = batches(provider="eager").draw(1)
    assert torch.equal(eager.x_t, here.x_t)
    assert torch.equal(eager.eps, here.eps)
