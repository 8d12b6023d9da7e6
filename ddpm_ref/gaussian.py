r"""Gaussians with diagonal covariance: KL divergence, log-density, and the discretized likelihood.

**KL.** For scalar Gaussians, elementwise and in nats,

    KL(N(m₁, e^{l₁}) ‖ N(m₂, e^{l₂})) = ½ [e^{d} − 1 − d + (m₁ − m₂)² e^{−l₂}],      d = l₁ − l₂.          (1)

The first three terms cancel to d²/2 when the variances nearly agree, which is the usual case along a diffusion: `expm1_minus`
sums their Taylor series there, so that a KL of 1e-20 nats is as accurate as one of 1 nat, and never negative.

**Decoder** (Ho et al. 2020, eq. 13). An image holds levels k = 0 … n−1, placed at c_k = 2k/(n−1) − 1. A Gaussian assigns to level k
the mass of the bin of width 2/(n−1) around c_k; the two outermost bins are open, so that the masses sum to one:

    P(k) = Φ((c_k + h − m)/σ) − Φ((c_k − h − m)/σ),      h = 1/(n−1).                                      (2)

Φ is the exact normal CDF (a tanh approximation is 2.6 bits off at 5σ). With both bounds reflected to the left tail, where
ln Φ is accurate, and a < b,

    ln[Φ(b) − Φ(a)] = ln Φ(b) + ln(1 − e^{−g}),           g = ln Φ(b) − ln Φ(a) > 0.                        (3)

For bins much narrower than σ, g itself cancels; there the midpoint m = (a+b)/2 and the width w = b − a give

    ln[Φ(b) − Φ(a)] = ln φ(m) + ln w + w²(m² − 1)/24 + O(w⁴(1 + m⁴)).                                      (4)

In the tail ln Φ(x) = ln erfcx(−x/√2) − ln 2 − x²/2, with the scaled complementary error function, so that

    −g = ln erfcx(−a/√2) − ln erfcx(−b/√2) + w(a+b)/2,                                                      (5)

and neither g nor its gradient loses digits however far away the bin is. Where g is large, the bin holds nearly
everything, and log1p(−e^{−g}) keeps what it lacks; g is never below 5e-4, so that it costs no more than three digits elsewhere.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.validation import check_broadcastable, check_floating, check_has_values, shown

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_NARROW = 1e-3
_SNAP = 1e-3
_LEAST_LOG_SCALE = -700.0
_MOST_LEVELS = 1 << 24


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, exp(log_var)), elementwise independent.

    Attributes:
        mean: any shape.
        log_var: ln of the variance, in the shape of `mean`; −inf is a point mass.
    """

    mean: Tensor
    log_var: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """ln N(x; mean, e^{log_var}), elementwise, nats: −½[ln 2π + log_var + (x − mean)² e^{−log_var}].

        Computed in float32 or wider and rounded once. A point mass has +∞ at its mean and −∞ elsewhere.

        Args:
            x: floating point, broadcast against `mean`.

        Raises:
            ValueError: shapes that do not broadcast, or devices that differ.
            TypeError: x is not floating point.
        """
        check_floating(x=x, mean=self.mean, log_var=self.log_var)
        check_broadcastable(x=x, mean=self.mean, log_var=self.log_var)
        dtype = common_dtype(x, self.mean, self.log_var)
        x, mean, log_var = (part.to(_wide(dtype)) for part in (x, self.mean, self.log_var))
        gap = x - mean
        distance = torch.where(gap == 0, 0.0, (gap * torch.exp(-0.5 * log_var)) ** 2)
        value = -_HALF_LOG_2PI - 0.5 * (log_var + distance)
        off_the_point = (log_var == -math.inf) & (gap != 0)
        return torch.where(off_the_point, -math.inf, value).to(dtype)


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest dtype among them."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """In which to compute: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)


def expm1_minus(x: Tensor) -> Tensor:
    """e^x − 1 − x ≥ 0 without cancellation: its Taylor series Σ x^k/k!, k ≥ 2, for |x| < ½; +∞ at ±∞."""
    small = x.abs() < 0.5
    near = torch.where(small, x, torch.zeros_like(x))
    series = torch.zeros_like(x)
    for k in range(17, 1, -1):  # 0.5^18/18! < 1e-21 of the leading term
        series = series * near + 1.0 / math.factorial(k)
    far = torch.where(small, torch.ones_like(x), x)
    linear = far.clamp(max=torch.finfo(x.dtype).max)  # e^∞ − ∞ would be NaN
    return torch.where(small, series * near * near, torch.expm1(far) - linear)


def gaussian_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, e^{log_var1}) ‖ N(mean2, e^{log_var2})), elementwise, nats; eq. (1).

    Shapes broadcast; computed in float32 or wider and rounded once to the inputs' common dtype. Point masses (both log-variances −inf) have KL 0 if their means agree, else +inf; a point mass against a
    proper Gaussian has +inf on either side.

    Args:
        mean1: mean of the first Gaussian.
        log_var1: ln of its variance.
        mean2: mean of the second Gaussian.
        log_var2: ln of its variance.

    Raises:
        ValueError: shapes that do not broadcast, or devices that differ.
        TypeError: an argument that is not floating point.
    """
    check_floating(mean1=mean1, log_var1=log_var1, mean2=mean2, log_var2=log_var2)
    check_broadcastable(mean1=mean1, log_var1=log_var1, mean2=mean2, log_var2=log_var2)
    dtype = common_dtype(mean1, log_var1, mean2, log_var2)
    mean1, log_var1, mean2, log_var2 = (
        part.to(_wide(dtype)) for part in torch.broadcast_tensors(mean1, log_var1, mean2, log_var2)
    )
    same = log_var1 == log_var2  # also where both are −inf, whose difference is NaN
    zero = torch.zeros_like(log_var1)
    ratio = torch.where(same, zero, log_var1) - torch.where(same, zero, log_var2)
    gap = mean1 - mean2
    distance = torch.where(gap == 0, zero, (gap * torch.exp(-0.5 * log_var2)) ** 2)
    return (0.5 * (expm1_minus(ratio) + distance)).to(dtype)


def discretized_gaussian_log_likelihood(
    x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
) -> Tensor:
    """ln of the probability that N(mean, σ²) falls into the bin of x, elementwise, nats; eq. (2).

    Computed in float64 whatever the inputs' dtype, and returned in the inputs' common dtype.

    Args:
        x: values on the lattice of `levels` grey levels on [−1, 1]; those within 1e-3 of a level are snapped to it.
        mean: mean of the Gaussian, broadcast against x.
        log_scale: ln σ, broadcast against x; below −700, where 1/σ nears the end of float64, as −700.
        levels: number of grey levels, 2 … 2²⁴ (256 for 8-bit images, 17 for digits).

    Raises:
        ValueError: x off the lattice (rescale it, or use the Gaussian decoder for continuous data), or levels outside 2 … 2²⁴.
        TypeError: an argument that is not floating point, or levels that are not an int.
    """
    check_floating(x=x, mean=mean, log_scale=log_scale)
    check_broadcastable(x=x, mean=mean, log_scale=log_scale)
    dtype = common_dtype(x, mean, log_scale)
    index = lattice_index(x, levels)
    half = 1.0 / (levels - 1)
    offset = (index * (2 * half) - 1) - mean.double()
    precision = torch.exp(-log_scale.double().clamp(min=_LEAST_LOG_SCALE))
    index, offset, precision = torch.broadcast_tensors(index, offset, precision)
    inner = _log_bin_mass(offset * precision, 2 * half * precision)
    lower = log_ndtr((offset + half) * precision)
    upper = log_ndtr((half - offset) * precision)
    result = torch.where(index == 0, lower, torch.where(index == levels - 1, upper, inner))
    return result.to(dtype)


def lattice_index(x: Tensor, levels: int) -> Tensor:
    """The level k of every value of x on the lattice c_k = 2k/(n−1) − 1, float64 in the shape of x.

    Raises:
        ValueError: a value is further than 1e-3 from every level, or levels outside 2 … 2²⁴.
        TypeError: levels is no int.
    """
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise TypeError(
            f"levels = {levels!r} is a {type(levels).__name__}; pass the number of grey levels as an int"
        )
    if levels < 2:
        raise ValueError(
            f"levels = {shown(levels)}; a lattice has at least 2 grey levels: 256 for 8-bit images"
        )
    if levels > _MOST_LEVELS:
        raise ValueError(
            f"levels = {shown(levels)}; float32 images tell at most {_MOST_LEVELS} levels apart: pass 256 for 8-bit images, "
            "or decoder='gaussian' for continuous data"
        )
    check_has_values("x", x)
    position = (x.detach().double() + 1) * (0.5 * (levels - 1))
    index = position.round().clamp(0, levels - 1)
    off = ~((position - index).abs() * (2.0 / (levels - 1)) <= _SNAP)  # so that NaN is off
    if bool(off.any()):
        value = x[off][0].item()
        raise ValueError(
            f"x = {value} is not on the lattice of {levels} levels on [-1, 1] (spacing {2 / (levels - 1):.6g}, "
            f"tolerance {_SNAP}): scale images by x / {(levels - 1) / 2:g} - 1, pass the data set's own levels, "
            "or use decoder='gaussian' for continuous data"
        )
    return index


def _log_bin_mass(centre: Tensor, width: Tensor) -> Tensor:
    """ln[Φ(c + w/2) − Φ(c − w/2)] for standardized centre c and width w > 0; eqs. (3), (4)."""
    left = -centre.abs()
    narrow = width * (1 + centre.abs()) < _NARROW
    safe_width = torch.where(narrow, torch.ones_like(width), width)
    lost = torch.exp(_log_tail_ratio(left, safe_width))  # e^{−g}
    by_difference = log_ndtr(left + 0.5 * safe_width) + torch.log1p(-lost)
    thin = torch.where(narrow, width, torch.ones_like(width))
    thin_centre = torch.where(narrow, centre, torch.zeros_like(centre))
    squared = thin_centre**2
    by_midpoint = -_HALF_LOG_2PI - 0.5 * squared + torch.log(thin) + thin**2 * (squared - 1) / 24
    return torch.where(narrow, by_midpoint, by_difference)


def _log_tail_ratio(centre: Tensor, width: Tensor) -> Tensor:
    """−g = ln Φ(c − w/2) − ln Φ(c + w/2) for c ≤ 0; in the tail by eq. (5), where the squares cancel exactly."""
    low, high = centre - 0.5 * width, centre + 0.5 * width
    tail = high < -1
    inside = torch.where(tail, torch.full_like(low, -2.0), low)
    near = log_ndtr(inside) - log_ndtr(torch.where(tail, -torch.ones_like(high), high))
    deep_low = torch.where(tail, low, torch.full_like(low, -2.0))
    deep_high = torch.where(tail, high, -torch.ones_like(high))
    far = _log_erfcx(deep_low) - _log_erfcx(deep_high) + width * torch.where(tail, centre, -1.0)
    return torch.where(tail, far, near)


def log_ndtr(x: Tensor) -> Tensor:
    """Ln Φ(x), float64, with a gradient that is right in the tails; eq. (5).

    torch's own gradient is exp(−x²/2 − ln Φ), whose exponent cancels: 1 % off at 1e7σ, meaningless at 1e9σ.
    """
    tail = x < -1
    deep = torch.where(tail, x, torch.full_like(x, -2.0))
    rest = torch.where(tail, torch.zeros_like(x), x)
    in_tail = _log_erfcx(deep) - math.log(2) - 0.5 * deep**2
    return torch.where(tail, in_tail, torch.log1p(-0.5 * torch.special.erfc(rest / math.sqrt(2))))


def _log_erfcx(x: Tensor) -> Tensor:
    return torch.log(torch.special.erfcx(x * -math.sqrt(0.5)))
