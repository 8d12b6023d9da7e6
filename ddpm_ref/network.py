r"""Denoising networks: x_t `[B, C, H, W]` and t `[B]` in, a prediction `[B, C, H, W]` out.

What the network predicts is not its own affair: the same network learns ε, x_0, v, the score or the mean
(`ddpm_ref.parameterization`). It has to know two things, the noisy image and how noisy it is. The posterior mean

    E[x_0 | x_t] = ∫ x_0 q(x_t | x_0) q(x_0) dx_0 / ∫ q(x_t | x_0) q(x_0) dx_0                       (1)

depends on t through q(x_t | x_0) = N(√ᾱ_t x_0, (1−ᾱ_t) I), even for the simplest data: for x_0 ~ N(0, s² I) it is

    E[x_0 | x_t] = √ᾱ_t s² / (ᾱ_t s² + 1−ᾱ_t) · x_t,                                                  (2)

a different multiple of x_t at every t. A network without t can only answer with an average over the steps that could
have produced x_t (`ArticleDenoiser` is one, and says what that costs). `UNet` receives t as a sinusoidal embedding,

    e(t)_i = sin(1000 t/T · 10000^{−2i/D}),   e(t)_{i+D/2} = cos(…),   i < D/2   (Vaswani et al. 2017, section 3.5),   (3)

added to the features of every residual block (Ho et al. 2020, appendix B).

The last convolution starts at zero, so that the first prediction is 0 for any parameterization and the first loss is
the mean square of the target. `initialize` draws all other weights from a `NoiseStream`: two runs that share a seed start from
the same bits, whatever the version of torch.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.noise import NoiseStream, Use

_EMBEDDED_RANGE = 1000.0


class ZeroConv2d(nn.Conv2d):
    """A convolution whose weights and bias start at zero: its branch is absent when training begins."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ArticleDenoiser(nn.Module):
    """Two 3 × 3 convolutions with a ReLU between them, and **no time input**: `t` is accepted and not read.

    Each output pixel sees 5 × 5 pixels and must guess from them how noisy they are. For data ~ N(0, s² I), seen in blocks of
    n pixels, the block's variance tells ᾱ_t s² + 1−ᾱ_t up to a relative error √(2/n), so that the guess is good where s²
    differs from 1 and impossible where s² = 1: then x_t ~ N(0, I) at *every* t, and the best ε-prediction without t is the
    constant multiple E_t[√(1−ᾱ_t)] x_t. Its error exceeds that of eq. (2) by exactly Var_t[√(1−ᾱ_t)] per pixel.

    Args:
        channels: C of the images.
        hidden: feature maps between the two convolutions.
        steps: T, which this network has no use for.
    """

    def __init__(self, channels: int = 1, hidden: int = 64, steps: int = 1000) -> None:
        super().__init__()
        del steps
        self.inner = nn.Conv2d(channels, hidden, 3, padding=1)
        self.outer = ZeroConv2d(hidden, channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` alone; `t` `[B]` has no influence."""
        del t
        prediction: Tensor = self.outer(functional.relu(self.inner(x_t)))
        return prediction


def time_embedding(t: Tensor, dimension: int, steps: int) -> Tensor:
    """Eq. (3): float32 `[B, dimension]` for integer `t` `[B]` in 1 … `steps`; `dimension` is even."""
    exponent = torch.arange(dimension // 2, dtype=torch.float32, device=t.device) / (dimension // 2)
    frequency = torch.exp(-math.log(10_000.0) * exponent)
    angle = (t.float() * (_EMBEDDED_RANGE / steps))[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x))) + time))): the block of Ho et al. 2020, appendix B.

    The second convolution starts at zero, so that the block starts as the identity (or as its 1 × 1 shortcut).
    """

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(inputs), inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(_groups(outputs), outputs)
        self.conv2 = ZeroConv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features `[B, inputs, H, W]` and embedding `[B, E]` to features `[B, outputs, H, W]`."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time(embedding)[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        combined: Tensor = self.shortcut(x) + h
        return combined


class Attention(nn.Module):
    """x + W_o softmax(QKᵀ/√d) V over the H·W positions of a feature map (Vaswani et al. 2017, eq. 1), one head.

    The output projection starts at zero. The cost grows with (H·W)²: use it where the map is coarse.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(features), features)
        self.query_key_value = nn.Conv2d(features, 3 * features, 1)
        self.out = ZeroConv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, C, H, W]` to features of the same shape; every position sees every other."""
        batch, features, height, width = x.shape
        joint = self.query_key_value(self.norm(x)).reshape(batch, 3, features, height * width)
        query, key, value = joint.transpose(2, 3).unbind(1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        combined: Tensor = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return combined


class UNet(nn.Module):
    """A small U-Net after Ho et al. 2020, appendix B: levels of halving resolution joined by skip connections.

    Level l has `base · multipliers[l]` feature maps at H/2^l × W/2^l and `blocks` residual blocks on the way down and again
    on the way up (the coarsest level has them once), each followed by attention where l is in `attention`.

    Args:
        channels: C of the images.
        base: feature maps of the finest level, even.
        multipliers: one factor per level; H and W are divisible by 2^(levels−1).
        attention: the levels with attention; coarse ones, for its cost grows with (H·W)².
        blocks: residual blocks per level and direction.
        steps: T of the schedule that t indexes, so that the embedding (3) spans the same range for every T.
        time_input: False holds the embedding at t = 1: the same network, weight for weight, that cannot tell the steps apart.
    """

    def __init__(
        self,
        channels: int = 1,
        base: int = 32,
        multipliers: Sequence[int] = (1, 2),
        attention: Sequence[int] = (1,),
        blocks: int = 1,
        steps: int = 1000,
        time_input: bool = True,
    ) -> None:
        super().__init__()
        _check_levels(base, multipliers, attention)
        self.base, self.steps, self.time_input = base, steps, time_input
        last = len(multipliers) - 1
        self.time_input = time_input
        embedding = 4 * base
        self.embed = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        widths = [base * multiplier for multiplier in multipliers]
        self.enter = nn.Conv2d(channels, base, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, width in enumerate(widths[:-1]):
            attend = level in attention
            finer = widths[max(level - 1, 0)]
            self.down.append(_Level(finer, width, blocks, embedding, attend))
            self.up.insert(0, _Level(widths[level + 1] + width, width, blocks, embedding, attend))
        entering = widths[max(last - 1, 0)]
        self.bottom = _Level(entering, widths[-1], blocks, embedding, last in attention)
        self.leave_norm = nn.GroupNorm(_groups(base), base)
        self.leave = ZeroConv2d(base, channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` at the steps `t` `[B]` (1 … `steps`)."""
        self._check_size(x_t)
        seen = t if self.time_input else torch.ones_like(t)
        embedding = self.embed(time_embedding(seen, self.base, self.steps).to(x_t.dtype))
        h = self.enter(x_t)
        skips: list[Tensor] = []
        for level in self.down:
            skips.append(level(h, embedding))
            h = functional.avg_pool2d(skips[-1], 2)
        h = self.bottom(h, embedding)
        for level in self.up:
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = level(torch.cat([h, skips.pop()], dim=1), embedding)
        prediction: Tensor = self.leave(functional.silu(self.leave_norm(h)))
        return prediction

    def _check_size(self, x_t: Tensor) -> None:
        unit = 2 ** len(self.down)
        if x_t.shape[-1] % unit or x_t.shape[-2] % unit:
            raise ValueError(
                f"images of {x_t.shape[-2]} x {x_t.shape[-1]} pixels cannot be halved {len(self.down)} times: "
                f"use sides divisible by {unit} (pad the images), or fewer multipliers"
            )


class _Level(nn.Module):
    """`blocks` residual blocks at one resolution, each followed by attention if asked for."""

    def __init__(self, inputs: int, width: int, blocks: int, embedding: int, attend: bool) -> None:
        super().__init__()
        self.residual = nn.ModuleList(
            ResidualBlock(width if number else inputs, width, embedding) for number in range(blocks)
        )
        self.attention = nn.ModuleList(
            Attention(width) if attend else nn.Identity() for _ in range(blocks)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block, attention in zip(self.residual, self.attention, strict=True):
            x = attention(block(x, embedding))
        return x


def _groups(features: int) -> int:
    """The largest divisor of `features` up to 8: groups of equal size for any width."""
    return next(count for count in range(min(8, features), 0, -1) if features % count == 0)


def _check_levels(base: int, multipliers: Sequence[int], attention: Sequence[int]) -> None:
    if base < 2 or base % 2:
        raise ValueError(f"base = {base}; half of it are sines: pass an even number >= 2")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers = {multipliers}; one factor >= 1 per level, such as (1, 2)")
    absent = [level for level in attention if not 0 <= level < len(multipliers)]
    if absent:
        raise ValueError(
            f"attention level {absent[0]} does not exist; {len(multipliers)} multipliers make "
            f"levels 0 ... {len(multipliers) - 1}, of which the last is the coarsest"
        )


NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "article": ArticleDenoiser}
"""Networks by name; every one takes `channels` and `steps` and has options of its own."""


def initialize(network: nn.Module, stream: NoiseStream) -> None:
    """Draw all weights anew: W ~ N(0, 1/fan_in), biases 0, norms 1 and 0, `ZeroConv2d` 0.

    The k-th parameter takes the sample index k of `Use.WEIGHTS`, so that the draw depends on the seed and on the
    network's structure only. The fan-in of a weight `[out, in, *kernel]` is in · ∏ kernel.

    Raises:
        TypeError: a layer of another kind: its law of initialization would be a guess.
    """
    index = 0
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        for name, parameter in own.items():
            with torch.no_grad():
                parameter.copy_(_initial(module, name, parameter, stream, index))
            index += 1


def _initial(
    module: nn.Module, name: str, parameter: Tensor, stream: NoiseStream, index: int
) -> Tensor:
    if isinstance(module, nn.GroupNorm):
        return torch.full_like(parameter, 1.0 if name == "weight" else 0.0)
    if not isinstance(module, nn.Conv2d | nn.Linear):
        raise TypeError(
            f"no law of initialization for {type(module).__name__}.{name}: build the network from Conv2d, "
            "Linear and GroupNorm, or initialize it yourself"
        )
    if name == "bias" or isinstance(module, ZeroConv2d):
        return torch.zeros_like(parameter)
    shape = (1, *parameter.shape)
    normal = stream.normal(shape, step=0, first_index=index, use=Use.WEIGHTS)
    fan_in = parameter[0].numel()
    return normal[0] / math.sqrt(fan_in)
