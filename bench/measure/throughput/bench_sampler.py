"""One step of a sampler, the network included: x_t → x_{t−1}.

Checked before: with the optimal model for data that are all one point, both samplers end at that point.
"""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.conftest import measures
from ddpm_ref.network import UNet
from ddpm_ref.sampler import SamplerRule, sample, sample_steps
from ddpm_ref.schedule import linear_schedule

RULES = {"ddpm": SamplerRule("ddpm"), "ddim": SamplerRule("ddim")}
_POINT = 0.25


def _steps(model: torch.nn.Module, batch: int, rule: SamplerRule) -> Iterator[Tensor]:
    """Walk after walk, without end."""
    schedule = linear_schedule(1000)
    for seed in itertools.count():
        yield from sample_steps(
            model, (batch, 1, 8, 8), schedule, parameterization="eps", rule=rule, seed=seed
        )


@pytest.mark.parametrize("sampler", RULES)
def test_sampler_step(
    request: pytest.FixtureRequest, measuring: Measuring, device: torch.device, sampler: str
) -> None:
    ended = sample(
        lambda x_t, t: torch.full_like(x_t, _POINT),
        (5, 1, 3, 3),
        linear_schedule(7),
        parameterization="x0",
        sampler=sampler,
    )
    holds = torch.allclose(ended, torch.full_like(ended, _POINT), atol=1e-6)
    batch, base = (64, 32) if measures(request.config) else (3, 4)
    model = UNet(base=base).to(device).eval()
    measuring.benchmark.group = "sampler step, small U-Net on 8 x 8"
    measuring.describe(
        sampler,
        shape=(batch, 1, 8, 8),
        dtype=torch.float32,
        verified=checked("the optimal model for one point leads to that point", holds),
    )
    walk = _steps(model, batch, RULES[sampler])
    measuring.case(lambda: next(walk), items=batch, item="image", device=device)
