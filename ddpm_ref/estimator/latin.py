r"""Noise in Latin sets: every coordinate of a set of S draws fills the normal distribution evenly.

What remains of a term after the control variates is mostly a sum over pixels, Σ_d h_d(ε_d), with functions h_d that belong to the
example and change slowly with t: a denoiser errs at each pixel by its own noise and brightness. Among S independent draws such a sum
varies as much as anything else. In a Latin set (McKay, Beckman & Conover 1979) it hardly varies at all: with π_d a random permutation
of 0 … S−1, U uniform and s_d = ±1, each for its coordinate d alone,

    |ε_jd| = Φ₊⁻¹((π_d(j) + U_jd)/S),      sign ε_jd = s_d (−1)^{π_d(j)},      Φ₊⁻¹(p) = √2 erf⁻¹(p).            (1)

The magnitudes are stratified, which settles the even part of h_d, and neighbours in magnitude have opposite signs, which settles the odd
part: S = 2 is an antithetic pair that is antithetic in magnitude too. **Each draw of a set is N(0, I) exactly**: π_d(j) is uniform, so
|ε_jd| is half-normal; s_d is a fair coin; the coordinates are independent. Only draws of one set depend on each other, so that a mean over
sets is unbiased and the set, not the draw, is the observation.
"""

import math

import torch
from torch import Tensor

from ddpm_ref.noise import NoiseStream, Use

LARGEST = 32


def set_sizes(counts: Tensor) -> Tensor:
    """Sizes of the sets that hold counts[i] draws of example i: as few sets of at most 32 as do, as even as can be.

    Args:
        counts: draws of each example, int64 `[m]`, at least 1.

    Returns:
        int64 `[sets]`, the sets of one example after those of another.
    """
    sets = (counts + LARGEST - 1) // LARGEST
    owner = torch.repeat_interleave(torch.arange(len(counts)), sets)
    number = torch.arange(len(owner)) - (sets.cumsum(0) - sets)[owner]
    return counts[owner] // sets[owner] + (number < counts[owner] % sets[owner])


def latin_normal(
    stream: NoiseStream,
    sizes: Tensor,
    dims: tuple[int, ...],
    *,
    use: Use,
    step: int,
    first_set: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Eq. (1) for consecutive sets: standard normals, float64 `[sum of sizes, *dims]`.

    Args:
        stream: where π, U and s come from.
        sizes: S of each set, int64 `[sets]`, 1 … 32.
        dims: shape of one draw.
        use: counters of the stream.
        step: first of the three steps of the stream that are used.
        first_set: serial number of the first set: what a set holds depends on it, not on the sets beside it.
        device: where the result lives.
    """
    sets, largest, sizes = len(sizes), int(sizes.max()), sizes.to(device)
    slot = torch.arange(largest, device=device)
    inside = slot < sizes[:, None]
    wide = inside.view(sets, largest, *(1,) * len(dims))

    def draw(offset: int, slots: int) -> Tensor:
        return stream.uniform(
            (sets, slots, *dims),
            use=use,
            step=step + offset,
            first_index=first_set,
            device=device,
            dtype=torch.float64,
        )

    order, jitter, coin = draw(0, largest), draw(1, largest), draw(2, 1)
    rank = order.masked_fill(~wide, 2.0).argsort(dim=1).argsort(dim=1)
    count = sizes.view(sets, *(1,) * (1 + len(dims)))
    magnitude = math.sqrt(2) * torch.special.erfinv((rank + jitter) / count)
    sign = torch.where((coin < 0.5) ^ (rank % 2 == 1), -1.0, 1.0)
    noise: Tensor = (sign * magnitude)[inside]
    return noise
