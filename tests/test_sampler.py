"""Sampling against closed forms: posterior steps, exact Gaussian walks, respacing, last step."""

import math

import pytest
import torch
from torch import nn

from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.sampler import SamplerRule, sample, sample_steps, step
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
)

SCHEDULES = [linear_schedule(11), cosine_schedule(7), schedule_from_beta([0.3])]
IDS = ["linear", "cosine", "one step"]
DOUBLE = torch.float64


def case(schedule, batch=None):
    """(x0, eps, x_t, t) with every t, or B = D where batch is given."""
    t = torch.arange(1, schedule.T + 1) if batch is None else torch.full((batch,), schedule.T)
    generator = torch.Generator().manual_seed(5)
    x0 = torch.randn((len(t), 3, 5), generator=generator, dtype=DOUBLE)
    eps = torch.randn((len(t), 3, 5), generator=generator, dtype=DOUBLE)
    kept = schedule.alpha_bar[t].view(-1, 1, 1)
    return x0, eps, kept.sqrt() * x0 + (1 - kept).sqrt() * eps, t


def column(table, t):
    return table[t].view(-1, 1, 1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_a_model_that_knows_x0_walks_along_the_posterior(schedule):
    """Product of N(sqrt(1-beta) x_{t-1}; x_t, beta) and N(sqrt(abar') x0, 1-abar'): precisions add."""
    x0, eps, x_t, t = case(schedule)
    got = step(eps, x_t, t, schedule, parameterization="eps", rule=SamplerRule("ddpm"))
    beta, before = column(schedule.beta, t), column(schedule.alpha_bar, t - 1)
    likelihood = (1 - beta) / beta
    prior = 1 / (1 - before)
    variance = torch.where(t.view(-1, 1, 1) == 1, 0.0, 1 / (likelihood + prior))
    pull = likelihood / (1 - beta).sqrt() * x_t + prior * before.sqrt() * x0
    mean = torch.where(t.view(-1, 1, 1) == 1, x0, variance * pull)
    torch.testing.assert_close(got.mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.log_var.exp(), variance.expand_as(x0), rtol=1e-10, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_ddim_is_equations_12_and_16_of_its_paper(schedule, eta):
    x0, eps, x_t, t = case(schedule)
    rule = SamplerRule("ddim", eta=eta)
    got = step(x0, x_t, t, schedule, parameterization="x0", rule=rule)
    here, before = column(schedule.alpha_bar, t), column(schedule.alpha_bar, t - 1)
    sigma = eta * ((1 - before) / (1 - here)).sqrt() * (1 - here / before).sqrt()
    mean = before.sqrt() * x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps
    # The paper's difference under the root is accurate to 1e-16/0.01: rtol 1e-7 on the small root.
    torch.testing.assert_close(got.mean, mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(got.log_var.exp(), (sigma**2).expand_as(x0), rtol=1e-9, atol=1e-15)


def test_ddim_keeps_the_marginal_whatever_eta():
    """x_t ~ q(x_t|x0) goes to q(x_{t-1}|x0): the means agree and the variances add up to 1 - abar'."""
    schedule = cosine_schedule(7)
    x0, _, _, t = case(schedule)
    x_t = column(schedule.sqrt_alpha_bar, t) * x0
    for eta in (0.0, 0.5, 1.0):
        rule = SamplerRule("ddim", eta=eta)
        mean = step(x0, x_t, t, schedule, parameterization="x0", rule=rule)
        moved = step(x0, x_t + 1, t, schedule, parameterization="x0", rule=rule)
        before = column(schedule.alpha_bar, t - 1)
        torch.testing.assert_close(mean.mean, before.sqrt() * x0, rtol=1e-9, atol=1e-12)
        variance = (moved.mean - mean.mean) ** 2 * column(schedule.one_minus_alpha_bar, t)
        total = variance + mean.log_var.exp()
        torch.testing.assert_close(total, (1 - before).expand_as(total), rtol=1e-9, atol=1e-9)


def test_noise_variance_is_proportional_to_eta_squared():
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule)
    variances = [
        step(
            x0, x_t, t, schedule, parameterization="x0", rule=SamplerRule("ddim", eta=eta)
        ).log_var.exp()
        for eta in (0.25, 0.5)
    ]
    torch.testing.assert_close(variances[1], 4 * variances[0], rtol=1e-12, atol=0)


def test_ddim_with_eta_one_is_ancestral_sampling():
    model = gaussian_model(0.3, 0.5, linear_schedule(11))
    draws = [
        sample(model, (4, 3), linear_schedule(11), parameterization="eps", sampler=name, eta=1.0)
        for name in ("ddpm", "ddim")
    ]
    assert torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("variance", ["posterior", "beta", "table"])
def test_ddpm_adds_the_variance_that_was_asked_for(variance):
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule)
    table = torch.linspace(0.5, 1.5, 12, dtype=DOUBLE)
    tables = {"posterior": schedule.posterior_variance, "beta": schedule.beta, "table": table}
    rule = SamplerRule("ddpm", variance=table if variance == "table" else variance)
    got = step(x0, x_t, t, schedule, parameterization="x0", rule=rule).log_var.exp()
    wanted = torch.where(t == 1, torch.zeros(()).double(), tables[variance][t])
    torch.testing.assert_close(got, wanted.view(-1, 1, 1).expand_as(got), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "rule", [SamplerRule("ddpm", variance="beta"), SamplerRule("ddim", eta=0.7)], ids=str
)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_the_last_step_is_the_predicted_x0(schedule, rule):
    x0, _, x_t, t = (value[:1] for value in case(schedule))
    got = step(x0, x_t, t, schedule, parameterization="x0", rule=rule)
    torch.testing.assert_close(got.mean, x0, rtol=1e-14, atol=0)
    assert (got.log_var == -math.inf).all()


def gaussian_model(mean, deviation, schedule):
    """The exact eps-prediction for data ~ N(mean, deviation²): sqrt(1-abar)(x_t - sqrt(abar) mean)/v_t."""

    def model(x_t, t):
        kept = schedule.alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
        total = kept * deviation**2 + 1 - kept
        return ((1 - kept).sqrt() * (x_t.double() - kept.sqrt() * mean) / total).to(x_t.dtype)

    return model


@pytest.mark.parametrize("steps", [None, 4, 1])
def test_ddim_walks_gaussian_data_along_an_exact_line(steps):
    """With the exact model each step is affine: (x' - sqrt(abar')m) = k_t (x - sqrt(abar)m)."""
    mean, deviation, schedule = 0.3, 0.5, cosine_schedule(13)
    walk = list(
        sample_steps(
            gaussian_model(mean, deviation, schedule),
            (2, 3),
            schedule,
            parameterization="eps",
            rule=SamplerRule("ddim"),
            steps=steps,
            dtype=DOUBLE,
        )
    )
    walked = schedule.respaced({None: list(range(1, 14)), 4: [1, 5, 9, 13], 1: [13]}[steps])
    expected = walk[0]
    for index in range(walked.T, 0, -1):
        here, before = walked.alpha_bar[index], walked.alpha_bar[index - 1]
        total = here * deviation**2 + 1 - here
        slope = ((before * here).sqrt() * deviation**2 + ((1 - before) * (1 - here)).sqrt()) / total
        expected = before.sqrt() * mean + slope * (expected - here.sqrt() * mean)
        torch.testing.assert_close(walk[walked.T - index + 1], expected, rtol=1e-11, atol=1e-12)
    assert len(walk) == walked.T + 1


def test_fine_ddim_steps_carry_the_prior_onto_the_data():
    mean, deviation, schedule = 0.3, 0.5, linear_schedule(1000)
    *_, last = sample_steps(
        gaussian_model(mean, deviation, schedule),
        (3, 1),
        schedule,
        parameterization="eps",
        rule=SamplerRule("ddim"),
        dtype=DOUBLE,
    )
    start = NoiseStream(0).normal((3, 1), step=0, use=Use.SAMPLER, dtype=DOUBLE)
    # The probability-flow map is x -> m + s x / sqrt(v_T); 1000 Euler steps are within 1 %.
    torch.testing.assert_close(last, mean + deviation * start, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ancestral_sampling_has_the_mean_and_variance_of_its_recursion(variance):
    mean, deviation, schedule, count = 0.3, 0.5, cosine_schedule(7), 20_000
    draws = sample(
        gaussian_model(mean, deviation, schedule),
        (count, 2),
        schedule,
        parameterization="eps",
        variance=variance,
        dtype=DOUBLE,
    )
    table = schedule.beta if variance == "beta" else schedule.posterior_variance
    centre, spread = 0.0, 1.0
    for t in range(7, 0, -1):
        here, before = schedule.alpha_bar[t].item(), schedule.alpha_bar[t - 1].item()
        total, beta = here * deviation**2 + 1 - here, schedule.beta[t].item()
        denoised = math.sqrt(here) * deviation**2 / total  # slope of E[x0|x_t]
        slope = math.sqrt(before) * beta / (1 - here) * denoised
        slope += math.sqrt(1 - beta) * (1 - before) / (1 - here)
        centre = math.sqrt(before) * mean + slope * (centre - math.sqrt(here) * mean)
        spread = slope**2 * spread + (table[t].item() if t > 1 else 0.0)
    n = draws.numel()
    assert abs(draws.mean() - centre) < 5 * math.sqrt(spread / n)
    assert abs(draws.var() - spread) < 5 * spread * math.sqrt(2 / n)


class Recorder(nn.Module):
    """Predicts x0 = 0.25 and notes how it was called."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=DOUBLE))
        self.inner = nn.Dropout()
        self.calls = []

    def forward(self, x_t, t):
        self.calls.append((t.tolist(), self.training, torch.is_grad_enabled(), x_t.dtype))
        return torch.full_like(x_t, 0.25)


def test_the_model_receives_training_time_steps_in_eval_mode_without_gradient():
    model = Recorder()
    got = sample(model, (2, 3), linear_schedule(11), parameterization="x0", steps=[2, 5, 11])
    assert [call[0] for call in model.calls] == [[11, 11], [5, 5], [2, 2]]
    assert {call[1:] for call in model.calls} == {(False, False, DOUBLE)}
    assert model.training
    assert model.inner.training
    assert torch.equal(got, torch.full((2, 3), 0.25, dtype=DOUBLE))


@pytest.mark.parametrize(
    ("steps", "walked"), [(1, [11]), (2, [11, 1]), (3, [11, 6, 1]), (11, list(range(11, 0, -1)))]
)
def test_fewer_steps_are_evenly_spaced(steps, walked):
    model = Recorder()
    sample(model, (1, 2), linear_schedule(11), parameterization="x0", steps=steps)
    assert [call[0][0] for call in model.calls] == walked


def test_samples_do_not_depend_on_how_they_are_batched():
    schedule = linear_schedule(11)
    model = gaussian_model(0.3, 0.5, schedule)

    def draw(count, first):
        return sample(
            model, (count, 3), schedule, parameterization="eps", seed=9, first_index=first
        )

    assert torch.equal(draw(7, 0), torch.cat([draw(3, 0), draw(4, 3)]))
    assert not torch.equal(draw(7, 0), draw(7, 7))
    other = sample(model, (7, 3), schedule, parameterization="eps", seed=10)
    assert not torch.equal(draw(7, 0), other)


@pytest.mark.parametrize("clip", [True, 1.0, 0.5])
def test_clipping_bounds_x0_and_keeps_x_t(clip):
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule)
    got = step(3 * x0, x_t, t, schedule, parameterization="x0", rule=SamplerRule("ddim", clip=clip))
    bounded = (3 * x0).clamp(-float(clip), float(clip))
    here, before = column(schedule.alpha_bar, t), column(schedule.alpha_bar, t - 1)
    eps = (x_t - here.sqrt() * bounded) / (1 - here).sqrt()
    wanted = before.sqrt() * bounded + (1 - before).sqrt() * eps
    torch.testing.assert_close(got.mean, wanted, rtol=1e-9, atol=1e-9)


def test_no_clipping_by_default_and_by_false():
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule)
    means = [
        step(9 * x0, x_t, t, schedule, parameterization="x0", rule=SamplerRule(clip=clip)).mean
        for clip in (None, False)
    ]
    assert torch.equal(means[0], means[1])
    assert means[0][0].abs().max() > 1


def test_zero_terminal_snr_needs_a_prediction_that_knows_x0():
    schedule = rescale_to_zero_terminal_snr(linear_schedule(11))

    def zero(x_t, t):
        return torch.zeros_like(x_t)

    for name in ("ddpm", "ddim"):
        assert sample(zero, (2, 3), schedule, parameterization="v", sampler=name).isfinite().all()
        with pytest.raises(ValueError, match="zero terminal SNR"):
            sample(zero, (2, 3), schedule, parameterization="eps", sampler=name)


def test_a_learned_variance_replaces_the_table_until_the_last_step():
    schedule = linear_schedule(3)

    def model(x_t, t):
        return torch.zeros_like(x_t), torch.full_like(x_t, -60.0)  # deviation 1e-13

    walk = list(
        sample_steps(
            model, (2, 3), schedule, parameterization="x0", rule=SamplerRule(), dtype=DOUBLE
        )
    )
    slope = (
        math.sqrt(1 - schedule.beta[3])
        * schedule.one_minus_alpha_bar[2]
        / schedule.one_minus_alpha_bar[3]
    )
    torch.testing.assert_close(walk[1], slope * walk[0], rtol=0, atol=1e-11)
    assert not walk[-1].any()


def test_inputs_stay_and_half_precision_is_kept():
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule)
    before = (x0.clone(), x_t.clone(), t.clone())
    step(x0, x_t, t, schedule, parameterization="x0", rule=SamplerRule(clip=0.1))
    assert all(torch.equal(a, b) for a, b in zip((x0, x_t, t), before, strict=True))
    half = step(
        x0.bfloat16(), x_t.bfloat16(), t, schedule, parameterization="x0", rule=SamplerRule()
    )
    assert half.mean.dtype == half.log_var.dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [5, 15])
def test_rows_are_separate_also_where_batch_equals_dims(batch):
    schedule = linear_schedule(11)
    x0, _, x_t, t = case(schedule, batch)
    together = step(x0, x_t, t, schedule, parameterization="x0", rule=SamplerRule())
    alone = [
        step(x0[i : i + 1], x_t[i : i + 1], t[i : i + 1], schedule, parameterization="x0", rule=SamplerRule()).mean
        for i in range(batch)
    ]  # fmt: skip
    assert torch.equal(together.mean, torch.cat(alone))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"sampler": "dpm"}, r"unknown sampler 'dpm'; known: ddim, ddpm"),
        ({"eta": 1.5}, r"eta = 1.5"),
        ({"clip": -1.0}, r"clip = -1.0"),
        ({"variance": "betas"}, r"unknown variance 'betas'.*'beta'"),
        ({"variance": torch.ones(5)}, r"variance has shape \[5\], expected \[12\]"),
        ({"steps": 12}, r"steps = 12.*1 … 11"),
        ({"steps": [3, 7]}, r"11"),
        ({"parameterization": "noise"}, r"unknown parameterization 'noise'"),
    ],
)  # fmt: skip
def test_wrong_uses_name_value_and_rule(choices, message):
    arguments = {"parameterization": "x0"} | choices
    with pytest.raises(ValueError, match=message):
        sample(Recorder(), (2, 3), linear_schedule(11), **arguments)


def test_a_network_that_works_in_place_changes_nothing_but_its_own_copy():
    options = {"parameterization": "eps", "seed": 3}
    apart = sample(lambda x, t: x.clamp(0), (2, 3), linear_schedule(6), **options)
    in_place = sample(lambda x, t: x.clamp_(0), (2, 3), linear_schedule(6), **options)
    assert torch.equal(apart, in_place)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps": 2.5}, r"steps = 2.5 is a float; .*pass an int"),
        ({"steps": 3.0}, r"steps = 3.0 is a float"),
        ({"steps": True}, r"steps = True is a bool"),
        ({"steps": "3"}, r"steps = '3' is a str"),
        ({"steps": [2.5, 11]}, r"timesteps has dtype"),
        ({"first_index": 1.5}, r"first_index = 1.5 is a float"),
        ({"eta": "half"}, r"eta = 'half' is a str; pass a number"),
        ({"clip": "1"}, r"clip = '1' is a str; pass a number"),
        ({"variance": ["beta"]}, r"variance = \['beta'\] is neither a name nor numbers"),
    ],
)  # fmt: skip
def test_wrong_types_name_the_value_and_the_type(choices, message):
    arguments = {"parameterization": "x0"} | choices
    with pytest.raises(TypeError, match=message):
        sample(Recorder(), (2, 3), linear_schedule(11), **arguments)


def test_shapes_are_whole_numbers():
    for shape, error, message in (
        ((2, 2.5), TypeError, r"shape\[1\] = 2.5"),
        ((2, -1), ValueError, r"shape\[1\] = -1"),
    ):
        with pytest.raises(error, match=message):
            sample(Recorder(), shape, linear_schedule(3), parameterization="x0")


@pytest.mark.parametrize("steps", [torch.tensor([2, 5, 11]), range(1, 12), (11,)], ids=str)
def test_steps_may_be_any_sequence(steps):
    got = sample(Recorder(), (2, 3), linear_schedule(11), parameterization="x0", steps=steps)
    same = sample(
        Recorder(),
        (2, 3),
        linear_schedule(11),
        parameterization="x0",
        steps=[int(t) for t in steps],
    )
    assert torch.equal(got, same)


@pytest.mark.parametrize("eta", [0.0, 0.5, 0])
def test_an_eta_that_ddpm_does_not_use_is_refused(eta):
    with pytest.raises(ValueError, match=rf"eta = {eta} with sampler 'ddpm'.*sampler='ddim'"):
        sample(Recorder(), (2, 3), linear_schedule(11), parameterization="x0", eta=eta)


def test_without_eta_ddim_is_deterministic_and_ddpm_is_eta_one():
    schedule = linear_schedule(5)
    assert (SamplerRule("ddim").added_variance(schedule) == 0).all()
    assert SamplerRule("ddim").share == 0
    assert SamplerRule("ddpm").share == SamplerRule("ddpm", eta=1).share == 1
