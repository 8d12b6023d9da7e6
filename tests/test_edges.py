"""Edges of rules and constants of definitions that no formula test reaches; found as survivors of `python -m tests.mutation`."""

import math

import pytest
import torch
from mpmath import mp
from torch import Tensor

from ddpm_ref.elbo import elbo
from ddpm_ref.gaussian import discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.noise import NoiseStream, Use, check_address, counters, philox4x32
from ddpm_ref.objective import min_snr, p2, weight
from ddpm_ref.oracle import EmpiricalOracle, GaussianOracle, MixtureOracle
from ddpm_ref.oracle.base import eigensystem
from ddpm_ref.oracle.expected import optimal_variance
from ddpm_ref.process import q_sample
from ddpm_ref.reverse import reverse_variance
from ddpm_ref.schedule import (
    SCHEDULES,
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
    schedule_from_log_snr,
    sigmoid_schedule,
)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------- schedules


def test_running_sums_are_compensated() -> None:
    """ln ᾱ of 20,000 uneven steps within a few units in the last place; a plain running sum loses two digits."""
    beta = 1e-3 * torch.rand(20000, generator=torch.Generator().manual_seed(0)).double() + 1e-5
    logs = torch.log1p(-beta).tolist()
    log_snr = schedule_from_beta(beta).log_snr
    for t in (1, 100, 5000, 20000):
        total = math.fsum(logs[:t])
        exact = total - math.log(-math.expm1(total))
        assert abs(log_snr[t].item() - exact) <= 4e-16 * (abs(total) + abs(exact))


def test_tables_are_looked_up_on_other_devices() -> None:
    t = torch.zeros(3, dtype=torch.int64, device="meta")
    schedule = linear_schedule(5)
    for _ in range(2):
        found = schedule.lookup("beta", t)
        assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float64, (3,))


def test_log_snr_may_end_at_minus_infinity_and_nowhere_else() -> None:
    assert schedule_from_log_snr([5.0, 0.0, -math.inf]).alpha_bar[-1] == 0
    for bad in (
        [5.0, -math.inf, -math.inf],
        [5.0, math.nan, -math.inf],
        [math.inf, 0.0],
        [0.0, math.nan],
    ):
        with pytest.raises(ValueError, match=r"log_snr\["):
            schedule_from_log_snr(bad)


def test_log_snr_of_700_is_the_last_that_keeps_both_sides() -> None:
    """e^±700 is a normal number of float64; beyond, one side nears the end of its range."""
    schedule = schedule_from_log_snr([700.0, -700.0])
    assert schedule.one_minus_alpha_bar[1].item() == pytest.approx(math.exp(-700), rel=1e-12, abs=0)
    assert schedule.alpha_bar[2].item() == pytest.approx(math.exp(-700), rel=1e-12, abs=0)
    for beyond in ([700.001, 0.0], [0.0, -700.001]):
        with pytest.raises(ValueError, match="beyond ±700"):
            schedule_from_log_snr(beyond)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedule_from_beta([0.1, 1.5, 2.0]), r"beta\[2\] = 1\.5"),
        (lambda: schedule_from_log_snr([9.0, math.nan, math.inf]), r"log_snr\[2\] = nan"),
        (lambda: schedule_from_log_snr([9.0, -800.0, -900.0]), r"log_snr\[2\] = -800\.0"),
        (lambda: schedule_from_log_snr([9.0, 1.0, 2.0, 3.0]), "1.0 at t = 2, then 2.0 at t = 3"),
        (lambda: reverse_variance([0.0, 1.0, 0.0, -1.0], linear_schedule(3)), r"variance\[2\] = 0"),
    ],
)
def test_the_first_of_several_wrong_entries_is_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_timesteps_count_from_one_to_T() -> None:
    built = [SCHEDULES[name](7) for name in SCHEDULES]
    built += [schedule_from_log_snr(torch.linspace(3, -3, 7)), schedule_from_beta([0.1] * 7)]
    built += [rescale_to_zero_terminal_snr(linear_schedule(7))]
    for schedule in built:
        assert schedule.timesteps.tolist() == list(range(1, 8))
        assert schedule.T == 7


def test_arguments_at_the_edge_of_their_range() -> None:
    for bad in (-0.5, 0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=f"max_beta = {bad} lies outside"):
            cosine_schedule(5, max_beta=bad)
        with pytest.raises(ValueError, match=f"max_beta = {bad} lies outside"):
            sigmoid_schedule(5, max_beta=bad)
    for bad in ({"tau": 0.0}, {"tau": -1.0}, {"start": 3.0}, {"start": 4.0}):
        with pytest.raises(ValueError, match="start < end and tau > 0"):
            sigmoid_schedule(5, **bad)
    for endless in ({"tau": math.inf}, {"end": math.inf}, {"start": -math.inf}):
        with pytest.raises(ValueError, match="all finite"):
            sigmoid_schedule(5, **endless)
    for bad_offset in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="offset of the cosine"):
            cosine_schedule(5, s=bad_offset)
    for bad_beta in ([0.0], [1.0], [0.1, 1.5], []):
        with pytest.raises(ValueError, match="beta"):
            schedule_from_beta(bad_beta)
    with pytest.raises(ValueError, match=r"beta\[3\] = 2\.0"):
        schedule_from_beta([0.1, 0.2, 2.0])
    assert cosine_schedule(1).T == 1


@pytest.mark.parametrize("bad", [[], [0, 5], [1, 4], [1, 1, 5], [3, 2, 5], [1, 6], [-1, 5]])
def test_respacing_takes_rising_steps_that_end_with_T(bad: list[int]) -> None:
    with pytest.raises(ValueError, match=r"timesteps"):
        linear_schedule(5).respaced(bad)


def test_respacing_to_one_step_and_to_all() -> None:
    schedule = linear_schedule(5)
    assert schedule.respaced([5]).timesteps.tolist() == [5]
    assert torch.equal(schedule.respaced([1, 2, 3, 4, 5]).beta, schedule.beta)


def test_cosine_without_offset_keeps_its_first_step() -> None:
    """s = 0: β_1 = sin²(π/2T) exactly, near the zero of the sine at π."""
    for T in (2, 100, 4000, 100000):
        exact = math.sin(math.pi / (2 * T)) ** 2
        assert cosine_schedule(T, s=0.0).beta[1].item() == pytest.approx(exact, rel=1e-14, abs=0)


# ---------------------------------------------------------------- densities


@pytest.mark.parametrize("levels", [17, 256])
def test_values_are_snapped_within_a_thousandth_of_a_level_and_no_further(levels: int) -> None:
    centre = 2 / (levels - 1) * 3 - 1
    mean, log_scale = double(0.0), double(-1.0)
    right = discretized_gaussian_log_likelihood(double(centre), mean, log_scale, levels)
    for offset in (9.9e-4, -9.9e-4):
        near = discretized_gaussian_log_likelihood(double(centre + offset), mean, log_scale, levels)
        assert near == right
    for offset in (1.01e-3, -1.01e-3):
        with pytest.raises(ValueError, match="not on the lattice"):
            discretized_gaussian_log_likelihood(double(centre + offset), mean, log_scale, levels)
    for outside in (-1 - 2 / (levels - 1), 1 + 2 / (levels - 1), math.nan, math.inf):
        with pytest.raises(ValueError, match="not on the lattice"):
            discretized_gaussian_log_likelihood(double(outside), mean, log_scale, levels)


@pytest.mark.parametrize("levels", [2, 256, 2001, 65536])
@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_values_beyond_the_ends_are_snapped_to_them_however_dense_the_lattice(levels, end) -> None:
    """With 2001 levels the spacing is 1e-3: nine tenths of it beyond an end, the nearest of all multiples is no level."""
    mean, log_scale = double(0.0), double(-1.0)
    right = discretized_gaussian_log_likelihood(double(end), mean, log_scale, levels)
    near = discretized_gaussian_log_likelihood(double(end * 1.0009), mean, log_scale, levels)
    assert near == right
    for beyond in (end * 1.00101, end * math.inf):
        with pytest.raises(ValueError, match="not on the lattice"):
            discretized_gaussian_log_likelihood(double(beyond), mean, log_scale, levels)


def test_two_levels_are_the_fewest() -> None:
    value = discretized_gaussian_log_likelihood(double(1.0), double(0.0), double(0.0), 2)
    assert value.item() == pytest.approx(math.log(0.5))
    with pytest.raises(ValueError, match="at least 2"):
        discretized_gaussian_log_likelihood(double(1.0), double(0.0), double(0.0), 1)


@pytest.mark.parametrize("log_scale", [1.5, 2.0, 2.6, 4.0])
@pytest.mark.parametrize("offset", [0.0, 0.5, 3.0, 30.0])
def test_bins_much_narrower_than_the_scale(log_scale: float, offset: float) -> None:
    """The midpoint formula and its second-order term, on both sides of the switch to it; 1e-9 is promised, 1e-11 held."""
    levels, x = 256, 2 / 255 * 200 - 1
    mean = x - offset * math.exp(log_scale) / 10
    with mp.workdps(40):
        sigma, half = mp.exp(mp.mpf(log_scale)), mp.mpf(1) / 255
        low, high = ((mp.mpf(200) * 2 / 255 - 1 + d - mp.mpf(mean)) / sigma for d in (-half, half))
        exact = float(mp.log((mp.erfc(low / mp.sqrt(2)) - mp.erfc(high / mp.sqrt(2))) / 2))
    value = discretized_gaussian_log_likelihood(double(x), double(mean), double(log_scale), levels)
    assert value.item() == pytest.approx(exact, rel=1e-11)


def test_point_masses() -> None:
    nothing = double(-math.inf)
    assert gaussian_kl(double(1.0), nothing, double(1.0), nothing).item() == 0
    assert gaussian_kl(double(1.0), nothing, double(2.0), nothing).item() == math.inf


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_weightings_refuse_what_is_no_number_above_zero(bad: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        min_snr(bad)
    with pytest.raises(ValueError, match="k"):
        p2(k=bad)
    if bad != 0:
        with pytest.raises(ValueError, match="gamma"):
            p2(gamma=bad)


def test_small_caps_and_powers_are_allowed() -> None:
    schedule, t = linear_schedule(10), torch.tensor([1, 10])
    snr = schedule.log_snr[t].exp()
    capped = weight(min_snr(0.5), t, schedule, parameterization="x0")
    torch.testing.assert_close(capped, snr.clamp(max=0.5))
    powered = weight(p2(k=0.25, gamma=0.5), t, schedule, parameterization="eps")
    torch.testing.assert_close(powered, (0.25 + snr) ** -0.5)
    flat = weight(p2(gamma=0.0), t, schedule, parameterization="eps")
    torch.testing.assert_close(flat, torch.ones(2, dtype=torch.float64))


# ---------------------------------------------------------------- noise


def test_counter_ranges_of_the_uses_are_part_of_the_definition() -> None:
    """A later change of these numbers would change every record."""
    assert {use.name: use.value for use in Use} == {
        "NOISE": 0,
        "TIMESTEP": 1,
        "WEIGHTS": 2,
        "SAMPLER": 3,
        "ORDER": 4,
        "PILOT": 5,
    }


def words(seed: int, use: Use, step: int, index: int) -> list[int]:
    block = torch.zeros(1, dtype=torch.int64)
    counter = counters(block, index, torch.zeros(1, dtype=torch.int64), step, use)
    return [int(word) for word in philox4x32(counter, NoiseStream(seed).key)]


def test_uniform_numbers_follow_their_definition_bit_for_bit() -> None:
    """(top bits + ½)·2^−bits: 23 bits of a word, 52 bits of two."""
    for index in range(20):
        c = words(5, Use.TIMESTEP, 9, index)
        stream = NoiseStream(5)
        single = stream.uniform((1, 1), use=Use.TIMESTEP, step=9, first_index=index)
        assert single.item() == ((c[0] >> 9) + 0.5) * 2.0**-23
        wide = stream.uniform(
            (1, 1), use=Use.TIMESTEP, step=9, first_index=index, dtype=torch.float64
        )
        assert wide.item() == ((((c[0] << 32) | c[1]) >> 12) + 0.5) * 2.0**-52


@pytest.mark.parametrize("width", [3, 1000, 2**31 - 1, 2**31])
def test_integers_are_the_top_of_a_64_bit_product(width: int) -> None:
    """⌊(c₀ 2³² + c₁) · width / 2⁶⁴⌋ with exact integers; a wide range shows the low word's share."""
    for index in range(200):
        high, low, _, _ = words(5, Use.TIMESTEP, 9, index)
        drawn = NoiseStream(5).integers(
            (1, 1), low=0, high=width, use=Use.TIMESTEP, step=9, first_index=index
        )
        assert drawn.item() == (((high << 32) | low) * width) >> 64


@pytest.mark.parametrize("use", list(Use))
@pytest.mark.parametrize("per_block", [2, 4])
def test_the_longest_sample_fills_its_range_of_blocks(use: Use, per_block: int) -> None:
    """2³² blocks of noise or 2²⁸ of another use, and not one number more."""
    longest = per_block << (32 if use == Use.NOISE else 28)
    assert check_address((3, longest), per_block, use, 0, 0) == (3, longest)
    with pytest.raises(ValueError, match="split the sample"):
        check_address((3, longest + 1), per_block, use, 0, 0)


def test_the_last_sample_has_an_address_and_the_next_has_none() -> None:
    last = 2**63 - 1
    assert NoiseStream(0).normal((1, 1), step=0, first_index=last).shape == (1, 1)
    assert NoiseStream(0).normal((0, 1), step=0, first_index=last).shape == (0, 1)
    with pytest.raises(ValueError, match="first_index"):
        NoiseStream(0).normal((2, 1), step=0, first_index=last)


# ---------------------------------------------------------------- bound


class Constant:
    """Says x0 = 1.5 whatever it sees."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x_t, 1.5)


class Clamped(Constant):
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return super().__call__(x_t, t).clamp(-0.75, 0.75)


class Below(Constant):
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x_t, 0.25)


def test_clipping_is_clamping_the_models_x0_on_both_sides() -> None:
    x0, schedule = torch.randn(3, 2).double(), linear_schedule(7)
    options = {"parameterization": "x0", "decoder": "gaussian"}
    clipped = elbo(Constant(), x0, schedule, clip=0.75, **options)
    clamped = elbo(Clamped(), x0, schedule, **options)
    torch.testing.assert_close(clipped.total, clamped.total)
    inside = elbo(Below(), x0, schedule, **options)
    torch.testing.assert_close(
        elbo(Below(), x0, schedule, clip=0.75, **options).total, inside.total
    )


class Sine:
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x_t)


def test_the_protocol_names_its_decoder() -> None:
    x0, schedule = torch.zeros(1, 2).double(), linear_schedule(2)
    options = {"parameterization": "x0"}
    density = elbo(Below(), x0, schedule, decoder="gaussian", **options).protocol
    mass = elbo(Below(), x0, schedule, decoder="discretized", levels=17, **options).protocol
    assert density is not None
    assert mass is not None
    assert "Gaussian density as decoder" in density.describe()
    assert "discretized Gaussian decoder on 17 grey levels" in mass.describe()


def test_several_draws_are_averaged() -> None:
    """The same model on the same x0: draws 0 … 3 by their stated addresses, one by one."""
    x0, schedule, draws = torch.randn(3, 2).double(), linear_schedule(4), 4
    together = elbo(Sine(), x0, schedule, parameterization="x0", decoder="gaussian", draws=draws)
    singles = []
    for draw in range(draws):
        terms = []
        for t in range(2, 5):
            step = torch.full((3,), t)
            noise = NoiseStream(0).normal(x0.shape, step=draw * 4 + t - 1, dtype=torch.float64)
            guess = torch.sin(q_sample(x0, step, schedule, noise))
            factor = weight("elbo", step, schedule, parameterization="x0")
            terms.append(factor * ((guess - x0) ** 2).sum(1))
        singles.append(torch.stack(terms, 1))
    torch.testing.assert_close(together.diffusion, torch.stack(singles).mean(0))


# ---------------------------------------------------------------- exact models


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_covariances_are_judged_relative_to_their_size(scale: float) -> None:
    base = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    skewed = base + torch.tensor([[0.0, 1e-4], [0.0, 0.0]], dtype=torch.float64)
    nearly = base + torch.tensor([[0.0, 1e-8], [0.0, 0.0]], dtype=torch.float64)
    negative = torch.diag(double(1.0, -1e-7))
    rounded = torch.diag(double(1.0, -1e-11))
    exactly = torch.tensor(
        [[1e6, 1.0], [0.0, 1e6]], dtype=torch.float64
    )  # a millionth, and not more
    eigensystem(scale * nearly, 2, "covariance")
    eigensystem(exactly, 2, "covariance")
    assert eigensystem(scale * rounded, 2, "covariance")[0].min() == 0
    with pytest.raises(ValueError, match="differs from its transpose"):
        eigensystem(scale * skewed, 2, "covariance")
    with pytest.raises(ValueError, match="eigenvalue"):
        eigensystem(scale * negative, 2, "covariance")
    with pytest.raises(ValueError, match="differs from its transpose"):
        eigensystem(exactly + torch.triu(torch.full((2, 2), 0.5), 1), 2, "covariance")


def test_a_step_beyond_the_schedule_is_named() -> None:
    schedule = linear_schedule(10).respaced([2, 5, 10])
    model = GaussianOracle(torch.zeros(2), torch.eye(2)).model(schedule, "eps")
    x_t = torch.zeros(1, 2)
    for known in (2, 5, 10):
        assert model(x_t, torch.tensor([known])).shape == (1, 2)
    for stranger in (0, 1, 3, 9, 11, 1000):
        with pytest.raises(ValueError, match=f"timestep {stranger} is not among the 3"):
            model(x_t, torch.tensor([stranger]))


def test_best_variance_on_gaussian_data_is_that_of_the_exact_reverse_step() -> None:
    """Var[x_{t−1} | x_t] for x0 ~ N(0, c I), from the joint Gaussian of two neighbours."""
    c, schedule = 0.3, linear_schedule(9)
    oracle = GaussianOracle(torch.zeros(2), c * torch.eye(2, dtype=torch.float64))
    table = optimal_variance(oracle.mmse(schedule.log_snr[1:]), 2, schedule)
    for t in range(1, 10):
        before = schedule.alpha_bar[t - 1] * c + schedule.one_minus_alpha_bar[t - 1]
        now = schedule.alpha_bar[t] * c + schedule.one_minus_alpha_bar[t]
        exact = before - before**2 * (1 - schedule.beta[t]) / now
        torch.testing.assert_close(table[t], exact, rtol=1e-10, atol=0)


def test_data_and_weights_at_the_edge_of_their_rules() -> None:
    two = torch.stack([torch.eye(2), torch.eye(2)])
    MixtureOracle(double(0.5, 0.5 + 9e-7), torch.zeros(2, 2), two)
    for bad in (double(0.5, 0.5 + 2e-6), double(1.0, 0.0), double(1.5, -0.5), double(1.0)):
        with pytest.raises(ValueError, match="weights"):
            MixtureOracle(bad, torch.zeros(2, 2), two)
    assert EmpiricalOracle(torch.zeros(1, 2)).data.shape == (1, 2)
    for empty in (torch.zeros(0, 2), torch.zeros(3)):
        with pytest.raises(ValueError, match="at least one example"):
            EmpiricalOracle(empty)
