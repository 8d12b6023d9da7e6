"""Every way to draw t has the uniform loss as its expectation, by the exact sum or integral; densities are scipy's."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate, stats

from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import linear_schedule, rescale_to_zero_terminal_snr, schedule_from_log_snr
from ddpm_ref.times import (
    BELLS,
    HISTORY,
    IMPORTANCE,
    TIMES,
    LossHistory,
    Times,
    cells,
    laplace,
    log_normal,
    logit_normal,
    make_times,
    with_losses,
)

SCHEDULES = {
    "linear": linear_schedule(97),
    "one step": linear_schedule(1),
    "two steps": schedule_from_log_snr([3.0, -2.0]),
    "to pure noise": rescale_to_zero_terminal_snr(linear_schedule(53)),
}
STREAM = NoiseStream(5)


def errors(T: int) -> torch.Tensor:
    """f_t: any positive numbers that are not symmetric."""
    return torch.rand(T, generator=torch.Generator().manual_seed(T), dtype=torch.float64) + 0.1


def every(schedule, **choices) -> list[Times]:
    found = [make_times(name, schedule, uniform_share=0.02, **choices) for name in TIMES]
    history = LossHistory(schedule.T)
    for _ in range(HISTORY):
        history.add(torch.arange(1, schedule.T + 1), errors(schedule.T).sqrt())
    return [*found, with_losses(make_times("loss_aware", schedule), history)]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stratified", [False, True])
def test_sum_of_p_w_f_is_the_uniform_loss(name, stratified):
    schedule = SCHEDULES[name]
    f = errors(schedule.T)
    for times in every(schedule, stratified=stratified):
        assert times.probabilities.sum().item() == pytest.approx(1, rel=1e-13)
        assert (times.probabilities > 0).all()
        total = (times.probabilities * times.weights * f).sum().item()
        assert total == pytest.approx(f.mean().item(), rel=1e-13)


@pytest.mark.parametrize("name", SCHEDULES)
def test_drawing_by_a_density_and_weighting_with_it_have_one_expected_loss(name):
    schedule = SCHEDULES[name]
    f = errors(schedule.T)
    for bell in BELLS:
        drawn, weighted = (
            make_times(bell, schedule, importance=importance) for importance in ("none", "density")
        )
        assert torch.equal(drawn.weights, torch.ones(schedule.T, dtype=torch.float64))
        assert (weighted.probabilities == 1 / schedule.T).all()
        losses = [(times.probabilities * times.weights * f).sum() for times in (drawn, weighted)]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-13, atol=0)
        torch.testing.assert_close(drawn.effective, weighted.effective, rtol=1e-13, atol=0)


@pytest.mark.parametrize("batch", [1, 3, 13])
def test_points_stand_for_t_with_its_probability(batch):
    """The length of the points that give t is p_t; and the mean over the one random shift of a stratified batch is exact."""
    schedule = SCHEDULES["linear"]
    f = errors(schedule.T)
    for times in every(schedule, stratified=True):
        edges = [0.0, *times.probabilities.cumsum(0).tolist()]
        middles = torch.tensor([(a + b) / 2 for a, b in pairwise(edges)], dtype=torch.float64)
        assert times.at(middles).tolist() == list(range(1, schedule.T + 1))
        # t of position i changes where the shift passes an edge minus i/B: between two such places it is constant.
        places = {(edge - i / batch) % 1.0 for edge in edges for i in range(batch)} | {0.0, 1.0}
        total = 0.0
        for low, high in pairwise(sorted(places)):
            points = ((low + high) / 2 + torch.arange(batch, dtype=torch.float64) / batch) % 1.0
            t = times.at(points)
            total += (high - low) * (times.weights[t - 1] * f[t - 1]).mean().item()
        assert total == pytest.approx(f.mean().item(), rel=1e-9)


def test_densities_are_those_of_scipy():
    cases = {
        log_normal(-1.0, 0.9): stats.norm(2.0, 1.8),
        logit_normal(0.3, 1.1): stats.norm(-0.6, 2.2),
        laplace(0.7, 0.4): stats.laplace(0.7, 0.4),
    }
    x = torch.linspace(-30, 30, 61, dtype=torch.float64)
    for bell, truth in cases.items():
        torch.testing.assert_close(bell.density(x), torch.tensor(truth.pdf(x)), rtol=1e-12, atol=0)
        # Right tails by the survival function, or the difference of two numbers near 1 would be 0.
        low, high = x[:-1], x[1:]
        right = torch.tensor(truth.sf(low) - truth.sf(high))
        left = torch.tensor(truth.cdf(high) - truth.cdf(low))
        wanted = torch.where(low + high > 2 * bell.center, right, left)
        torch.testing.assert_close(bell.between(low, high), wanted, rtol=1e-9, atol=0)
        mass = torch.tensor([1e-12, 0.2, 0.5, 0.8, 1 - 1e-9], dtype=torch.float64)
        torch.testing.assert_close(
            bell.inverse(mass), torch.tensor(truth.ppf(mass)), rtol=1e-9, atol=1e-9
        )


def test_log_normal_is_that_of_sigma_and_logit_normal_that_of_the_flows_time():
    """σ = e^{−λ/2}; s/(1−s) = σ for x = (1−s)x_0 + sε."""
    log_snr = torch.linspace(-6, 6, 25, dtype=torch.float64)
    sigma = torch.exp(-log_snr / 2)
    below = stats.norm(-1.2, 1.2).cdf(sigma.log())
    whole = torch.full_like(log_snr, math.inf)
    torch.testing.assert_close(
        log_normal().between(log_snr, whole), torch.tensor(below), rtol=1e-9, atol=1e-15
    )
    s = sigma / (1 + sigma)
    below = stats.norm(0, 1).cdf((s / (1 - s)).log())
    torch.testing.assert_close(
        logit_normal().between(log_snr, whole), torch.tensor(below), rtol=1e-9, atol=1e-15
    )


def test_cells_reach_halfway_to_the_neighbours_and_cover_the_axis():
    edges = cells(schedule_from_log_snr([4.0, 1.0, 0.0, -5.0]))
    assert edges.tolist() == [math.inf, 2.5, 0.5, -2.5, -math.inf]
    edges = cells(schedule_from_log_snr([4.0, 1.0, -math.inf]))
    assert edges.tolist() == [math.inf, 2.5, -0.5, -math.inf]
    assert cells(linear_schedule(1)).tolist() == [math.inf, -math.inf]


def normal(center: float, scale: float):
    return lambda x: math.exp(-0.5 * ((x - center) / scale) ** 2)


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("name", ["uniform", *BELLS])
def test_between_the_steps_the_integral_is_the_uniform_one(name, share, importance):
    """∫ w f du over the points is the mean of f over τ ∈ [1, T], or the mean with the density as weight."""
    schedule = schedule_from_log_snr([5.0, 3.0, 2.5, 0.0, -3.0, -4.0])
    options = {"scale": 1.5} if name == "laplace" else {}
    times = make_times(name, schedule, uniform_share=share, importance=importance, options=options)

    def f(x):
        return 1 / (1 + math.exp(-x)) + 0.3 * x * x

    # Midpoints; the weight jumps at the steps, where one of them is wrong by half its width.
    points = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    _, log_snr, weight = times.between(points)
    total = (weight * (torch.sigmoid(log_snr) + 0.3 * log_snr**2)).mean().item()
    pieces = list(pairwise(schedule.log_snr[1:].tolist()))

    def plain(density):
        """Mean over τ, written on the axis of log-SNR: each interval of τ has the length 1."""
        parts = [
            integrate.quad(lambda x, a=a, b=b: f(x) * density(x, a - b), b, a, limit=200)[0]
            for a, b in pieces
        ]
        return sum(parts)

    uniform = plain(lambda x, width: 1 / (width * len(pieces)))
    if name == "uniform" or importance == "unbiased":
        assert total == pytest.approx(uniform, rel=1e-5)
        return
    density = {"log_normal": normal(2.4, 2.4), "logit_normal": normal(0, 2)}.get(
        name, lambda x: math.exp(-abs(x) / 1.5)
    )
    inside = sum(
        integrate.quad(density, b, a, points=[0] if b < 0 < a else None)[0] for a, b in pieces
    )
    mixed = (1 - share) * plain(lambda x, width: density(x) / inside) + share * uniform
    assert total == pytest.approx(mixed, rel=1e-5)


def test_place_and_log_snr_between_the_steps_belong_together():
    schedule = schedule_from_log_snr([5.0, 3.0, 2.5, 0.0, -3.0])
    points = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    for name in ("uniform", *BELLS):
        tau, log_snr, weight = make_times(name, schedule, uniform_share=0.05).between(points)
        low = tau.long().clamp(max=4)
        table = schedule.log_snr
        wanted = table[low] + (tau - low) * (table[low + 1] - table[low])
        torch.testing.assert_close(log_snr, wanted, rtol=1e-9, atol=1e-9)
        assert ((tau >= 1) & (tau <= 5) & (weight > 0) & (weight <= 20.001)).all()


def test_loss_aware_is_uniform_until_each_step_was_seen_ten_times_and_then_the_root_mean_square():
    history = LossHistory(3)
    times = make_times("loss_aware", linear_schedule(3))
    for k in range(HISTORY - 1):
        history.add(torch.tensor([1, 2, 3, 1]), torch.tensor([1.0, 2.0, 3.0, 5.0 + k]))
    assert with_losses(times, history).probabilities.tolist() == pytest.approx([1 / 3] * 3)
    history.add(torch.tensor([2, 3, 3]), torch.tensor([4.0, 3.0, 6.0]))
    # Of t = 1: pairs (1, 5 + k), of which the last ten losses are k = 4 … 8.
    last = [v for k in range(4, 9) for v in (1.0, 5.0 + k)]
    size = [
        math.sqrt(sum(v * v for v in last) / 10),
        math.sqrt((9 * 4 + 16) / 10),
        math.sqrt((9 * 9 + 36) / 10),
    ]
    wanted = [0.999 * s / sum(size) + 0.001 / 3 for s in size]
    assert with_losses(times, history).probabilities.tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("stratified", [False, True])
def test_drawn_steps_have_their_probabilities_and_do_not_depend_on_the_split(stratified):
    schedule = schedule_from_log_snr(torch.linspace(4, -4, 7))
    times = make_times("laplace", schedule, stratified=stratified, options={"scale": 1.5})
    t = torch.cat([times.draw(STREAM, step, 0, 11, 11) for step in range(400)])
    expected = 4400 * times.probabilities
    chi_square = ((torch.bincount(t, minlength=8)[1:] - expected) ** 2 / expected).sum()
    assert chi_square < 33.1  # 1 - 1e-5 quantile of chi-square with 6 degrees of freedom
    whole = times.draw(STREAM, 3, 0, 11, 11)
    parts = [times.draw(STREAM, 3, first, count, 11) for first, count in [(0, 4), (4, 1), (5, 6)]]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"name": "lognormal"}, "unknown timesteps 'lognormal'.*'log_normal'"),
        ({"name": "laplace", "importance": "unbiassed"}, "unknown importance"),
        ({"name": "laplace", "uniform_share": 1.0}, r"uniform_share = 1.0.*\[0, 1\)"),
        ({"name": "loss_aware", "importance": "none"}, "objective with it"),
        ({"name": "laplace", "options": {"scale": 0.0}}, "scale = 0.0; a width is positive"),
        ({"name": "laplace", "options": {"scale": 0.004}}, "t = 1 has probability.*uniform_share"),
    ],
)
def test_what_cannot_be_drawn_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        make_times(**{"schedule": linear_schedule(97), **choices})
