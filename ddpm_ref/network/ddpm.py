r"""The U-Net of Ho et al. 2020 (appendix B), weight for weight, and its sizes as data.

It differs from `UNet` in what costs parameters: every feature map on the way down is remembered (not one per level), resolution is halved
and doubled by 3 × 3 convolutions, the coarsest level has two more blocks around an attention, and the way up has one block more than the
way down. With n = `blocks` and widths c_l = base · multipliers[l], the number of parameters is a sum over its layers

    conv k × k, a → b:  k² a b + b        linear a → b:  a b + b        normalization of a:  2a
    block(a → b):       norm a, conv3 a → b, linear 4·base → b, norm b, conv3 b → b, and conv1 a → b where a ≠ b
    attention(c):       norm c, conv1 c → 3c, conv1 c → c

and that of the CIFAR-10 size is 35,746,307: the 35.7 million of the paper.

Two things are ours, neither with a parameter: t is embedded by eq. (3) of `ddpm_ref.network`, and there is no dropout (0.1 in the paper's
CIFAR-10 runs), because everything random here is a function of the step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.network.layers import Attention, ResidualBlock, ZeroConv2d, groups, time_embedding
from ddpm_ref.network.unet import check_levels

_GROUPS = 32


class DDPMUNet(nn.Module):
    """The network of Ho et al. 2020, appendix B.

    Args:
        channels: C of the images.
        base: feature maps of the finest level, even.
        multipliers: one factor per level; H and W are divisible by 2^(levels−1).
        attention: the levels with attention after each block.
        blocks: residual blocks per level on the way down; one more on the way up.
        steps: T of the schedule that t indexes.
        outputs: channels of the output; None = `channels`.
    """

    def __init__(
        self,
        channels: int = 3,
        base: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        attention: Sequence[int] = (1,),
        blocks: int = 2,
        steps: int = 1000,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        check_levels(base, multipliers, attention)
        self.base, self.steps, self.levels = base, steps, len(multipliers)
        embedding = 4 * base
        self.embed = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(channels, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, remembered = base, [base]
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                attend = level in attention
                self.down.append(_Stage(width, base * multiplier, embedding, attend))
                width = base * multiplier
                remembered.append(width)
            if level < self.levels - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                remembered.append(width)
        self.middle = nn.ModuleList(
            [_Stage(width, width, embedding, True), _Stage(width, width, embedding, False)]
        )
        for level in reversed(range(self.levels)):
            wanted = base * multipliers[level]
            for _ in range(blocks + 1):
                joined = width + remembered.pop()
                self.up.append(_Stage(joined, wanted, embedding, level in attention))
                width = wanted
            if level:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.leave_norm = nn.GroupNorm(groups(width, _GROUPS), width)
        self.leave = ZeroConv2d(width, outputs or channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` at the steps `t` `[B]` (1 … `steps`)."""
        self._check_size(x_t)
        embedding = self.embed(time_embedding(t, self.base, self.steps).to(x_t.dtype))
        h = self.enter(x_t)
        remembered = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, _Stage) else layer(h)
            remembered.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for layer in self.up:
            if isinstance(layer, _Stage):
                h = layer(torch.cat([h, remembered.pop()], dim=1), embedding)
            else:
                h = layer(functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        prediction: Tensor = self.leave(functional.silu(self.leave_norm(h)))
        return prediction

    def _check_size(self, x_t: Tensor) -> None:
        unit = 2 ** (self.levels - 1)
        if x_t.shape[-1] % unit or x_t.shape[-2] % unit:
            raise ValueError(
                f"images of {x_t.shape[-2]} x {x_t.shape[-1]} pixels cannot be halved {self.levels - 1} times: "
                f"use sides divisible by {unit} (pad the images), or fewer multipliers"
            )


class _Stage(nn.Module):
    """A residual block, and attention after it where asked for."""

    def __init__(self, inputs: int, width: int, embedding: int, attend: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, width, embedding, _GROUPS)
        self.attention = Attention(width, _GROUPS) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        attended: Tensor = self.attention(self.block(x, embedding))
        return attended


SIZES: dict[str, dict[str, Any]] = {
    "cifar10": {"base": 128, "multipliers": (1, 2, 2, 2), "attention": (1,), "blocks": 2},
    "imagenet64": {"base": 192, "multipliers": (1, 2, 3, 4), "attention": (1, 2, 3), "blocks": 3},
    "lsun256": {"base": 128, "multipliers": (1, 1, 2, 2, 4, 4), "attention": (4,), "blocks": 2},
    "small": {"base": 32, "multipliers": (1, 2, 2), "attention": (1,), "blocks": 1},
}
"""Sizes by name: `cifar10` and `lsun256` are Ho et al. 2020's, `imagenet64` has the widths and depths of Dhariwal & Nichol 2021's."""
