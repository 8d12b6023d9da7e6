"""Laws that only an expectation can settle: their own closed forms against dense composition, quadrature and scipy; and their teeth."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from ddpm_ref.conformance import Implementation, Reference, Setting
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.lawbook.information import Mixture, entropy_by_denoising, squared_errors
from ddpm_ref.conformance.lawbook.pointwise import LinearModel, negative_log_density
from ddpm_ref.conformance.lawbook.truth import truth
from ddpm_ref.conformance.mutants import MUTANTS
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import Schedule, linear_schedule
from ddpm_ref.times import TIMES, Times, make_times

FLOAT64 = torch.float64
LADDER = torch.linspace(-11, 9, 121, dtype=FLOAT64)


def mixture(weights: list[float], means: list[float], spreads: list[float]) -> Mixture:
    columns = [torch.tensor(v, dtype=FLOAT64) for v in (weights, means, spreads)]
    return Mixture(columns[0], columns[1][:, None], columns[2][:, None], nodes=32)


TWO = mixture([0.3, 0.7], [-1.0, 0.8], [0.4, 0.9])
ONE = mixture([1.0], [0.5], [0.36])


def density(data: Mixture, x: float) -> float:
    parts = zip(data.weights, data.means[:, 0], data.spreads[:, 0], strict=True)
    return sum(float(w) * stats.norm.pdf(x, float(m), float(s) ** 0.5) for w, m, s in parts)


@pytest.mark.parametrize("data", [ONE, TWO])
def test_entropy_is_that_of_quadrature(data: Mixture) -> None:
    found, _ = integrate.quad(lambda x: -density(data, x) * math.log(density(data, x)), -9, 9)
    assert data.entropy() == pytest.approx(found, abs=1e-8)


@pytest.mark.parametrize("level", [-4.0, 0.0, 3.0])
def test_error_of_the_best_denoiser_is_the_mean_conditional_variance(level: float) -> None:
    # E x0² − E[(E[x0 | y])²] with y = √γ x0 + ε: the posterior mean by integrals over x0 on a fine grid, no responsibilities.
    root = math.exp(level / 2)
    x = np.linspace(-7, 8, 3001)
    prior = np.array([density(TWO, value) for value in x])
    y = np.linspace(root * x[0] - 8, root * x[-1] + 8, 1501)
    joint = prior * stats.norm.pdf(y[:, None] - root * x)
    mass, first = (integrate.simpson(joint * x**power, x=x) for power in (0, 1))
    explained = integrate.simpson(first**2 / np.maximum(mass, 1e-300), x=y)
    second = 0.3 * (1 + 0.4) + 0.7 * (0.64 + 0.9)
    found = squared_errors(TWO, TWO.best, torch.tensor([level], dtype=FLOAT64)).item()
    assert found == pytest.approx(second - explained, abs=1e-5)


@pytest.mark.parametrize("data", [ONE, TWO])
def test_the_integral_is_the_entropy(data: Mixture) -> None:
    assert entropy_by_denoising(data, data.best, LADDER).item() == pytest.approx(
        data.entropy(), abs=2e-6
    )


def test_the_denoiser_of_other_data_costs_their_divergence() -> None:
    # Verdú 2010: ½∫[mse − mmse] dγ over all γ is KL(p ‖ q); beyond the ladder both err alike, up to 1e-4.
    other = mixture([1.0], [0.9], [0.64])
    excess = entropy_by_denoising(ONE, other.best, LADDER).item() - ONE.entropy()
    divergence = 0.5 * (math.log(0.64 / 0.36) + (0.36 + 0.16) / 0.64 - 1)
    assert excess == pytest.approx(divergence, abs=2e-4)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("chosen", [None, (1, 3, 11, 20)])
def test_marginal_of_the_chain_is_that_of_the_composed_joint(
    variance: str, chosen: tuple[int, ...] | None
) -> None:
    # The joint precision matrix of (x_0 … x_T), assembled from the conditionals and inverted, not a recursion.
    model = LinearModel(truth(Setting("linear", 20, timesteps=chosen)), 0.25, 0.36)
    schedule = linear_schedule(20)
    schedule = schedule if chosen is None else schedule.respaced(chosen)
    size, kept, beta = schedule.T + 1, schedule.alpha_bar, schedule.beta
    precision, pull = torch.zeros(size, size, dtype=FLOAT64), torch.zeros(size, dtype=FLOAT64)
    precision[-1, -1] = 1.0
    for t in range(1, size):
        root, rest = kept[t].sqrt(), 1 - kept[t]
        gain = root * 0.36 / (kept[t] * 0.36 + rest)
        clean = kept[t - 1].sqrt() * beta[t] / rest
        noisy = (1 - beta[t]).sqrt() * (1 - kept[t - 1]) / rest
        slope, offset = clean * gain + noisy, clean * (1 - gain * root) * 0.25
        small = variance == "posterior" and t > 1
        sigma2 = beta[t] * (1 - kept[t - 1]) / rest if small else beta[t]
        row = torch.zeros(size, dtype=FLOAT64)
        row[t - 1], row[t] = 1.0, -slope
        precision += torch.outer(row, row) / sigma2
        pull += row * offset / sigma2
    covariance = torch.linalg.inv(precision)
    expected = ((covariance @ pull)[0].item(), covariance[0, 0].item())
    assert model.marginal(variance) == pytest.approx(expected, rel=1e-9)


def test_density_of_a_point_is_that_of_scipy() -> None:
    x0 = torch.tensor([[0.3, -1.0, 2.0]], dtype=FLOAT64)
    expected = -stats.norm.logpdf(x0.numpy(), 0.2, 0.7**0.5).sum()
    assert negative_log_density(x0, 0.2, 0.7).item() == pytest.approx(expected, rel=1e-13)


def test_a_bound_without_noise_is_noticed_by_nothing_else_that_looks_at_bounds() -> None:
    quiet = MUTANTS["noise-forgotten"].build(Reference)
    others = [law for id, law in LAWS.items() if "bound" in id or law.invariant in ("I4", "I10")]
    assert not any(judge(law, quiet, FLOAT64, stop_early=True).failed for law in others)
    assert judge(LAWS["I12-pointwise"], quiet, FLOAT64, stop_early=True).failed


@cache
def schedule_of_length(T: int) -> Schedule:
    return linear_schedule(T)


@cache
def times_of(T: int, timesteps: str, importance: str, stratified: bool) -> Times:
    return make_times(
        timesteps,
        schedule_of_length(T),
        importance=importance,
        stratified=stratified,
        uniform_share=0.3,
    )


class Drawn(Implementation):
    """What the trainer draws in one of its ways, with the factor on each loss."""

    def __init__(self, timesteps: str, importance: str, stratified: bool) -> None:
        self.choices = (timesteps, importance, stratified)

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        times = times_of(T, *self.choices)
        t = times.draw(NoiseStream(seed), 1, 0, count, count)
        return t, times.weights[t - 1]


@pytest.mark.parametrize("law", ["I11-count", "I11-unbiased"])
@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("timesteps", TIMES)
def test_every_draw_of_the_trainer_obeys_the_laws_of_its_kind(
    law: str, timesteps: str, stratified: bool
) -> None:
    outcome = judge(LAWS[law], Drawn(timesteps, "unbiased", stratified), FLOAT64)
    assert outcome.status == "pass", outcome.message


def test_a_density_without_its_weight_does_not_obey_them() -> None:
    assert judge(LAWS["I11-unbiased"], Drawn("laplace", "none", False), FLOAT64).failed
