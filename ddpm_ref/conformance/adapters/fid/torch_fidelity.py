"""`torch_fidelity.calculate_metrics(fid=True)` with a registered feature extractor, which is the library's own door for another network."""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ddpm_ref.conformance.adapters.fid.stub import (
    FidLibrary,
    FirstLayer,
    Pooled,
    as_bytes,
    bare,
    files,
    refused,
    shown,
)
from ddpm_ref.conformance.implementation import Implementation

_PACKAGE = "torch_fidelity"
_EXTRACTOR = "ddpm-ref-stub"


class _Images(TensorDataset):
    """A data set of images alone."""

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        """One image."""
        found: Tensor = self.tensors[0][index]
        return found


class TorchFidelity(FidLibrary):
    """`calculate_metrics`, and the two functions at the heart of it."""

    name = distribution = "torch-fidelity"

    def features(self, images: Tensor) -> Tensor:
        """The stub as the library runs it."""
        utils = importlib.import_module(f"{_PACKAGE}.utils")
        _register()
        extractor = utils.create_feature_extractor(_EXTRACTOR, ["64"], cuda=False, verbose=False)
        found = utils.get_featuresdict_from_dataset(
            _Images(as_bytes(images)), extractor, len(images), False, True, False
        )
        features: Tensor = found["64"]
        return features

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`calculate_metrics`."""
        _register()
        found = importlib.import_module(_PACKAGE).calculate_metrics(
            input1=_Images(as_bytes(real)),
            input2=_Images(as_bytes(generated)),
            batch_size=batch,
            fid=True,
            feature_extractor=_EXTRACTOR,
            feature_layer_fid="64",
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
        )
        return float(found["frechet_inception_distance"])

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`fid_statistics_to_metric`."""
        sides = ((mean1, covariance1), (mean2, covariance2))
        return _distance(*({"mu": m.numpy(), "sigma": c.numpy()} for m, c in sides))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """`fid_features_to_statistics`."""
        return _distance(*(_module().fid_features_to_statistics(part) for part in (first, second)))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """`FeatureExtractorInceptionV3` around a first layer, from files as `ImagesPathDataset` reads them."""
        refused(form, bytes=images)
        datasets = importlib.import_module(f"{_PACKAGE}.datasets")
        with files(images) as paths:
            given = torch.stack(list(datasets.ImagesPathDataset([str(path) for path in paths])))
        return shown(lambda: without_weights()(given))


def without_weights() -> nn.Module:
    """`FeatureExtractorInceptionV3` that ends before its first layer."""
    module = importlib.import_module(f"{_PACKAGE}.feature_extractor_inceptionv3")
    layers = {"features_list": ["64"], "Conv2d_1a_3x3": FirstLayer()}
    return bare(
        module.FeatureExtractorInceptionV3,
        feature_extractor_internal_dtype=torch.float32,
        **layers,
    )


def _module() -> Any:
    return importlib.import_module(f"{_PACKAGE}.metric_fid")


def _distance(first: Any, second: Any) -> float:
    found = _module().fid_statistics_to_metric(first, second, False)
    return float(found["frechet_inception_distance"])


@cache
def _register() -> None:
    base = importlib.import_module(f"{_PACKAGE}.feature_extractor_base").FeatureExtractorBase

    class Stub(base):  # type: ignore[misc, valid-type]
        """The stub in the library's form."""

        def __init__(self, name: str, features_list: list[str], **options: object) -> None:
            super().__init__(name, features_list)
            self.network = Pooled()

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("64",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "64"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (self.network(images),)

    importlib.import_module(_PACKAGE).register_feature_extractor(_EXTRACTOR, Stub)


def implementations() -> tuple[Implementation, ...]:
    """One way."""
    importlib.import_module(_PACKAGE)
    return (TorchFidelity(),)
