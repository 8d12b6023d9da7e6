"""Pictures of denoising: the way to a sample ends in it, terms of the bound are those of the closed form, samples stand beside real images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor, nn

from bench.measure.study.design import FACTORIAL
from bench.measure.study.judge import judge_of
from bench.measure.study.least import least_loss
from bench.measure.study.one_run import perform
from bench.measure.study.task import Setting, Task
from bench.measure.study.trajectory import MOMENTS, trajectories
from bench.metrics.frechet import to_uint8
from bench.record.pictures import decode, encode
from bench.report.page.blocks import Figure
from bench.report.study.denoising import samples_figure, terms_figure, trajectory_figure
from ddpm_ref.network import LearnedRange, UNet, initialize
from ddpm_ref.noise import NoiseStream
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import log_snr_schedule
from tests.samples import gaussian
from tests.test_study import TINY

SHAPE = (1, 3, 5)
SCHEDULE = log_snr_schedule(60, 6.0, -6.0)


class Exact(nn.Module):
    """The best denoiser of a Gaussian, as a network of float64."""

    def __init__(self, oracle: GaussianOracle, output: str) -> None:
        super().__init__()
        self.model, self.own = oracle.model(SCHEDULE, output), nn.Parameter(torch.zeros(1).double())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.model(x_t.flatten(1), t).reshape(x_t.shape)


def way(output: str, steps: int = 20) -> dict:
    model = Exact(gaussian(15), output)
    return trajectories(model, SHAPE, SCHEDULE, output=output, steps=steps, clip=False, seed=3)


def test_the_way_ends_in_the_sample_and_begins_at_noise() -> None:
    found = way("x0")
    drawn = sample(
        Exact(gaussian(15), "x0"), (4, *SHAPE), SCHEDULE, parameterization="x0", steps=20, seed=3
    )
    frames = decode(found).reshape(4, MOMENTS, *SHAPE)
    assert (frames[:, -1] == to_uint8(drawn).numpy()).all()
    assert found["t"] == sorted(found["t"], reverse=True)
    assert (found["t"][0], found["t"][-1]) == (60, 1)
    # At the first step nothing is known of x0: every sample is taken for nearly the mean.
    spread = frames.astype(float).std(axis=0).mean(axis=(1, 2, 3))
    assert spread[0] < spread[-1] / 5


@pytest.mark.parametrize("output", ["eps", "v"])
def test_an_exact_model_goes_one_way_whatever_it_outputs(output: str) -> None:
    one, other = decode(way("x0")), decode(way(output))
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_network_that_learned_its_variance_is_followed_to_its_samples() -> None:
    network = UNet(1, base=4, multipliers=(1,), attention=(), steps=60, outputs=2).double()
    initialize(network, NoiseStream(3))
    model = LearnedRange(network, SCHEDULE, 60)
    found = trajectories(model, (1, 4, 4), SCHEDULE, output="eps", steps=20, clip=True, seed=3)
    drawn = sample(
        model, (4, 1, 4, 4), SCHEDULE, parameterization="eps", steps=20, clip=True, seed=3
    )
    frames = decode(found).reshape(4, MOMENTS, 1, 4, 4)
    assert np.abs(frames[:, -1].astype(int) - to_uint8(drawn).numpy().astype(int)).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 60])
def test_few_steps_are_all_kept_and_of_many_the_ends(steps: int) -> None:
    found = way("x0", steps)
    assert len(found["t"]) == min(MOMENTS, steps)
    assert found["t"][0] == 60
    assert steps == 1 or found["t"][-1] == 1


def test_a_run_keeps_the_way_to_its_first_samples() -> None:
    setting = Setting(replace(TINY, arms=FACTORIAL[:1]), "digits")
    result = perform(setting, Task("run", FACTORIAL[0], 1, 1e-3))
    grid, frames = decode(result["grid"]), decode(result["trajectory"])
    steps = len(result["trajectory"]["t"])
    assert (frames[steps - 1 :: steps] == grid[: len(frames) // steps]).all()


def test_the_least_loss_at_the_levels_of_a_study() -> None:
    judge = judge_of(Setting(TINY, "digits"))
    arm = FACTORIAL[0]
    found, schedule = least_loss(judge, arm), judge.schedule(arm)
    for t, factor in zip(found["t"], found["factor"], strict=True):
        before, after = (float(schedule.log_snr[k].exp()) for k in (t - 1, t))
        assert factor == pytest.approx((before - after) / 2, rel=1e-12)
    training = found["training"]["value"]
    rows = zip(
        *(found[part][name] for part in ("training", "heldout") for name in ("value", "stderr")),
        strict=False,
    )
    assert all(low - 4 * a <= high + 4 * b for low, a, high, b in rows)
    assert found["heldout"]["value"][0] > 100 * training[0]
    assert training[0] < 1e-3  # at the cleanest level it is memory
    variance = float(judge.data.train.double().var(0, correction=0).mean())
    error = 4 * found["training"]["stderr"][-1] + 0.02 * variance
    assert training[-1] == pytest.approx(variance, abs=error)  # at the noisiest nothing is known


def results() -> dict:
    bins = {"eps_mse_by_bin": [0.1, 0.2, 0.3], "x0_mse_by_bin": [0.01, 0.02, 0.04]}
    picture = encode(torch.zeros(6, 1, 2, 2, dtype=torch.uint8))
    run = {"arm": "eps/simple", "seed": 1, "final": bins, "grid": picture, "nearest": picture}
    run["trajectory"] = {"t": [9, 5, 1], **picture}
    least = {"value": [0.0, 0.01, 0.03], "stderr": [0.0, 0.0, 0.0]}
    return {
        "arms": [{"name": "eps/simple", "output": "eps", "weighting": "simple", "network": "unet"}],
        "runs": [run],
        "least": {"t": [1, 5, 9], "factor": [None, 2.0, 0.5], "training": least, "heldout": least},
        "pictures": {"real": picture, "control": picture},
    }


def drawn(figure: Figure | None) -> Canvas:
    assert figure is not None
    canvas = Canvas(figsize=figure.size)
    figure.draw(canvas)
    return canvas


def test_terms_are_factor_times_error_in_bits() -> None:
    terms, above = drawn(terms_figure(results())).axes
    assert list(terms.lines[0].get_xdata()) == [5, 9]
    expected = [2.0 * 0.02 / math.log(2), 0.5 * 0.04 / math.log(2)]
    assert terms.lines[0].get_ydata() == pytest.approx(expected)
    low = [2.0 * 0.01 / math.log(2), 0.5 * 0.03 / math.log(2)]
    assert above.lines[0].get_ydata() == pytest.approx(
        [e - f for e, f in zip(expected, low, strict=True)]
    )


def test_samples_stand_beside_their_nearest_and_below_real_images() -> None:
    titles = [axes.get_title() for axes in drawn(samples_figure(results())).axes]
    assert titles == [
        "real, held out",
        "same mean and covariance",
        "ε / simple",
        "nearest training images",
    ]
    assert [a.get_title() for a in drawn(trajectory_figure(results())).axes] == ["ε / simple"]


def test_records_without_these_have_no_such_pictures() -> None:
    old = results()
    for name in ("least", "pictures"):
        del old[name]
    for name in ("trajectory", "nearest"):
        del old["runs"][0][name]
    assert terms_figure(old) is None
    assert trajectory_figure(old) is None
    assert next(axes.get_title() for axes in drawn(samples_figure(old)).axes) == "ε / simple"
    del old["runs"][0]["grid"]
    assert samples_figure(old) is None
