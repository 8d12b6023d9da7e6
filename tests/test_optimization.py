"""Warm-up, relative clipping and the weight average against their closed forms."""

import pytest
import torch
from torch import nn

from ddpm_ref.optimization import (
    RunningNorm,
    averaged_model,
    ema_decay,
    gradient_norm,
    scale_gradients,
    warmed_up,
)

NORMS = [0.7, 1.1, 40.0, 0.9, 1.3, 6.0, 0.2]


def test_warm_up_is_a_ramp():
    assert [warmed_up(0.5, k, 4) for k in (1, 2, 4, 5, 99)] == [0.125, 0.25, 0.5, 0.5, 0.5]
    assert warmed_up(0.5, 1, 0) == 0.5


def test_clipping_follows_its_definition():
    factor, decay = 2.5, 0.75
    running, past = RunningNorm(factor, decay), []
    for norm in NORMS:
        weights = [decay ** (len(past) - 1 - j) for j in range(len(past))]
        mean = (
            sum(w * c for w, c in zip(weights, past, strict=True)) / sum(weights) if past else norm
        )
        clipped = min(norm, factor * mean) if past else norm
        assert running.clip(norm) == pytest.approx(clipped / norm, rel=1e-13)
        past.append(clipped)


def test_clipping_does_not_know_the_scale_of_the_loss():
    plain, scaled = RunningNorm(3.0, 0.9), RunningNorm(3.0, 0.9)
    # A power of two changes no mantissa, so that the decisions agree exactly.
    assert [plain.clip(g) for g in NORMS] == [scaled.clip(2.0**-37 * g) for g in NORMS]


def test_a_spike_is_cut_and_hardly_moves_the_yardstick():
    running = RunningNorm(3.0, 0.98)
    for _ in range(200):
        assert running.clip(1.0) == 1.0
    assert running.clip(1e9) == pytest.approx(3e-9, rel=1e-9)
    assert running.total / running.weight < 1.05


def test_no_clipping_and_vanishing_gradients():
    unlimited = RunningNorm(float("inf"), 0.9)
    assert [unlimited.clip(g) for g in NORMS] == [1.0] * len(NORMS)
    started_at_zero = RunningNorm(3.0, 0.9)
    assert [started_at_zero.clip(g) for g in (0.0, 0.0, 2.0, 2.0)] == [1.0] * 4


def test_gradient_norm_and_scaling():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5))
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    everything = torch.cat([p.grad.flatten() for p in parameters]).double()
    norm = everything.square().sum().sqrt().item()
    assert gradient_norm(parameters).item() == pytest.approx(norm, rel=1e-6)
    scale_gradients(parameters, 0.25)
    assert gradient_norm(parameters).item() == pytest.approx(0.25 * norm, rel=1e-6)
    network[0].bias.grad[1] = float("nan")
    assert not gradient_norm(parameters).isfinite()


@pytest.mark.parametrize("ceiling", [0.0, 0.4, 0.9999])
def test_weight_average_closed_form(ceiling):
    network = nn.Linear(2, 3, bias=False).double()
    averaged = averaged_model(network, ceiling)
    expected = None
    for k in range(1, 12):
        theta = torch.full((3, 2), float(k) ** 2, dtype=torch.float64)
        network.weight.data = theta.clone()
        averaged.update_parameters(network)
        decay = min(ceiling, k / (k + 9)) if k > 1 else 0.0
        expected = theta if expected is None else decay * expected + (1 - decay) * theta
        torch.testing.assert_close(averaged.module.weight.data, expected, rtol=1e-13, atol=0)
        assert torch.equal(network.weight.data, theta)


def test_warm_up_of_the_average_reaches_its_ceiling_and_stays():
    decays = [ema_decay(k, 0.9) for k in range(1, 200)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.9
    # d/(1-d) = k/9 until then: at step 81 the average has caught up with 0.9.
    assert decays[80] == pytest.approx(0.9)
    assert decays[79] < 0.9
