"""Laws on the sample-quality harness: a Fréchet distance that is one, of features that do not depend on the company."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import Case, Law, draw

_SHAPE = (1, 8, 8)


def images_of(count: int, salt: int, shift: float = 0.0) -> Tensor:
    """Grey levels on the 8-bit lattice, so that rounding to uint8 is exact."""
    values = (0.4 * draw((count, *_SHAPE), salt) + shift).clamp(-1, 1)
    return ((values + 1) * 127.5).round() / 127.5 - 1


def squared_distance(first: Tensor, second: Tensor) -> Tensor:
    """‖m1 − m2‖² + tr(C1 + C2 − 2(C1 C2)^½), from features `[N, F]`, by eigenvalues of C1^½ C2 C1^½."""
    first, second = first.double(), second.double()
    gap = first.mean(0) - second.mean(0)
    one, two = (torch.atleast_2d(torch.cov(v.T)) for v in (first, second))
    values, basis = torch.linalg.eigh(one)
    root = basis @ torch.diag(values.clamp(min=0).sqrt()) @ basis.T
    cross = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    squared: Tensor = gap @ gap + one.trace() + two.trace() - 2 * cross
    return squared.reshape(1)


def _value(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Three pairs in a row: statistics cached without a key would repeat the first."""
    sets = [images_of(211, 15), images_of(199, 16, 0.1), images_of(223, 17, -0.2)]
    for first, second in ((0, 1), (2, 1), (0, 2)):

        def gap(candidate: Implementation, pair: Any = (sets[first], sets[second])) -> Tensor:
            truth = squared_distance(*(candidate.features(images) for images in pair))
            return torch.tensor([float(candidate.frechet_distance(*pair))]).double() / truth

        yield Case(
            "frechet_distance",
            {"real": sets[first], "generated": sets[second]},
            torch.ones(1, dtype=torch.float64),
            run=gap,
            label="Fréchet distance over its closed form on the same features",
        )


def _zero(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    images = images_of(211, 15)

    def itself(candidate: Implementation) -> Tensor:
        size = candidate.features(images).double().var(0).sum()
        return torch.tensor([float(candidate.frechet_distance(images, images))]).double() / size

    yield Case(
        "frechet_distance",
        {"real": images, "generated": images},
        torch.zeros(1, dtype=torch.float64),
        run=itself,
        label="Fréchet distance of a set from itself, over the features' total variance",
    )


def _company(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    images = images_of(7, 15)

    def difference(candidate: Implementation) -> Tensor:
        together = candidate.features(images)
        alone = torch.cat([candidate.features(one) for one in images.split(1)])
        again = candidate.features(images)
        size = together.abs().max()
        return torch.stack([(together - alone).abs().max(), (together - again).abs().max()]) / size

    yield Case(
        "features",
        {"images": images},
        torch.zeros(2, dtype=torch.float64),
        run=difference,
        label="features of a batch minus features one by one, and minus a second call",
    )


def _label(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    cases = (
        ("inception", 500, False),
        ("inception", 9999, False),
        ("pca64", 50000, False),
        ("inception", 10000, True),
    )
    for extractor, samples, allowed in cases:

        def misnamed(
            candidate: Implementation, inputs: Any = (extractor, samples, allowed)
        ) -> Tensor:
            bare = candidate.frechet_label(inputs[0], inputs[1]).strip() == "FID"
            return torch.tensor([float(bare and not inputs[2])])

        arguments = {"extractor": extractor, "samples": samples}
        yield Case(
            "frechet_label",
            arguments,
            torch.zeros(1, dtype=torch.float64),
            run=misnamed,
            label="the bare name FID where it does not belong",
        )


LAWS = (
    Law(
        "I23-distance",
        "Fréchet distance",
        "FD = ‖m1−m2‖² + tr(C1 + C2 − 2(C1C2)^½) of the features, for every pair of sets, in any order of calls.",
        "The squared 2-Wasserstein distance of two Gaussians.",
        "Dowson & Landau 1982; Heusel et al. 2017. Seen: cached statistics without a key.",
        {torch.float64: 1e-3},
        "Relative; features may be kept in float32, and roots of small eigenvalues lose half the digits.",
        _value,
    ),
    Law(
        "I23-zero",
        "distance from itself",
        "FD(A, A) = 0.",
        "A metric.",
        "Dowson & Landau 1982.",
        {torch.float64: 1e-4},
        "In units of the features' variance; a matrix root of a covariance loses half the digits.",
        _zero,
    ),
    Law(
        "I23-company",
        "features of one image",
        "An image's features do not depend on the batch it comes in, nor on the call.",
        "Statistics over sets need a function of one image: eval mode, no batch normalization by the batch, no dropout.",
        "Seen: feature network in train mode.",
        {torch.float64: 1e-5},
        "Relative to the largest feature; float32 sums in another order.",
        _company,
    ),
    Law(
        "I23-name",
        "the name FID",
        "The letters FID alone belong to Inception features of at least 10,000 samples.",
        "The estimate's bias grows like 1/N: at n = 500 it exceeds most differences in the literature.",
        "Chong & Forsyth 2020. Seen: FID of 500 samples.",
        {torch.float64: 0.0},
        "Yes or no.",
        _label,
    ),
)
