"""Training: the update written out by hand, divergence as a result, and runs that do not depend on how they are cut."""

import dataclasses
import math
import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch import distributed

from ddpm_ref.config import TrainConfig
from ddpm_ref.network import initialize
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import linear_schedule
from ddpm_ref.trainer import train

ARTICLE = {"network": "article", "network_options": {"hidden": 3}}
TINY = TrainConfig(T=7, batch_size=6, steps=5, warmup_steps=2, seed=11, **ARTICLE)


def images(count: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand((count, 2, 3, 5), generator=generator) * 2 - 1


def changed(config: TrainConfig = TINY, **choices) -> TrainConfig:
    return dataclasses.replace(config, **choices)


def losses(config: TrainConfig) -> list[float]:
    return [step.loss for step in train(config, images())]


def test_the_whole_update_by_hand():
    """Five steps in float64 against the algorithm written out: draw, loss, clip, AdamW, average."""
    config = changed(
        precision="float64", weight_decay=0.1, clip_factor=1.0, clip_decay=0.5, learning_rate=0.3
    )
    data = images().double()
    network = config.make_network(2)
    initialize(network, NoiseStream(config.seed))
    weights = [p.detach().double() for p in network.parameters()]
    first = [torch.zeros_like(w) for w in weights]
    second = [torch.zeros_like(w) for w in weights]
    average, clipped = None, []
    alpha_bar = linear_schedule(7).alpha_bar
    clips = 0
    for k, step in enumerate(train(config, data), start=1):
        eps = NoiseStream(config.seed).normal((6, 2, 3, 5), step=k, dtype=torch.float64)
        kept = alpha_bar[step.t].view(-1, 1, 1, 1)
        x0 = _images_of_step(config, data, k)
        x_t = kept.sqrt() * x0 + (1 - kept).sqrt() * eps
        leaves = [w.clone().requires_grad_() for w in weights]
        hidden = torch.relu(torch.conv2d(x_t, leaves[0], leaves[1], padding=1))
        errors = (torch.conv2d(hidden, leaves[2], leaves[3], padding=1) - eps).square()
        gradients = torch.autograd.grad(errors.mean(), leaves)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        ages = [0.5 ** (len(clipped) - 1 - j) for j in range(len(clipped))]
        limit = sum(a * c for a, c in zip(ages, clipped, strict=True)) / sum(ages) if ages else norm
        clipped.append(min(norm, limit))
        rate = 0.3 * min(1, k / 2)
        for i, gradient in enumerate(gradients):
            g = gradient * (clipped[-1] / norm)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.99 * second[i] + 0.01 * g**2
            move = (first[i] / (1 - 0.9**k)) / ((second[i] / (1 - 0.99**k)).sqrt() + 1e-8)
            weights[i] = weights[i] * (1 - rate * 0.1) - rate * move
        keep = min(0.998, k / (k + 9)) if k > 1 else 0.0
        pairs = zip(average or weights, weights, strict=True)
        average = [keep * a + (1 - keep) * w for a, w in pairs]

        assert step.step == k
        assert step.learning_rate == rate
        assert step.gradient_norm == pytest.approx(norm, rel=1e-10)
        assert step.clipped == (norm > limit)
        clips += step.clipped
        torch.testing.assert_close(step.losses, errors.mean((1, 2, 3)).detach(), rtol=1e-10, atol=0)
        for got, wanted in zip(step.network.parameters(), weights, strict=True):
            torch.testing.assert_close(got.detach(), wanted, rtol=1e-7, atol=1e-10)
        for got, wanted in zip(step.ema.parameters(), average, strict=True):
            torch.testing.assert_close(got.detach(), wanted, rtol=1e-7, atol=1e-10)
    assert k == 5
    assert 0 < clips < 5


def _images_of_step(config: TrainConfig, data: torch.Tensor, step: int) -> torch.Tensor:
    from ddpm_ref.batches import Batches

    return Batches(config, config.make_schedule(), data).draw(step).x0


@pytest.mark.parametrize(
    ("parameterization", "weighting"), [("x0", "simple"), ("v", "min_snr"), ("eps", "simple_x0")]
)
def test_normalized_weights_average_to_one(parameterization, weighting):
    """The first loss (network = 0) is w_t/mean(w) times the target's mean square."""
    config = changed(
        parameterization=parameterization, weighting=weighting, precision="float64", steps=1
    )
    (plain,) = train(config, images())
    (normalized,) = train(changed(config, normalize_weights=True), images())
    schedule = linear_schedule(7)
    snr = (schedule.alpha_bar / schedule.one_minus_alpha_bar)[1:]
    factors = {
        "x0": snr,
        "v": snr.clamp(max=5.0) / (snr + 1),
        "eps": 1 / snr,
    }[parameterization]
    ratio = plain.losses / normalized.losses
    torch.testing.assert_close(
        ratio, ratio.new_full((6,), factors.mean().item()), rtol=1e-12, atol=0
    )


def test_paired_runs_share_weights_steps_images_and_noise():
    runs = [
        next(train(changed(parameterization=p, weighting="simple_v", steps=1), images()))
        for p in ("eps", "x0")
    ]
    assert torch.equal(runs[0].t, runs[1].t)
    # Both networks predict 0; the weighting 1 in v space is 1/alpha_bar... in each space its own.
    schedule = linear_schedule(7)
    x0 = _images_of_step(TINY, images(), 1).double()
    eps = NoiseStream(11).normal((6, 2, 3, 5), step=1).double()
    squares = {"eps": eps.square().mean((1, 2, 3)), "x0": x0.square().mean((1, 2, 3))}
    for run, (space, square) in zip(runs, squares.items(), strict=True):
        signal = schedule.alpha_bar if space == "eps" else schedule.one_minus_alpha_bar
        wanted = square / signal[run.t]
        torch.testing.assert_close(run.losses.double(), wanted, rtol=1e-5, atol=0)


def test_a_run_is_reproducible_and_blind_to_the_global_generator():
    torch.manual_seed(1)
    first = losses(TINY)
    torch.manual_seed(2)
    assert losses(TINY) == first
    assert losses(changed(seed=12)) != first


def test_training_learns():
    config = TrainConfig(batch_size=32, steps=60, learning_rate=0.02, warmup_steps=5, **ARTICLE)
    run = [step.loss for step in train(config)]
    assert sum(run[-10:]) < 0.6 * sum(run[:10])


def test_divergence_is_the_last_step_and_leaves_the_weights_alone():
    run, weights = [], []
    for step in train(changed(learning_rate=1e30, steps=50, warmup_steps=0), images()):
        run.append(step)
        weights.append([p.detach().clone() for p in step.network.parameters()])
    assert len(run) < 50
    assert [step.diverged for step in run] == [False] * (len(run) - 1) + [True]
    assert not math.isfinite(run[-1].loss) or not math.isfinite(run[-1].gradient_norm)
    assert all(torch.equal(a, b) for a, b in zip(weights[-1], weights[-2], strict=True))
    assert run[-1].state.step == len(run) - 1


def test_the_caller_may_leave_the_loop_and_errors_come_before_the_first_step():
    assert len(list(islice(train(TINY, images()), 2))) == 2
    with pytest.raises(TypeError, match=r"dtype torch.uint8"):
        train(TINY, torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \[3, 4, 4\]"):
        train(TINY, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"at least one image"):
        train(TINY, torch.zeros(0, 1, 4, 4))
    with pytest.raises(ValueError, match=r"must be finite"):
        train(TINY, torch.full((1, 1, 2, 2), math.nan))
    with pytest.raises(
        ValueError, match=r"embedded data set 'mnist'.*train\(config, data=images\)"
    ):
        train(changed(data="mnist"))


def test_embedded_digits_and_lower_precision():
    from ddpm_ref.data import DIGIT_LEVELS, digits

    scans = digits()
    assert scans.shape == (1797, 1, 8, 8)
    assert torch.equal(scans.unique(), torch.arange(DIGIT_LEVELS) / 8 - 1)
    assert torch.equal(scans.bfloat16().float(), scans)
    full = [step.loss for step in train(changed(data="digits", steps=3))]
    half = [step.loss for step in train(changed(data="digits", steps=3, precision="bfloat16"))]
    assert half == pytest.approx(full, rel=0.02)  # bfloat16 keeps 8 bits


def test_data_and_config_are_not_changed():
    data = images()
    before, text = data.clone(), TINY.to_toml()
    losses(TINY)
    list(train(TINY, data))
    assert torch.equal(data, before)
    assert TINY.to_toml() == text


WORKER = """
import sys, torch, weakref
from torch import distributed as dist
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import train
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
group = weakref.ref(dist.group.WORLD)
generator = torch.Generator().manual_seed(2)
images = torch.rand((13, 2, 3, 5), generator=generator) * 2 - 1
for step in train(TrainConfig.from_toml(sys.argv[2]), images):
    print(step.loss.hex(), *(value.hex() for value in step.losses.tolist()))
dist.destroy_process_group()
sys.exit("something keeps the process group, and its threads, alive" if group() else 0)
"""


def test_two_processes_train_like_one(tmp_path):
    """Rank 0 is this process, rank 1 another, each with three parts of its half; both see the whole batch's losses."""
    alone = list(train(changed(precision="float64", steps=6), images()))
    config = changed(precision="float64", steps=6, accumulation=3)
    meeting = f"file://{tmp_path}/meeting"
    other = subprocess.Popen(
        [sys.executable, "-c", WORKER, meeting, config.to_toml()], stdout=subprocess.PIPE, text=True
    )
    distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=2)
    try:
        together = list(train(config, images()))
        with pytest.raises(ValueError, match="batch_size = 7 cannot be shared by 2 processes"):
            train(changed(batch_size=7), images())
        with pytest.raises(
            ValueError, match="2 processes in accumulation = 2 parts each.*multiple of 4"
        ):
            train(changed(accumulation=2), images())
        said, _ = other.communicate(timeout=120)
    finally:
        other.kill()
        distributed.destroy_process_group()
    assert other.returncode == 0
    # gloo of torch 2.9 announces its connections on the same stream
    lines = [line for line in said.splitlines() if not line.startswith("[Gloo]")]
    for line, mine, single in zip(lines, together, alone, strict=True):
        loss, *each = map(float.fromhex, line.split())
        assert (loss, each) == (mine.loss, mine.losses.tolist())
        assert torch.equal(mine.t, single.t)
        # Equal up to the order of summation in float64.
        assert loss == pytest.approx(single.loss, rel=1e-10)
        assert each == pytest.approx(single.losses.tolist(), rel=1e-10)
