"""The parts that networks are made of: layers that start at zero, the embedding of t, residual blocks, attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_EMBEDDED_RANGE = 1000.0


class ZeroConv2d(nn.Conv2d):
    """A convolution whose weights and bias start at zero: its branch is absent when training begins."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ZeroLinear(nn.Linear):
    """A linear layer whose weights and bias start at zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def time_embedding(t: Tensor, dimension: int, steps: int) -> Tensor:
    """Eq. (3) of `ddpm_ref.network`: float32 `[B, dimension]` for `t` `[B]` in 1 … `steps`, whole or between; `dimension` is even."""
    exponent = torch.arange(dimension // 2, dtype=torch.float32, device=t.device) / (dimension // 2)
    frequency = torch.exp(-math.log(10_000.0) * exponent)
    angle = (t.float() * (_EMBEDDED_RANGE / steps))[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x))) + time))): the block of Ho et al. 2020, appendix B.

    The second convolution starts at zero, so that the block starts as the identity (or as its 1 × 1 shortcut).

    Args:
        inputs: feature maps that come in.
        outputs: feature maps that go out.
        embedding: size of the embedding of t.
        most_groups: groups of a normalization, at most.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, most_groups: int = 8) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups(inputs, most_groups), inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(groups(outputs, most_groups), outputs)
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

    Args:
        features: feature maps.
        most_groups: groups of the normalization, at most.
    """

    def __init__(self, features: int, most_groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups(features, most_groups), features)
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


def groups(features: int, most: int = 8) -> int:
    """The largest divisor of `features` up to `most` that leaves two features a group.

    Normalizing one feature map by itself subtracts every constant that was added to it, and so the time embedding.
    """
    largest = max(1, min(most, features // 2))
    return next(count for count in range(largest, 0, -1) if features % count == 0)
