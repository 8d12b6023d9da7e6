"""Each bug that a row of options shows has one root, in the library's source, and that root gives the library's number in 50 digits."""

import importlib.util

import mpmath
import pytest
import torch

from ddpm_ref.conformance import Implementation
from ddpm_ref.conformance.adapters import implementations
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.runner import examine

pytestmark = pytest.mark.peers

MP = mpmath.mp.clone()
MP.dps = 50


def row(library: str, name: str) -> Implementation:
    if importlib.util.find_spec(library.replace("-", "_")) is None:
        pytest.skip(f"{library} is not installed")
    return {each.name: each for each in implementations(library)}[name]


def linear_kept() -> list:
    """ᾱ of the library's timesteps 0 … 999, and 1 before them at index −1."""
    first, last = MP.mpf(1e-4), MP.mpf(0.02)
    kept, product = [], MP.mpf(1)
    for k in range(1000):
        product *= 1 - (first + (last - first) * k / 999)
        kept.append(product)
    return [*kept, MP.mpf(1)]


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_ddim_goes_back_by_a_stride_and_not_to_the_step_before(spacing: str) -> None:
    """scheduling_ddim.py, step: prev_timestep = timestep − num_train_timesteps // num_inference_steps."""
    scheduler, kept = (
        row("diffusers", f"diffusers: DDIMScheduler, {spacing} spacing"),
        linear_kept(),
    )
    setting = next(s for s in scheduler.settings() if s.steps == 7)
    x0, x_t = MP.mpf(0.75), MP.mpf(-1.5)
    for k in range(2, 8):
        arguments = [torch.full((1, 1), float(v), dtype=torch.float64) for v in (x0, x_t)]
        found = scheduler.sampler_step(
            setting, *arguments, torch.tensor([k]), torch.zeros(1, 1).double(), "x0", "ddim", 0.0
        )

        def step_to(then: int, now: int = setting.timesteps[k - 1] - 1) -> float:
            eps = (x_t - MP.sqrt(kept[now]) * x0) / MP.sqrt(1 - kept[now])
            before = kept[then] if then >= 0 else MP.mpf(1)
            return float(MP.sqrt(before) * x0 + MP.sqrt(1 - before) * eps)

        by_stride = step_to(setting.timesteps[k - 1] - 1 - 1000 // 7)
        by_list = step_to(setting.timesteps[k - 2] - 1)
        assert float(found) == pytest.approx(by_stride, rel=1e-12)
        if spacing == "linspace":
            assert abs(by_stride - by_list) > 1e-4


def test_the_last_trailing_step_adds_the_floor_of_the_variance() -> None:
    """scheduling_ddpm.py, step: noise is left out where t = 0, not in the last step; the variance is clamped at 1e-20."""
    scheduler = row("diffusers", "diffusers: DDPMScheduler, trailing spacing")
    setting = next(s for s in scheduler.settings() if s.steps == 7)
    one = torch.ones(1, 1, dtype=torch.float64)
    first = torch.tensor([1])
    with_noise, without = (
        scheduler.sampler_step(setting, 0 * one, 0 * one, first, z * one, "x0", "ddpm", 0.0)
        for z in (1.0, 0.0)
    )
    assert float(with_noise - without) == pytest.approx(1e-10, rel=1e-6)


def test_laplace_takes_the_root_of_its_alpha_bar() -> None:
    """scheduling_ddpm.py, betas_for_alpha_bar: alpha_bar_fn returns sqrt(snr / (1 + snr))."""
    scheduler = row("diffusers", 'diffusers: beta_schedule="laplace"')

    def root(u: float) -> object:
        log_snr = -0.5 * MP.sign(0.5 - u) * MP.log(1 - 2 * abs(0.5 - MP.mpf(u)) + MP.mpf(1e-6))
        return MP.sqrt(1 / (1 + MP.exp(-log_snr)))

    (setting,) = scheduler.settings()
    beta = scheduler.tables(setting)["beta"]
    for k in (1, 400, 501, 800):
        assert float(beta[k]) == pytest.approx(
            float(1 - root((k + 1) / 1000) / root(k / 1000)), rel=1e-9
        )


def test_the_moving_average_as_constructed_warms_its_decay_up() -> None:
    """training_utils.py, get_decay: (1 + step)/(10 + step) where step is the number of updates but one."""
    average = row("diffusers", "diffusers: EMAModel as constructed")
    values = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    decay = 2 / 11
    expected = [0.0, 1 - decay, (1 - decay) * (3 / 12) + 1 - 3 / 12]
    assert average.ema(values, 0.9).tolist() == pytest.approx(expected, rel=1e-12)
    (fixed,) = (convention.read(average) for convention in average.conventions)
    assert fixed.ema(values, 0.9).tolist() == pytest.approx([0.0, 0.1, 0.19], rel=1e-12)


# ------------------------------------------------------------------------------------------------ denoising-diffusion-pytorch

PYTORCH = "denoising-diffusion-pytorch"


def test_the_weighted_objective_trains_but_cannot_sample() -> None:
    """weighted_objective_gaussian_diffusion.py, p_mean_variance takes no x_self_cond, which p_sample hands it."""
    weighted = row(PYTORCH, f"{PYTORCH}: WeightedObjectiveGaussianDiffusion")
    (setting,) = weighted.settings()
    x, t = torch.full((2, 3), 0.25, dtype=torch.float64), torch.tensor([1, 500])
    assert weighted.loss(setting, 0 * x, x, x, t, "x0", "simple_x0").tolist() == [0.0625, 0.0625]
    with pytest.raises(TypeError, match="x_self_cond"):
        weighted.sampler_step(setting, x, x, t, x, "x0", "ddpm", 0.0)


def test_statistics_in_one_folder_are_those_of_the_first_data_set() -> None:
    """fid_evaluation.py, load_or_precalc_dataset_stats: the file's name is its only key."""
    names = (
        f"{PYTORCH}: FIDEvaluation, {kind}"
        for kind in ("one results folder", "a folder for each data set")
    )
    one, own = (row(PYTORCH, name) for name in names)
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.randn(60, 1, 4, 4, generator=generator) * s for s in (0.2, 0.6))
    assert one.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert one.frechet_distance(second, second) == pytest.approx(
        own.frechet_distance(first, second), rel=1e-9
    )


def test_the_other_moving_average_copies_for_a_hundred_updates() -> None:
    """ema_pytorch.py, update: copies while step ≤ update_after_step, and only where step % update_every == 0."""
    average = row(PYTORCH, "ema-pytorch: EMA as constructed")
    values = torch.arange(131, dtype=torch.float64)
    found = average.ema(values, 0.9)
    assert found[[0, 5, 10, 19, 100, 109]].tolist() == [0, 0, 10, 10, 100, 100]
    decay = 1 - (1 + 10) ** (-2 / 3)
    assert float(found[110]) == pytest.approx(100 * decay + 110 * (1 - decay), rel=1e-6)


# ------------------------------------------------------------------------------------------------ azula


def test_what_azula_leaves_to_the_caller_is_a_convention() -> None:
    for name, law in (
        ("azula: SimpleDenoiser.loss, max_weight = 1e4", "I5-loss"),
        ("azula: GaussianDenoiser, a time for each sample", "I30-gaussian-denoiser"),
    ):
        (outcome, *_) = examine(LAWS[law], row("azula", name))
        assert (outcome.status in ("fail", "error"), outcome.classification) == (True, "convention")
