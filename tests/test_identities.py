"""Identities between modules that do not import each other, or not for this: two routes to one number.

`objective` and `elbo` know nothing of each other, and both contain the bound's weight. The oracle's denoiser knows nothing of
autograd, and its score is a gradient. Where two routes agree to rounding, a mistake would have to be made twice.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from ddpm_ref.elbo import elbo
from ddpm_ref.gaussian import discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import WEIGHTINGS, loss, weight
from ddpm_ref.oracle import EmpiricalOracle, GaussianOracle, MixtureOracle
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert, target
from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.sampler import SamplerRule, step
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
    schedule_from_log_snr,
)
from ddpm_ref.terms import prior_kl

SHORT = [SCHEDULES[name](T) for name, T in itertools.product(SCHEDULES, (2, 13))]
IDS = [f"{name}-{T}" for name, T in itertools.product(SCHEDULES, (2, 13))]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(dims: int) -> Tensor:
    root = normal(dims, dims, seed=1)
    return root @ root.T / dims + 0.2 * torch.eye(dims, dtype=torch.float64)


# ---------------------------------------------------------------- bound = weighted squared error


class Wrong:
    """A deterministic model that is wrong in every space: the output of a smooth function of x_t and t."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(2 * x_t) + 0.1 * torch.cos(t.double()).view(-1, *[1] * (x_t.ndim - 1))


def drawn(x0: Tensor, schedule: Schedule, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """(t `[B]`, noise, x_t) of the bound's one draw at step t: the noise of (seed 0, step t − 1)."""
    steps = torch.full((len(x0),), t)
    noise = NoiseStream(0).normal(x0.shape, step=t - 1, dtype=torch.float64)
    return steps, noise, q_sample(x0, steps, schedule, noise)


@pytest.mark.parametrize("space", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_bound_is_dims_times_the_elbo_loss(schedule: Schedule, space: str) -> None:
    """L_t = D · loss(weighting='elbo') for t ≥ 2, draw for draw."""
    x0, model = normal(3, 5), Wrong()
    terms = elbo(model, x0, schedule, parameterization=space, decoder="gaussian")
    for t in range(2, schedule.T + 1):
        steps, noise, x_t = drawn(x0, schedule, t)
        error = loss(
            model(x_t, steps), x0, noise, steps, schedule, parameterization=space, weighting="elbo"
        )
        torch.testing.assert_close(terms.diffusion[:, t - 2], 5 * error, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_reconstruction_is_the_elbo_loss_up_to_its_constant(schedule: Schedule, space: str) -> None:
    """L_0 = D · [loss + ½ ln 2πβ_1] at t = 1."""
    x0, model = normal(3, 5), Wrong()
    terms = elbo(model, x0, schedule, parameterization=space, decoder="gaussian")
    steps, noise, x_t = drawn(x0, schedule, 1)
    error = loss(
        model(x_t, steps), x0, noise, steps, schedule, parameterization=space, weighting="elbo"
    )
    constant = 0.5 * math.log(2 * math.pi * schedule.beta[1].item())
    torch.testing.assert_close(terms.reconstruction, 5 * (error + constant), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_large_variance_scales_the_error_and_adds_its_own_kl(schedule: Schedule) -> None:
    """With σ² = β: L_t = (β̃/β) L_t(β̃) + D·½(β̃/β − 1 − ln β̃/β)."""
    x0, model = normal(3, 5), Wrong()
    small = elbo(model, x0, schedule, decoder="gaussian", variance="posterior").diffusion
    large = elbo(model, x0, schedule, decoder="gaussian", variance="beta").diffusion
    ratio = schedule.posterior_variance[2:] / schedule.beta[2:]
    own = 2.5 * (ratio - 1 - ratio.log())
    torch.testing.assert_close(large, ratio * small + own, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_elbo_weights_telescope(schedule: Schedule) -> None:
    t = torch.arange(2, schedule.T + 1)
    total = weight("elbo", t, schedule, parameterization="x0").sum()
    snr = schedule.log_snr.exp()
    torch.testing.assert_close(total, 0.5 * (snr[1] - snr[-1]), rtol=1e-12, atol=0)


def test_discretized_likelihood_tends_to_the_density_times_the_bin() -> None:
    """For σ far above the bin's width, ln P = ln N + ln(2/(levels−1)) up to O(width²/σ²)."""
    levels, log_scale = 4097, torch.tensor(-1.0, dtype=torch.float64)
    x = (torch.arange(1024, 3072, 97, dtype=torch.float64)) * (2 / (levels - 1)) - 1
    mean = torch.full_like(x, 0.1)
    mass = discretized_gaussian_log_likelihood(x, mean, log_scale.expand_as(x), levels)
    z = (x - mean) * torch.exp(-log_scale)
    density = -0.5 * z**2 - log_scale - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(mass, density + math.log(2 / (levels - 1)), rtol=0, atol=1e-6)


# ---------------------------------------------------------------- the forward process composes


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_posterior_averaged_over_the_marginal_is_the_earlier_marginal(schedule: Schedule) -> None:
    """∫ q(x_{t−1}|x_t, x0) q(x_t|x0) dx_t = q(x_{t−1}|x0): c_0 + c_t a_t = a_{t−1}, c_t² s_t² + β̃ = s²_{t−1}."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t in range(1, schedule.T + 1):
        step_t = torch.tensor([t])
        on_x0 = q_posterior(one, zero, step_t, schedule).mean.item()
        gaussian = q_posterior(zero, one, step_t, schedule)
        on_x_t, variance = gaussian.mean.item(), gaussian.log_var.exp().item()
        a, s2 = schedule.sqrt_alpha_bar, schedule.one_minus_alpha_bar
        assert on_x0 + on_x_t * a[t].item() == pytest.approx(a[t - 1].item(), rel=1e-12)
        spread = on_x_t**2 * s2[t].item() + variance
        assert spread == pytest.approx(s2[t - 1].item(), rel=1e-12, abs=1e-300)


def test_a_schedule_is_the_same_from_its_beta_and_from_its_log_snr() -> None:
    for schedule in SHORT:
        again = schedule_from_beta(schedule.beta[1:])
        other = schedule_from_log_snr(schedule.log_snr[1:])
        for table in ("beta", "alpha_bar", "one_minus_alpha_bar", "posterior_variance"):
            expected = getattr(schedule, table)
            torch.testing.assert_close(getattr(again, table), expected, rtol=1e-12, atol=0)
            torch.testing.assert_close(getattr(other, table), expected, rtol=1e-11, atol=0)


def test_rescaled_schedule_ends_without_signal_and_begins_as_before() -> None:
    schedule = linear_schedule(1000)
    rescaled = rescale_to_zero_terminal_snr(schedule)
    assert rescaled.alpha_bar[-1] == 0
    assert rescaled.beta[-1] == 1
    torch.testing.assert_close(rescaled.alpha_bar[:2], schedule.alpha_bar[:2], rtol=1e-12, atol=0)


# ---------------------------------------------------------------- one estimate in five spaces


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_one_estimate_has_one_loss(schedule: Schedule, weighting: str) -> None:
    x0, eps, guess = normal(3, 4), normal(3, 4, seed=2), normal(3, 4, seed=3)
    t = torch.tensor([1, schedule.T, (schedule.T + 1) // 2])
    x_t = q_sample(x0, t, schedule, eps)
    values = []
    for space in PARAMETERIZATIONS:
        said = convert(guess, x_t, t, schedule, source="x0", to=space)
        values.append(loss(said, x0, eps, t, schedule, parameterization=space, weighting=weighting))
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("pair", list(itertools.permutations(PARAMETERIZATIONS, 2)))
def test_targets_convert_into_each_other(pair: tuple[str, str]) -> None:
    source, to = pair
    for schedule in SHORT:
        t = torch.tensor([1, schedule.T])
        x0, eps = normal(2, 3), normal(2, 3, seed=2)
        x_t = q_sample(x0, t, schedule, eps)
        found = convert(
            target(source, x0, eps, t, schedule), x_t, t, schedule, source=source, to=to
        )
        torch.testing.assert_close(found, target(to, x0, eps, t, schedule), rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- exact models


def oracles() -> list[GaussianOracle | MixtureOracle]:
    means, parts = 2 * normal(2, 3, seed=4), torch.stack([covariance(3), 0.5 * covariance(3)])
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return [GaussianOracle(means[0], covariance(3)), MixtureOracle(weights, means, parts)]


def noised_oracle(
    oracle: GaussianOracle | MixtureOracle, a: float, s2: float
) -> GaussianOracle | MixtureOracle:
    """The exact distribution of x_t."""
    identity = s2 * torch.eye(3, dtype=torch.float64)
    if isinstance(oracle, GaussianOracle):
        return GaussianOracle(a * oracle.mean, a**2 * covariance(3) + identity)
    parts = torch.stack([covariance(3), 0.5 * covariance(3)])
    return MixtureOracle(oracle.weights, a * oracle.means, a**2 * parts + identity)


@pytest.mark.parametrize("oracle", oracles(), ids=["gaussian", "mixture"])
def test_the_oracle_predicts_the_gradient_of_the_noisy_density(
    oracle: GaussianOracle | MixtureOracle,
) -> None:
    """Tweedie: the score model is ∇ ln p(x_t), by a numerical derivative of the exact density of x_t."""
    schedule = linear_schedule(100)
    for t in (1, 40, 100):
        a, s2 = schedule.sqrt_alpha_bar[t].item(), schedule.one_minus_alpha_bar[t].item()
        noisy, x_t, h = noised_oracle(oracle, a, s2), normal(4, 3, seed=5), 1e-5
        shifts = h * torch.eye(3, dtype=torch.float64)
        slope = torch.stack(
            [(noisy.log_prob(x_t + e) - noisy.log_prob(x_t - e)) / (2 * h) for e in shifts], 1
        )
        said = oracle.model(schedule, "score")(x_t, torch.full((4,), t))
        torch.testing.assert_close(said, slope, rtol=1e-5, atol=1e-5)


def test_finite_data_is_a_mixture_of_narrow_gaussians() -> None:
    data, schedule = normal(7, 3), linear_schedule(100)
    narrow = (1e-12 * torch.eye(3, dtype=torch.float64)).expand(7, 3, 3)
    mixture = MixtureOracle(torch.full((7,), 1 / 7, dtype=torch.float64), data, narrow)
    t, x_t = torch.tensor([10, 50, 100]), normal(3, 3, seed=6)
    expected = mixture.denoise(x_t, t, schedule)
    found = EmpiricalOracle(data).denoise(x_t, t, schedule)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_mixture_of_equal_parts_is_a_gaussian() -> None:
    gaussian = GaussianOracle(normal(3), covariance(3))
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    twice = MixtureOracle(weights, gaussian.mean.expand(2, 3), covariance(3).expand(2, 3, 3))
    schedule, t, x = linear_schedule(100), torch.tensor([1, 100]), normal(2, 3, seed=7)
    torch.testing.assert_close(twice.log_prob(x), gaussian.log_prob(x))
    torch.testing.assert_close(twice.denoise(x, t, schedule), gaussian.denoise(x, t, schedule))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_bound_lies_above_the_models_own_likelihood(schedule: Schedule, variance: str) -> None:
    """For each x0: expected bound ≥ −ln p_model(x0), which a linear-Gaussian chain has in closed form."""
    oracle, x0 = GaussianOracle(normal(3), covariance(3)), normal(5, 3, seed=8)
    bound = oracle.expected_elbo(schedule, variance, x0=x0).total
    own = -oracle.model_log_prob(x0, schedule, variance)
    assert bool((bound >= own - 1e-9).all())


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_expected_bound_is_the_weighted_error_of_the_oracle(schedule: Schedule) -> None:
    """Σ_t w_t · mmse(λ_t) with the objective's weights and the oracle's own error."""
    oracle = GaussianOracle(normal(3), covariance(3))
    t = torch.arange(2, schedule.T + 1)
    factors = weight("elbo", t, schedule, parameterization="x0")
    expected = (factors * oracle.mmse(schedule.log_snr[2:])).sum()
    terms = oracle.expected_elbo(schedule, "posterior")
    torch.testing.assert_close(terms.diffusion.sum(), expected, rtol=1e-10, atol=1e-12)


def test_expected_bound_at_the_mean_of_data_is_its_average() -> None:
    """The bound is quadratic in x0, so its average over symmetric points of the data's spread is the expected one."""
    schedule, spread = linear_schedule(13), covariance(3)
    oracle = GaussianOracle(normal(3), spread)
    values, basis = torch.linalg.eigh(spread)
    axes = (basis * (3 * values).sqrt()).T
    points = torch.cat([oracle.mean + axes, oracle.mean - axes])
    pointwise = oracle.expected_elbo(schedule, "posterior", x0=points).total.mean()
    averaged = oracle.expected_elbo(schedule, "posterior").total[0]
    torch.testing.assert_close(pointwise, averaged, rtol=1e-10, atol=0)


def test_prior_term_is_the_kl_of_the_last_marginal() -> None:
    for schedule in SHORT:
        x0 = normal(3, 5)
        a, s2 = schedule.sqrt_alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
        zero = torch.zeros_like(x0)
        kl = gaussian_kl(a * x0, s2.log().expand_as(x0), zero, zero).sum(1)
        torch.testing.assert_close(prior_kl(x0, schedule), kl, rtol=1e-6, atol=1e-15)


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("schedule", SHORT, ids=IDS)
def test_a_sampler_that_knows_x0_walks_along_the_posterior(schedule: Schedule) -> None:
    x0, eps = normal(2, 3), normal(2, 3, seed=2)
    for t in range(1, schedule.T + 1):
        steps = torch.full((2,), t)
        x_t = q_sample(x0, steps, schedule, eps)
        reached = step(x0, x_t, steps, schedule, parameterization="x0", rule=SamplerRule("ddpm"))
        posterior = q_posterior(x0, x_t, steps, schedule)
        torch.testing.assert_close(reached.mean, posterior.mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(reached.log_var, posterior.log_var, rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_marginals(eta: float) -> None:
    """With the true x0 and ε, one step lands on q(x_{t−1} | x0): mean a' x0 and total variance s'²."""
    schedule = linear_schedule(13)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t in range(2, 14):
        at, rule = torch.tensor([t]), SamplerRule("ddim", eta=eta)
        clean = q_sample(one, at, schedule, zero)
        mean = step(one, clean, at, schedule, parameterization="x0", rule=rule).mean
        noisy = q_sample(zero, at, schedule, one)
        reached = step(zero, noisy, at, schedule, parameterization="x0", rule=rule)
        spread = reached.mean**2 + reached.log_var.exp()
        torch.testing.assert_close(mean[0, 0], schedule.sqrt_alpha_bar[t - 1])
        torch.testing.assert_close(spread[0, 0], schedule.one_minus_alpha_bar[t - 1])
