"""The bound against closed forms, quadrature-free: exact chains, units, precision, protocol, failure modes."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ddpm_ref.elbo import elbo
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
    sigmoid_schedule,
)
from ddpm_ref.terms import prior_kl

SCHEDULES = [linear_schedule, cosine_schedule, sigmoid_schedule]


class ConstantX0(nn.Module):
    """Predicts one fixed x0 whatever it sees."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x_t, self.value)


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 11])
def test_every_term_of_a_constant_prediction_equals_its_formula(make, T) -> None:
    # mu_tilde − mu = c0·(x0 − constant): no noise is left in any term, so one draw is exact.
    schedule, x0, constant = make(T), data(5, 3), 0.25
    found = elbo(ConstantX0(constant), x0, schedule, parameterization="x0", decoder="gaussian")
    beta, bar = schedule.beta.tolist(), schedule.alpha_bar.tolist()
    squared = ((x0 - constant) ** 2).sum(dim=1)
    first = 0.5 * (squared / beta[1] + 3 * math.log(2 * math.pi * beta[1]))
    torch.testing.assert_close(found.reconstruction, first, rtol=1e-12, atol=0)
    assert found.diffusion.shape == (5, T - 1)
    for t in range(2, T + 1):
        gain = math.sqrt(bar[t - 1]) * beta[t] / (1 - bar[t])
        variance = beta[t] * (1 - bar[t - 1]) / (1 - bar[t])
        expected = 0.5 * gain**2 * squared / variance
        torch.testing.assert_close(found.diffusion[:, t - 2], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        found.total, found.prior + found.diffusion.sum(1) + found.reconstruction
    )
    torch.testing.assert_close(found.bits_per_dim, found.total / (3 * math.log(2)))


def test_beta_variance_adds_its_own_price_to_every_dimension() -> None:
    schedule, x0 = linear_schedule(7), data(2, 5)
    found = elbo(
        ConstantX0(0.0), x0, schedule, parameterization="x0", variance="beta", decoder="gaussian"
    )
    for t in range(2, 8):
        ratio = (schedule.posterior_variance[t] / schedule.beta[t]).item()
        bar = schedule.alpha_bar
        gain = (bar[t - 1].sqrt() * schedule.beta[t] / (1 - bar[t])).item()
        expected = 0.5 * (
            5 * (ratio - 1 - math.log(ratio))
            + gain**2 * (x0**2).sum(dim=1) / schedule.beta[t].item()
        )
        torch.testing.assert_close(found.diffusion[:, t - 2], expected, rtol=1e-10, atol=0)


def test_a_table_equal_to_a_named_variance_gives_the_same_bound() -> None:
    schedule, x0 = cosine_schedule(5), data(3, 2)
    table = schedule.posterior_variance.clone()
    table[1] = schedule.beta[1]
    options = {"parameterization": "x0", "decoder": "gaussian"}
    named = elbo(ConstantX0(0.5), x0, schedule, variance="posterior", **options)
    given = elbo(ConstantX0(0.5), x0, schedule, variance=table, **options)
    assert torch.equal(named.total, given.total)
    assert given.protocol is not None
    assert given.protocol.variance == "table"


def test_a_learned_log_variance_replaces_the_fixed_one() -> None:
    schedule, x0 = linear_schedule(5), data(3, 2)
    options = {"parameterization": "x0", "decoder": "gaussian"}

    def model(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x_t), torch.log(schedule.beta)[t][:, None].expand_as(x_t)

    learned = elbo(model, x0, schedule, **options)
    fixed = elbo(ConstantX0(0.0), x0, schedule, variance="beta", **options)
    torch.testing.assert_close(learned.total, fixed.total, rtol=1e-12, atol=0)
    assert learned.protocol is not None
    assert learned.protocol.variance == "learned"


def test_the_discretized_decoder_is_the_mass_of_the_bin() -> None:
    from scipy.stats import norm

    schedule, levels = linear_schedule(1, beta_start=0.04), 5
    x0 = torch.tensor([[-1.0, -0.5, 0.0, 1.0]], dtype=torch.float64)
    found = elbo(ConstantX0(0.1), x0, schedule, parameterization="x0", levels=levels)
    mass = norm(0.1, 0.2)
    bins = [
        mass.cdf(-0.75),
        mass.cdf(-0.25) - mass.cdf(-0.75),
        mass.cdf(0.25) - mass.cdf(-0.25),
        mass.sf(0.75),
    ]
    expected = -sum(math.log(p) for p in bins)
    assert found.reconstruction.item() == pytest.approx(expected, rel=1e-12)


def test_results_do_not_depend_on_the_split_into_batches() -> None:
    schedule, x0 = linear_schedule(13), data(7, 2, 3).float()

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x_t * t.view(-1, 1, 1)

    options = {"decoder": "gaussian", "draws": 2, "seed": 3}
    whole = elbo(model, x0, schedule, batch_size=1000, **options)
    for size in (1, 5, 7, 29):
        part = elbo(model, x0, schedule, batch_size=size, **options)
        assert torch.equal(part.diffusion, whole.diffusion)
        assert torch.equal(part.reconstruction, whole.reconstruction)
    tail = elbo(model, x0[4:], schedule, first_index=4, **options)
    assert torch.equal(tail.diffusion, whole.diffusion[4:])


def test_every_draw_and_step_has_noise_of_its_own_at_the_stated_address() -> None:
    schedule, x0, T = cosine_schedule(3), data(2, 5), 3
    seen = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((t[0].item(), x_t.clone()))
        return x_t

    elbo(model, x0, schedule, decoder="gaussian", draws=2, seed=7, batch_size=2, first_index=4)
    assert [t for t, _ in seen] == [1, 2, 3, 1, 2, 3]
    for number, (t, x_t) in enumerate(seen):
        step = (number // T) * T + t - 1
        noise = NoiseStream(7).normal((2, 5), step=step, first_index=4, dtype=torch.float64)
        bar = schedule.alpha_bar[t]
        torch.testing.assert_close(x_t, bar.sqrt() * x0 + (1 - bar).sqrt() * noise)


def test_no_call_of_the_model_exceeds_the_batch_size() -> None:
    sizes = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x_t))
        return x_t

    elbo(model, data(5, 2), linear_schedule(23), decoder="gaussian", batch_size=16)
    assert max(sizes) <= 16
    assert sum(sizes) == 5 * 23


def test_the_model_is_asked_in_eval_mode_without_gradient_and_left_as_it_was() -> None:
    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Dropout(0.5).eval()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return self.frozen(x_t) * self.scale

    model = Watch().train()
    model.frozen.eval()
    elbo(model, data(2, 3).float(), linear_schedule(3), decoder="gaussian")
    assert model.training
    assert not model.frozen.training


def test_no_term_carries_a_graph_to_data_that_require_a_gradient() -> None:
    # With a graph behind the prior alone, the gradient of the total would be the prior's.
    x0, schedule = data(2, 3).requires_grad_(), linear_schedule(3)
    found = elbo(ConstantX0(0.5), x0, schedule, parameterization="x0", decoder="gaussian")
    for term in (found.prior, found.diffusion, found.reconstruction, found.total):
        assert not term.requires_grad
    assert x0.requires_grad


def test_the_model_receives_the_original_step_indices_of_a_respaced_schedule() -> None:
    seen = set()

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        seen.update(t.tolist())
        return x_t

    elbo(model, data(2, 3), linear_schedule(20).respaced([3, 11, 20]), decoder="gaussian")
    assert seen == {3, 11, 20}


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 1, 2, 5)])
def test_any_number_of_dimensions_counts_into_bits_per_dim(shape) -> None:
    found = elbo(
        ConstantX0(0.0), data(*shape), linear_schedule(4), parameterization="x0", decoder="gaussian"
    )
    dims = math.prod(shape[1:])
    torch.testing.assert_close(found.bits_per_dim * dims * math.log(2), found.total)


def test_clipping_happens_only_on_request_and_is_said() -> None:
    x0 = data(3, 2)
    options = {"parameterization": "x0", "decoder": "gaussian"}
    free = elbo(ConstantX0(5.0), x0, linear_schedule(3), **options)
    clipped = elbo(ConstantX0(5.0), x0, linear_schedule(3), clip=1.0, **options)
    direct = elbo(ConstantX0(1.0), x0, linear_schedule(3), **options)
    assert torch.allclose(clipped.total, direct.total)
    assert not torch.allclose(free.total, clipped.total)
    assert clipped.protocol is not None
    assert free.protocol is not None
    assert "CLIPPED" in clipped.protocol.describe()
    assert "nothing clipped" in free.protocol.describe()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("last", [-40.0, -23.0, -3.0, 2.0])
def test_prior_kl_keeps_twelve_digits_at_any_size(scale, last) -> None:
    mpmath = pytest.importorskip("mpmath")
    x0 = data(2, 3) * scale
    found = prior_kl(x0, schedule_from_log_snr([last + 1, last]))
    with mpmath.workdps(50):
        a = 1 / (1 + mpmath.exp(-mpmath.mpf(last)))
        for row, value in zip(x0.tolist(), found.tolist(), strict=True):
            exact = sum((a * mpmath.mpf(x) ** 2 - a - mpmath.log(1 - a)) / 2 for x in row)
            assert value == pytest.approx(float(exact), rel=1e-12)


def test_zero_terminal_snr_has_prior_zero_and_needs_another_prediction_than_eps() -> None:
    schedule, x0 = rescale_to_zero_terminal_snr(linear_schedule(5)), data(3, 2)
    found = elbo(ConstantX0(0.0), x0, schedule, parameterization="v", decoder="gaussian")
    assert torch.equal(found.prior, torch.zeros(3, dtype=torch.float64))
    assert torch.isfinite(found.total).all()
    with pytest.raises(ValueError, match="v or x0"):
        elbo(ConstantX0(0.0), x0, schedule, parameterization="eps", decoder="gaussian")


@pytest.mark.parametrize("value", [1e150, 1e200, -1e300])
def test_prior_of_enormous_data_is_finite_where_little_or_none_of_them_is_left(value) -> None:
    x0 = torch.tensor([[value, 0.5]], dtype=torch.float64)
    assert prior_kl(x0, rescale_to_zero_terminal_snr(linear_schedule(10))).item() == 0
    found = prior_kl(x0, schedule_from_log_snr([0.0, -700.0])).item()
    assert found == pytest.approx((math.exp(-350) * value) ** 2 / 2, rel=1e-11)


@pytest.mark.parametrize("parameterization", ["eps", "score"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_what_a_step_would_refuse_is_said_before_the_first_evaluation(
    parameterization, clip
) -> None:
    def unasked(x_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    schedule = rescale_to_zero_terminal_snr(linear_schedule(5))
    options = {"parameterization": parameterization, "decoder": "gaussian", "clip": clip}
    with pytest.raises(ValueError, match="undefined at t = 5"):
        elbo(unasked, data(3, 2), schedule, batch_size=1, **options)
    with pytest.raises(ValueError, match="lattice"):
        elbo(unasked, data(3, 2), linear_schedule(5), levels=17)


def test_float32_data_lose_no_digit_of_the_terms() -> None:
    # The constant model makes every term free of noise: float32 x_t must not enter the KL.
    x0 = data(4, 3).float()
    options = {"parameterization": "x0", "decoder": "gaussian"}
    single = elbo(ConstantX0(0.25), x0, linear_schedule(50), **options)
    double = elbo(ConstantX0(0.25), x0.double(), linear_schedule(50), **options)
    torch.testing.assert_close(single.total, double.total, rtol=1e-12, atol=0)


def test_inputs_stay_as_they_are() -> None:
    x0 = data(3, 2)
    before = x0.clone()
    elbo(
        ConstantX0(0.0), x0, linear_schedule(3), parameterization="x0", decoder="gaussian", clip=1.0
    )
    assert torch.equal(x0, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameterization": "epsilon"}, "eps"),
        ({"variance": "postrior"}, "posterior"),
        ({"decoder": "gausian"}, "gaussian"),
        ({"decoder": "discretized"}, "levels=17"),
        ({"variance": [1.0, 2.0]}, "expected \\[4\\]"),
        ({"variance": [1.0, 1.0, 0.0, 1.0]}, "variance\\[2\\]"),
        ({"draws": 0}, "draws = 0"),
        ({"first_index": -1}, "first_index = -1; it must be at least 0"),
        ({"clip": -1.0}, "clip = -1"),
        ({"clip": 0.0}, "clip = 0"),
        ({"clip": math.nan}, "clip = nan"),
    ],
)
def test_errors_of_use_name_the_remedy(change, message) -> None:
    options = {"parameterization": "x0", "decoder": "gaussian"} | change
    with pytest.raises(ValueError, match=message):
        elbo(ConstantX0(0.0), data(2, 3), linear_schedule(3), **options)


def test_bad_data_and_bad_models_are_named() -> None:
    schedule, x0 = linear_schedule(3), data(2, 3)
    with pytest.raises(ValueError, match="finite"):
        elbo(ConstantX0(0.0), x0 / 0, schedule, decoder="gaussian")
    with pytest.raises(TypeError, match=r"127\.5"):
        elbo(ConstantX0(0.0), torch.zeros(2, 3, dtype=torch.uint8), schedule, levels=256)
    with pytest.raises(ValueError, match="lattice"):
        elbo(ConstantX0(0.0), x0, schedule, parameterization="x0", levels=17)
    with pytest.raises(
        ValueError,
        match=r"\[6, 6\] .* \[6, 3\]: they must be equal; .* pass output\[:, :C\], or the pair",
    ):
        elbo(lambda x, t: torch.cat([x, x], dim=1), x0, schedule, decoder="gaussian")
    with pytest.raises(TypeError, match="sample"):
        elbo(lambda x, t: None, x0, schedule, decoder="gaussian")


@pytest.mark.parametrize("shape", [(), (2, 0), (2, 3, 0), (0, 0)])
def test_examples_without_dimensions_are_refused(shape) -> None:
    # Bits per dimension of no dimension would be 0/0.
    schedule, x0 = linear_schedule(3), torch.zeros(shape, dtype=torch.float64)
    for bound in (elbo, partial(estimate_elbo, evaluations=50)):
        with pytest.raises(ValueError, match=r"shape .* expected \[B, \*dims\]"):
            bound(ConstantX0(0.0), x0, schedule, parameterization="x0", decoder="gaussian")


@pytest.mark.parametrize("output", [math.nan, math.inf])
def test_a_diverged_model_spoils_the_terms_that_it_enters_and_no_other(output) -> None:
    x0, schedule = data(2, 3), linear_schedule(4)

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, None] == 3, output, x_t)

    found = elbo(model, x0, schedule, decoder="gaussian")
    assert torch.isfinite(found.diffusion).tolist() == [[True, False, True]] * 2
    assert torch.isfinite(found.reconstruction).all()
    assert not torch.isfinite(found.bits_per_dim).any()


def test_an_empty_batch_gives_empty_terms() -> None:
    found = elbo(
        ConstantX0(0.0), data(0, 3), linear_schedule(3), parameterization="x0", decoder="gaussian"
    )
    assert found.diffusion.shape == (0, 2)
    assert found.total.shape == (0,)


def test_a_network_that_works_in_place_changes_nothing_but_its_own_copy() -> None:
    x0 = data(3, 2).double()
    options = {"parameterization": "eps", "decoder": "gaussian"}
    apart = elbo(lambda x, t: x.clamp(0), x0, linear_schedule(6), **options)
    in_place = elbo(lambda x, t: x.clamp_(0), x0, linear_schedule(6), **options)
    assert torch.equal(apart.total, in_place.total)
