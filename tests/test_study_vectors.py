"""What is known about vectors: distances against brute force, exact expectations, predictions against the law."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.data import load
from bench.data.vectors import spiral_mixture
from bench.measure.study.designs import _SPIRAL_VARIANCE, name_of, study
from bench.measure.study.judge import judge_of
from bench.measure.study.one_run import perform
from bench.measure.study.predictions import predictions
from bench.measure.study.record import _yardsticks
from bench.measure.study.task import Setting, Task
from bench.measure.study.vectors import energy_distance, told_apart, truth_of
from bench.measure.study.yardsticks import even_in_log_snr, make_probe
from ddpm_ref.network import LowRank
from ddpm_ref.oracle import rank_limited_excess
from ddpm_ref.schedule import log_snr_schedule

SCHEDULE = log_snr_schedule(6, 4.0, -4.0)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_energy_distance_by_brute_force() -> None:
    a, b = draw(1, 7, 2), draw(2, 5, 2) + 1
    pairs = [(x - y).norm() for x in a for y in b]
    inner = [
        [(x - y).norm() for i, x in enumerate(s) for j, y in enumerate(s) if i != j] for s in (a, b)
    ]
    expected = 2 * sum(pairs) / 35 - sum(inner[0]) / 42 - sum(inner[1]) / 20
    assert energy_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_a_classifier_tells_what_can_be_told() -> None:
    assert told_apart(draw(3, 50, 2), draw(4, 50, 2) + 100) == 1.0
    assert abs(told_apart(draw(5, 2000, 2), draw(6, 2000, 2)) - 0.5) < 0.05


def test_the_plane_of_a_spiral_is_found_and_energy_off_it_measured() -> None:
    truth = truth_of(load("spiral:16"))
    assert truth.span.shape == (16, 2)
    real = truth.data.heldout[:100]
    assert truth.sampling(real)["off_plane"] < 1e-10
    off = torch.linalg.qr(torch.cat([truth.span, draw(7, 16, 1)], dim=1)).Q[:, 2]
    moved = real.double() + 3 * off
    assert truth.sampling(moved)["off_plane"] == pytest.approx(9.0, rel=1e-6)
    assert truth.sampling(torch.full((20, 16), 1e30))["off_plane"] <= 16e12


def test_an_affine_network_is_judged_without_sampling() -> None:
    """A map W of rank 2 with the error of the closed form: the best one for x0."""
    data = load("subspace:16")
    truth = truth_of(data)
    steps = even_in_log_snr(SCHEDULE, 6)
    probe = make_probe(data.heldout[:64], SCHEDULE, steps)
    network = LowRank(shape=(16,), rank=2, steps=6).double()
    spectrum, basis = data.oracle.spectrum, data.oracle.basis
    leading = spectrum.argsort(descending=True)[:2]
    with torch.no_grad():
        for t in range(1, 7):
            kept, noise = SCHEDULE.alpha_bar[t], SCHEDULE.one_minus_alpha_bar[t]
            gain = kept.sqrt() * spectrum / (kept * spectrum + noise)
            network.read[t - 1] = basis[:, leading]
            network.write[t - 1] = (basis[:, leading] * gain[leading]).T
            network.bias[t - 1] = 0.0
    found = truth.denoising(network.float(), "x0", probe)["excess_by_bin"]
    exact = rank_limited_excess(spectrum, 2, torch.tensor(steps), SCHEDULE, parameterization="x0")
    assert found == pytest.approx(exact.tolist(), rel=1e-4)


def test_predictions_are_those_of_the_law() -> None:
    row = study("linear")
    judge = judge_of(Setting(row.design, row.data))
    laws = predictions(judge)
    assert set(laws) == {arm.name for arm in row.design.arms}
    plain, learned = laws["eps/simple"], laws["eps/simple (learned skip)"]
    other = laws["x0/simple_x0 (learned skip)"]
    assert other["excess_by_bin"] == pytest.approx(learned["excess_by_bin"])
    assert all(a < b for a, b in zip(learned["excess_by_bin"], plain["excess_by_bin"], strict=True))
    wide = study("capacity-16-32")
    assert predictions(judge_of(Setting(wide.design, wide.data)))["eps/simple_v"]["excess"] == 0.0


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "jit-512",
        "jit-512-scaled",
        "capacity-16-8",
        pytest.param("objectives", marks=pytest.mark.peers),  # its primary features are effnet's
    ],
)
def test_every_arm_of_a_study_runs_and_the_record_can_be_made(name: str) -> None:
    if name == "objectives":
        pytest.importorskip("efficientnet_lite_pytorch")
    row = study(name)
    design = replace(row.design, steps=2, samples=min(row.design.samples, 8), bound_images=0)
    setting = Setting(design, row.data)
    for arm in design.arms:
        result = perform(setting, Task("run", arm, 1, 1e-3))
        assert result["final"], result["reason"]
    assert _yardsticks(judge_of(setting))


def test_scaled_data_give_samples_on_the_scale_of_the_data() -> None:
    mixture = spiral_mixture()
    spread = (mixture.means - mixture.weights @ mixture.means).square().sum(1)
    inner = mixture.spectra.sum(1)
    exact = float(mixture.weights @ (spread + inner))  # tr Σ
    assert pytest.approx(exact, rel=0.01) == _SPIRAL_VARIANCE
    row = study("jit-512-scaled")
    judge = judge_of(Setting(row.design, row.data))
    assert float(judge.data.train.var(0).sum()) == pytest.approx(512, rel=0.05)
    assert judge.truth is not None
    assert float(judge.truth.data.train.var(0).sum()) == pytest.approx(exact, rel=0.05)


def test_feature_maps_that_judge_no_claim_leave_a_study_its_name() -> None:
    maps = ("effnet-lite0.7", "pca64")
    digits, objectives = (study(name) for name in ("digits", "objectives"))
    other = replace(digits, design=replace(digits.design, features=maps))
    assert name_of(other) == "digits"  # its claims are about likelihood, steps and gradients
    other = replace(objectives, design=replace(objectives.design, features=maps[::-1]))
    assert name_of(other) == ""  # its claims are about the distance
