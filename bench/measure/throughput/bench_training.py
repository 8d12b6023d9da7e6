"""A training step: batch, noise, network, loss, backward, AdamW, weight average; by provider of the noise.

The provider has no influence on the bits, so right before timing the first losses of a run with it must equal those of a run
with the definition. The network is small on purpose: the smaller it is, the more the noise costs in comparison.
"""

import itertools

import pytest
import torch

from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.conftest import measures
from bench.measure.throughput.contenders import NOISING
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import train

PROVIDERS = ("native", "cuda", "compiled", "eager")
_ENDLESS = 10**6
_COMPARED = 2


def _config(provider: str, device: torch.device, measured: bool) -> TrainConfig:
    options = {} if measured else {"base": 4}
    return TrainConfig(
        provider=provider,
        device=device.type,
        steps=_ENDLESS,
        batch_size=128 if measured else 5,
        network_options=options,
    )


def _first_losses(config: TrainConfig, images: torch.Tensor) -> list[float]:
    return [step.loss for step in itertools.islice(train(config, images), _COMPARED)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_training_step(
    request: pytest.FixtureRequest, measuring: Measuring, device: torch.device, provider: str
) -> None:
    measured = measures(request.config)
    by_provider = {c.provider: c for c in NOISING.values() if c.provider}
    reason = by_provider[provider].unavailable(device)
    if reason is not None:
        pytest.skip(reason)
    images = torch.rand((997, 1, 8, 8), generator=torch.Generator().manual_seed(3)) * 2 - 1
    config = _config(provider, device, measured)
    definition = _first_losses(_config("eager", device, measured), images)
    verified = checked(
        f"the first {_COMPARED} losses equal those of a run with the eager definition",
        _first_losses(config, images) == definition,
    )
    measuring.benchmark.group = "training step, small U-Net on 8 x 8"
    measuring.describe(
        provider,
        shape=(config.batch_size, 1, 8, 8),
        dtype=torch.float32,
        verified=verified,
    )
    run = train(config, images)
    measuring.case(lambda: next(run), items=config.batch_size, item="image", device=device)
