"""Networks for vectors, skips and networks from elsewhere: against regression in closed form and formulas written out."""

import copy
import math

import pytest
import torch
from torch import nn

from ddpm_ref.config import TrainConfig
from ddpm_ref.kernels import fused_q_sample
from ddpm_ref.network import MLP, NETWORKS, DDPMUNet, LearnedSkip, LowRank, Preconditioned, UNet
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import linear_schedule, rescale_to_zero_terminal_snr
from ddpm_ref.trainer import train


def awakened(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.double()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


# ---------------------------------------------------------------- multilayer perceptron


def test_the_perceptron_is_its_layers_written_out():
    network = awakened(MLP(5, width=11, depth=3, time_features=4, steps=7))
    x, t = normal(3, 5), torch.tensor([1, 4, 7])
    angles = [[1000 * k / 7 * 10_000 ** (-2 * i / 4) for i in range(2)] for k in t.tolist()]
    embedded = torch.tensor([[*map(math.sin, a), *map(math.cos, a)] for a in angles]).double()
    layers = [network.enter, *network.hidden, network.leave]
    h = torch.cat([x, embedded], dim=1)
    for layer in layers[:-1]:
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    wanted = h @ layers[-1].weight.T + layers[-1].bias
    # The embedding is float32 with angles up to 1000.
    torch.testing.assert_close(network(x, t), wanted, rtol=0, atol=1e-3)
    assert len(layers) == 3


def test_without_time_input_the_perceptron_is_the_same_network_at_one_t():
    seeing = awakened(MLP(5, width=11, steps=7))
    blind = awakened(MLP(5, width=11, steps=7, time_input=False))
    x, first = normal(3, 5), torch.tensor([1, 1, 1])
    assert torch.equal(blind(x, torch.tensor([2, 5, 7])), seeing(x, first))
    assert not torch.allclose(seeing(x, torch.tensor([2, 5, 7])), seeing(x, first))


def test_depth_width_and_parameters_of_the_toy():
    network = MLP(512)
    # 5 linear layers, ReLU, width 256 (Li & He 2025), and 64 numbers for t.
    wanted = (512 + 64 + 1) * 256 + 3 * (256 + 1) * 256 + (256 + 1) * 512
    assert sum(p.numel() for p in network.parameters()) == wanted


# ---------------------------------------------------------------- rank-limited linear map


def test_the_low_rank_map_is_one_matrix_per_step():
    network = awakened(LowRank(5, rank=2, steps=7))
    x, t = normal(6, 5), torch.tensor([3, 1, 3, 7, 2, 7])
    rows = [
        x[i] @ network.read[k - 1] @ network.write[k - 1] + network.bias[k - 1]
        for i, k in enumerate(t.tolist())
    ]
    torch.testing.assert_close(network(x, t), torch.stack(rows), rtol=1e-12, atol=1e-12)
    assert torch.linalg.matrix_rank(network.read[2] @ network.write[2]) == 2
    assert network(x[:0], t[:0]).shape == (0, 5)
    with pytest.raises(TypeError, match="none between"):
        network(x, t.double())


@pytest.mark.parametrize(("parameterization", "rank"), [("eps", 1), ("x0", 2), ("v", 1)])
def test_the_low_rank_map_learns_reduced_rank_regression(parameterization, rank):
    """Gaussian data, all of it in one batch: the loss falls to the sum of the dropped squared singular values (Izenman 1975).

    With x_t = αx_0 + σε of independent directions of variance ℓ, the output y = a x_0 + b ε has in direction i the regression
    coefficient (aαℓ + bσ)/(α²ℓ + σ²), the residual variance a²ℓ + b² − (aαℓ + bσ)²/(α²ℓ + σ²), and the squared singular value
    (aαℓ + bσ)²/(α²ℓ + σ²), of which the h largest are kept.
    """
    variances = torch.tensor([4.0, 1.0, 0.25, 0.01], dtype=torch.float64)
    kept = torch.tensor(0.5, dtype=torch.float64)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    a, b = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-sigma, alpha)}[parameterization]
    # 16 points whose second moments of (x_0, ε) are exactly diag(ℓ, 1): orthogonal columns.
    basis, _ = torch.linalg.qr(normal(64, 8) - normal(64, 8).mean(0))
    basis = torch.linalg.qr(basis - basis.mean(0))[0] * 8
    x0, eps = basis[:, :4] * variances.sqrt(), basis[:, 4:]
    x_t, y = alpha * x0 + sigma * eps, a * x0 + b * eps
    network = LowRank(4, rank=rank, steps=1).double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=400, tolerance_grad=1e-12)
    t = torch.ones(64, dtype=torch.int64)

    def closure():
        optimizer.zero_grad()
        loss = (network(x_t, t) - y).square().sum(1).mean()
        loss.backward()
        return loss

    torch.manual_seed(0)
    optimizer.step(closure)
    cross, total = a * alpha * variances + b * sigma, alpha**2 * variances + sigma**2
    singular = (cross**2 / total).sort(descending=True).values
    least = (a**2 * variances + b**2).sum() - singular[:rank].sum()
    assert closure().item() == pytest.approx(least.item(), rel=1e-6)


# ---------------------------------------------------------------- skips


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5)])
def test_the_learned_skip_adds_a_multiple_of_x_t(shape):
    inner = awakened(MLP(shape=shape, width=7, steps=11))
    network = LearnedSkip(inner, 11).double()
    x, t = normal(4, *shape), torch.tensor([1, 5, 11, 5])
    assert torch.equal(network(x, t), inner(x, t))
    network.scale.data = torch.linspace(-1, 1, 11, dtype=torch.float64)
    view = (-1, *(1,) * len(shape))
    wanted = ((t.double() - 6) / 5).view(view) * x + inner(x, t)
    torch.testing.assert_close(network(x, t), wanted, rtol=1e-12, atol=1e-12)
    between = torch.tensor([1.5, 5.25, 10.0, 11.0])
    wanted = ((between.double() - 6) / 5).view(view) * x + inner(x, between)
    torch.testing.assert_close(network(x, between), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("terminal", [False, True])
def test_edm_preconditioning_is_karras_table_1(terminal):
    """In their variable y = x_t/α with noise s = σ/α: c_skip, c_out, c_in of Karras et al. 2022, table 1."""
    schedule = linear_schedule(7)
    schedule = rescale_to_zero_terminal_snr(schedule) if terminal else schedule
    inner = awakened(MLP(5, width=7, steps=7))
    network = Preconditioned(inner, schedule, sigma_data=0.7).double()
    t = torch.arange(1, 7 if terminal else 8)
    x = normal(len(t), 5)
    alpha, sigma = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
    y, s = x / alpha[:, None], (sigma / alpha)[:, None]
    c_skip = 0.49 / (s**2 + 0.49)
    c_out = s * 0.7 / (s**2 + 0.49).sqrt()
    c_in = 1 / (s**2 + 0.49).sqrt()
    wanted = c_skip * y + c_out * inner(c_in * y, t)
    torch.testing.assert_close(network(x, t), wanted, rtol=1e-9, atol=1e-9)
    if terminal:  # pure noise: the input as it is, no skip, the answer times the data's deviation
        last = torch.tensor([7])
        x = normal(1, 5)
        torch.testing.assert_close(network(x, last), 0.7 * inner(x, last), rtol=1e-9, atol=1e-9)


def test_edm_has_inputs_and_targets_of_unit_variance_at_every_t():
    schedule, sigma_data = linear_schedule(1000), 0.5
    t = torch.arange(1, 1001)
    seen, asked = [], []

    class Probe(nn.Module):
        def forward(self, x, t):
            seen.append(x)
            return torch.zeros_like(x)

    network = Preconditioned(Probe(), schedule, sigma_data).double()
    x0 = sigma_data * normal(1000, 4001)
    x_t, _ = fused_q_sample(x0, t, schedule, NoiseStream(3), step=0)
    skipped = network(x_t, t)
    ones = Preconditioned(Probe(), schedule, sigma_data).double()
    ones.inner.forward = lambda x, t: torch.ones_like(x)
    gain = (ones(x_t, t) - skipped)[:, :1]
    asked.append((x0 - skipped) / gain)
    # A variance of 4,001 normal numbers is known within √(2/4001) = 0.022; 5 of these.
    assert (seen[0].var(1) - 1).abs().max() < 0.12
    assert (asked[0].var(1) - 1).abs().max() < 0.12


# ---------------------------------------------------------------- sizes, patches, networks from elsewhere


def test_the_cifar_10_network_of_ho_et_al_has_their_35_7_million_parameters():
    """Summed by hand over the layers of their appendix B: base 128, (1, 2, 2, 2), 2 blocks, attention at 16 × 16."""

    def conv(k, a, b):
        return k * k * a * b + b

    def block(a, b):
        shortcut = conv(1, a, b) if a != b else 0
        return 2 * a + conv(3, a, b) + 512 * b + b + 2 * b + conv(3, b, b) + shortcut

    def attention(c):
        return 2 * c + 4 * conv(1, c, c)

    time = (128 + 1) * 512 + (512 + 1) * 512
    down = 2 * block(128, 128) + conv(3, 128, 128)
    down += block(128, 256) + block(256, 256) + 2 * attention(256) + conv(3, 256, 256)
    down += 2 * block(256, 256) + conv(3, 256, 256) + 2 * block(256, 256)
    middle = 2 * block(256, 256) + attention(256)
    up = 3 * block(512, 256) + conv(3, 256, 256) + 3 * block(512, 256) + conv(3, 256, 256)
    up += 2 * block(512, 256) + block(384, 256) + 3 * attention(256) + conv(3, 256, 256)
    up += block(384, 128) + 2 * block(256, 128)
    total = time + conv(3, 3, 128) + down + middle + up + 2 * 128 + conv(3, 128, 3)
    assert total == 35_746_307
    with torch.device("meta"):
        network = NETWORKS["ddpm-cifar10"](channels=3, steps=1000)
    assert sum(p.numel() for p in network.parameters()) == total


def test_the_network_of_ho_et_al_reads_t_and_refuses_what_it_cannot_halve():
    network = awakened(DDPMUNet(2, base=8, multipliers=(1, 2), attention=(1,), blocks=1, steps=9))
    x = normal(2, 2, 8, 6)
    early, late = network(x, torch.tensor([1, 1])), network(x, torch.tensor([9, 9]))
    assert early.shape == x.shape
    assert not torch.allclose(early, late)
    with pytest.raises(ValueError, match=r"8 x 7 pixels cannot be halved 1 times"):
        network(normal(2, 2, 8, 7), torch.tensor([1, 1]))


def test_patches_are_squares_of_the_image():
    network = awakened(UNet(1, base=6, multipliers=(1,), attention=(), patch=2, steps=5))
    x, t = normal(1, 1, 8, 8), torch.tensor([3])
    assert network(x, t).shape == x.shape
    assert network.enter.weight.shape[1] == 4
    # What enters is the four numbers of each 2 x 2 square, so exchanging two of them everywhere is exchanging two channels.
    inside = torch.tensor([1, 0, 3, 2])
    exchanged = x.view(1, 1, 8, 4, 2).flip(4).reshape(x.shape)
    other = copy.deepcopy(network)
    other.enter.weight.data = network.enter.weight[:, inside]
    torch.testing.assert_close(other(exchanged, t), network(x, t), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"cut into patches of 2 and halved 0 times"):
        network(normal(1, 1, 8, 7), t)


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.layer = nn.BatchNorm2d(channels)
        self.out = nn.Conv2d(channels, channels, 1)
        self.width = width

    def forward(self, x, t):
        return self.out(self.layer(x)) + 0 * t.view(-1, 1, 1, 1)

def make(channels, width=3):
    return Net(channels, width)

def wrong(channels):
    return 3
"""


def test_a_file_supplies_the_network_and_its_weights_depend_on_the_seed_alone(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    config = TrainConfig(
        network=f"{tmp_path}/net.py:make",
        network_options={"width": 5},
        T=7,
        batch_size=3,
        steps=2,
        seed=4,
    )
    assert TrainConfig.from_toml(config.to_toml()) == config
    assert config.runs_code
    images = torch.rand((5, 2, 4, 4), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(1)
    first = [step.loss for step in train(config, images)]
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    run = list(train(config, images))
    assert [step.loss for step in run] == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert run[-1].network.width == 5


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent.py:make", ValueError, "there is no file"),
        ("net.py:mak", ValueError, "no function 'mak'; it has .*make"),
        ("net.py:wrong", TypeError, "returned a int"),
    ],
)
def test_a_file_without_a_network_is_refused(tmp_path, name, error, message):
    (tmp_path / "net.py").write_text(FACTORY)
    config = TrainConfig(network=f"{tmp_path}/{name}")
    with pytest.raises(error, match=message):
        config.make_network((1, 4, 4))


@pytest.mark.peers
def test_a_diffusers_network_trains():
    pytest.importorskip("diffusers")
    options = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4}
    config = TrainConfig(
        network="diffusers", network_options=options, T=7, batch_size=3, steps=2, seed=4
    )
    images = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    first = [step.loss for step in train(config, images)]
    assert [step.loss for step in train(config, images)] == first
    assert all(map(math.isfinite, first))


def test_edm_predicts_x0_only():
    with pytest.raises(ValueError, match=r"skip = 'edm' with parameterization = 'eps'"):
        TrainConfig(skip="edm")
    with pytest.raises(ValueError, match=r"unknown skip 'lerned'.*'learned'"):
        TrainConfig(skip="lerned")
    with pytest.raises(ValueError, match=r"option of skip 'edm' 'sigma'.*'sigma_data'"):
        TrainConfig(skip="edm", parameterization="x0", skip_options={"sigma": 1.0})


@pytest.mark.parametrize("skip", ["none", "learned", "edm"])
def test_vectors_train_with_every_skip(skip):
    config = TrainConfig(
        network="mlp",
        network_options={"width": 16, "depth": 3, "time_features": 4},
        skip=skip,
        parameterization="x0",
        T=7,
        batch_size=32,
        steps=60,
        learning_rate=1e-2,
        warmup_steps=1,
    )
    # Two points: the Wiener gain for white data, EDM's skip, is far from the posterior mean.
    data = 0.5 * torch.tensor([1.0, -1.0]).repeat(32).unsqueeze(1).expand(-1, 3)
    run = [step.loss for step in train(config, data)]
    assert sum(run[-10:]) < 0.8 * sum(run[:10])
