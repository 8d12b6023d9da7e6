"""The expected bound in closed form: above the entropy, above the model's own density, what Monte Carlo of `elbo` says."""

import math

import mpmath as mp
import pytest
import torch
from scipy import integrate, stats

from ddpm_ref.elbo import elbo
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.parameterization import convert
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    schedule_from_log_snr,
    sigmoid_schedule,
)
from ddpm_ref.terms import prior_kl
from tests.samples import draw, gaussian, line, random

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule, "sigmoid": sigmoid_schedule}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 10, 100])
def test_expected_bound_is_never_below_the_entropy(name, T) -> None:
    schedule = SCHEDULES[name](T)
    unit = GaussianOracle(torch.zeros(3), torch.eye(3))
    equal = unit.expected_elbo(schedule, "beta").total - unit.entropy()
    assert equal.abs().item() < 1e-10
    for oracle in (gaussian(3), gaussian(5), line(), unit):
        for variance in ("posterior", "beta"):
            gap = oracle.expected_elbo(schedule, variance).total - oracle.entropy()
            assert gap.item() > -1e-10


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("T", [1, 3, 29])
def test_bound_of_each_point_is_above_minus_log_of_the_models_own_density(variance, T) -> None:
    oracle = gaussian(5)
    x0 = 2 * draw(oracle, 101)
    for make in SCHEDULES.values():
        schedule = make(T)
        bound = oracle.expected_elbo(schedule, variance, x0).total
        assert (bound + oracle.model_log_prob(x0, schedule, variance)).min().item() > -1e-10


def test_model_density_is_that_of_the_reverse_chain_composed_densely() -> None:
    # Composes x_{t−1} = M_t x_t + v_t + sigma·noise as full matrices in pixel space, from denoise() alone.
    oracle, schedule = gaussian(3), linear_schedule(5)
    mean, covariance = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    for t in range(5, 0, -1):
        basis = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
        x0 = oracle.denoise(basis, torch.full((4,), t), schedule)
        points = convert(x0, basis, torch.full((4,), t), schedule, source="x0", to="mean")
        matrix, offset = (points[1:] - points[0]).T, points[0]
        sigma2 = schedule.posterior_variance[t] if t > 1 else schedule.beta[1]
        mean = matrix @ mean + offset
        covariance = matrix @ covariance @ matrix.T + sigma2 * torch.eye(3, dtype=torch.float64)
    expected = stats.multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(
        random(7, 3).numpy()
    )
    found = oracle.model_log_prob(random(7, 3), schedule)
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-9, atol=1e-9)


def test_model_density_of_exact_chains_is_the_data_density() -> None:
    # N(0, I) with sigma_t² = beta_t: the reverse chain is the exact reversal at every T.
    unit, x0 = GaussianOracle(torch.zeros(2), torch.eye(2)), random(5, 2)
    for T in (1, 7):
        found = unit.model_log_prob(x0, linear_schedule(T), "beta")
        torch.testing.assert_close(found, unit.log_prob(x0), rtol=1e-12, atol=1e-12)


def test_the_gap_falls_like_one_over_t_between_fixed_log_snr_ends() -> None:
    # An end at λ = 18 keeps the decoder's share of the gap below the 1/T term.
    oracle = gaussian(3)
    gaps = []
    for T in (500, 1000, 2000):
        schedule = schedule_from_log_snr(torch.linspace(18, -18, T, dtype=torch.float64))
        gaps.append((oracle.expected_elbo(schedule).total - oracle.entropy()).item())
    slope = math.log(gaps[0] / gaps[2]) / math.log(4)
    assert slope == pytest.approx(1, abs=0.03)


def test_expected_bound_agrees_with_monte_carlo_in_every_cell() -> None:
    # One z-score a cell, from 1500 examples with fresh noise each, so that a total is nearly normal; the full grid
    # (64 dims, T to 1000) is `ddpm-bench bound --grid`.
    scores = []
    for size in (1, 3):
        oracle = gaussian(size)
        for T in (1, 2, 10):
            for variance in ("posterior", "beta"):
                for number, make in enumerate(SCHEDULES.values()):
                    schedule, x0 = make(T), draw(oracle, 1500, seed=len(scores) + 11)
                    found = elbo(
                        oracle.model(schedule, "v"),
                        x0,
                        schedule,
                        parameterization="v",
                        variance=variance,
                        decoder="gaussian",
                        seed=number,
                        batch_size=1500,
                    ).total
                    truth = oracle.expected_elbo(schedule, variance).total
                    error = found.std() / math.sqrt(len(x0))
                    scores.append(((found.mean() - truth) / error).item())
    assert max(map(abs, scores)) < 4
    assert stats.kstest(scores, "norm").pvalue > 0.01


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_expected_bound_given_x0_agrees_term_by_term(variance) -> None:
    # The term is quadratic in Gaussian noise; 2000 draws leave it close to normal, and 4.5 is passed by chance once in
    # 3000 runs of these 44 cells.
    oracle, schedule = gaussian(3), cosine_schedule(11)
    x0 = draw(oracle, 4)
    exact = oracle.expected_elbo(schedule, variance, x0)
    found = elbo(
        oracle.model(schedule, "eps"),
        x0.repeat(2000, 1),
        schedule,
        variance=variance,
        decoder="gaussian",
        batch_size=8000,
    )
    torch.testing.assert_close(found.prior[:4], exact.prior, rtol=1e-9, atol=1e-12)
    sampled = torch.cat([found.reconstruction[:, None], found.diffusion], dim=1).view(2000, 4, 11)
    truth = torch.cat([exact.reconstruction[:, None], exact.diffusion], dim=1)
    z = (sampled.mean(dim=0) - truth) / (sampled.std(dim=0) / math.sqrt(2000))
    assert z.abs().max().item() < 4.5


def test_mixture_bound_agrees_with_monte_carlo() -> None:
    oracle, schedule = line(), linear_schedule(10)
    left, right = -1 + 0.1 * random(600, 1, seed=7), 0.8 + 0.3 * random(1400, 1, seed=8)
    found = elbo(
        oracle.model(schedule), torch.cat([left, right]), schedule, decoder="gaussian"
    ).total
    error = math.sqrt((0.3**2 * found[:600].var() / 600 + 0.7**2 * found[600:].var() / 1400).item())
    stratified = 0.3 * found[:600].mean() + 0.7 * found[600:].mean()
    assert abs(stratified.item() - oracle.expected_elbo(schedule).total.item()) < 4 * error


def test_mixture_prior_term_counts_variances_and_squared_means() -> None:
    """Eq. (6) of the bound, with E x0² = Σ w (v + m²), where ᾱ_T = ½ leaves a prior worth the name."""
    second = 0.3 * (0.01 + 1.0) + 0.7 * (0.09 + 0.64)
    found = line().expected_elbo(schedule_from_log_snr([3.0, 1.0, 0.0])).prior
    assert found.item() == pytest.approx(0.5 * (0.5 * second - 0.5 + math.log(2)), rel=1e-12)


def test_no_term_of_the_expected_bound_cancels_however_small() -> None:
    """T = 4000: ᾱ_T is 3e-18, so both parts of the prior are far below one ulp of 1, and so is r − 1 for `beta`."""
    schedule, x0 = linear_schedule(4000), torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    unit = GaussianOracle(torch.zeros(2), torch.eye(2))
    found = unit.expected_elbo(schedule, "beta", x0)
    kept = [mp.mpf(1)]
    with mp.workdps(60):
        for beta in schedule.beta[1:].tolist():
            kept.append(kept[-1] * (1 - mp.mpf(beta)))
        energy = mp.fsum(mp.mpf(x) ** 2 for x in x0[0].tolist())
        exact = kept[-1] * energy / 2 - kept[-1] - mp.log1p(-kept[-1])
    assert found.prior.item() == pytest.approx(float(exact), rel=1e-12, abs=0)
    assert prior_kl(x0, schedule).item() == pytest.approx(float(exact), rel=1e-12, abs=0)
    on_average = unit.expected_elbo(schedule).prior
    assert on_average.item() == pytest.approx(float(-mp.log1p(-kept[-1])), rel=1e-12, abs=0)
    assert (found.diffusion >= 0).all()


def test_i_mmse_integral_gives_the_entropy() -> None:
    # h = (d/2) ln 2πe − ½∫[d/(1+γ) − mmse(γ)] dγ, integrated over λ = ln γ.
    for oracle, size in ((gaussian(3), 3), (line(), 1)):
        grid = torch.linspace(-32, 32, 1601, dtype=torch.float64)
        integrand = size / (1 + grid.exp()) - oracle.mmse(grid)
        area = integrate.simpson((integrand * grid.exp()).numpy(), x=grid.numpy())
        found = 0.5 * size * math.log(2 * math.pi * math.e) - 0.5 * area
        assert found == pytest.approx(oracle.entropy().item(), abs=1e-6)
