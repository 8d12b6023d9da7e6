"""The price of rank h: closed forms against brute-force reduced-rank regression, 50 digits, optimizers and samples."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from ddpm_ref import (
    PARAMETERIZATIONS,
    GaussianOracle,
    Schedule,
    best_skip,
    cosine_schedule,
    crossover,
    linear_schedule,
    output_skip,
    rank_limited_excess,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
    wiener_gain,
)
from ddpm_ref.oracle.rank import _GAPS
from ddpm_ref.oracle.skip import SKIPS

F64 = torch.float64
LINEAR = linear_schedule(1000)
OUTPUTS = ("eps", "x0", "v", "score", "mean")


def random_spectrum(size: int, seed: int) -> Tensor:
    """Over six decades, with a flat direction, a tie and a 1 among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.pow(10.0, 6 * torch.rand(size, generator=generator, dtype=F64) - 4)
    if size > 4:
        values[0], values[1], values[2] = 0.0, values[3], 1.0
    return values[torch.randperm(size, generator=generator)]


def roots(t: int, schedule: Schedule) -> tuple[float, float]:
    level = schedule.log_snr[t].item()
    return math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))


def target_row(output: str, t: int, schedule: Schedule) -> tuple[float, float]:
    """(a, b) of y = a·x0 + b·eps, written down again."""
    alpha, sigma = roots(t, schedule)
    beta, before = schedule.beta[t].item(), schedule.alpha_bar[t - 1].item()
    clean, noisy = (
        math.sqrt(before) * beta / sigma**2,
        math.sqrt(1 - beta) * (1 - before) / sigma**2,
    )
    rows = {
        "eps": (0.0, 1.0),
        "x0": (1.0, 0.0),
        "v": (-sigma, alpha),
        "score": (0.0, -1 / sigma),
        "mean": (clean + noisy * alpha, noisy * sigma),
        "flow": (1.0, -1.0),
    }
    return rows[output]


def brute_force(covariance: Tensor, rank: int, t: int, schedule: Schedule, output: str) -> float:
    """Regress y on x_t, cut the regression down to `rank` by a singular value decomposition, translate to x0."""
    alpha, sigma = roots(t, schedule)
    a, b = target_row(output, t, schedule)
    identity = torch.eye(len(covariance), dtype=F64)
    noisy = alpha**2 * covariance + sigma**2 * identity
    values, vectors = torch.linalg.eigh(noisy)
    root = vectors @ values.sqrt().diag() @ vectors.T
    shared = a * alpha * covariance + b * sigma * identity  # Cov(y, x_t)
    left, singular, right = torch.linalg.svd(shared @ torch.linalg.inv(root))
    kept = singular.clone()
    kept[rank:] = 0
    weights = left @ kept.diag() @ right @ torch.linalg.inv(root)
    best = shared @ torch.linalg.inv(noisy)
    gap = (best - weights) * sigma / (a * sigma - b * alpha)
    return torch.trace(gap @ noisy @ gap.T).item()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("size", "seed"), [(2, 1), (7, 2), (31, 3)])
def test_equals_brute_force_regression(output: str, size: int, seed: int) -> None:
    spectrum = random_spectrum(size, seed)
    basis, _ = torch.linalg.qr(
        torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=F64)
    )
    covariance = basis @ spectrum.diag() @ basis.T
    for schedule in (LINEAR, cosine_schedule(13), LINEAR.respaced([3, 50, 500, 1000])):
        for t in {2, (schedule.T + 1) // 2, schedule.T - 1}:
            at_zero = brute_force(covariance, 0, t, schedule, output)
            for rank in range(size + 1):
                found = rank_limited_excess(
                    spectrum, rank, torch.tensor([t]), schedule, parameterization=output
                ).item()
                expected = brute_force(covariance, rank, t, schedule, output)
                assert found == pytest.approx(expected, rel=0, abs=1e-10 * at_zero)


@pytest.mark.parametrize("output", [*OUTPUTS, "flow"])
@pytest.mark.parametrize("level", [-18.0, -3.0, 0.0, 2.5, 18.0])
def test_equals_fifty_digits(output: str, level: float) -> None:
    schedule = schedule_from_log_snr([level + 1.5, level])
    spectrum = random_spectrum(11, 5)
    t, step = torch.tensor([2]), 2
    with mp.workdps(50):
        alpha2, before = (
            1 / (1 + mp.exp(-mp.mpf(schedule.log_snr[k].item()))) for k in (step, step - 1)
        )
        alpha, sigma = mp.sqrt(alpha2), mp.sqrt(1 - alpha2)
        kept = alpha2 / before
        clean, noisy = (
            mp.sqrt(before) * (1 - kept) / sigma**2,
            mp.sqrt(kept) * (1 - before) / sigma**2,
        )
        a, b = {
            "eps": (0, 1),
            "x0": (1, 0),
            "v": (-sigma, alpha),
            "score": (0, -1 / sigma),
            "mean": (clean + noisy * alpha, noisy * sigma),
            "flow": (1, -1),
        }[output]
        prices = []
        for value in spectrum.tolist():
            d = alpha2 * mp.mpf(value) + sigma**2
            explained = (a * alpha * mp.mpf(value) + b * sigma) ** 2 / d  # Cov(y, x_t)²/Var x_t
            prices.append(explained * sigma**2 / (a * sigma - b * alpha) ** 2)
        prices.sort()
        expected = [float(mp.fsum(prices[: 11 - rank])) for rank in range(12)]
    choice = (
        {"skip": output_skip("flow", t, schedule)}
        if output == "flow"
        else {"parameterization": output}
    )
    found = [
        rank_limited_excess(spectrum, rank, t, schedule, **choice).item() for rank in range(12)
    ]
    if output == "flow":  # the rounded skip itself moves a small gap
        assert found == pytest.approx(expected, rel=0, abs=1e-10 * expected[0])
    else:
        assert found == pytest.approx(expected, rel=2e-14, abs=0)


def linear_network(spectrum: Tensor, rank: int, t: int, schedule: Schedule, c: float) -> Tensor:
    """Gains per eigendirection of the best network: the Wiener gain where it is kept, c where it is not."""
    alpha, sigma = roots(t, schedule)
    noisy = alpha**2 * spectrum + sigma**2
    gain = alpha * spectrum / noisy
    kept = (noisy * (gain - c) ** 2).argsort(descending=True)[:rank]
    gains = torch.full_like(spectrum, c)
    gains[kept] = gain[kept]
    return gains


def test_is_the_mean_squared_distance_from_the_oracle_on_samples() -> None:
    spectrum, rank, t, count = random_spectrum(11, 7), 4, 400, 200_000
    generator = torch.Generator().manual_seed(1)
    x0 = spectrum.sqrt() * torch.randn(count, 11, generator=generator, dtype=F64)
    alpha, sigma = roots(t, LINEAR)
    x_t = alpha * x0 + sigma * torch.randn(count, 11, generator=generator, dtype=F64)
    steps = torch.full((count,), t)
    best = GaussianOracle(torch.zeros(11), spectrum.diag()).denoise(x_t, steps, LINEAR)
    for output in ("eps", "x0", "v"):
        c = output_skip(output, torch.tensor([t]), LINEAR).item()
        estimate = linear_network(spectrum, rank, t, LINEAR, c) * x_t
        squares = (estimate - best).square().sum(dim=1)
        expected = rank_limited_excess(
            spectrum, rank, torch.tensor([t]), LINEAR, parameterization=output
        ).item()
        assert abs(squares.mean().item() - expected) < 4 * squares.std().item() / math.sqrt(count)


@pytest.mark.parametrize("output", ["x0", "v", "eps", "mean"])
def test_a_parameterization_is_its_skip(output: str) -> None:
    t, spectrum = torch.arange(1, 1001), random_spectrum(13, 9)
    by_name = rank_limited_excess(spectrum, 5, t, LINEAR, parameterization=output)
    by_skip = rank_limited_excess(spectrum, 5, t, LINEAR, skip=output_skip(output, t, LINEAR))
    at_zero = rank_limited_excess(spectrum, 0, t, LINEAR, parameterization=output)
    assert ((by_name - by_skip).abs() <= 1e-10 * at_zero).all()


def test_the_score_costs_what_the_noise_does() -> None:
    t = torch.arange(1, 1001)
    costs = [
        rank_limited_excess(random_spectrum(7, 3), 2, t, LINEAR, parameterization=name)
        for name in ("eps", "score")
    ]
    assert torch.equal(*costs)


@pytest.mark.parametrize(("size", "rank"), [(7, 0), (7, 3), (7, 6), (23, 11)])
@pytest.mark.parametrize("t", [3, 300, 900])
def test_no_skip_beats_the_best_one(size: int, rank: int, t: int) -> None:
    spectrum, step = random_spectrum(size, size + rank), torch.tensor([t])
    best = best_skip(spectrum, rank, step, LINEAR)
    least = rank_limited_excess(spectrum, rank, step, LINEAR, skip=best).item()

    def cost(c: float) -> float:
        return rank_limited_excess(spectrum, rank, step, LINEAR, skip=c).item()

    highest = 1 / roots(t, LINEAR)[0]
    grid = np.linspace(0, highest, 400)
    low = int(np.argmin([cost(c) for c in grid]))
    found = optimize.minimize_scalar(
        cost, bounds=(grid[max(low - 1, 0)], grid[min(low + 1, 399)]), method="bounded"
    )
    assert least <= found.fun * (1 + 1e-9) + 1e-13 * cost(0.0)
    assert best.item() == pytest.approx(found.x, abs=2e-3 * highest)


def test_best_skip_is_the_gain_at_the_mean_variance_of_what_is_dropped() -> None:
    # one large direction is kept, so that what is dropped has the mean variance 0.02
    spectrum, t = torch.tensor([9.0, 0.01, 0.03, 0.02], dtype=F64), torch.tensor([200, 700])
    expected = wiener_gain(0.02, t, LINEAR)
    assert torch.allclose(best_skip(spectrum, 1, t, LINEAR), expected, rtol=1e-13, atol=0)


def test_equal_variances_cost_nothing_with_the_best_skip() -> None:
    spectrum, t = torch.full((5,), 0.3, dtype=F64), torch.arange(1, 1001)
    skip = best_skip(spectrum, 0, t, LINEAR)
    assert rank_limited_excess(spectrum, 0, t, LINEAR, skip=skip).max() < 1e-25


@pytest.mark.parametrize(
    ("first", "second", "formula"),
    [
        ("x0", "eps", lambda a, s: s**2 / a**2),
        ("x0", "v", lambda a, s: s**2 / (1 + s**2)),
        ("v", "eps", lambda a, s: 1 + 1 / a**2),
        ("x0", "flow", lambda a, s: s**2 / (a * (a + 2 * s))),
    ],
)
def test_the_cheaper_output_changes_at_the_crossover(first, second, formula) -> None:
    t = torch.tensor([20, 300, 700])
    skips = [output_skip(name, t, LINEAR) for name in (first, second)]
    found = crossover(*skips, t, LINEAR)
    expected = [formula(*roots(step, LINEAR)) for step in t.tolist()]
    assert found.tolist() == pytest.approx(expected, rel=1e-10)
    for k, step in enumerate(t):
        for factor, sign in ((0.9, -1), (1.1, 1)):
            costs = [
                rank_limited_excess(
                    factor * found[k : k + 1], 0, step[None], LINEAR, skip=skip[k : k + 1]
                )
                for skip in skips
            ]
            assert math.copysign(1, (costs[0] - costs[1]).item()) == sign


def test_crossover_at_the_ends() -> None:
    t = torch.tensor([500])
    alpha = roots(500, LINEAR)[0]
    assert (
        crossover(-0.1, -0.2, t, LINEAR).item() == 0
    )  # the gain is nearer to the larger at every variance
    assert crossover(1 / alpha, 1.2 / alpha, t, LINEAR).item() == math.inf
    zero = rescale_to_zero_terminal_snr(LINEAR)
    assert crossover(0.0, 0.5, torch.tensor([1000]), zero).item() == math.inf


@settings(max_examples=60, deadline=None)
@given(
    spectrum=st.lists(st.floats(0, 1e6), min_size=1, max_size=7),
    t=st.integers(1, 1000),
    output=st.sampled_from(OUTPUTS),
)
def test_more_rank_never_costs_more_and_full_rank_nothing(spectrum, t, output) -> None:
    given_spectrum, step = torch.tensor(spectrum, dtype=F64), torch.tensor([t])
    costs = [
        rank_limited_excess(given_spectrum, rank, step, LINEAR, parameterization=output).item()
        for rank in range(len(spectrum) + 1)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0
    learned = [
        rank_limited_excess(
            given_spectrum, rank, step, LINEAR, skip=best_skip(given_spectrum, rank, step, LINEAR)
        ).item()
        for rank in range(len(spectrum) + 1)
    ]
    assert all(best <= cost + 1e-13 * costs[0] for best, cost in zip(learned, costs, strict=True))


def test_off_the_manifold() -> None:
    t = torch.tensor([1, 250, 1000])
    alpha, sigma = (
        torch.tensor(column, dtype=F64)
        for column in zip(*(roots(s, LINEAR) for s in t.tolist()), strict=True)
    )
    cost = {
        name: rank_limited_excess(torch.zeros(1), 0, t, LINEAR, parameterization=name)
        for name in ("x0", "v", "eps")
    }
    assert cost["x0"].tolist() == [0, 0, 0]
    assert torch.allclose(cost["v"], alpha**2 * sigma**2, rtol=1e-12, atol=0)
    assert torch.allclose(cost["eps"], sigma**2 / alpha**2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", [-690.0, 690.0])
@pytest.mark.parametrize("size", [0.0, 1e-300, 1.0, 1e300])
def test_extreme_noise_and_variances_stay_finite(level: float, size: float) -> None:
    schedule, t = schedule_from_log_snr([level]), torch.tensor([1])
    for output in OUTPUTS:
        cost = rank_limited_excess(
            torch.tensor([size], dtype=F64), 0, t, schedule, parameterization=output
        )
        assert torch.isfinite(cost).all()
        assert (cost >= 0).all()
    assert torch.isfinite(best_skip(torch.tensor([size, size], dtype=F64), 1, t, schedule)).all()


def test_zero_terminal_snr() -> None:
    schedule = rescale_to_zero_terminal_snr(LINEAR)
    t, spectrum = torch.tensor([1000]), torch.tensor([2.0, 0.5])
    for output in (
        "x0",
        "v",
        "mean",
    ):  # x_T says nothing: the best estimate is the mean, which every network has
        assert rank_limited_excess(spectrum, 0, t, schedule, parameterization=output).item() == 0
    for call in (
        lambda: rank_limited_excess(spectrum, 0, t, schedule, parameterization="eps"),
        lambda: rank_limited_excess(spectrum, 2, t, schedule, parameterization="score"),
        lambda: output_skip("eps", t, schedule),
    ):
        with pytest.raises(ValueError, match="zero terminal SNR"):
            call()
    assert best_skip(spectrum, 1, t, schedule).item() == 0


def test_batches_of_steps_order_and_dtype_of_the_spectrum_do_not_matter() -> None:
    t, spectrum = torch.tensor([7, 7, 900]), random_spectrum(7, 4)
    whole = rank_limited_excess(spectrum, 3, t, LINEAR, parameterization="v")
    alone = [rank_limited_excess(spectrum, 3, s[None], LINEAR, parameterization="v") for s in t]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(
        whole, rank_limited_excess(spectrum.flip(0), 3, t, LINEAR, parameterization="v")
    )
    assert whole.dtype == F64
    integers = rank_limited_excess(torch.tensor([2, 1]), 1, t, LINEAR, parameterization="x0")
    assert torch.equal(
        integers, rank_limited_excess(torch.tensor([2.0, 1.0]), 1, t, LINEAR, parameterization="x0")
    )
    nothing = torch.empty(0, dtype=torch.int64)
    assert rank_limited_excess(spectrum, 3, nothing, LINEAR, skip=0.0).shape == (0,)
    assert best_skip(spectrum, 3, nothing, LINEAR).shape == (0,)


def test_every_parameterization_has_a_row() -> None:
    assert set(_GAPS) == set(PARAMETERIZATIONS)
    assert set(SKIPS) == {*PARAMETERIZATIONS, "flow"}


STEP, PAIR = torch.tensor([5]), torch.tensor([2.0, 0.5])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((torch.tensor([1.0, -0.1]), 1, STEP, LINEAR), {"skip": 0.0}, ValueError, "below 0"),
        ((torch.eye(2), 1, STEP, LINEAR), {"skip": 0.0}, ValueError, "eigvalsh"),
        ((torch.empty(0), 0, STEP, LINEAR), {"skip": 0.0}, ValueError, "spectrum"),
        ((torch.tensor([math.nan]), 0, STEP, LINEAR), {"skip": 0.0}, ValueError, "finite"),
        (
            (torch.full((3,), 1e308, dtype=F64), 0, STEP, LINEAR),
            {"skip": 0.0},
            ValueError,
            "rescale",
        ),
        ((PAIR, 3, STEP, LINEAR), {"skip": 0.0}, ValueError, "0 … 2"),
        ((PAIR, -1, STEP, LINEAR), {"skip": 0.0}, ValueError, "at least 0"),
        ((PAIR, 1.0, STEP, LINEAR), {"skip": 0.0}, TypeError, "whole number"),
        ((PAIR, 1, torch.tensor([0]), LINEAR), {"skip": 0.0}, ValueError, "outside 1 … 1000"),
        ((PAIR, 1, torch.tensor([5.0]), LINEAR), {"skip": 0.0}, TypeError, "integers"),
        ((PAIR, 1, STEP, LINEAR.beta), {"skip": 0.0}, TypeError, "Schedule"),
        ((PAIR, 1, STEP, LINEAR), {}, ValueError, "one of the two"),
        (
            (PAIR, 1, STEP, LINEAR),
            {"skip": 0.0, "parameterization": "x0"},
            ValueError,
            "one of the two",
        ),
        ((PAIR, 1, STEP, LINEAR), {"parameterization": "epsilon"}, ValueError, "'eps'"),
        ((PAIR, 1, STEP, LINEAR), {"parameterization": 3}, TypeError, "str"),
        ((PAIR, 1, STEP, LINEAR), {"skip": math.nan}, ValueError, "finite"),
        ((PAIR, 1, STEP, LINEAR), {"skip": torch.zeros(2)}, ValueError, "one for each step"),
        ((PAIR, 1, STEP, LINEAR), {"skip": "x0"}, TypeError, "skip"),
    ],
)
def test_bad_input_is_named(arguments, options, error, words) -> None:
    with pytest.raises(error, match=words):
        rank_limited_excess(*arguments, **options)


def test_bad_variances_and_outputs_are_named() -> None:
    with pytest.raises(ValueError, match="not negative"):
        wiener_gain(-0.1, STEP, LINEAR)
    with pytest.raises(ValueError, match="'flow'"):
        output_skip("flows", STEP, LINEAR)
