r"""Smaller images by area averaging: every new pixel is the mean of the area that it covers.

Along one axis n pixels become m < n. Measured in m-ths of an old pixel, new pixel i covers [i n, (i+1) n) and old pixel j is [j m, (j+1) m); the
length of their intersection is an integer o_ij with Σ_j o_ij = n, and

    new_ik = Σ_jl o_ij o_kl old_jl / n²,                                                                     (1)

summed exactly and rounded once, halves up. (Pillow's box filter and `interpolate(mode="area")` give whole pixels to one or both neighbours
where the ratio is not an integer.)
"""

from pathlib import Path

import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble
from bench.data.idx import load_idx
from bench.terminal.usage import UsageError

_CHUNK = 4096
_LEAST = 2


def _overlaps(before: int, after: int) -> Tensor:
    """o of (1), int64 `[after, before]`."""
    new, old = torch.arange(after)[:, None], torch.arange(before)
    end = torch.minimum((new + 1) * before, (old + 1) * after)
    return (end - torch.maximum(new * before, old * after)).clamp(min=0)


def _area_average(images: Tensor, side: int) -> Tensor:
    """Square grey levels uint8 `[N, C, n, n]` to `[N, C, side, side]`; eq. (1)."""
    size = images.shape[-1]
    weights = _overlaps(size, side).double()
    chunks = [
        (2 * (weights @ chunk.double() @ weights.T) + size**2) // (2 * size**2)  # integers, exact
        for chunk in images.split(_CHUNK)
    ]
    return torch.cat(chunks).byte()


def load_smaller(name: str, side: int, root: Path | None) -> DataSet:
    """`fashion-mnist:16` and the like: the same images in the same parts, each area-averaged to side × side.

    Images that are equal to a held-out one at that size are removed from the other parts.

    Raises:
        UsageError: a side that is not smaller, or files that are missing or damaged.
    """
    full = load_idx(name, root)
    height, width = full.shape[1:]
    if not (_LEAST <= side < height == width):
        raise UsageError(
            f"{name}:{side}: images of {height}×{width} are averaged to a side of {_LEAST} … {height - 1}; try {name}:16"
        )
    parts = (
        _area_average(((part + 1) * 127.5).round().byte(), side)
        for part in (full.train, full.tune, full.heldout)
    )
    return assemble(
        f"{name}:{side}",
        *parts,
        levels=256,
        source=full.source,
        provenance=f"{full.provenance}; area-averaged from {height}×{width}",
    )
