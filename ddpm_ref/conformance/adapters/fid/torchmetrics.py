"""`torchmetrics.image.FrechetInceptionDistance`: with its own network replaced by the stub, and with a module of one's own."""

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
from ddpm_ref.conformance.implementation import Convention, Implementation

_NAME = "torchmetrics"


class TorchMetrics(FidLibrary):
    """The class with an integer `feature`, its NoTrainInceptionV3 replaced."""

    name = distribution = _NAME
    conventions = (
        half_pixel_convention("torchmetrics/image/fid.py, NoTrainInceptionV3: F.interpolate"),
    )

    def features(self, images: Tensor) -> Tensor:
        """`metric.inception`, which `update` calls."""
        found: Tensor = self._metric().inception(as_bytes(images))
        return found

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`update(…, real=…)` for each batch, then `compute`."""
        return _distance(self._metric(), as_bytes(real), as_bytes(generated), batch)

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`_compute_fid`."""
        return float(_module()._compute_fid(mean1, covariance1, mean2, covariance2))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """A module of one's own that hands features through."""
        through = nn.Identity()
        through.num_features = first.shape[1]  # type: ignore[assignment]
        metric = _module().FrechetInceptionDistance(feature=through)
        return _distance(metric, first, second, max(len(first), len(second)))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """`normalize=True` for floats."""
        given = refused(form, bytes=images, unit=unit(images))
        metric = _replaced(_first_layer, normalize=form == "unit")
        return shown(lambda: metric.update(given, real=True))

    def _metric(self) -> Any:
        return _replaced(lambda **options: Pooled().eval())


class OwnNetwork(TorchMetrics):
    """The class with a module as `feature`, as one constructs it: in training mode."""

    name = f"{_NAME}: feature=a module"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "a module is used in the mode it comes in",
                "a network of one's own stays in training mode, in which batch normalization and dropout make features depend on the batch; call .eval() first",
                "torchmetrics/image/fid.py, FrechetInceptionDistance.__init__",
                _Evaluating,
                ("I23-company", "I23-batches", "I23-last", "I23-distance", "I23-zero"),
            ),
        )

    def _metric(self) -> Any:
        return _module().FrechetInceptionDistance(feature=Pooled())

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """The same function: not asked again."""
        raise self._missing("Fréchet distance of its own")

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """The same function: not asked again."""
        raise self._missing("Fréchet distance of its own")

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """Whatever the module is given."""
        raise self._missing("first layer")


class _Evaluating(OwnNetwork):
    def _metric(self) -> Any:
        return _module().FrechetInceptionDistance(feature=Pooled().eval())


def _module() -> ModuleType:
    return importlib.import_module("torchmetrics.image.fid")


def _first_layer(antialias: bool, **options: object) -> nn.Module:
    kind = _module().NoTrainInceptionV3
    layers = {"features_list": ["64"], "use_antialias": antialias, "Conv2d_1a_3x3": FirstLayer()}
    return bare(kind, **layers)


def _replaced(network: Any, *, normalize: bool = False) -> Any:
    """A metric of 64 features, as the library builds it but for its network."""
    module = _module()
    built = network(antialias=True) if network is _first_layer else network()
    with replaced(module, "NoTrainInceptionV3", lambda **options: built):
        return module.FrechetInceptionDistance(feature=FEATURES, normalize=normalize)


def _distance(metric: Any, real: Tensor, generated: Tensor, batch: int) -> float:
    with torch.no_grad():
        for is_real, images in ((True, real), (False, generated)):
            for part in images.split(batch):
                metric.update(part, real=is_real)
        return float(metric.compute())


def implementations() -> tuple[Implementation, ...]:
    """The default network's place taken by a stub; a module of one's own."""
    importlib.import_module(_NAME)
    return (TorchMetrics(), OwnNetwork())
