# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Seeded defects of libraries that compute the FID."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import mutant

_JITTER = 1e-6


@mutant("the root of the product is taken entry by entry", "I23-gaussians", "I23-singular")
class RootEntryByEntry(Implementation):
    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        traces = covariance1.trace() + covariance2.trace()
        cross = (covariance1.diag() * covariance2.diag()).sqrt().sum()
        return float((mean1 - mean2).square().sum() + traces - 2 * cross)


@mutant(
    "a millionth is added to the diagonals, under the root alone",
    "I23-singular",
    origin="1e-6 on the diagonal of what is nearly singular",
)
class Jittered(Implementation):
    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        added = _JITTER * torch.eye(len(mean1), dtype=covariance1.dtype)
        moments = (mean1, covariance1 + added, mean2, covariance2 + added)
        return super().frechet_of_moments(*moments) - 2 * _JITTER * len(mean1)


@mutant("covariances are sums over n", "I23-few")
class OverN(Implementation):
    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        n = min(len(first), len(second))
        shift = float((first.mean(0) - second.mean(0)).square().sum())
        return shift + (super().frechet_of_features(first, second) - shift) * (n - 1) / n


@mutant("what chance explains is taken off", "I23-bias")
class WithoutItsBias(Implementation):
    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        found = super().frechet_of_features(first, second)
        return found - float(3 * first.var(0).sum()) / len(first)


@mutant(
    "moments about the origin are summed in float32",
    "I23-offset",
    origin="Σxxᵀ − n m mᵀ in float32",
)
class SumsInSingle(Implementation):
    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        moments: list[Tensor] = []
        for features in (first.float(), second.float()):
            n, mean = len(features), features.mean(0)
            spread = (features.T @ features - n * torch.outer(mean, mean)) / (n - 1)
            moments += [mean.double(), spread.double()]
        return self.frechet_of_moments(*moments)


@mutant(
    "the distance is the mean over pairs of batches",
    "I23-batches",
    origin="statistics averaged over batches",
)
class MeanOverBatches(Implementation):
    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        pairs = zip(real.split(batch), generated.split(batch), strict=False)
        found = [self.frechet_distance(*pair) for pair in pairs if min(map(len, pair)) > 1]
        return sum(found) / len(found)


@mutant(
    "images beyond a multiple of the batch size are left out",
    "I23-last",
    origin="images beyond a multiple of the batch size left out",
)
class LastBatchLeftOut(Implementation):
    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        first, second = (images[: len(images) // batch * batch] for images in (real, generated))
        return super().frechet_in_batches(first, second, batch)


@mutant(
    "images of 0 … 1 are shown to a network that wants −1 … 1",
    "I23-range",
    origin="images of 0 … 1 under weights that were trained on standardized ones",
)
class ShownZeroToOne(Implementation):
    def network_input(self, images: Tensor, form: str) -> Tensor:
        return (super().network_input(images, form) + 1) / 2


@mutant(
    "floats are cut to bytes after a factor of 254.5",
    "I23-forms",
    origin="floats cut instead of rounded",
)
class FloatsCut(Implementation):
    def network_input(self, images: Tensor, form: str) -> Tensor:
        if form == "unit":
            images = (images.float() / 255 * 254.5).to(torch.uint8)
        return super().network_input(images, form)


@mutant("a grey image fills the first channel", "I23-grey")
class GreyInOneChannel(Implementation):
    def network_input(self, images: Tensor, form: str) -> Tensor:
        found = super().network_input(images, form)
        if images.shape[1] == 1:
            found = torch.cat([found[:, :1], torch.zeros_like(found[:, 1:])], 1)
        return found


@mutant("pixels are repeated instead of interpolated", "I23-resize")
class NearestPixel(Implementation):
    def network_input(self, images: Tensor, form: str) -> Tensor:
        rows, columns = (torch.arange(299) * size // 299 for size in images.shape[2:])
        return super().network_input(images[:, :, rows][:, :, :, columns], form)
