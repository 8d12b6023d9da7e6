"""Data on a plane or a subspace of R^D: the embedded oracle, and the samples against the distribution that they state."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bench.__main__ import main
from bench.data import load
from bench.data.vectors import embedding, spiral_mixture, subspace_spectrum
from bench.terminal.usage import UsageError
from ddpm_ref import (
    EmbeddedOracle,
    EmpiricalOracle,
    GaussianOracle,
    linear_schedule,
    q_sample,
    rescale_to_zero_terminal_snr,
)
from tests.samples import mixture, random

SCHEDULE = linear_schedule(1000)
STEPS = torch.tensor([1, 40, 500, 999, 1000])


def noisy(x0: Tensor, seed: int = 8) -> Tensor:
    return q_sample(x0, STEPS, SCHEDULE, random(*x0.shape, seed=seed))


def frame(size: int, inner: int) -> Tensor:
    return torch.linalg.qr(random(size, inner, seed=3)).Q


@pytest.mark.parametrize(("size", "inner"), [(3, 3), (7, 2), (23, 5)])
def test_is_the_oracle_of_the_singular_covariance(size: int, inner: int) -> None:
    # A Gaussian on a subspace is also a Gaussian with a singular covariance in R^D.
    root = random(inner, inner, seed=1)
    covariance, mean, offset = root @ root.T, random(inner, seed=2), random(size, seed=4)
    plane = frame(size, inner)
    embedded = EmbeddedOracle(GaussianOracle(mean, covariance), plane, offset)
    direct = GaussianOracle(offset + plane @ mean, plane @ covariance @ plane.T)
    x_t = noisy(random(5, size, seed=5))
    for parameterization in ("x0", "eps", "v"):
        found, expected = (
            oracle.model(SCHEDULE, parameterization)(x_t, STEPS) for oracle in (embedded, direct)
        )
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_points_on_a_plane_are_denoised_as_a_finite_data_set_is() -> None:
    points, plane, offset = random(11, 2, seed=6), frame(7, 2), random(7, seed=4)
    data = offset + points @ plane.T
    embedded = EmbeddedOracle(EmpiricalOracle(points), plane, offset)
    x_t = noisy(data[:5])
    expected = EmpiricalOracle(data).denoise(x_t, STEPS, SCHEDULE)
    assert torch.allclose(embedded.denoise(x_t, STEPS, SCHEDULE), expected, rtol=1e-9, atol=1e-9)


def test_both_means_make_x_t_and_stay_finite_at_both_ends() -> None:
    schedule = rescale_to_zero_terminal_snr(SCHEDULE)
    oracle = EmbeddedOracle(mixture(2), frame(7, 2))
    x_t = random(5, 7, seed=9)
    signal, sigma = (
        schedule.lookup(name, STEPS)[:, None]
        for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar")
    )
    x0, eps = oracle.conditional_means(x_t, signal, sigma)
    assert torch.allclose(signal * x0 + sigma * eps, x_t, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"inner": 3}, TypeError, "oracle"),
        ({"embedding": torch.eye(3)[:, :1]}, ValueError, r"\[D, 2\]"),
        ({"embedding": 2 * torch.eye(3)[:, :2]}, ValueError, "orthonormal"),
        ({"embedding": "plane"}, TypeError, "embedding"),
        ({"offset": torch.zeros(2)}, ValueError, "one number for each row"),
    ],
)
def test_bad_embeddings_are_named(change: dict, error: type[Exception], words: str) -> None:
    arguments = {"inner": mixture(2), "embedding": torch.eye(3)[:, :2], **change}
    with pytest.raises(error, match=words):
        EmbeddedOracle(**arguments)


@pytest.mark.parametrize("size", [2, 7, 64])
def test_the_spiral_lies_in_its_plane_and_is_its_mixture(size: int) -> None:
    data, truth = load(f"spiral:{size}"), spiral_mixture()
    plane = embedding(size, 2)
    vectors = data.train.double()
    inside = vectors @ plane
    assert (data.train.shape, data.tune.shape, data.heldout.shape) == (
        (8000, size),
        (500, size),
        (2000, size),
    )
    assert (vectors - inside @ plane.T).abs().max().item() < 1e-6
    # Which component: every distance to the nearest centre is that of a Gaussian of σ = 0.02, where neighbours do not mix.
    nearest = torch.cdist(inside, truth.means).min(dim=1)
    counts = torch.bincount(nearest.indices, minlength=64).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    covariance = torch.cov(inside.T)
    centred = truth.means - truth.means.mean(dim=0)
    expected = centred.T @ centred / 64 + 0.02**2 * torch.eye(2)
    assert torch.allclose(covariance, expected, atol=4 * 0.3 / math.sqrt(8000))
    assert truth.means.mean(dim=0).abs().max().item() < 1e-12
    steps = truth.means.diff(dim=0).norm(dim=1)
    assert steps.max() / steps.min() < 1.1  # equal distances along the curve


def test_the_spirals_oracle_is_calibrated() -> None:
    # E[x0 | x_t] is the best predictor: on held-out data its residual is uncorrelated with any function of x_t.
    data = load("spiral:7")
    x0 = data.heldout.double()
    t = torch.full((len(x0),), 300)
    x_t = q_sample(x0, t, SCHEDULE, random(*x0.shape, seed=1))
    residual = x0 - data.oracle.denoise(x_t, t, SCHEDULE)
    for function in (x_t, torch.sin(3 * x_t), torch.ones_like(x_t)):
        products = (residual * function).sum(dim=1)
        assert abs(products.mean().item()) < 4 * products.std().item() / math.sqrt(len(x0))


@pytest.mark.parametrize("size", [1, 4, 23, 64])
def test_the_subspace_has_the_spectrum_that_it_states(size: int) -> None:
    data, spectrum = load(f"subspace:{size}"), subspace_spectrum(size)
    assert len(spectrum) == math.ceil(size / 4)
    if len(spectrum) > 1:
        assert (spectrum[0].item(), spectrum[-1].item()) == pytest.approx((4, 0.04))
        assert spectrum.log().diff().std(correction=0).item() < 1e-12
    truth = torch.cat([torch.zeros(size - len(spectrum), dtype=torch.float64), spectrum.flip(0)])
    assert torch.allclose(data.oracle.spectrum, truth, rtol=1e-9, atol=1e-12)
    coordinates = data.train.double() @ embedding(size, len(spectrum)) / spectrum.sqrt()
    for column in coordinates.T.numpy():
        assert stats.kstest(column, "norm").pvalue > 1e-4
    correlations = np.corrcoef(coordinates.T.numpy()) if len(spectrum) > 1 else np.eye(1)
    off = correlations - np.eye(len(spectrum))
    assert np.abs(off).max() < 5 / math.sqrt(8000)


def test_vectors_are_the_same_every_time_and_embeddings_are_unlike() -> None:
    first, second = load("subspace:16"), load("subspace:16")
    assert first.sha256 == second.sha256
    assert first.describe()["shape"] == [16]
    assert not torch.allclose(embedding(16, 4)[:8], embedding(8, 4))


@pytest.mark.parametrize(
    "name",
    [
        "spiral:1",
        "spiral:4097",
        "subspace:0",
        "spiral:",
        "spiral",
        "spiral:x",
        "subspace:-3",
        "spiral:²",
    ],
)
def test_sizes_that_make_no_sense_are_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=r"spiral|subspace"):
        load(name)


def test_three_dimensional_vectors_are_not_drawn_as_colour_pictures(tmp_path, capsys) -> None:
    words = ("--data", "spiral:3", "--network", "mlp", "--steps", "2", "--set", "T=7")
    assert main(["train", *words, "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "samples.png").exists()
