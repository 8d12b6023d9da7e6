"""This project under its own laws, the sample-quality harness included."""

from functools import cached_property
from importlib.util import find_spec

import torch
from torch import Tensor

from bench.metrics.foreign_model import Foreign, adapt
from bench.metrics.frechet import (
    InceptionOnColour,
    Pca,
    distance_name,
    frechet_distance,
    mean_and_covariance,
    measure,
    to_uint8,
)
from ddpm_ref.conformance.adapters.fid.stub import shown
from ddpm_ref.conformance.adapters.fid.torch_fidelity import without_weights
from ddpm_ref.conformance.implementation import NotOffered
from ddpm_ref.conformance.reference import Reference
from ddpm_ref.conformance.setting import Setting
from ddpm_ref.noise import NoiseStream

_IMAGES = (257, 1, 8, 8)


class BenchReference(Reference):
    """`ddpm_ref`, the learned range as `elbo --model` reads it, and the Fréchet distance of `bench.metrics.frechet`.

    The principal components are those of noise images: the laws hold for every orthogonal map, and this one needs no data.
    """

    @cached_property
    def _components(self) -> Pca:
        train = 0.4 * NoiseStream(0).normal(_IMAGES, step=0)
        return Pca(train.clamp(-1, 1))

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`range`: the log-variance that `bench.metrics.foreign_model` makes of a model's second half, 2v − 1."""
        if meaning != "range":
            return super().learned_variance(setting, meaning, said, t)
        schedule = self.schedule(setting)
        both = torch.cat([torch.zeros_like(said), 2 * said - 1], dim=1)
        model = adapt(Foreign(lambda x_t, step: both), schedule, "learned_range")
        _, log_variance = model(torch.zeros_like(said), schedule.timesteps[t - 1])
        return log_variance.exp(), log_variance

    def features(self, images: Tensor) -> Tensor:
        """`pca64` of the images rounded to 8 bits."""
        with torch.no_grad():
            features: Tensor = self._components(to_uint8(images))
        return features

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        """`bench.metrics.frechet.measure`."""
        _needs("torchmetrics")
        return measure(self._components, real, generated)

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`bench.metrics.frechet.measure`."""
        _needs("torchmetrics")
        return measure(self._components, real, generated, batch=batch)

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`bench.metrics.frechet.frechet_distance`."""
        return float(frechet_distance(mean1, covariance1, mean2, covariance2))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """`bench.metrics.frechet.mean_and_covariance` of both."""
        return float(frechet_distance(*mean_and_covariance(first), *mean_and_covariance(second)))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """`bench.metrics.frechet.InceptionOnColour`; floats are read on [−1, 1]."""
        _needs("torch_fidelity")
        floats = 2 * (images.float() / 255) - 1
        network = InceptionOnColour(without_weights())
        return shown(lambda: network(images if form == "bytes" else to_uint8(floats)))

    def frechet_label(self, extractor: str, samples: int) -> str:
        """`bench.metrics.frechet.distance_name`."""
        return distance_name(extractor, samples)


def _needs(package: str) -> None:
    """Where the extra `bench` is not installed, what it brings is not offered."""
    if find_spec(package) is None:
        raise NotOffered(f"without {package}: pip install 'diffusion-objective-bench[bench]'")
