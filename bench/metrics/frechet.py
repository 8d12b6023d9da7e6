r"""Fréchet distance between two sets of images, under a feature map that is named beside every figure.

Two sets are described by mean and covariance of their features; between the Gaussians with these moments the
2-Wasserstein distance has a closed form (Dowson and Landau 1982):

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½).                                             (1)

`torchmetrics.FrechetInceptionDistance` computes it here, in float64, on our own feature module; `frechet_distance` is (1)
by another route (symmetric square roots) and checks it.

**Names.** The figure depends on the feature map, on both sample sizes and on the rounding to 8 bits, so it is printed
as `FD[pca64]` with its N. The three letters FID alone belong to Inception features with at least 10,000 samples.

**`pca64`.** The first min(64, pixels) principal components of the *training* images:

    f(x) = Vᵀ(x − m),   x on [−1, 1],   V the leading eigenvectors of the training covariance.        (2)

For 8×8 grey images V is a full orthogonal matrix: (1) is invariant to it and is the distance in pixels. There are no
weights to download, no train/eval ambiguity, and nothing random.

**Bias and floor.** With n samples d² is biased upwards by roughly tr(Σ)·(1/n₁ + 1/n₂) and more: two sets of *real* images are
not at 0. That real-against-real floor is measured at the same N and stands beside every figure; all arms
share one N.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.terminal.usage import UsageError
from ddpm_ref.validation import check_floating

FID_MINIMUM = 10_000
"""Fewest samples for which the letters FID may be used."""
_BATCH = 1024


def to_uint8(images: Tensor) -> Tensor:
    """[−1, 1] to 0 … 255 by rounding, values outside clamped; uint8 in the same shape."""
    return ((images.double() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[d]` and unbiased covariance `[d, d]` of features `[n, d]`, float64.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} samples have no covariance: pass at least 2")
    double = features.double()
    return double.mean(0), torch.cov(double.T, correction=1).reshape(double.shape[1], -1)


def _symmetric_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Equation (1), d² ≥ 0, a float64 scalar; means `[d]`, covariances `[d, d]`, singular ones included."""
    root = _symmetric_root(cov1.double())
    inner = torch.linalg.eigvalsh(root @ cov2.double() @ root)
    cross = inner.clamp(min=0).sqrt().sum()
    shift = (mean1.double() - mean2.double()).square().sum()
    squared: Tensor = shift + cov1.double().trace() + cov2.double().trace() - 2 * cross
    return squared.clamp(min=0)


class Pca(nn.Module):
    """The feature map (2); takes uint8 images as torchmetrics hands them over.

    Args:
        train: training images on [−1, 1], `[N, C, H, W]`.
        components: largest number of components.
    """

    centre: Tensor
    directions: Tensor

    def __init__(self, train: Tensor, components: int = 64) -> None:
        super().__init__()
        flat = to_uint8(train).reshape(len(train), -1).double() / 127.5 - 1
        centre, covariance = mean_and_covariance(flat)
        values, vectors = torch.linalg.eigh(covariance)
        leading = values.argsort(descending=True, stable=True)[:components]
        self.register_buffer("centre", centre)
        self.register_buffer("directions", _signed(vectors[:, leading]))
        self.num_features = len(leading)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Features float64 `[N, num_features]` of uint8 images `[N, C, H, W]`.

        Raises:
            ValueError: images of another size than those that the map was made from.
        """
        flat = images.reshape(len(images), -1).double() / 127.5 - 1
        if flat.shape[1:] != self.centre.shape:
            raise ValueError(
                f"images of {flat.shape[1]} numbers, but the feature map was made from images of {len(self.centre)}: "
                "pass images of the same channels and size"
            )
        features: Tensor = (flat - self.centre) @ self.directions
        return features


def _signed(vectors: Tensor) -> Tensor:
    """Eigenvectors with their largest entry positive: their signs are otherwise arbitrary."""
    largest = vectors.abs().argmax(0)
    sign = torch.sign(vectors[largest, torch.arange(vectors.shape[1])])
    return vectors * sign


def inception(weights: Path | None = None) -> nn.Module:
    """The Inception network of the FID, 2048 features, in eval mode, through torch-fidelity, which resizes as the published network does.

    Args:
        weights: the file `pt_inception-2015-12-05-6726825d.pth`; None: torch-fidelity's own cache.

    Raises:
        UsageError: torch-fidelity or its weights are not there, with the remedy.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], None if weights is None else str(weights)
        )
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise UsageError(
            f"Inception features are not available ({type(error).__name__}): "
            "pip install torch-fidelity, and pass the path of its weights file as weights; "
            "without them FD[pca64] is what can be reported, and no FID"
        ) from error
    network.eval()
    return InceptionOnColour(network)


class InceptionOnColour(nn.Module):
    """Grey images repeated to three channels for torch-fidelity's network, which wants colour and answers with a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.num_features = 2048

    def forward(self, images: Tensor) -> Tensor:
        """Features `[N, 2048]` of uint8 images."""
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        features: Tensor = self.network(colour)[0]
        return features


def distance_name(feature: str, samples: int, *, published: bool = True) -> str:
    """How a figure is printed: `FID` only for Inception features with the published weights and ≥ 10,000 samples, else `FD[feature]`."""
    allowed = feature == "inception" and published and samples >= FID_MINIMUM
    return "FID" if allowed else f"FD[{feature}]"


def measure(features: nn.Module, real: Tensor, generated: Tensor, *, batch: int = _BATCH) -> float:
    """Equation (1) between two sets of images on [−1, 1], through torchmetrics in float64.

    Args:
        features: a module with an integer `num_features`, used in eval mode: uint8 `[N, C, H, W]` → `[N, d]`.
        real: `[N, C, H, W]`.
        generated: `[M, C, H, W]`; the same N for all that are compared.
        batch: images at a time; the distance does not depend on it.

    Raises:
        ValueError: fewer than two images, images of two shapes, or values that are not finite.
        TypeError: integer images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    check_floating(real=real, generated=generated)
    for name, images in (("real", real), ("generated", generated)):
        if len(images) < 2 or not bool(torch.isfinite(images).all()):
            raise ValueError(f"{name}: {len(images)} images; at least 2, all finite, are needed")
    if real.ndim != 4 or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"real has shape {list(real.shape)}, generated {list(generated.shape)}: both must be [N, C, H, W] with the same "
            "C, H and W; a distance between images of two shapes means nothing"
        )
    features.eval()
    metric = FrechetInceptionDistance(feature=features, normalize=False)
    metric.set_dtype(torch.float64)
    with torch.no_grad():
        for is_real, images in ((True, real), (False, generated)):
            for part in to_uint8(images).split(batch):
                metric.update(part, real=is_real)
        return max(0.0, float(metric.compute()))


def floor(features: nn.Module, train: Tensor, heldout: Tensor, samples: int) -> list[float]:
    """Real against real: each run of `samples` training images against as many held-out ones.

    Args:
        features: as in `measure`.
        train: training images, `[N, C, H, W]`, in any order that has nothing to do with their content.
        heldout: held-out images.
        samples: size of each set; as many disjoint sets as the training images fill.
    """
    groups = [group for group in train.split(samples) if len(group) == samples]
    return [measure(features, heldout[:samples], group) for group in groups]


def statistics_key(feature: str, features: nn.Module, images: Tensor) -> str:
    """Identity of one side of a distance: feature map, its weights, the images, their number, the rounding.

    Two figures may be compared only where these keys are equal; moments that are kept without such a key end up beside
    another data set.
    """
    weights = hashlib.sha256()
    for name, value in sorted(features.state_dict().items()):
        weights.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    content = hashlib.sha256(to_uint8(images).cpu().contiguous().numpy().tobytes())
    identity = {
        "feature": feature,
        "weights": weights.hexdigest(),
        "images": content.hexdigest(),
        "shape": list(images.shape),
        "rounding": "uint8, to nearest",
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
