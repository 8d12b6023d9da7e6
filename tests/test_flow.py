"""Flow matching and EDM as rows: against the other path's own formulas, and against each other."""

import math

import pytest
import torch

from ddpm_ref.config import TrainConfig
from ddpm_ref.network import Preconditioned
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.objective import TRAINING_WEIGHTINGS, WEIGHTINGS, edm, loss, weight
from ddpm_ref.oracle import GaussianOracle, rank_limited_excess
from ddpm_ref.parameterization import convert, target
from ddpm_ref.process import q_sample
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import flow_schedule, linear_schedule
from ddpm_ref.trainer import train

T = 17
SCHEDULE = flow_schedule(T)
STEPS = torch.arange(1, T + 1)
SPACES = ("x0", "v", "flow")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_path_is_the_straight_line_on_another_scale():
    x0, eps = normal(T, 5), normal(T, 5, seed=1)
    s = (STEPS.double() / T)[:, None]
    straight = (1 - s) * x0 + s * eps
    scale = ((1 - s) ** 2 + s**2).sqrt()
    found = q_sample(x0, STEPS, SCHEDULE, eps)
    torch.testing.assert_close(found, straight / scale, rtol=1e-12, atol=1e-13)
    assert SCHEDULE.log_snr[-1] == -math.inf
    assert flow_schedule(1, terminal=0.5).log_snr[1] == pytest.approx(0)
    for wrong in ({"T": 1}, {"T": 5, "terminal": 1.5}, {"T": 5, "terminal": 0.0}):
        with pytest.raises(ValueError, match="terminal"):
            flow_schedule(**wrong)


def test_the_velocity_leads_back_to_the_data_and_the_noise():
    """On the straight line x_0 = x_s + s(x_0 − ε) and ε = x_s − (1−s)(x_0 − ε)."""
    x0, eps = normal(T, 5), normal(T, 5, seed=1)
    velocity = target("flow", x0, eps, STEPS, SCHEDULE)
    torch.testing.assert_close(velocity, x0 - eps, rtol=0, atol=0)
    x_t = q_sample(x0, STEPS, SCHEDULE, eps)
    s = (STEPS.double() / T)[:, None]
    straight = x_t * ((1 - s) ** 2 + s**2).sqrt()
    to_x0 = convert(velocity, x_t, STEPS, SCHEDULE, source="flow", to="x0")
    to_eps = convert(velocity, x_t, STEPS, SCHEDULE, source="flow", to="eps")
    torch.testing.assert_close(to_x0, straight + s * velocity, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(to_eps, straight - (1 - s) * velocity, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(to_x0, x0, rtol=1e-10, atol=1e-11)
    for source in SPACES:
        first = target(source, x0, eps, STEPS, SCHEDULE)
        back = convert(first, x_t, STEPS, SCHEDULE, source=source, to="flow")
        torch.testing.assert_close(back, velocity, rtol=1e-10, atol=1e-10)


def test_one_euler_step_of_the_flow_is_the_deterministic_sampler():
    """From s to s′ the flow moves x_s by (s − s′) times the velocity; DDIM moves x_t by the same, rescaled (they share x̂_0 and ε̂)."""
    oracle = GaussianOracle(torch.zeros(5), torch.eye(5) * 0.3)
    model = oracle.model(SCHEDULE, "flow")
    found = sample(
        model, (7, 5), SCHEDULE, parameterization="flow", sampler="ddim", dtype=torch.float64
    )
    straight = NoiseStream(0).normal((7, 5), step=0, use=Use.SAMPLER, dtype=torch.float64)
    for t in range(T, 0, -1):
        s = t / T
        scale = math.sqrt((1 - s) ** 2 + s**2)
        velocity = model(straight / scale, torch.full((7,), t))
        straight = straight + velocity / T
    torch.testing.assert_close(found, straight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, *TRAINING_WEIGHTINGS])
def test_the_same_estimate_has_the_same_loss_in_every_space(weighting):
    schedule = linear_schedule(T, 0.01, 0.3)
    chosen = {**WEIGHTINGS, **TRAINING_WEIGHTINGS}[weighting]
    x0, eps, guess = normal(T, 5), normal(T, 5, seed=1), normal(T, 5, seed=2)
    x_t = q_sample(x0, STEPS, schedule, eps)
    losses = [
        loss(
            convert(guess, x_t, STEPS, schedule, source="x0", to=space),
            x0,
            eps,
            STEPS,
            schedule,
            parameterization=space,
            weighting=chosen,
        )
        for space in ("x0", "eps", "v", "flow")
    ]
    for other in losses[1:]:
        torch.testing.assert_close(losses[0], other, rtol=1e-9, atol=0)


def test_the_weights_by_name_are_1_where_their_names_say():
    schedule = linear_schedule(T, 0.01, 0.3)
    of_flow = TRAINING_WEIGHTINGS["simple_flow"]
    ones = torch.ones(T, dtype=torch.float64)
    torch.testing.assert_close(weight(of_flow, STEPS, schedule, parameterization="flow"), ones)
    by_v = weight(edm(1.0), STEPS, schedule, parameterization="v")
    torch.testing.assert_close(by_v, ones)
    assert edm(0.5) == TRAINING_WEIGHTINGS["edm"]
    # In x0 space 1/c_out² with c_out from the preconditioning itself.
    one = torch.nn.Module()
    one.forward = lambda x, t: torch.ones_like(x)
    zero = torch.nn.Module()
    zero.forward = lambda x, t: torch.zeros_like(x)
    x_t = normal(T, 1)
    outputs = [Preconditioned(inner, schedule, 0.7).double()(x_t, STEPS) for inner in (one, zero)]
    c_out = (outputs[0] - outputs[1]).flatten()
    found = weight(edm(0.7), STEPS, schedule, parameterization="x0")
    torch.testing.assert_close(found, 1 / c_out**2, rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="sigma_data = 0"):
        edm(0.0)


def test_the_price_of_rank_for_a_flow_is_its_skips():
    spectrum = torch.tensor([3.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    schedule, t = linear_schedule(100), torch.tensor([3, 50, 100])
    alpha, sigma = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
    for rank in range(5):
        found = rank_limited_excess(spectrum, rank, t, schedule, parameterization="flow")
        by_skip = rank_limited_excess(spectrum, rank, t, schedule, skip=1 / (alpha + sigma))
        torch.testing.assert_close(found, by_skip, rtol=1e-9, atol=1e-12)


def test_a_flow_is_trained_by_name():
    config = TrainConfig(
        schedule="flow", parameterization="flow", weighting="simple_flow", timesteps="logit_normal",
        importance="none", T=20, network="mlp", network_options={"width": 8, "depth": 2}, batch_size=4, steps=2,
    )  # fmt: skip
    assert TrainConfig.from_toml(config.to_toml()) == config
    assert all(math.isfinite(step.loss) for step in train(config, torch.ones(4, 3)))
