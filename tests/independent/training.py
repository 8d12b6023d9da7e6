"""What surrounds the objective: reproducible noise, the draw of t, moving averages, and the Fréchet distance.

Low-discrepancy t: Kingma et al. 2021, appendix I.1. Fréchet distance of Gaussians: Dowson & Landau 1982; Heusel et al. 2017.
"""

import torch
from torch import Tensor

from tests.independent.chain import Chain
from tests.independent.random_bits import normal, whole_number

LEAST_SAMPLES = 10_000


class Training(Chain):
    """Training and its quality figure."""

    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        return normal(shape, seed, step, first_index)

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points r + iT on a circle of count·T places: each is uniform by itself, together they are even."""
        place = (whole_number(count * T, seed) + T * torch.arange(count)) % (count * T)
        return place // count + 1, torch.ones(count, dtype=torch.float64)

    def ema(self, values: Tensor, decay: float) -> Tensor:
        average, averages = values[0].double(), []
        for value in values.double():
            average = average + (1 - decay) * (value - average)
            averages.append(average)
        return torch.stack(averages).to(values.dtype)

    def features(self, images: Tensor) -> Tensor:
        """Two fixed random layers on area-averaged 8 × 8 pixels, `[N, 24]`."""
        small = torch.nn.functional.adaptive_avg_pool2d(images.double(), 8).flatten(1)
        generator = torch.Generator().manual_seed(2020)
        first = (
            torch.randn(small.shape[1], 48, generator=generator, dtype=torch.float64)
            / len(small[0]) ** 0.5
        )
        second = torch.randn(48, 24, generator=generator, dtype=torch.float64) / 48**0.5
        return torch.tanh(small @ first) @ second

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        (m1, s1), (m2, s2) = (self._moments(self.features(v)) for v in (real, generated))
        values, vectors = torch.linalg.eigh(s1)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        overlap = torch.linalg.eigvalsh(root @ s2 @ root).clamp(min=0).sqrt().sum()
        return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * overlap)

    @staticmethod
    def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
        return features.mean(0), torch.cov(features.T)

    def frechet_label(self, extractor: str, samples: int) -> str:
        published = extractor.lower().startswith("inception") and samples >= LEAST_SAMPLES
        return "FID" if published else f"FD[{extractor}]"
