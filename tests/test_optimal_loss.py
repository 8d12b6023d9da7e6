"""The least training loss: against quadrature, the oracle's own denoiser, and every draw's own definition; bias of the subset."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm
from torch import Tensor

from ddpm_ref import (
    EmpiricalOracle,
    GaussianOracle,
    linear_schedule,
    optimal_loss,
    q_sample,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)
from ddpm_ref.data import digits
from ddpm_ref.estimator.design import uniform
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.schedule import Schedule

F64 = torch.float64
LEVELS = schedule_from_log_snr([6.0, 4.0, 2.0, 0.0, -2.0, -5.0])
EVERY = torch.arange(1, 7)


def images(count: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(count, 2, 3, generator=generator, dtype=F64)


@pytest.mark.parametrize("schedule", [LEVELS, linear_schedule(6)])
def test_each_draw_is_the_squared_error_of_the_oracle(schedule: Schedule) -> None:
    data, seed = images(11), 5
    found = optimal_loss(data, EVERY, schedule, seed=seed)
    order = torch.argsort(uniform(NoiseStream(seed), 11, Use.ORDER, step=0), stable=True)
    oracle, errors = EmpiricalOracle(data), []
    for replicate in (0, 1):
        noise = NoiseStream(seed).normal((11, 2, 3), step=replicate, dtype=F64)
        for t in EVERY.tolist():
            steps = torch.full((11,), t)
            x_t = q_sample(data[order], steps, schedule, noise)
            gap = data[order] - oracle.denoise(x_t, steps, schedule)
            errors.append(gap.flatten(1).square().sum(dim=1).mean())
    expected = torch.stack(errors).view(2, 6).mean(dim=0)
    assert torch.allclose(found.value, expected, rtol=1e-9, atol=1e-13)
    assert (found.examples, found.used, found.dims) == (11, 11, 6)
    assert torch.equal(found.bias, torch.zeros(6, dtype=F64))


@pytest.mark.parametrize("schedule", [LEVELS, linear_schedule(6)])
def test_held_out_draws_are_the_squared_error_of_the_oracle(schedule: Schedule) -> None:
    data, other, seed = images(11), images(5, seed=4), 6
    found = optimal_loss(data, EVERY, schedule, images=other, seed=seed)
    order = torch.argsort(uniform(NoiseStream(seed), 5, Use.ORDER, step=0), stable=True)
    noise = torch.stack([NoiseStream(seed).normal((5, 2, 3), step=r, dtype=F64) for r in (0, 1)])
    for t in EVERY.tolist():
        steps = torch.full((5,), t)
        gaps = [
            other[order]
            - EmpiricalOracle(data).denoise(
                q_sample(other[order], steps, schedule, eps), steps, schedule
            )
            for eps in noise
        ]
        expected = torch.stack(gaps).flatten(2).square().sum(dim=2).mean()
        assert found.value[t - 1].item() == pytest.approx(expected.item(), rel=1e-9)


def conditional_variance(points: list[float], level: float) -> float:
    """E Var[x0 | x_t] for x0 uniform on points of the line, by quadrature over x_t."""
    signal, sigma = math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))
    centres = np.array(points)

    def integrand(x: float) -> float:
        density = norm.pdf(x, signal * centres, sigma)
        share = density / density.sum()
        return density.mean() * (share @ centres**2 - (share @ centres) ** 2)

    reach = signal * np.abs(centres).max() + 12 * sigma
    value, _ = integrate.quad(integrand, -reach, reach, limit=400, epsabs=1e-13)
    return value


def test_is_unbiased_for_the_conditional_variance_and_covers_it() -> None:
    points = [-1.0, -0.4, 0.1, 0.15, 0.9, 1.3, 2.0]
    schedule, t = schedule_from_log_snr([3.0, 0.0, -3.0]), torch.tensor([1, 2, 3])
    truth = torch.tensor(
        [conditional_variance(points, level) for level in (3.0, 0.0, -3.0)], dtype=F64
    )
    data, repetitions = torch.tensor(points, dtype=F64)[:, None], 400
    found = [optimal_loss(data, t, schedule, seed=seed) for seed in range(repetitions)]
    values = torch.stack([f.value for f in found])
    z = (values.mean(dim=0) - truth) / (values.std(dim=0) / math.sqrt(repetitions))
    assert z.abs().max() < 4
    errors = torch.stack([f.stderr for f in found])
    ratio = errors.square().mean(dim=0).sqrt() / values.std(dim=0)
    assert ((ratio > 0.85) & (ratio < 1.15)).all()  # 400 repetitions know a deviation to 3.5 %


def test_some_examples_estimate_the_mean_over_all() -> None:
    data, t = images(23), torch.tensor([3, 5])
    truth = torch.stack([optimal_loss(data, t, LEVELS, seed=s).value for s in range(200)]).mean(
        dim=0
    )
    found = [optimal_loss(data, t, LEVELS, examples=7, seed=1000 + s) for s in range(200)]
    values = torch.stack([f.value for f in found])
    z = (values.mean(dim=0) - truth) / (values.std(dim=0) / math.sqrt(200))
    assert z.abs().max() < 4
    typical = torch.stack([f.stderr for f in found]).square().mean(dim=0).sqrt() / values.std(dim=0)
    assert ((typical > 0.8) & (typical < 1.25)).all()


@pytest.mark.parametrize("held_out", [None, images(5, seed=8)])
@pytest.mark.parametrize("nearest", [None, 0])
def test_a_subset_of_all_is_all(held_out: Tensor | None, nearest: int | None) -> None:
    data, others = images(11), 11 if held_out is not None else 10
    exact = optimal_loss(data, EVERY, LEVELS, images=held_out)
    found = optimal_loss(data, EVERY, LEVELS, images=held_out, subset=others, nearest=nearest)
    assert torch.equal(found.value, exact.value)
    assert torch.equal(found.bias, torch.zeros(6, dtype=F64))
    almost = optimal_loss(data, EVERY, LEVELS, images=held_out, subset=others - 1, nearest=nearest)
    assert not torch.equal(almost.value, exact.value)


def difference(
    subset: int, nearest: int | None, seeds: int, data: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(bias, its standard error, mean estimated bias) over seeds, against all data with the same noise."""
    gaps, stated = [], []
    for seed in range(seeds):
        part = optimal_loss(data, EVERY, LEVELS, subset=subset, nearest=nearest, seed=seed)
        gaps.append(part.value - optimal_loss(data, EVERY, LEVELS, seed=seed).value)
        stated.append(part.bias)
    gap = torch.stack(gaps)
    return gap.mean(dim=0), gap.std(dim=0) / math.sqrt(seeds), torch.stack(stated).mean(dim=0)


def test_bias_of_the_subset_is_what_it_says_where_many_examples_share_the_posterior() -> None:
    bias, error, stated = difference(subset=60, nearest=0, seeds=9, data=images(150))
    high_noise = slice(3, 6)
    assert (bias[high_noise] > 4 * error[high_noise]).all()  # there is one, and it is positive
    assert torch.allclose(stated[high_noise], bias[high_noise], rtol=0.3, atol=0)


def test_bias_falls_as_the_subset_grows() -> None:
    data = images(150)
    small, _, _ = difference(subset=20, nearest=0, seeds=5, data=data)
    large, _, _ = difference(subset=80, nearest=0, seeds=5, data=data)
    assert (large[2:].abs() < 0.4 * small[2:].abs()).all()


def test_without_its_neighbours_an_example_is_too_easy_and_with_them_it_is_not() -> None:
    data = images(150)
    random, error, _ = difference(subset=20, nearest=0, seeds=10, data=data)
    mixed, mixed_error, _ = difference(subset=20, nearest=10, seeds=10, data=data)
    level = 1  # log-SNR 4: two or three examples compete
    assert random[level].abs() > 4 * error[level]
    assert mixed[level].abs() < 0.1 * random[level].abs() + 4 * mixed_error[level]


def test_lies_below_the_best_linear_denoiser_on_the_training_data_only() -> None:
    data = images(40)
    training = optimal_loss(data, EVERY, LEVELS)
    linear = GaussianOracle.fit(data).mmse(LEVELS.log_snr[1:])
    assert (training.value - 4 * training.stderr < linear).all()
    other = optimal_loss(data, EVERY, LEVELS, images=images(400, seed=9))
    assert (
        other.value[0] > 10 * linear[0]
    )  # it memorized: another image is denoised to the nearest example


def test_digits_are_memorized_at_low_noise() -> None:
    data = digits().double()
    schedule = schedule_from_log_snr([4.0])
    training = optimal_loss(data[:1200], torch.tensor([1]), schedule, examples=60)
    held_out = optimal_loss(
        data[:1200], torch.tensor([1]), schedule, images=data[1200:], examples=60
    )
    assert training.value.item() < 1e-6
    assert 4 < held_out.value.item() < 6.5


def test_at_zero_terminal_snr_the_error_is_the_variance() -> None:
    data, schedule = images(11), rescale_to_zero_terminal_snr(linear_schedule(5))
    found = optimal_loss(data, torch.tensor([5]), schedule)
    variance = data.flatten(1).var(dim=0, correction=0).sum()
    assert found.value.item() == pytest.approx(variance.item(), rel=1e-12)


def test_duplicates_single_examples_and_extreme_noise() -> None:
    extreme = schedule_from_log_snr([690.0, -690.0])
    twice = images(3).repeat(2, 1, 1)
    found = optimal_loss(twice, torch.tensor([1, 2]), extreme)
    assert found.value[0].item() == 0
    assert torch.isfinite(found.value).all()
    held_out = optimal_loss(twice, torch.tensor([1]), extreme, images=images(2, seed=7))
    nearest = (
        torch.cdist(images(2, seed=7).flatten(1), twice.flatten(1)).amin(dim=1).square().mean()
    )
    assert held_out.value.item() == pytest.approx(nearest.item(), rel=1e-9)
    alone = optimal_loss(images(1), EVERY, LEVELS)
    assert torch.equal(alone.value, torch.zeros(6, dtype=F64))
    assert torch.equal(alone.stderr, torch.zeros(6, dtype=F64))


def test_same_seed_same_answer_and_nothing_is_changed_in_place() -> None:
    data = images(11)
    before = data.clone()
    first, second = (optimal_loss(data, EVERY, LEVELS, subset=6, seed=2) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert torch.equal(data, before)
    assert not torch.equal(first.value, optimal_loss(data, EVERY, LEVELS, subset=6, seed=3).value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"images": torch.zeros(2, 3)}, ValueError, "one shape"),
        ({"examples": 12}, ValueError, "there are 11"),
        ({"examples": 1}, ValueError, "at least 2"),
        ({"subset": 3}, ValueError, "at least 4"),
        ({"subset": 6, "nearest": 5}, ValueError, "nearest=3"),
        ({"subset": 6.0}, TypeError, "whole number"),
        ({"images": torch.full((2, 2, 3), math.nan)}, ValueError, "finite"),
    ],
)
def test_bad_input_is_named(options, error, words) -> None:
    with pytest.raises(error, match=words):
        optimal_loss(images(11), EVERY, LEVELS, **options)


def test_bad_steps_and_data_are_named() -> None:
    with pytest.raises(ValueError, match="outside 1 … 6"):
        optimal_loss(images(3), torch.tensor([7]), LEVELS)
    with pytest.raises(TypeError, match="floating-point"):
        optimal_loss(torch.zeros(3, 2, dtype=torch.uint8), EVERY, LEVELS)
    with pytest.raises(TypeError, match="Schedule"):
        optimal_loss(images(3), EVERY, LEVELS.beta)
