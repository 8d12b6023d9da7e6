"""The budgeted validation loss: unbiased against closed forms and quadrature, honest in its error, paired between models."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ddpm_ref as d
from ddpm_ref import (
    PARAMETERIZATIONS,
    WEIGHTINGS,
    GaussianOracle,
    Schedule,
    cosine_schedule,
    linear_schedule,
    loss,
    min_snr,
    q_sample,
    rescale_to_zero_terminal_snr,
    target,
    validation_loss,
    weight,
)
from ddpm_ref.noise import NoiseStream
from tests.samples import skewed_clusters

F64 = torch.float64
SCHEDULE = cosine_schedule(23)
DATA = skewed_clusters(17, 3)
Model = Callable[[Tensor, Tensor], Tensor]


def shrink(factor: float, parameterization: str, schedule: Schedule) -> Model:
    """x̂0 = factor·x_t, said in a parameterization."""

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        index = torch.searchsorted(schedule.timesteps, t) + 1
        signal, sigma = (
            schedule.lookup(name, index)[:, None]
            for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar")
        )
        x0 = factor * x_t
        return target(parameterization, x0, (x_t - signal * x0) / sigma, index, schedule)

    return model


def exact_shrink(factor: float, data: Tensor, weighting: object, schedule: Schedule) -> float:
    """The mean over data and t of w_t/D [(1 − factor·√ᾱ)²‖x0‖² + factor²(1−ᾱ) D]."""
    t = torch.arange(1, schedule.T + 1)
    factors = weight(weighting, t, schedule, parameterization="x0")
    signal, rest = schedule.sqrt_alpha_bar[1:], schedule.one_minus_alpha_bar[1:]
    energy, dims = data.flatten(1).square().sum(dim=1).mean(), data[0].numel()
    return (factors * ((1 - factor * signal) ** 2 * energy / dims + factor**2 * rest)).mean().item()


def exact_gaussian(
    oracle: GaussianOracle, data: Tensor, weighting: str, schedule: Schedule
) -> float:
    """The same for the best linear denoiser: E_ε(z − kx)² = (1 − kα)² z² + k²σ² along each eigenvector."""
    t = torch.arange(1, schedule.T + 1)
    signal, rest = schedule.sqrt_alpha_bar[1:, None], schedule.one_minus_alpha_bar[1:, None]
    gain = signal * oracle.spectrum / (signal**2 * oracle.spectrum + rest)
    z2 = ((data.flatten(1) - oracle.mean) @ oracle.basis).square().mean(dim=0)
    errors = ((1 - gain * signal) ** 2 * z2 + gain**2 * rest).mean(dim=1)
    return (weight(weighting, t, schedule, parameterization="x0") * errors).mean().item()


def z_and_coverage(found: list, truth: float) -> tuple[float, float]:
    values = np.array([f.value for f in found])
    covered = np.mean([low <= truth <= high for low, high in (f.interval() for f in found)])
    return (values.mean() - truth) / (values.std(ddof=1) / math.sqrt(len(values))), float(covered)


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
def test_is_unbiased_and_covers_for_every_weighting(weighting: str) -> None:
    names = sorted(PARAMETERIZATIONS)
    parameterization = names[sorted(WEIGHTINGS).index(weighting) % len(names)]
    model = shrink(0.7, parameterization, SCHEDULE)
    found = [
        validation_loss(
            model,
            DATA,
            SCHEDULE,
            parameterization=parameterization,
            weighting=weighting,
            evaluations=150,
            seed=seed,
        )
        for seed in range(120)
    ]
    z, covered = z_and_coverage(found, exact_shrink(0.7, DATA, weighting, SCHEDULE))
    assert abs(z) < 4
    assert covered > 0.88  # 120 repetitions at 95 %: three standard deviations are 6 %


@pytest.mark.parametrize(
    ("budget", "weighting"), [(16, "simple"), (150, "simple_v"), (700, "elbo")]
)
def test_gaussian_oracle_has_its_closed_form(budget: int, weighting: str) -> None:
    oracle = GaussianOracle.fit(DATA)
    found = [
        validation_loss(
            oracle.model(SCHEDULE, "v"),
            DATA,
            SCHEDULE,
            parameterization="v",
            weighting=weighting,
            evaluations=budget,
            seed=seed,
        )
        for seed in range(100)
    ]
    z, covered = z_and_coverage(found, exact_gaussian(oracle, DATA, weighting, SCHEDULE))
    assert abs(z) < 4
    assert covered > 0.86


def test_a_model_that_is_not_linear_by_quadrature() -> None:
    data = torch.tensor([-1.2, 0.1, 0.9], dtype=F64)[:, None]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    t = torch.arange(1, 24)
    total = 0.0
    for step, factor in zip(
        t.tolist(), weight("simple", t, SCHEDULE, parameterization="eps"), strict=True
    ):
        signal, sigma = (
            SCHEDULE.sqrt_alpha_bar[step].item(),
            SCHEDULE.sqrt_one_minus_alpha_bar[step].item(),
        )
        for x0 in data[:, 0].tolist():
            errors = (np.tanh(signal * x0 + sigma * nodes) - nodes) ** 2
            total += factor.item() * float(weights @ errors) / math.sqrt(2 * math.pi) / (23 * 3)
    found = [
        validation_loss(
            lambda x, t: torch.tanh(x),
            data,
            SCHEDULE,
            parameterization="eps",
            weighting="simple",
            evaluations=60,
            seed=seed,
        )
        for seed in range(150)
    ]
    z, covered = z_and_coverage(found, total)
    assert abs(z) < 4
    assert covered > 0.86


def test_is_the_mean_of_loss() -> None:
    # by many draws of `loss` itself, at every t
    model, count = shrink(0.4, "eps", SCHEDULE), 400
    rows = DATA.repeat_interleave(count, dim=0)
    means = []
    for step in range(1, 24):
        t = torch.full((len(rows),), step)
        noise = NoiseStream(9).normal(rows.shape, step=step, dtype=F64)
        prediction = model(q_sample(rows, t, SCHEDULE, noise), t)
        values = loss(
            prediction, rows, noise, t, SCHEDULE, parameterization="eps", weighting="min_snr"
        )
        means.append(values.view(len(DATA), count).mean(dim=1))
    per_draw = torch.stack(means).mean().item()
    found = validation_loss(
        model, DATA, SCHEDULE, parameterization="eps", weighting="min_snr", evaluations=4000
    )
    assert found.value == pytest.approx(per_draw, rel=0.02)
    assert found.value == pytest.approx(
        exact_shrink(0.4, DATA, min_snr(), SCHEDULE), abs=5 * found.stderr
    )


class Recorder:
    """Notes what a model was asked."""

    def __init__(self, model: Model) -> None:
        self.model, self.asked = model, []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.asked.append((x_t.clone(), t.clone()))
        return self.model(x_t, t)

    @property
    def rows(self) -> int:
        return sum(len(t) for _, t in self.asked)


def ask(
    model: Model, *, evaluations: int = 200, seed: int = 3, parameterization: str = "x0", **options
):
    return validation_loss(
        model,
        options.pop("data", DATA),
        options.pop("schedule", SCHEDULE),
        parameterization=parameterization,
        weighting=options.pop("weighting", "simple_v"),
        evaluations=evaluations,
        seed=seed,
        **options,
    )


@pytest.mark.parametrize("budget", [8, 9, 33, 34, 35, 101, 200])
def test_the_budget_is_never_exceeded_and_spent_up_to_one(budget: int) -> None:
    recorder = Recorder(shrink(0.5, "x0", SCHEDULE))
    found = ask(recorder, evaluations=budget)
    assert recorder.rows == found.evaluations
    assert budget - 1 <= found.evaluations <= budget


def test_equal_seeds_ask_equal_questions_whatever_the_model_says_and_however_it_is_batched() -> (
    None
):
    first, second = Recorder(shrink(0.5, "x0", SCHEDULE)), Recorder(shrink(0.9, "v", SCHEDULE))
    ask(first)
    ask(second, parameterization="v", batch_size=7)
    for part in (0, 1):
        seen = [torch.cat([question[part] for question in r.asked]) for r in (first, second)]
        assert torch.equal(*seen)
    other = Recorder(shrink(0.5, "x0", SCHEDULE))
    ask(other, seed=4)
    assert not torch.equal(first.asked[0][1], other.asked[0][1])


def test_one_objective_in_every_space() -> None:
    values = [
        ask(shrink(0.6, name, SCHEDULE), parameterization=name).value for name in PARAMETERIZATIONS
    ]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)


def test_the_paired_difference_is_unbiased_covers_and_is_far_sharper() -> None:
    truth = exact_shrink(0.70, DATA, "simple_v", SCHEDULE) - exact_shrink(
        0.72, DATA, "simple_v", SCHEDULE
    )
    pairs = [
        (
            ask(shrink(0.70, "x0", SCHEDULE), seed=s),
            ask(shrink(0.72, "v", SCHEDULE), seed=s, parameterization="v"),
        )
        for s in range(80)
    ]
    gaps = [first.paired(second) for first, second in pairs]
    z, covered = z_and_coverage(gaps, truth)
    assert abs(z) < 4
    assert covered > 0.86
    unpaired = np.mean([math.hypot(first.stderr, second.stderr) for first, second in pairs])
    assert np.mean([gap.stderr for gap in gaps]) < 0.2 * unpaired
    assert gaps[0].value == pytest.approx(pairs[0][0].value - pairs[0][1].value, rel=1e-9)
    assert pairs[0][1].paired(pairs[0][0]).value == -gaps[0].value


def test_a_model_against_itself_differs_by_nothing() -> None:
    found = ask(shrink(0.5, "x0", SCHEDULE))
    gap = found.paired(ask(shrink(0.5, "x0", SCHEDULE)))
    assert (gap.value, gap.stderr) == (0, 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 4}, "seed"),
        ({"evaluations": 202}, "evaluations"),
        ({"weighting": "simple"}, "weighting"),
        ({"weighting": min_snr(3)}, "weighting"),
        ({"data": DATA + 1e-9}, "data"),
        ({"data": DATA.float()}, "data"),
        ({"schedule": cosine_schedule(23, s=0.009)}, "schedule"),
    ],
)
def test_different_questions_are_not_paired(change: dict, word: str) -> None:
    first = ask(shrink(0.5, "x0", SCHEDULE))
    with pytest.raises(ValueError, match=f"differ in {word}"):
        first.paired(ask(shrink(0.5, "x0", SCHEDULE), **change))


def test_a_respaced_schedule_asks_with_the_original_steps() -> None:
    respaced = SCHEDULE.respaced([3, 11, 23])
    recorder = Recorder(shrink(0.5, "x0", respaced))
    found = ask(recorder, schedule=respaced, evaluations=600)
    assert set(torch.cat([t for _, t in recorder.asked]).tolist()) == {3, 11, 23}
    exact = exact_shrink(0.5, DATA, "simple_v", respaced)
    assert abs(found.value - exact) < 5 * found.stderr


def test_float32_images_in_eval_mode_and_untouched() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.seen = set()

        def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            self.seen.add((x.dtype, x.shape[1:], self.training, torch.is_grad_enabled()))
            x.mul_(0.5)  # in place, as the first layer of some networks
            return self.drop(x), torch.zeros_like(x)

    images = DATA.float().reshape(17, 1, 1, 3)
    before, net = images.clone(), Net()
    found = ask(net, data=images)
    assert net.seen == {(torch.float32, (1, 1, 3), False, False)}
    assert net.training
    assert torch.equal(images, before)
    exact = exact_shrink(0.5, images.double(), "simple_v", SCHEDULE)
    assert abs(found.value - exact) < 5 * found.stderr


def test_zero_terminal_snr() -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(9))
    found = ask(lambda x, t: torch.zeros_like(x), schedule=schedule, weighting="simple_x0")
    assert abs(found.value - DATA.square().mean().item()) < 5 * found.stderr  # x̂0 = 0 errs by x0
    with pytest.raises(ValueError, match="infinite in eps space at t = 9"):
        ask(lambda x, t: x, schedule=schedule, weighting="simple_x0", parameterization="eps")


def test_diverged_models_are_nan_not_an_error() -> None:
    found = ask(lambda x, t: x * math.nan)
    assert math.isnan(found.value)
    assert math.isnan(found.stderr)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"evaluations": 7}, ValueError, "at least 8"),
        ({"evaluations": 64.0}, TypeError, "whole number"),
        ({"weighting": "simple_eps"}, ValueError, "'simple"),
        ({"weighting": 3}, TypeError, "str"),
        ({"parameterization": "epsilon"}, ValueError, "'eps'"),
        ({"data": torch.zeros(0, 3)}, ValueError, "no example"),
        ({"data": torch.zeros(3, 3, dtype=torch.uint8)}, TypeError, "floating-point"),
        ({"data": torch.full((3, 3), math.inf)}, ValueError, "finite"),
        ({"schedule": SCHEDULE.beta}, TypeError, "Schedule"),
        ({"batch_size": 0}, ValueError, "at least 1"),
    ],
)
def test_bad_input_is_named(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ask(shrink(0.5, "x0", SCHEDULE), **options)


def test_a_schedule_of_one_step_has_a_loss_in_every_space_and_weighting() -> None:
    """Found by `python -m tests.fuzz` on one number; ŷ = x_t/2 with simple in eps space: ¼ᾱx² + (½√(1−ᾱ) − 1)²."""
    data = torch.tensor([0.7])
    for schedule in (d.cosine_schedule(1), d.linear_schedule(1)):
        for space, weighting in product(PARAMETERIZATIONS, d.WEIGHTINGS):
            found = d.validation_loss(lambda x, t: x / 2, data, schedule, parameterization=space, weighting=weighting, evaluations=64, batch_size=1)  # fmt: skip
            assert math.isfinite(found.value)
            assert math.isfinite(found.stderr)
            assert found.curve.shape == (1,)
        kept, lost = schedule.alpha_bar[1].item(), schedule.one_minus_alpha_bar[1].item()
        exact = 0.25 * kept * 0.7**2 + (0.5 * math.sqrt(lost) - 1) ** 2
        found = d.validation_loss(lambda x, t: x / 2, data, schedule, parameterization="eps", weighting="simple", evaluations=20_000)  # fmt: skip
        assert found.value == pytest.approx(exact, abs=5 * found.stderr + 1e-6)
