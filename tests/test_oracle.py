"""Oracles against algebra that they do not use: dense solves, scipy densities, quadrature, Monte Carlo with stated errors."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from ddpm_ref.elbo import elbo, prior_kl
from ddpm_ref.oracle import EmpiricalOracle, GaussianOracle, MixtureOracle, Oracle
from ddpm_ref.oracle.empirical import _exponents
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
    sigmoid_schedule,
)

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule, "sigmoid": sigmoid_schedule}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(size: int, seed: int = 1) -> GaussianOracle:
    root = random(size, size, seed=seed) / math.sqrt(size)
    covariance = root @ root.T + 0.05 * torch.eye(size, dtype=torch.float64)
    return GaussianOracle(random(size, seed=seed + 100), covariance)


def mixture(size: int = 3) -> MixtureOracle:
    roots = random(2, size, size, seed=5)
    covariances = roots @ roots.transpose(1, 2) / size + 0.02 * torch.eye(size)
    return MixtureOracle(torch.tensor([0.3, 0.7]), 2 * random(2, size, seed=6), covariances)


def line() -> MixtureOracle:
    return MixtureOracle(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
        torch.tensor([[[0.01]], [[0.09]]], dtype=torch.float64),
    )


def draw(oracle: GaussianOracle, count: int, seed: int = 2) -> Tensor:
    z = random(count, oracle.size, seed=seed) * oracle.spectrum.sqrt()
    return (z @ oracle.basis.T + oracle.mean).view(count, *oracle.dims)


def test_gaussian_denoiser_solves_the_normal_equations() -> None:
    root, mean = random(5, 5, seed=1), random(5, seed=101)
    covariance = root @ root.T / 5
    oracle, schedule = GaussianOracle(mean, covariance), linear_schedule(7)
    x_t = random(3, 5)
    for t in range(1, 8):
        bar = schedule.alpha_bar[t]
        system = bar * covariance + (1 - bar) * torch.eye(5, dtype=torch.float64)
        gap = (x_t - bar.sqrt() * mean).T
        expected = mean + (bar.sqrt() * covariance @ torch.linalg.solve(system, gap)).T
        found = oracle.denoise(x_t, torch.full((3,), t), schedule)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_mixture_denoiser_is_bayes_rule_with_scipy_densities() -> None:
    oracle, schedule, t = mixture(), cosine_schedule(5), 3
    bar = schedule.alpha_bar[t].item()
    x_t = random(7, 3)
    found = oracle.denoise(x_t, torch.full((7,), t), schedule)
    for row, value in zip(x_t, found, strict=True):
        weights, means = [], []
        for k in range(2):
            cov = oracle.bases[k] @ torch.diag(oracle.spectra[k]) @ oracle.bases[k].T
            noisy = (bar * cov + (1 - bar) * torch.eye(3, dtype=torch.float64)).numpy()
            centre = (math.sqrt(bar) * oracle.means[k]).numpy()
            weights.append(
                oracle.weights[k].item() * stats.multivariate_normal(centre, noisy).pdf(row)
            )
            gap = torch.linalg.solve(torch.as_tensor(noisy), row - torch.as_tensor(centre))
            means.append(oracle.means[k] + math.sqrt(bar) * cov @ gap)
        expected = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10)


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


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
@pytest.mark.parametrize("oracle", [gaussian(3), mixture(), EmpiricalOracle(random(7, 3))])
def test_every_parameterization_says_the_same(oracle: Oracle, name: str) -> None:
    schedule = linear_schedule(13)
    x_t, t = random(5, 3), torch.tensor([1, 2, 7, 12, 13])
    prediction = oracle.model(schedule, name)(x_t, t)
    x0 = convert(prediction, x_t, t, schedule, source=name, to="x0")
    # eps to x0 divides an absolute error of 1e-16 by sqrt(alpha_bar) ≥ 0.9 and 'mean' by c0 > 1e-2.
    torch.testing.assert_close(x0, oracle.denoise(x_t, t, schedule), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("oracle", [gaussian(2), mixture(2)])
def test_eps_is_the_score_of_the_noisy_density(oracle: GaussianOracle | MixtureOracle) -> None:
    # Tweedie: E[eps | x_t] = −sqrt(1−alpha_bar) ∇ ln q(x_t); q(x_t) is again such a distribution.
    schedule, t = linear_schedule(300), 150
    bar = schedule.alpha_bar[t].item()
    noise = (1 - bar) * torch.eye(2, dtype=torch.float64)
    noisy: GaussianOracle | MixtureOracle
    if isinstance(oracle, GaussianOracle):
        cov = oracle.basis @ torch.diag(oracle.spectrum) @ oracle.basis.T
        noisy = GaussianOracle(math.sqrt(bar) * oracle.mean, bar * cov + noise)
    else:
        covs = oracle.bases @ torch.diag_embed(oracle.spectra) @ oracle.bases.transpose(1, 2)
        noisy = MixtureOracle(oracle.weights, math.sqrt(bar) * oracle.means, bar * covs + noise)
    x_t = random(5, 2).requires_grad_()
    (score,) = torch.autograd.grad(noisy.log_prob(x_t).sum(), x_t)
    found = oracle.model(schedule, "eps")(x_t.detach(), torch.full((5,), t))
    torch.testing.assert_close(found, -math.sqrt(1 - bar) * score, rtol=1e-9, atol=1e-11)


def test_densities_agree_with_scipy() -> None:
    g, m, x = gaussian(3), mixture(), random(7, 3)
    cov = (g.basis @ torch.diag(g.spectrum) @ g.basis.T).numpy()
    expected = stats.multivariate_normal(g.mean.numpy(), cov)
    torch.testing.assert_close(g.log_prob(x), torch.as_tensor(expected.logpdf(x.numpy())))
    assert g.entropy().item() == pytest.approx(expected.entropy(), rel=1e-12)
    parts = [
        w.item()
        * stats.multivariate_normal(c.numpy(), (b @ torch.diag(s) @ b.T).numpy()).pdf(x.numpy())
        for w, c, s, b in zip(m.weights, m.means, m.spectra, m.bases, strict=True)
    ]
    torch.testing.assert_close(m.log_prob(x), torch.as_tensor(sum(parts)).log())


def test_mixture_entropy_and_mmse_agree_with_direct_integrals() -> None:
    oracle = line()

    def density(x: float, noise: float = 0.0, shrink: float = 1.0) -> float:
        return sum(
            w * stats.norm.pdf(x, shrink * m, math.sqrt(shrink**2 * v + noise))
            for w, m, v in ((0.3, -1.0, 0.01), (0.7, 0.8, 0.09))
        )

    entropy, _ = integrate.quad(
        lambda x: -density(x) * math.log(density(x)),
        -2.2,
        4,
        points=[-1, 0.8],
        limit=500,
        epsabs=1e-11,
    )
    assert oracle.entropy().item() == pytest.approx(entropy, abs=1e-8)
    schedule = schedule_from_log_snr([1.3])
    bar = schedule.alpha_bar[1].item()

    def squared_denoised(x_t: float) -> float:
        where = torch.tensor([[x_t]], dtype=torch.float64)
        x0 = oracle.denoise(where, torch.tensor([1]), schedule).item()
        return x0**2 * density(x_t, 1 - bar, math.sqrt(bar))

    explained, _ = integrate.quad(squared_denoised, -9, 9, limit=300, epsabs=1e-11)
    second = 0.3 * (1 + 0.01) + 0.7 * (0.64 + 0.09)
    assert oracle.mmse(torch.tensor(1.3)).item() == pytest.approx(second - explained, abs=1e-8)


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


def test_models_map_original_indices_back_and_reject_others() -> None:
    oracle, schedule = gaussian(3), linear_schedule(20).respaced([3, 11, 20])
    x_t = random(2, 3)
    found = oracle.model(schedule, "x0")(x_t, torch.tensor([3, 20]))
    assert torch.equal(found, oracle.denoise(x_t, torch.tensor([1, 3]), schedule))
    for strangers in ([4, 20], [3, 4], [4, 12]):  # the first of several is named
        with pytest.raises(ValueError, match="timestep 4 "):
            oracle.model(schedule, "x0")(x_t, torch.tensor(strangers))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool])
def test_models_refuse_step_indices_that_are_no_integers_as_denoise_does(dtype) -> None:
    oracle, schedule, x_t = gaussian(3), linear_schedule(20), random(2, 3)
    steps = torch.ones(2).to(dtype)
    with pytest.raises(TypeError, match="t has dtype"):
        oracle.denoise(x_t, steps, schedule)
    with pytest.raises(TypeError, match=r"timestep has dtype .*pass timestep\.long"):
        oracle.model(schedule)(x_t, steps)


@pytest.mark.parametrize("shape", [(), (2, 1), (3,)])
def test_models_refuse_step_indices_of_another_shape(shape: tuple[int, ...]) -> None:
    steps = torch.ones(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="has shape"):
        gaussian(3).model(linear_schedule(20))(random(2, 3), steps)


def test_zero_terminal_snr_denoises_to_the_mean() -> None:
    oracle, schedule = gaussian(3), rescale_to_zero_terminal_snr(linear_schedule(5))
    found = oracle.denoise(random(2, 3), torch.tensor([5, 5]), schedule)
    torch.testing.assert_close(found, oracle.mean.expand(2, 3))
    assert torch.isfinite(oracle.expected_elbo(schedule).total).all()


def test_float32_in_float32_out_computed_in_float64() -> None:
    oracle, schedule, x_t = gaussian(3), linear_schedule(5), random(2, 3).float()
    found = oracle.denoise(x_t, torch.tensor([1, 5]), schedule)
    assert found.dtype == torch.float32
    exact = oracle.denoise(x_t.double(), torch.tensor([1, 5]), schedule)
    assert torch.equal(found, exact.float())


def test_fit_recovers_moments_and_allows_flat_directions() -> None:
    data = random(101, 3)
    data[:, 2] = 0.5
    oracle = GaussianOracle.fit(data.view(101, 1, 3))
    assert oracle.dims == (1, 3)
    torch.testing.assert_close(oracle.mean, data.mean(dim=0))
    covariance = oracle.basis @ torch.diag(oracle.spectrum) @ oracle.basis.T
    torch.testing.assert_close(
        covariance.numpy(), np.cov(data.numpy().T, bias=True), atol=1e-12, rtol=0
    )
    assert oracle.entropy().item() == -math.inf
    with pytest.raises(ValueError, match="eigenvalue 0"):
        oracle.log_prob(data[:2].view(2, 1, 3))


def test_a_mixture_with_a_flat_direction_has_a_denoiser_and_no_density() -> None:
    flat = torch.stack([torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2)])
    oracle = MixtureOracle(torch.tensor([0.5, 0.5]), torch.zeros(2, 2), flat)
    x_t, t = random(3, 2), torch.tensor([1, 2, 3])
    assert torch.isfinite(oracle.denoise(x_t, t, linear_schedule(3))).all()
    with pytest.raises(ValueError, match="eigenvalue 0"):
        oracle.log_prob(x_t)


SINGULAR = {
    "a line": [[1.0, 3.0], [3.0, 9.0]],
    "a tiny line": [[1e-30, 3e-30], [3e-30, 9e-30]],
    "a plane": [[2.0, 1.0, 3.0], [1.0, 5.0, 6.0], [3.0, 6.0, 9.0]],  # third row = first + second
    "nothing": [[0.0, 0.0], [0.0, 0.0]],
}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_covariance_is_one_however_its_eigenvalues_are_rounded(name: str) -> None:
    covariance = torch.tensor(SINGULAR[name], dtype=torch.float64)
    size = len(covariance)
    x0 = torch.ones(1, size, dtype=torch.float64)
    one = GaussianOracle(torch.zeros(size), covariance)
    assert one.entropy().item() == -math.inf
    two = MixtureOracle(
        torch.tensor([0.5, 0.5]), torch.zeros(2, size), torch.stack([torch.eye(size), covariance])
    )
    for oracle in (one, two):
        with pytest.raises(ValueError, match="eigenvalue 0"):
            oracle.log_prob(x0)


def test_fewer_examples_than_dims_leave_flat_directions() -> None:
    """Five examples span four dims about their mean; `eigh` gives the other 26 eigenvalues of a few ε, of either sign."""
    oracle = GaussianOracle.fit(random(5, 30))
    assert (oracle.spectrum > 0).sum().item() == 4
    assert oracle.entropy().item() == -math.inf


@pytest.mark.parametrize(
    ("variances", "angle"),
    [((1.0, 1e-12), 0.0), ((1.0, 1e-12), 0.3), ((1e-9, 1e-20), 0.3), ((1.0, 1e-30), 0.0)],
)
def test_a_thin_covariance_is_regular(variances: tuple[float, float], angle: float) -> None:
    """½ ln det(2πe Σ). Rotated by the angle, the entries round to 1e-16 of the largest: 1e-4 of the smaller at 1e-12."""
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    covariance = turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T
    oracle = GaussianOracle(torch.zeros(2), covariance)
    exact = 0.5 * sum(math.log(2 * math.pi * math.e * v) for v in variances)
    assert oracle.entropy().item() == pytest.approx(exact, abs=1e-3)
    assert torch.isfinite(oracle.log_prob(torch.zeros(1, 2))).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianOracle(torch.zeros(2), torch.zeros(3, 3)), "expected \\[2, 2\\]"),
        (
            lambda: GaussianOracle(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
            "transpose",
        ),
        (lambda: GaussianOracle(torch.zeros(2), -torch.eye(2)), "none below 0"),
        (lambda: GaussianOracle(torch.tensor([0.0, math.nan]), torch.eye(2)), "finite"),
        (
            lambda: MixtureOracle(torch.tensor([0.5, 0.6]), torch.zeros(2, 1), torch.ones(2, 1, 1)),
            "sum to 1",
        ),
        (
            lambda: MixtureOracle(torch.ones(1), torch.zeros(2, 1), torch.ones(2, 1, 1)),
            "components",
        ),
        (lambda: EmpiricalOracle(torch.zeros(0, 3)), "at least one"),
        (
            lambda: gaussian(3).denoise(
                torch.zeros(2, 4), torch.ones(2).long(), linear_schedule(2)
            ),
            r"\[3\]",
        ),
        (lambda: gaussian(3).log_prob(torch.full((1, 3), math.inf)), "finite"),
        (lambda: mixture().entropy(), "only in one"),
        (lambda: gaussian(3).model(linear_schedule(2), "epsilon"), "eps"),
    ],
)
def test_errors_of_use_name_the_rule(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()
