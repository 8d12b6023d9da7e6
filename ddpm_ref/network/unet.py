"""A small U-Net; with `patch` one that sees an image in squares."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.network.layers import Attention, ResidualBlock, ZeroConv2d, groups, time_embedding
from ddpm_ref.validation import check_count


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
        patch: side p of the squares that the image is cut into at the entrance and put together from at the exit: C·p²
            channels at H/p × W/p, which H/p and W/p are then halved.
        outputs: channels of the output; None = `channels`.
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
        patch: int = 1,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        check_levels(base, multipliers, attention)
        check_count("patch", patch)
        self.base, self.steps, self.time_input, self.patch = base, steps, time_input, patch
        last = len(multipliers) - 1
        embedding = 4 * base
        self.embed = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        widths = [base * multiplier for multiplier in multipliers]
        self.enter = nn.Conv2d(channels * patch**2, base, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, width in enumerate(widths[:-1]):
            attend = level in attention
            finer = widths[max(level - 1, 0)]
            self.down.append(_Level(finer, width, blocks, embedding, attend))
            self.up.insert(0, _Level(widths[level + 1] + width, width, blocks, embedding, attend))
        entering = widths[max(last - 1, 0)]
        self.bottom = _Level(entering, widths[-1], blocks, embedding, last in attention)
        self.leave_norm = nn.GroupNorm(groups(base), base)
        self.leave = ZeroConv2d(base, (outputs or channels) * patch**2, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` at the steps `t` `[B]` (1 … `steps`)."""
        self._check_size(x_t)
        seen = t if self.time_input else torch.ones_like(t)
        embedding = self.embed(time_embedding(seen, self.base, self.steps).to(x_t.dtype))
        h = self.enter(functional.pixel_unshuffle(x_t, self.patch))
        skips: list[Tensor] = []
        for level in self.down:
            skips.append(level(h, embedding))
            h = functional.avg_pool2d(skips[-1], 2)
        h = self.bottom(h, embedding)
        for level in self.up:
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = level(torch.cat([h, skips.pop()], dim=1), embedding)
        squares: Tensor = self.leave(functional.silu(self.leave_norm(h)))
        return functional.pixel_shuffle(squares, self.patch)

    def _check_size(self, x_t: Tensor) -> None:
        unit = self.patch * 2 ** len(self.down)
        if x_t.shape[-1] % unit or x_t.shape[-2] % unit:
            cut = f"cut into patches of {self.patch} and " if self.patch > 1 else ""
            raise ValueError(
                f"images of {x_t.shape[-2]} x {x_t.shape[-1]} pixels cannot be {cut}halved {len(self.down)} times: "
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


def check_levels(base: int, multipliers: Sequence[int], attention: Sequence[int]) -> None:
    """Sizes of a U-Net that can be built.

    Raises:
        ValueError: an odd base, no multiplier or one below 1, attention at a level that does not exist.
    """
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
