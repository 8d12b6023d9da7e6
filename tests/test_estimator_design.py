"""The parts of the budgeted estimate: control features, points of a replicate, pilot, allocation, fitted curve."""

import itertools

import pytest
import torch

from ddpm_ref.estimator.control import GaussianControl, bound_price
from ddpm_ref.estimator.design import neyman, pilot_points, place, replicate_points
from ddpm_ref.estimator.surrogate import Basis, Observations, rough_profile
from ddpm_ref.noise import NoiseStream
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.reverse import reverse_process, reverse_variance
from ddpm_ref.schedule import linear_schedule
from tests.samples import skewed_clusters

DIMS, SIZE, T = 3, 41, 29


def test_control_features_have_mean_zero() -> None:
    rows, schedule = skewed_clusters(SIZE, DIMS), linear_schedule(T)
    control = GaussianControl(
        rows, schedule, bound_price(schedule, reverse_variance("posterior", schedule))
    )
    for t in (1, 13, 29):
        steps = torch.full((SIZE,), t)
        image, _ = control.features(rows, steps, torch.zeros_like(rows))
        assert abs(image.mean().item()) < 1e-9 * image.abs().max().item()
        # Second-order in Gaussian noise: the ±1 cube has the same first two moments, so its average is exact.
        corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=DIMS))).double()
        draws = [control.features(rows, steps, c.expand_as(rows))[1] for c in corners]
        mean = torch.stack(draws).mean(dim=0)
        assert mean.abs().max().item() < 1e-9 * torch.stack(draws).abs().max().item() + 1e-12


def test_control_features_rebuild_the_gaussians_own_term() -> None:
    # If the model is the fitted Gaussian itself, H + G + a constant of t is the term.
    rows, schedule = skewed_clusters(SIZE, DIMS), linear_schedule(T)
    fitted = GaussianOracle.fit(rows)
    process = reverse_process(
        fitted.model(schedule, "x0"), schedule, parameterization="x0", decoder="gaussian"
    )
    control = GaussianControl(rows, schedule, bound_price(schedule, process.log_variance.exp()))
    noise = NoiseStream(1).normal(rows.shape, step=0, dtype=torch.float64)
    for t in (1, 2, 17):
        steps = torch.full((SIZE,), t)
        term = process.terms(rows, steps, noise)
        image, draw = control.features(rows, steps, noise)
        rest = term - image - draw
        assert rest.std().item() < 1e-8 * term.abs().max().item()
        coefficients = torch.zeros(T, dtype=torch.float64)
        coefficients[t - 1] = 1
        torch.testing.assert_close(control.image_total(rows, coefficients), image)


def test_place_inverts_the_distribution() -> None:
    q = torch.tensor([0.1, 0.0, 0.4, 0.5], dtype=torch.float64)
    u = torch.tensor([0.0, 0.0999, 0.1, 0.4999, 0.5, 0.9999], dtype=torch.float64)
    assert place(u, q).tolist() == [1, 1, 3, 3, 4, 4]
    grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert torch.bincount(place(grid, q), minlength=5).tolist() == [0, 100, 0, 400, 500]


def test_each_point_of_a_replicate_is_distributed_as_q() -> None:
    q = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    counts = torch.tensor([1, 2, 3, 3, 1, 2, 2])
    seen = torch.zeros(5)
    runs = 400
    for seed in range(runs):
        points = replicate_points(counts, q, NoiseStream(seed), 0)
        assert points.example.tolist() == torch.repeat_interleave(torch.arange(7), counts).tolist()
        weights = torch.zeros(5, dtype=torch.float64).index_add_(
            0, points.t, 1 / counts[points.example].double()
        )
        seen += weights.float() / (7 * runs)
    # 400 runs of 7 nearly independent examples: standard error below 0.01.
    torch.testing.assert_close(seen[1:], q.float(), rtol=0, atol=0.04)


def test_the_points_of_an_example_share_a_set_of_noise() -> None:
    points = replicate_points(torch.tensor([3, 4]), torch.ones(10).double() / 10, NoiseStream(0), 1)
    assert points.noise.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert points.sizes.tolist() == [3, 4]
    assert (points.t[3:].diff() >= 0).all()


def test_examples_with_equal_counts_fill_t_evenly_by_themselves() -> None:
    # 90 examples of 2 points and 210 of 1: either group alone hits each of 10 equal steps equally often.
    counts = torch.cat([torch.full((90,), 2), torch.full((210,), 1)])
    points = replicate_points(counts, torch.full((10,), 0.1).double(), NoiseStream(2), 0)
    for count, expected in ((2, 18), (1, 21)):
        t = points.t[counts[points.example] == count]
        assert (torch.bincount(t, minlength=11)[1:] - expected).abs().max() <= 1


def test_the_replicates_of_an_example_are_independent_in_t() -> None:
    q = torch.full((2,), 0.5, dtype=torch.float64)
    both = torch.zeros(2, 2)
    for seed in range(400):
        first, second = (
            replicate_points(torch.ones(7, dtype=torch.int64), q, NoiseStream(seed), r).t[3]
            for r in (0, 1)
        )
        both[first - 1, second - 1] += 1 / 400
    # Four cells of probability 1/4: standard error 0.022.
    torch.testing.assert_close(both, torch.full((2, 2), 0.25), rtol=0, atol=0.09)


def test_pilot_deals_steps_to_examples_at_random() -> None:
    q = torch.ones(50, dtype=torch.float64) / 50
    points = pilot_points(100, 7, q, NoiseStream(3))
    assert torch.bincount(points.t, minlength=51)[1:].tolist() == [2] * 50
    assert points.t.tolist() != sorted(points.t.tolist())


def test_neyman_follows_the_standard_deviation() -> None:
    profile = torch.full((160,), 1 / 160, dtype=torch.float64)
    t = torch.arange(1, 161).repeat(200)
    spread = torch.where(t > 80, 3.0, 1.0).double()
    q = neyman(spread * torch.where(torch.arange(len(t)) % 2 == 0, 1.0, -1.0), t, profile)
    # 90 % Neyman allocation, 10 % profile: (0.9·3/2 + 0.1)/(0.9·1/2 + 0.1), up to one pseudo-observation each.
    assert (q[120] / q[40]).item() == pytest.approx(1.45 / 0.55, rel=0.02)
    assert q.sum().item() == pytest.approx(1)
    assert torch.equal(neyman(torch.zeros(3).double(), torch.tensor([1, 2, 3]), profile), profile)


def test_surrogate_recovers_a_known_curve() -> None:
    profile = torch.linspace(2, 1, 100, dtype=torch.float64)
    profile /= profile.sum()
    basis = Basis(profile, knots=5, control_knots=2)
    t = torch.arange(1, 101).repeat(400)
    image, draw = (
        NoiseStream(2).normal((len(t), 1), step=s, dtype=torch.float64)[:, 0] for s in (0, 1)
    )
    value = 7 * profile[t - 1] + 2 * image - 3 * draw
    fit = basis.fit(Observations(t, value, image, draw), torch.ones(len(t)).double())
    torch.testing.assert_close(basis.curve(fit), 7 * profile, rtol=1e-2, atol=0)
    torch.testing.assert_close(
        basis.on_image(fit), torch.full_like(profile, 2.0), rtol=1e-2, atol=0
    )


def test_a_control_whose_squares_underflow_counts_as_none() -> None:
    """Beside values of size 1, a control of 1e-180 explains nothing: the fit is that without it, and not singular."""
    profile = torch.ones(5, dtype=torch.float64) / 5
    t = torch.tensor([2, 2, 3, 2, 1, 4, 5, 2])
    none = torch.zeros(8, dtype=torch.float64)
    tiny = torch.linspace(-1, 2, 8, dtype=torch.float64) * 1e-180
    value = torch.linspace(1, 2, 8, dtype=torch.float64)
    basis, scale = Basis(profile, knots=2, control_knots=1), torch.ones(8, dtype=torch.float64)
    fits = [basis.fit(Observations(t, value, c, c), scale) for c in (none, tiny)]
    assert torch.equal(basis.curve(fits[0]), basis.curve(fits[1]))
    assert (basis.on_image(fits[1]) * 1e-180).abs().max().item() < 1e-12


def test_rough_profile_is_a_distribution_with_every_step() -> None:
    schedule = linear_schedule(T)
    control = GaussianControl(
        skewed_clusters(SIZE, DIMS),
        schedule,
        bound_price(schedule, reverse_variance("posterior", schedule)),
    )
    profile = rough_profile(control, T)
    assert profile.sum().item() == pytest.approx(1)
    assert profile.min().item() > 0.05 / T
