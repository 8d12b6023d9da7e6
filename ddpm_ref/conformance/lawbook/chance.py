r"""How surprising numbers are that should be independent N(0, 1): every statistic as a standard normal deviate.

The k-th moment of n draws has variance (1, 2, 15, 96)/n and the mean of a product of independent draws 1/n. A count in a set of probability p is
binomial (n, p); its exact tail probability, as a deviate, is valid for the rarest set. The largest of m deviates is worth the deviate of m times its
tail (Bonferroni), so that many pairs are watched without raising the alarm.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

MOMENTS = ("mean", "variance", "third moment", "fourth moment")
_TAILS = (1.0, 2.0, 3.0, 4.0, 5.0)
_BINS = 64
_ENOUGH, _PATIENCE = 10**7, 1.5
_PAIRS = 48


def standard_scores(z: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Deviations of moments 1–4 of n normal numbers and of their products with each of `others`, in standard errors."""
    root = math.sqrt(len(z))
    square = z * z
    moments = (z.mean(), square.mean() - 1, (square * z).mean(), (square * square).mean() - 3)
    values = [m * root / math.sqrt(v) for m, v in zip(moments, (1, 2, 15, 96), strict=True)]
    return torch.stack([*values, *((z * other).mean() * root for other in others)])


def deviate(p: float) -> float:
    """The size of a standard normal number that is exceeded, to both sides, with probability p."""
    from scipy.stats import norm

    return float(norm.isf(min(max(p, 1e-300), 1.0) / 2))


def largest(scores: Tensor) -> float:
    """The largest of m deviates as one."""
    from scipy.stats import norm

    if not bool(torch.isfinite(scores).all()):
        return math.inf
    most = float(scores.abs().max())
    return deviate(2 * scores.numel() * float(norm.sf(most)))


def _shape_scores(z: Tensor) -> Tensor:
    """Counts beyond 1 … 5 standard deviations on both sides and χ² over bins of equal probability, as deviates."""
    from scipy.stats import binom, chi2, norm

    n, flat = z.numel(), z.flatten()
    tails, far = [], flat[flat.abs() > _TAILS[0]]
    for bound in _TAILS:
        for side in (far > bound, far < -bound):
            count = int(side.count_nonzero())
            p = float(norm.sf(bound))
            both = 2 * min(binom.cdf(count, n, p), binom.sf(count - 1, n, p))
            tails.append(deviate(float(both)))
    counts = torch.histc(torch.special.ndtr(flat.float()), _BINS, 0.0, 1.0).double()
    surplus = float(((counts - n / _BINS) ** 2).sum() / (n / _BINS))
    return torch.tensor([*tails, deviate(float(chi2.sf(surplus, _BINS - 1)))], dtype=torch.float64)


def independence(z: Tensor) -> Tensor:
    """Of samples `[B, D]`: the largest mean of a sample and of a position, and the largest correlation of two positions and of two samples."""
    samples = z.flatten(1).double()
    rows, columns = samples.shape
    first = samples[:, :_PAIRS]
    between = (first.T @ first / math.sqrt(rows))[_above(first.shape[1])]
    some = samples[:_PAIRS]
    across = (some @ some.T / math.sqrt(columns))[_above(len(some))]
    found = [samples.mean(1) * math.sqrt(columns), samples.mean(0) * math.sqrt(rows)]
    pairs = [v for v in (between, across) if v.numel()]
    return torch.tensor([largest(v) for v in (*found, *pairs)], dtype=torch.float64)


def _above(size: int) -> tuple[Tensor, Tensor]:
    """Indices above the diagonal."""
    rows, columns = torch.triu_indices(size, size, offset=1)
    return rows, columns


def normality(blocks: Sequence[Tensor]) -> Tensor:
    """All of the above, of samples `[B, D]` drawn in blocks; and the correlation of each block with the one before it, place by place."""
    z = torch.cat([block.double().flatten() for block in blocks])
    neighbours = [
        (one * other).double().mean() * math.sqrt(one.numel()) for one, other in pairwise(blocks)
    ]
    pairs = torch.tensor([largest(torch.stack(neighbours))]) if neighbours else torch.zeros(1)
    return torch.cat([standard_scores(z, []), _shape_scores(z), independence(blocks[0]), pairs])


def as_many_as_are_cheap(draw: Callable[[int], Tensor], enough: int = _ENOUGH) -> list[Tensor]:
    """Blocks 0, 1, …, until there are so many numbers, 10⁷, or a second and a half has gone; at least two."""
    begun, blocks = time.perf_counter(), [draw(0), draw(1)]
    while time.perf_counter() - begun < _PATIENCE and sum(b.numel() for b in blocks) < enough:
        blocks.append(draw(len(blocks)))
    return blocks
