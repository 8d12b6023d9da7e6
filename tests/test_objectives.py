"""What the trainer can be asked to descend: learned variances, draws of t, continuous t, accumulation, decay, several averages."""

import dataclasses
import io
import math

import pytest
import torch

from ddpm_ref.batches import Batches
from ddpm_ref.checkpoint import load_checkpoint, save_checkpoint
from ddpm_ref.config import TrainConfig
from ddpm_ref.data import digits
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.gaussian import discretized_gaussian_log_likelihood
from ddpm_ref.learned import bound_terms, hybrid_loss, learned_range
from ddpm_ref.network import LearnedRange
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.process import q_sample
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import linear_schedule
from ddpm_ref.times import TIMES
from ddpm_ref.trainer import train

ARTICLE = {"network": "article", "network_options": {"hidden": 3}}
TINY = TrainConfig(T=7, batch_size=12, steps=5, warmup_steps=2, seed=11, **ARTICLE)
RANGE = {"schedule": "log_snr", "schedule_options": {"first": 4.0, "last": -4.0}}
LEARNED = {"variance": "learned", "levels": 17, "hybrid_scale": 0.5}


def images(count: int = 13) -> torch.Tensor:
    grey = torch.randint(0, 17, (count, 2, 3, 5), generator=torch.Generator().manual_seed(2))
    return grey / 8 - 1


def changed(**choices) -> TrainConfig:
    return dataclasses.replace(TINY, **choices)


def normal(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- learned variance

SCHEDULE = linear_schedule(7, 0.01, 0.3)
STEPS = torch.tensor([1, 2, 5, 7, 1])


def test_the_learned_range_is_eq_15_and_ends_at_beta_1():
    share = normal(5, 3)
    beta, posterior = SCHEDULE.beta, SCHEDULE.posterior_variance
    for row, t in enumerate(STEPS.tolist()):
        low, high = math.log(posterior[max(t, 2)]), math.log(beta[t])
        wanted = share[row] * high + (1 - share[row]) * low
        found = learned_range(share, STEPS, SCHEDULE)[row]
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    one = linear_schedule(1)
    wanted = torch.full((1, 2), math.log(1e-4), dtype=torch.float64)
    torch.testing.assert_close(learned_range(torch.rand(1, 2).double(), STEPS[:1], one), wanted)


@pytest.mark.parametrize("levels", [None, 17])
@pytest.mark.parametrize("space", ["eps", "x0", "v"])
def test_the_hybrid_term_is_the_bound_and_its_gradient_leaves_the_mean_alone(space, levels):
    """Every number by hand: KL of two Gaussians for t ≥ 2, the decoder for t = 1, means from Ho et al. eq. 7."""
    x0 = (torch.randint(0, 17, (5, 3), generator=torch.Generator().manual_seed(1)) / 8 - 1).double()
    eps, prediction, said = normal(5, 3), normal(5, 3, seed=4), normal(5, 3, seed=5)
    x_t = q_sample(x0, STEPS, SCHEDULE, eps)
    prediction.requires_grad_()
    log_variance = learned_range(said, STEPS, SCHEDULE).requires_grad_()
    found = bound_terms(
        prediction, log_variance, x0, x_t, STEPS, SCHEDULE, parameterization=space, levels=levels
    )
    for row, t in enumerate(STEPS.tolist()):
        kept, before = SCHEDULE.alpha_bar[t], SCHEDULE.alpha_bar[t - 1]
        beta, out = SCHEDULE.beta[t], prediction[row].detach()
        guess = {
            "eps": (x_t[row] - (1 - kept).sqrt() * out) / kept.sqrt(),
            "x0": out,
            "v": kept.sqrt() * x_t[row] - (1 - kept).sqrt() * out,
        }[space]
        on_x0 = before.sqrt() * beta / (1 - kept)
        on_x_t = (1 - beta).sqrt() * (1 - before) / (1 - kept)
        mean, variance = on_x0 * guess + on_x_t * x_t[row], log_variance[row].detach().exp()
        if t == 1 and levels is None:
            wanted = 0.5 * (
                (x0[row] - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)
            )
        elif t == 1:
            wanted = -discretized_gaussian_log_likelihood(x0[row], mean, 0.5 * variance.log(), 17)
        else:
            true = beta * (1 - before) / (1 - kept)
            gap = on_x0 * x0[row] + on_x_t * x_t[row] - mean
            wanted = 0.5 * (variance.log() - true.log() + (true + gap**2) / variance - 1)
        assert found[row].item() == pytest.approx(wanted.mean().item(), rel=1e-10)
    found.sum().backward()
    assert prediction.grad is None
    assert torch.isfinite(log_variance.grad).all()
    assert (log_variance.grad != 0).all()


def test_the_best_variance_of_data_at_a_point_is_the_lower_end():
    """d/d ln σ² of the KL is ½(1 − (β̃ + gap²)/σ²): with the mean right it is 0 at σ² = β̃_t, eq. 15's v = 0."""
    x0 = torch.full((1, 3), 0.25, dtype=torch.float64)
    t, eps = torch.tensor([5]), normal(1, 3)
    x_t = q_sample(x0, t, SCHEDULE, eps)
    share = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    term = bound_terms(
        eps, learned_range(share, t, SCHEDULE), x0, x_t, t, SCHEDULE, parameterization="eps"
    )
    term.sum().backward()
    assert term.item() == pytest.approx(0, abs=1e-12)
    assert share.grad.abs().max() < 1e-12


def test_hybrid_loss_is_simple_plus_lambda_T_bound():
    assert hybrid_loss(torch.tensor([2.0]), torch.tensor([3.0]), 10).item() == pytest.approx(2.03)


def test_a_run_with_learned_variance_gives_pairs_that_sampler_and_bound_take():
    *_, last = train(changed(**LEARNED), images())
    x_t, t = torch.randn(3, 2, 3, 5), torch.tensor([1, 4, 7])
    prediction, log_variance = last.ema(x_t, t)
    assert prediction.shape == log_variance.shape == x_t.shape
    schedule = last.state.schedule
    ends = [schedule.posterior_variance[t.clamp(min=2)].log(), schedule.beta[t].log()]
    inner = last.ema.inner(x_t, t)[:, 2:]
    share = (inner.double() + 1) / 2
    low, high = (end.view(-1, 1, 1, 1) for end in ends)
    torch.testing.assert_close(
        log_variance.double(), share * high + (1 - share) * low, rtol=1e-5, atol=1e-5
    )
    images_drawn = sample(last.ema, (2, 2, 3, 5), schedule, parameterization="eps", seed=1)
    assert torch.isfinite(images_drawn).all()


def test_a_sampler_on_fewer_steps_reads_the_range_of_its_own_chain():
    """With v = 1 the variance of a step is β' of the chain that is walked, not β of the training's."""

    class Upper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, t):
            return torch.cat([0 * x, torch.ones_like(x)], dim=1) + 0 * self.weight

    schedule = linear_schedule(100)
    steps = [10, 40, 70, 100]
    model = LearnedRange(Upper(), schedule, 100)
    shape, walked = (4, 1, 8, 8), schedule.respaced(steps)
    unaware = sample(model, shape, walked, parameterization="eps", seed=3)
    found = sample(model, shape, schedule, parameterization="eps", steps=steps, seed=3)
    wanted = sample(
        lambda x, t: 0 * x,
        shape,
        schedule,
        parameterization="eps",
        steps=steps,
        variance="beta",
        seed=3,
    )
    assert not torch.allclose(found, unaware, rtol=0.1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- draws of t


@pytest.mark.parametrize("importance", ["unbiased", "none", "density"])
def test_losses_carry_the_factor_of_their_draw(importance):
    """The first prediction is 0, so a loss is the factor times the mean square of its target."""
    options = {"timesteps_options": {"uniform_share": 0.1}, "timesteps": "laplace"}
    config = changed(steps=1, precision="float64", importance=importance, **options, **RANGE)
    (step,) = train(config, images())
    times = config.make_times(config.make_schedule())
    eps = NoiseStream(11).normal((12, 2, 3, 5), step=1, dtype=torch.float64)
    wanted = times.weights[step.t - 1] * eps.square().mean((1, 2, 3))
    torch.testing.assert_close(step.losses, wanted, rtol=1e-12, atol=0)
    assert step.loss == pytest.approx(wanted.mean().item(), rel=1e-12)


@pytest.mark.parametrize("importance", ["unbiased", "none", "density"])
def test_normalized_weights_count_each_step_as_the_draw_does(importance):
    """w̄ = Σ e w/Σ e with e = T p r: Σ over draws of p · r · w/w̄ is 1 for every way to draw."""
    options = {"timesteps_options": {"uniform_share": 0.1}, "timesteps": "laplace"}
    base = changed(
        parameterization="x0",
        steps=1,
        precision="float64",
        importance=importance,
        **options,
        **RANGE,
    )
    (plain,) = train(base, images())
    (normalized,) = train(dataclasses.replace(base, normalize_weights=True), images())
    schedule, times = base.make_schedule(), base.make_times(base.make_schedule())
    snr = schedule.alpha_bar[1:] / schedule.one_minus_alpha_bar[1:]
    mean = (times.probabilities * times.weights * snr).sum() / (
        times.probabilities * times.weights
    ).sum()
    torch.testing.assert_close(
        plain.losses / normalized.losses,
        torch.full((12,), mean.item(), dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )


def test_loss_aware_draws_by_the_losses_of_the_run_itself():
    """Replayed from the steps that were yielded: ten losses at each t, then p ∝ root mean square."""
    config = changed(
        T=3, steps=14, timesteps="loss_aware", weighting="simple_x0", precision="float64"
    )
    seen: dict[int, list[float]] = {1: [], 2: [], 3: []}
    uniform = 0
    for step in train(config, images()):
        if min(map(len, seen.values())) < 10:
            size = [1.0, 1.0, 1.0]
            uniform += 1
        else:
            size = [math.sqrt(sum(v * v for v in values[-10:]) / 10) for values in seen.values()]
        p = [0.999 * s / sum(size) + 0.001 / 3 for s in size]
        for t, loss in zip(step.t.tolist(), step.losses.tolist(), strict=True):
            factor = 1 / (3 * p[t - 1])
            seen[t].append(loss / factor)
        points = NoiseStream(11).uniform(
            (12,), use=Use.TIMESTEP, step=step.step, dtype=torch.float64
        )
        edges = torch.tensor(p, dtype=torch.float64).cumsum(0)
        wanted = 1 + (points[:, None] >= edges[:2]).sum(1)
        assert torch.equal(step.t, wanted)
    assert 0 < uniform < 10


@pytest.mark.parametrize("timesteps", ["uniform", "low-discrepancy", "laplace"])
def test_continuous_t_by_hand(timesteps):
    """x_t and losses from λ(τ) by linear interpolation, and the network sees τ."""
    config = changed(
        continuous=True, timesteps=timesteps, steps=1, precision="float64", weighting="min_snr",
        parameterization="v", **RANGE
    )  # fmt: skip
    schedule, data = config.make_schedule(), images().double()
    batch = Batches(config, schedule, data).draw(1)
    tau = batch.time
    assert ((tau >= 1) & (tau <= 7) & (tau != tau.round())).all()
    log_snr = 4.0 - 8.0 * (tau - 1) / 6
    kept = torch.sigmoid(log_snr).view(-1, 1, 1, 1)
    wanted = kept.sqrt() * batch.x0 + (1 - kept).sqrt() * batch.eps
    torch.testing.assert_close(batch.x_t, wanted, rtol=1e-12, atol=1e-12)
    (step,) = train(config, data)
    v = kept.sqrt() * batch.eps - (1 - kept).sqrt() * batch.x0
    snr = log_snr.exp()
    factor = snr.clamp(max=5) / (snr + 1) * (1 if batch.factor is None else batch.factor)
    torch.testing.assert_close(step.losses, factor * v.square().mean((1, 2, 3)), rtol=1e-10, atol=0)
    assert torch.equal(step.t, tau.round().long())


# ---------------------------------------------------------------- accumulation, decay, averages


@pytest.mark.parametrize("more", [{}, LEARNED, {"timesteps": "loss_aware", "T": 2}], ids=str)
def test_accumulation_leaves_the_curve_as_it_is_up_to_rounding(more):
    whole, parts = (
        list(train(changed(precision="float64", accumulation=a, **more), images())) for a in (1, 4)
    )
    for one, four in zip(whole, parts, strict=True):
        assert torch.equal(one.t, four.t)
        torch.testing.assert_close(one.losses, four.losses, rtol=1e-9, atol=0)
        assert one.gradient_norm == pytest.approx(four.gradient_norm, rel=1e-9)


def test_the_learning_rate_falls_along_half_a_cosine_whatever_the_number_of_steps():
    config = changed(steps=6, warmup_steps=2, decay_steps=5, learning_rate=0.1)
    rates = [step.learning_rate for step in train(config, images())]
    wanted = [0.05, 0.1, *(0.05 * (1 + math.cos(math.pi * k / 3)) for k in (1, 2, 3)), 0.0]
    assert rates == pytest.approx(wanted, abs=1e-15)
    short = [step.learning_rate for step in train(dataclasses.replace(config, steps=4), images())]
    assert short == rates[:4]


def test_several_averages_follow_one_run():
    config = changed(steps=12, ema_half_lives=(1.0, 20.0), precision="float64")
    history = []
    for step in train(config, images()):
        history.append([p.detach().clone() for p in step.network.parameters()])
    for half_life, model in step.averages.items():
        ceiling = 0.5 ** (1 / half_life)
        wanted = history[0]
        for k in range(2, 13):
            decay = min(ceiling, k / (k + 9))
            pairs = zip(wanted, history[k - 1], strict=True)
            wanted = [decay * a + (1 - decay) * b for a, b in pairs]
        for found, each in zip(model.parameters(), wanted, strict=True):
            torch.testing.assert_close(found.detach(), each, rtol=1e-12, atol=1e-14)
    assert list(step.averages) == [1.0, 20.0]


# ---------------------------------------------------------------- resuming

RESUMED = {
    "learned variance": LEARNED,
    "learned variance, averages": {**LEARNED, "ema_half_lives": (2.0, 5.0)},
    "accumulation, decay": {"accumulation": 3, "decay_steps": 4},
    "continuous": {"continuous": True, **RANGE},
    "continuous laplace": {"continuous": True, "timesteps": "laplace", **RANGE},
    "edm": {"skip": "edm", "parameterization": "x0", "timesteps": "log_normal", **RANGE},
    "learned skip": {"skip": "learned"},
    **{
        f"{name}, {importance}": {
            "timesteps": name,
            "importance": importance,
            "timesteps_options": {"uniform_share": 0.1},
            **RANGE,
        }
        for name in TIMES
        for importance in ("unbiased", "none")
        if not (name == "loss_aware" and importance == "none")
    },
    "loss_aware after its start": {"timesteps": "loss_aware", "T": 1},
}


@pytest.mark.parametrize("choices", RESUMED.values(), ids=RESUMED)
def test_resume_is_bit_exact_for_every_objective(tmp_path, choices):
    config = changed(**choices)
    whole = list(train(config, images()))
    for step in train(config, images()):
        if step.step == 2:
            save_checkpoint(tmp_path / "run.pt", step.state)
            break
    loaded = load_checkpoint(tmp_path / "run.pt")
    assert loaded.config == config
    rest = list(train(config, images(), resume=loaded))
    assert [s.loss for s in rest] == [s.loss for s in whole[2:]]
    models = [(s.ema, *s.averages.values()) for s in (whole[-1], rest[-1])]
    for one, other in zip(*models, strict=True):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------- what is refused before the first step


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"zero_terminal_snr": True}, r"'eps' where alpha_bar\[T\] = 0.*set parameterization"),
        ({"zero_terminal_snr": True, "parameterization": "score", "weighting": "simple_x0"}, "score|infinite"),
        ({"batch_size": 10, "accumulation": 4}, "10 cannot be cut into accumulation = 4"),
        ({"decay_steps": 2}, "decay_steps = 2 lies within warmup_steps = 2"),
        ({"continuous": True, "T": 1}, "continuous t needs T >= 2"),
        ({"continuous": True, "weighting": "elbo"}, "'elbo' is a difference of neighbouring steps"),
        ({"continuous": True, "variance": "learned"}, "variance = 'learned' lies between"),
        ({"continuous": True, "timesteps": "loss_aware"}, "remembers losses by step"),
        ({"continuous": True, "zero_terminal_snr": True, "parameterization": "v"}, "interpolated towards -inf"),
        ({"timesteps": "laplace", "timesteps_options": {"scale": 0.002}}, "t = 1 has probability"),
        ({"timesteps": "laplase"}, "unknown timesteps 'laplase'.*'laplace'"),
        ({"timesteps": "laplace", "timesteps_options": {"std": 1.0}}, "unknown option of timesteps 'laplace' 'std'"),
        ({"variance": "learnt"}, "unknown variance 'learnt'.*'learned'"),
        ({"ema_half_lives": (0.0,)}, "a half-life is a positive number"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_when_the_configuration_is_made(choices, message):
    with pytest.raises(ValueError, match=message):
        changed(**choices)


def test_every_new_choice_survives_toml():
    config = changed(
        accumulation=3, decay_steps=50, ema_half_lives=(10.0, 100.0), timesteps="laplace",
        importance="none", continuous=True, compile=True, channels_last=True,
        timesteps_options={"scale": 0.7, "stratified": True, "uniform_share": 0.1}, **RANGE,
    )  # fmt: skip
    assert TrainConfig.from_toml(config.to_toml()) == config
    assert TrainConfig.from_toml("ema_half_lives = [5, 7.5]").ema_half_lives == (5.0, 7.5)
    with pytest.raises(TypeError, match="ema_half_lives"):
        TrainConfig.from_toml("ema_half_lives = 5")


def test_compiled_training_is_the_same_run_up_to_rounding_and_says_what_compiling_took():
    config = changed(compile=True, steps=3)
    eager = list(train(changed(steps=3), images()))
    run = list(train(config, images()))
    assert [s.loss for s in run] == pytest.approx([s.loss for s in eager], rel=1e-4)
    assert {s.compile_seconds for s in eager} == {0.0}
    assert run[0].compile_seconds > 0
    buffer = io.BytesIO()
    torch.save(run[-1].state.network.state_dict(), buffer)
    assert not any("_orig_mod" in key for key in run[-1].state.network.state_dict())


def test_channels_last_is_the_same_run_up_to_rounding():
    plain, last = (
        [s.loss for s in train(changed(channels_last=choice), images())] for choice in (False, True)
    )
    assert last == pytest.approx(plain, rel=1e-4)


def test_a_learned_variance_lowers_the_bound_on_digits():
    """Against both fixed variances of a run that differs in nothing else, by more than ten standard errors; T is small, so that σ matters."""
    scans = digits()
    config = TrainConfig(
        T=20, schedule="log_snr", schedule_options={"first": 8.0, "last": -6.0}, steps=200, batch_size=32,
        learning_rate=1e-2, warmup_steps=20, ema_decay=0.98, seed=1, hybrid_scale=0.01,
        network_options={"base": 8, "multipliers": (1, 2), "attention": ()},
    )  # fmt: skip
    learning = dataclasses.replace(config, variance="learned", levels=17)
    bounds = {}
    for name, choices in (("fixed", config), ("learned", learning)):
        *_, last = train(choices, scans[300:])
        for variance in ("posterior", "beta")[: 2 if name == "fixed" else 1]:
            bounds[name, variance] = estimate_elbo(
                last.ema, scans[:300], last.state.schedule, evaluations=1500, variance=variance, levels=17
            )  # fmt: skip
    learned = bounds.pop(("learned", "posterior"))
    for fixed in bounds.values():
        assert fixed.bits_per_dim - learned.bits_per_dim > 10 * math.hypot(
            fixed.stderr, learned.stderr
        )
