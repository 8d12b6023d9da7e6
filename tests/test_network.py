"""Networks: shapes, what they depend on, and initial weights that only the seed decides."""

import math

import pytest
import torch
from torch import nn

from ddpm_ref.config import TrainConfig
from ddpm_ref.network import (
    NETWORKS,
    ArticleDenoiser,
    Attention,
    ResidualBlock,
    UNet,
    ZeroConv2d,
    initialize,
    time_embedding,
)
from ddpm_ref.network.layers import groups
from ddpm_ref.noise import NoiseStream

BUILT = [name for name in NETWORKS if name == "ddpm-small" or not name.startswith("ddpm-")]
SMALL = {"base": 6, "multipliers": (1, 2), "attention": (1,)}


def awakened(network: nn.Module) -> nn.Module:
    """The network with its zero layers set to something, as after some training."""
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def build(name: str, shape: tuple[int, ...], **choices) -> nn.Module:
    """As a configuration does, which hands over what a network has arguments for."""
    return TrainConfig(network=name, T=11, **choices).make_network(shape)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (1, 2, 4, 12), (0, 1, 8, 8)], ids=str)
def test_every_network_answers_in_the_shape_of_its_input(name, shape):
    network = build(name, shape[1:])
    t = torch.full((shape[0],), 11)
    assert network(torch.zeros(shape), t).shape == shape


@pytest.mark.parametrize("name", BUILT)
def test_the_first_prediction_is_zero(name):
    network = build(name, (2, 8, 8))
    initialize(network, NoiseStream(5))
    assert not network(torch.randn(3, 2, 8, 8), torch.tensor([1, 5, 11])).any()


@pytest.mark.parametrize("name", BUILT)
def test_a_row_does_not_depend_on_the_other_rows(name):
    # B = C = H = W would hide a broadcast over the wrong dimension, so use exactly that.
    network = awakened(build(name, (8, 8, 8))).double()
    x, t = torch.randn(8, 8, 8, 8, dtype=torch.float64), torch.arange(1, 9)
    together = network(x, t)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_the_unet_reads_t_and_the_articles_network_does_not():
    x = torch.randn(2, 1, 8, 8)
    early, late = torch.tensor([1, 1]), torch.tensor([900, 900])
    assert not torch.allclose(awakened(UNet(**SMALL))(x, early), awakened(UNet(**SMALL))(x, late))
    for blind in (awakened(ArticleDenoiser(hidden=5)), awakened(UNet(**SMALL, time_input=False))):
        assert torch.equal(blind(x, early), blind(x, late))


@pytest.mark.parametrize("features", [1, 2, 6, 8, 16, 17])
def test_no_normalization_erases_what_t_adds(features):
    """A constant added to each feature map differs by feature, and still does after the normalization (if there are two)."""
    x, added = torch.randn(1, features, 4, 4), torch.randn(1, features, 1, 1)
    norm = nn.GroupNorm(groups(features), features)
    assert torch.allclose(norm(x), norm(x + added), atol=1e-3) == (features == 1)


def test_the_unet_without_time_input_has_the_same_weights_and_does_not_read_t():
    seeing, blind = UNet(**SMALL), UNet(**SMALL, time_input=False)
    for network in (seeing, blind):
        initialize(network, NoiseStream(5))
        awakened(network)
    x, first = torch.randn(2, 1, 8, 8), torch.tensor([1, 1])
    assert torch.equal(blind(x, torch.tensor([3, 900])), blind(x, first))
    assert torch.equal(blind(x, first), seeing(x, first))


def test_without_t_a_linear_answer_to_unit_data_loses_the_variance_of_the_noise_scale():
    # The claim in ArticleDenoiser's docstring: x_t ~ N(0, 1) at every t, E[eps x_t] = sqrt(1 - alpha_bar).
    scale = torch.tensor([0.1, 0.4, 0.8, 0.97], dtype=torch.float64)
    knowing = (1 - scale**2).mean()
    multiple = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    blind = (1 - 2 * multiple * scale.mean() + multiple**2).min()
    assert blind - knowing == pytest.approx(scale.var(correction=0).item(), abs=1e-9)


def test_time_embedding_is_the_formula_and_spans_the_same_range_for_every_T():
    t, steps, dimension = torch.tensor([1, 7, 13]), 13, 6
    got = time_embedding(t, dimension, steps)
    for row, step in zip(got.tolist(), t.tolist(), strict=True):
        angles = [1000 * step / steps * 10_000 ** (-2 * i / dimension) for i in range(3)]
        wanted = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        # float32 angles up to 1000 are off by up to 1000 * 2^-24.
        assert row == pytest.approx(wanted, abs=2e-4)
    tenfold = time_embedding(10 * t, dimension, 130)
    torch.testing.assert_close(got, tenfold, rtol=0, atol=2e-4)


def test_attention_is_softmax_of_scaled_products():
    features, positions = 6, 10
    module = awakened(Attention(features)).double()
    x = torch.randn(3, features, 2, 5, dtype=torch.float64)
    normal = module.norm(x).reshape(3, features, positions)
    rows = module.query_key_value.weight.reshape(3, features, features)
    shift = module.query_key_value.bias.reshape(3, features, 1)
    query, key, value = (rows[i] @ normal + shift[i] for i in range(3))
    share = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(features), dim=-1)
    mixed = value @ share.transpose(1, 2)
    out = module.out.weight.reshape(features, features) @ mixed + module.out.bias.reshape(-1, 1)
    torch.testing.assert_close(module(x), x + out.reshape(x.shape), rtol=1e-12, atol=1e-12)


def test_blocks_start_as_identity():
    x = torch.randn(3, 6, 4, 4)
    residual, attention = ResidualBlock(6, 6, 5), Attention(6)
    for block in (residual, attention):
        initialize(block, NoiseStream(1))
    assert torch.equal(residual(x, torch.randn(3, 5)), x)
    assert torch.equal(attention(x), x)


def test_initial_weights_depend_on_the_seed_and_on_nothing_else():
    def weights(seed: int, disturbance: int) -> list[torch.Tensor]:
        torch.manual_seed(disturbance)
        network = UNet(**SMALL)
        initialize(network, NoiseStream(seed))
        return [parameter.detach() for parameter in network.parameters()]

    first, again, other = weights(3, 1), weights(3, 2), weights(4, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_initial_weights_are_standard_normal_after_scaling_and_differ_between_layers():
    network = UNet(base=16, multipliers=(1, 2))
    initialize(network, NoiseStream(3))
    drawn = [
        module.weight.detach().flatten() * math.sqrt(module.weight[0].numel())
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, ZeroConv2d)
    ]
    everything = torch.cat(drawn)
    n = everything.numel()
    assert abs(everything.mean()) < 5 / math.sqrt(n)
    assert abs(everything.var() - 1) < 5 * math.sqrt(2 / n)
    beginnings = {tuple(weights[:4].tolist()) for weights in drawn}
    assert len(beginnings) == len(drawn)


def test_double_precision_and_every_shape_of_the_pyramid():
    for multipliers, attention in [((1,), ()), ((1, 2), (0, 1)), ((1, 2, 3), (2,))]:
        network = UNet(3, 4, multipliers, attention, blocks=2, steps=5).double()
        x = torch.randn(2, 3, 8, 4, dtype=torch.float64)
        assert network(x, torch.tensor([1, 5])).dtype == torch.float64


def test_wrong_uses_name_value_and_remedy():
    with pytest.raises(ValueError, match=r"6 x 8 pixels.*divisible by 4"):
        UNet(multipliers=(1, 2, 4), attention=())(torch.zeros(1, 1, 6, 8), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"attention level 2 does not exist"):
        UNet(multipliers=(1, 2), attention=(2,))
    with pytest.raises(ValueError, match=r"base = 7"):
        UNet(base=7)
    with pytest.raises(ValueError, match=r"multipliers"):
        UNet(multipliers=())
    with pytest.raises(TypeError, match=r"no law of initialization for BatchNorm2d"):
        initialize(nn.BatchNorm2d(3), NoiseStream(0))
