"""`pytorch_fid.fid_score`: PNG files through `get_activations` and `calculate_frechet_distance`, the stub in the place of `InceptionV3`."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ref.conformance.adapters.fid.stub import (
    FEATURES,
    FidLibrary,
    FirstLayer,
    Pooled,
    as_bytes,
    files,
    half_pixel_convention,
    refused,
    shown,
    unit,
)
from ddpm_ref.conformance.adapters.instruments import replaced
from ddpm_ref.conformance.implementation import Implementation


class _Blocks(nn.Module):
    """The stub in the form of `InceptionV3`: a list of blocks, `[N, 64, 1, 1]` each."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Pooled()

    def forward(self, images: Tensor) -> list[Tensor]:
        """One block."""
        return [self.network(images)[..., None, None]]


class PytorchFid(FidLibrary):
    """The functions that `python -m pytorch_fid` calls."""

    name = distribution = "pytorch-fid"
    conventions = (half_pixel_convention("pytorch_fid/inception.py, InceptionV3.forward"),)

    def features(self, images: Tensor) -> Tensor:
        """`get_activations`."""
        with files(as_bytes(images)) as paths:
            return torch.from_numpy(_activations(paths, len(paths)))

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`calculate_activation_statistics` of both."""
        moments: list[Any] = []
        for images in (real, generated):
            with files(as_bytes(images)) as paths, _quiet():
                moments += _module().calculate_activation_statistics(
                    paths, _Blocks(), min(batch, len(paths)), FEATURES, "cpu", 0
                )
        return float(_module().calculate_frechet_distance(*moments))

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`calculate_frechet_distance`."""
        moments = [part.numpy() for part in (mean1, covariance1, mean2, covariance2)]
        return float(_module().calculate_frechet_distance(*moments))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """Its activations are kept in float64 whatever the network says."""
        moments: list[Any] = []
        for features in (first, second):
            kept = features.double().numpy()
            with replaced(_module(), "get_activations", lambda *given, kept=kept: kept):
                moments += _module().calculate_activation_statistics([], None)
        return float(_module().calculate_frechet_distance(*moments))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """`InceptionV3([0])` around a first layer, from a file or floats."""
        refused(form, bytes=images, unit=images)
        network = _first_layer()
        if form == "unit":
            return shown(lambda: network(unit(images)))
        with files(images) as paths:
            return shown(lambda: _activations(paths, len(paths), network))


def _module() -> ModuleType:
    return importlib.import_module("pytorch_fid.fid_score")


def _quiet() -> Any:
    return replaced(_module(), "tqdm", lambda batches: batches)


def _activations(paths: list[Path], batch: int, network: nn.Module | None = None) -> Any:
    with _quiet():
        return _module().get_activations(paths, network or _Blocks(), batch, FEATURES, "cpu", 0)


def _first_layer() -> nn.Module:
    module = importlib.import_module("pytorch_fid.inception")
    names = ("Conv2d_2a_3x3", "Conv2d_2b_3x3")
    layers = SimpleNamespace(Conv2d_1a_3x3=FirstLayer(), **{name: nn.Identity() for name in names})
    with replaced(module, "fid_inception_v3", lambda: layers):
        network: nn.Module = module.InceptionV3([0])
    return network


def implementations() -> tuple[Implementation, ...]:
    """One way."""
    importlib.import_module("pytorch_fid")
    return (PytorchFid(),)
