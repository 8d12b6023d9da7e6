"""Oracles against algebra that they do not use: dense solves, scipy densities, quadrature, Monte Carlo with stated errors."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ddpm_ref.oracle import EmpiricalOracle, GaussianOracle, MixtureOracle, Oracle
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)
from tests.samples import gaussian, line, mixture, random


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


def test_weights_that_sum_to_nearly_one_are_made_to() -> None:
    """Probabilities in float32 miss 1 by 1e-7: the density must not."""
    exact, points = line(), random(5, 1)
    nearly = MixtureOracle(exact.weights * (1 + 5e-7), exact.means, exact.spectra[..., None])
    torch.testing.assert_close(
        nearly.log_prob(points), exact.log_prob(points), rtol=1e-14, atol=1e-14
    )


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


@pytest.mark.parametrize("oracle", [gaussian(3), line()])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_mmse_has_the_shape_of_its_log_snr(oracle: Oracle, shape: tuple[int, ...]) -> None:
    grid = torch.linspace(-2, 3, 6, dtype=torch.float64)[: math.prod(shape)].view(shape)
    found = oracle.mmse(grid)
    assert found.shape == shape
    each = [oracle.mmse(value).item() for value in grid.flatten()]
    torch.testing.assert_close(found.flatten(), torch.tensor(each, dtype=torch.float64))


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
