r"""Which (example, step, noise) to evaluate: Neyman allocation over t, low-discrepancy points, noise in Latin sets.

**Allocation.** If t is drawn with probability q(t) and f − ĥ is weighted by 1/q, the variance is least for q(t) ∝ the standard
deviation of f − ĥ at t (Neyman 1934, for strata that shrink to single steps). The pilot estimates it in strata of equal mass under the
rough profile q_0; a share of q_0 itself keeps every weight bounded.

**Points.** Every example receives two independent replicates of K points. Within a replicate the points are systematic in the CDF of q,

    u_j = (j + U)/K,       j = 0 … K−1,      t_j = min{t : CDF(t) > u_j},                                     (1)

so that they stratify t into K strata of equal probability; each t_j has the distribution q on average over j. Between examples the
offsets U = (i/m + V) mod 1 form a lattice, for the examples come in random order: (t, example) fills the square evenly. Examples with
another K have a lattice of their own. The shift V is uniform and each replicate's own, so that the two replicates of one example are
independent.

**Noise.** The K points share Latin sets of noise (`latin`). In units of q the residual hardly changes from one t to the next as a function
of ε, so what is even and odd in each coordinate cancels across the points; unlike an antithetic pair at one t, no evaluation is spent on
a t already visited.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.latin import set_sizes
from ddpm_ref.noise import NoiseStream, Use

_STRATA = 16
_INSURANCE = 0.1


@dataclass(frozen=True, eq=False)
class Points:
    """Evaluations to make, one per row.

    Attributes:
        example: position among the chosen examples, int64 `[n]`, ascending.
        t: steps, int64 `[n]`.
        weight: 1/(K q(t)), float64 `[n]`.
        noise: serial number of the row's Latin set of noise, int64 `[n]`, ascending without gaps from 0.
        sizes: rows of each set, int64 `[sets]`.
    """

    example: Tensor
    t: Tensor
    weight: Tensor
    noise: Tensor
    sizes: Tensor


def place(u: Tensor, q: Tensor) -> Tensor:
    """t in 1 … T with CDF(t−1) ≤ u < CDF(t): inversion of the distribution q `[T]`."""
    cdf = q.cumsum(0)
    return torch.searchsorted(cdf / cdf[-1], u, right=True).clamp(max=len(q) - 1) + 1


def pilot_points(count: int, examples: int, q: Tensor, stream: NoiseStream) -> Points:
    """`count` systematic points in t, dealt to the examples in random order."""
    jitter = uniform(stream, count, Use.PILOT, step=0)
    t = place((torch.arange(count) + jitter) / count, q)
    order = torch.argsort(uniform(stream, count, Use.PILOT, step=1), stable=True)
    serial = torch.arange(count)
    return Points(
        example=serial % examples,
        t=t[order],
        weight=1 / (count * q[t[order] - 1]),
        noise=serial,
        sizes=torch.ones_like(serial),
    )


def replicate_points(counts: Tensor, q: Tensor, stream: NoiseStream, replicate: int) -> Points:
    """K = counts[i] points (1) for every example i, `counts` int64 `[m]`, equal counts side by side."""
    shift = uniform(stream, 1, Use.TIMESTEP, step=replicate)
    offset = torch.remainder(lattice(counts) + shift, 1.0)
    example = torch.repeat_interleave(torch.arange(len(counts)), counts)
    j = torch.arange(len(example)) - (counts.cumsum(0) - counts)[example]
    t = place((j + offset[example]) / counts[example], q)
    sizes = set_sizes(counts)
    return Points(
        example=example,
        t=t,
        weight=1 / (counts[example] * q[t - 1]),
        noise=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        sizes=sizes,
    )


def lattice(counts: Tensor) -> Tensor:
    """i/m for the m examples of each count by themselves: what K points miss in common cancels over their own lattice only."""
    _, size = torch.unique_consecutive(counts, return_counts=True)
    place_in_run = torch.cat(
        [torch.arange(many, dtype=torch.float64) / many for many in size.tolist()]
    )
    return place_in_run


def neyman(residual: Tensor, t: Tensor, profile: Tensor) -> Tensor:
    """q(t) ∝ q_0(t)·(root mean square of residual/q_0 in the stratum of t), with a share of q_0; `[T]`.

    Args:
        residual: (f − ĥ)/q_0 of the pilot, `[n]`.
        t: its steps, `[n]`.
        profile: q_0 `[T]`.
    """
    position = profile.cumsum(0) - 0.5 * profile
    stratum = (position * _STRATA).long().clamp(max=_STRATA - 1)
    stratum[0] = _STRATA  # the decoder's step is its own stratum
    square = torch.zeros(_STRATA + 1, dtype=torch.float64)
    count = torch.zeros_like(square)
    square.index_add_(0, stratum[t - 1], residual.square())
    count.index_add_(0, stratum[t - 1], torch.ones_like(residual))
    typical = residual.square().mean()
    deviation = ((square + typical) / (count + 1)).sqrt()  # one pseudo-observation each
    allocation = profile * deviation[stratum]
    if not bool(allocation.sum() > 0):
        return profile
    return (1 - _INSURANCE) * allocation / allocation.sum() + _INSURANCE * profile


def uniform(stream: NoiseStream, count: int, use: Use, step: int) -> Tensor:
    """`count` uniforms on (0, 1), float64."""
    return stream.uniform((1, count), use=use, step=step, dtype=torch.float64)[0]
