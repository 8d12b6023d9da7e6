"""`torcheval.metrics.FrechetInceptionDistance`, the stub as its `model`; its sums are float32."""

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ref.conformance.adapters.fid.stub import (
    FEATURES,
    FidLibrary,
    FirstLayer,
    Pooled,
    as_bytes,
    bare,
    half_pixel_convention,
    refused,
    shown,
    unit,
)
from ddpm_ref.conformance.adapters.instruments import replaced
from ddpm_ref.conformance.implementation import Implementation


class TorchEval(FidLibrary):
    """The metric with a model of one's own, and its default `FIDInceptionV3` up to the first layer."""

    name = distribution = "torcheval"
    dtypes = (torch.float64, torch.float32)
    table_dtype = torch.float32
    conventions = (half_pixel_convention("torcheval/metrics/image/fid.py, FIDInceptionV3"),)

    def features(self, images: Tensor) -> Tensor:
        """`metric.model`, which `update` calls."""
        found: Tensor = _metric(Pooled(), FEATURES).model(unit(as_bytes(images)))
        return found

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`update(…, is_real=…)` for each batch, then `compute`."""
        given = [unit(as_bytes(images)) for images in (real, generated)]
        return _distance(_metric(_Single(), FEATURES), given[0], given[1], batch)

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`_calculate_frechet_distance`, which reads no state."""
        metric = _metric(nn.Identity(), len(mean1))
        return float(metric._calculate_frechet_distance(mean1, covariance1, mean2, covariance2))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """Features in the place of pixels, `[N, 3, F, 1]`, and a model that takes them out again."""
        pair = [part[:, None, :, None].expand(-1, 3, -1, -1) for part in (first, second)]
        metric = _metric(_TakeOut(), first.shape[1])
        return _distance(metric, pair[0], pair[1], max(len(first), len(second)))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """It takes floats 0 … 1 alone, so that bytes have to be divided by whoever calls it."""
        given = refused(form, bytes=unit(images), unit=unit(images))
        if images.shape[1] != 3:
            raise self._missing("grey images: `update` refuses them")
        metric = _module().FrechetInceptionDistance(model=_default_network())
        return shown(lambda: metric.update(given, is_real=True))


class _Single(Pooled):
    """The stub in float32, in which the metric keeps its sums."""

    def forward(self, images: Tensor) -> Tensor:
        """Features."""
        return super().forward(images).float()


class _TakeOut(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, :, 0]


def _module() -> ModuleType:
    return importlib.import_module("torcheval.metrics.image.fid")


def _metric(model: nn.Module, features: int) -> Any:
    return _module().FrechetInceptionDistance(model=model, feature_dim=features)


def _distance(metric: Any, real: Tensor, generated: Tensor, batch: int) -> float:
    for is_real, images in ((True, real), (False, generated)):
        for part in images.split(batch):
            metric.update(part, is_real=is_real)
    return float(metric.compute())


def _default_network() -> Any:
    """`FIDInceptionV3()`: torchvision sets `transform_input` wherever weights are asked for."""
    module = _module()
    kind = importlib.import_module("torchvision.models.inception").Inception3

    def network(weights: object) -> nn.Module:
        asked = weights is not None
        return bare(kind, transform_input=asked, aux_logits=False, Conv2d_1a_3x3=FirstLayer())

    with replaced(module.models, "inception_v3", network):
        return module.FIDInceptionV3()


def implementations() -> tuple[Implementation, ...]:
    """One way."""
    importlib.import_module("torcheval")
    return (TorchEval(),)
