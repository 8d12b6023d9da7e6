"""The Fréchet distance between two sets of small images, features included.

Checked before against the closed form for Gaussians that share their axes: Σ (μ₁ − μ₂)² + Σ (σ₁ − σ₂)².
"""

import pytest
import torch

from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.conftest import measures
from bench.metrics.frechet import Pca, frechet_distance, measure


def _closed_form_holds() -> bool:
    generator = torch.Generator().manual_seed(7)
    mean1, mean2, sigma1, sigma2 = torch.rand((4, 11), generator=generator, dtype=torch.float64)
    truth = (mean1 - mean2).square().sum() + (sigma1 - sigma2).square().sum()
    got = frechet_distance(mean1, sigma1.square().diag(), mean2, sigma2.square().diag())
    return bool(torch.isclose(got, truth, rtol=1e-9))


def test_frechet_distance(
    request: pytest.FixtureRequest, measuring: Measuring, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("the distance is computed on the CPU, in float64")
    images = 1000 if measures(request.config) else 97
    generator = torch.Generator().manual_seed(9)
    real, generated = torch.rand((2, images, 1, 8, 8), generator=generator) * 2 - 1
    features = Pca(real)
    measuring.benchmark.group = "Fréchet distance, 8 x 8 images"
    measuring.describe(
        "FD[pca64]",
        shape=real.shape,
        dtype=torch.float64,
        verified=checked("the distance of two axis-aligned Gaussians", _closed_form_holds()),
    )
    measuring.case(
        lambda: measure(features, real, generated), items=images, item="image", device=device
    )
