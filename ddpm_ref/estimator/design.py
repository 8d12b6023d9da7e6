r"""Which (example, step, noise) to evaluate: Neyman allocation over t, low-discrepancy points, alternating noise.

**Allocation.** If t is drawn with probability q(t) and f − ĥ is weighted by 1/q, the variance is least for q(t) ∝ the standard
deviation of f − ĥ at t (Neyman 1934, for strata that shrink to single steps). The pilot estimates it in strata of equal mass under the
rough profile q_0; a share of q_0 itself keeps every weight bounded.

**Points.** Every example receives two independent replicates of K points. Within a replicate the points are systematic in the CDF of q,

    u_j = (j + U)/K,       j = 0 … K−1,      t_j = min{t : CDF(t) > u_j},                                     (1)

so that they stratify t into K strata of equal probability; each t_j has the distribution q on average over j. Between examples the
offsets U form a shifted lattice in random order: (t, example) fills the square evenly, and each U alone is uniform.

**Noise.** Points 2j and 2j + 1 share one draw with opposite signs. The part of the residual that is odd in ε varies slowly with t in
units of q, and cancels between neighbours; unlike an antithetic pair at one t, no evaluation is spent on a t already visited.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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
        noise: index of the noise draw, int64 `[n]`, ascending without gaps from 0.
        sign: ±1, float64 `[n]`.
    """

    example: Tensor
    t: Tensor
    weight: Tensor
    noise: Tensor
    sign: Tensor


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
        sign=torch.ones(count, dtype=torch.float64),
    )


def replicate_points(counts: Tensor, q: Tensor, stream: NoiseStream, replicate: int) -> Points:
    """K = counts[i] points (1) for every example i, `counts` int64 `[m]`."""
    many = len(counts)
    rank = torch.argsort(uniform(stream, many, Use.ORDER, step=1 + replicate), stable=True)
    shift = uniform(stream, 1, Use.TIMESTEP, step=replicate)
    offset = torch.remainder(rank / many + shift, 1.0)
    example = torch.repeat_interleave(torch.arange(many), counts)
    j = torch.arange(len(example)) - (counts.cumsum(0) - counts)[example]
    t = place((j + offset[example]) / counts[example], q)
    draws = (counts + 1) // 2
    return Points(
        example=example,
        t=t,
        weight=1 / (counts[example] * q[t - 1]),
        noise=(draws.cumsum(0) - draws)[example] + j // 2,
        sign=1.0 - 2.0 * (j % 2).double(),
    )


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
