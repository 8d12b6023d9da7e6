"""The bound per image: all T terms, with a model that costs nothing and with the small U-Net.

The free model shows what the bound itself costs beside its T network evaluations. Checked before: with the exact x_0 for
a prediction each KL term with the posterior variance is 0.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.conftest import measures
from ddpm_ref.elbo import elbo
from ddpm_ref.network import UNet
from ddpm_ref.schedule import linear_schedule

Model = Callable[[Tensor, Tensor], Tensor]
MODELS = ("zero", "unet")
LEVELS = 17


def _model(name: str, steps: int, base: int, device: torch.device) -> Model:
    if name == "zero":
        return lambda x_t, t: torch.zeros_like(x_t)
    return UNet(base=base, steps=steps).to(device)


@pytest.mark.parametrize("model", MODELS)
def test_elbo(
    request: pytest.FixtureRequest, measuring: Measuring, device: torch.device, model: str
) -> None:
    images, steps, base = (16, 50, 32) if measures(request.config) else (2, 5, 4)
    generator = torch.Generator().manual_seed(5)
    x0 = (torch.randint(0, LEVELS, (images, 1, 8, 8), generator=generator) / 8 - 1).to(device)
    schedule = linear_schedule(steps)
    cheat = elbo(
        lambda x_t, t: x0.repeat(len(x_t) // images, 1, 1, 1),
        x0,
        schedule,
        parameterization="x0",
        levels=LEVELS,
    )
    holds = float(cheat.diffusion.abs().max()) < 1e-6  # float32 predictions, weights up to 1e4
    measuring.benchmark.group = f"bound of one 8 x 8 image, T = {steps}"
    measuring.describe(
        model,
        shape=x0.shape,
        dtype=torch.float32,
        verified=checked("a perfect prediction makes every KL term 0", holds),
    )
    predict = _model(model, steps, base, device)
    measuring.case(
        lambda: elbo(predict, x0, schedule, levels=LEVELS),
        items=images,
        item="image",
        device=device,
    )
