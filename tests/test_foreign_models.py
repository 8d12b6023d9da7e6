"""A model with its scheduler as diffusers makes them: index, prediction, variance and schedule are read as they are meant."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.metrics.foreign_model import Foreign, adapt, interpret
from ddpm_ref.elbo import elbo
from ddpm_ref.schedule import linear_schedule, rescale_to_zero_terminal_snr


class Scheduler(SimpleNamespace):
    """What a diffusers scheduler offers to a reader."""


class Unet(nn.Module):
    """Returns an object with `.sample`, and expects steps from 0."""

    def __init__(self, double: bool = False) -> None:
        super().__init__()
        self.double_channels = double
        self.seen: set[int] = set()

    def forward(self, x_t: Tensor, t: Tensor) -> SimpleNamespace:
        self.seen.update(t.tolist())
        half = torch.zeros_like(x_t)
        return SimpleNamespace(
            sample=torch.cat([half, half + 1], dim=1) if self.double_channels else half
        )


def scheduler(beta: Tensor, **config: str) -> Scheduler:
    return Scheduler(betas=beta.float(), config=config)


def images() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 4).view(2, 3, 2, 2)


def test_a_diffusers_pair_is_read_with_its_own_index_and_prediction() -> None:
    schedule, unet = linear_schedule(11), Unet()
    foreign = interpret(
        (unet, scheduler(schedule.beta[1:], prediction_type="sample", variance_type="fixed_large"))
    )
    assert (foreign.parameterization, foreign.variance, foreign.first_step) == ("x0", "beta", 0)
    assert foreign.schedule is not None
    torch.testing.assert_close(foreign.schedule.alpha_bar, schedule.alpha_bar, rtol=1e-6, atol=0)
    model = adapt(foreign, foreign.schedule, "beta")
    options = {"parameterization": "x0", "variance": "beta", "decoder": "gaussian"}
    found = elbo(model, images(), foreign.schedule, **options)
    direct = elbo(lambda x, t: 0 * x, images(), foreign.schedule, **options)
    assert torch.equal(found.total, direct.total)
    assert unet.seen == set(range(11))


def test_a_learned_range_of_one_is_variance_beta() -> None:
    schedule = linear_schedule(7)
    foreign = interpret(
        (Unet(double=True), scheduler(schedule.beta[1:], variance_type="learned_range"))
    )
    assert foreign.schedule is not None
    model = adapt(foreign, foreign.schedule, "learned_range")
    found = elbo(model, images(), foreign.schedule, decoder="gaussian")
    direct = elbo(
        lambda x, t: 0 * x, images(), foreign.schedule, variance="beta", decoder="gaussian"
    )
    torch.testing.assert_close(found.total, direct.total, rtol=1e-9, atol=0)
    assert found.protocol is not None
    assert found.protocol.variance == "learned"


def test_a_scheduler_with_zero_terminal_snr() -> None:
    schedule = rescale_to_zero_terminal_snr(linear_schedule(9))
    foreign = interpret((Unet(), scheduler(schedule.beta[1:], prediction_type="v_prediction")))
    assert foreign.schedule is not None
    assert foreign.schedule.alpha_bar[-1].item() == 0
    torch.testing.assert_close(foreign.schedule.alpha_bar, schedule.alpha_bar, rtol=1e-5, atol=1e-9)


def test_eval_mode_reaches_a_foreign_module() -> None:
    unet = Unet().train()
    modes = []
    unet.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    schedule = linear_schedule(3)
    elbo(adapt(Foreign(unet), schedule, "posterior"), images(), schedule, decoder="gaussian")
    assert not any(modes)
    assert unet.training


@pytest.mark.peers
def test_a_real_diffusers_unet() -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    foreign = interpret((unet, diffusers.DDPMScheduler(num_train_timesteps=6)))
    assert foreign.schedule is not None
    model = adapt(foreign, foreign.schedule, "posterior")
    x0 = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    found = elbo(model, x0, foreign.schedule, decoder="gaussian")
    direct = elbo(lambda x, t: unet(x, t - 1).sample, x0, foreign.schedule, decoder="gaussian")
    torch.testing.assert_close(found.total, direct.total)
