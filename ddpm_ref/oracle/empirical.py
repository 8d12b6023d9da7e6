r"""A finite data set as the distribution: the denoiser that a network of unlimited capacity would learn from it.

x_0 uniform on x^1 … x^N makes x_t a mixture of N Gaussians around √ᾱ x^i, and

    E[x_0 | x_t] = Σ_i r_i x^i,        r_i ∝ exp(−‖x_t − √ᾱ x^i‖²/(2(1−ᾱ))).                                 (1)

At low noise the nearest example takes all the weight: the optimum *memorizes*, which is the reason why no network should reach it.
E[ε | x_t] = (x_t − √ᾱ E[x_0 | x_t])/√(1−ᾱ).

**Numerics.** The exponents are formed from differences x_t − √ᾱ x^i: a matrix product x_t · x^i would be faster, but at low noise
‖x‖²/(1−ᾱ) cancels in it, and with it the few nats that decide between two examples near x_t.

**Memory.** The sum over the data runs in blocks with a running maximum m of the exponents: numerator and denominator are scaled by
e^{old m − new m} when a block raises it. A block has as many examples as keep its B × n × D differences bounded, at least one.
"""

import torch
from torch import Tensor

from ddpm_ref.oracle.base import Oracle, check_examples

_DIFFERENCES = 262144  # in one block: 2 MiB, which caches hold


class EmpiricalOracle(Oracle):
    """x0 uniform on the rows of `data` `[N, *dims]`, N ≥ 1.

    Raises:
        ValueError: no data, or values that are not finite.
        TypeError: integer data.
    """

    def __init__(self, data: Tensor) -> None:
        check_examples(data)
        self.dims = data.shape[1:]
        self.data = self._flat(data.detach()).clone()

    def conditional_means(
        self, x_t: Tensor, signal: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x0 | x_t], E[eps | x_t]); eq. (1)."""
        top = x_t.new_full((len(x_t), 1), -torch.inf)
        weighted, mass = torch.zeros_like(x_t), torch.zeros_like(top)
        rows = max(1, _DIFFERENCES // max(1, x_t.numel()))
        for start in range(0, len(self.data), rows):
            block = self.data[start : start + rows].to(x_t.device)
            exponent = _exponents(x_t, signal, sigma, block)
            new_top = torch.maximum(top, exponent.amax(dim=1, keepdim=True))
            rescale, share = (top - new_top).exp(), (exponent - new_top).exp()
            weighted = rescale * weighted + share @ block
            mass = rescale * mass + share.sum(dim=1, keepdim=True)
            top = new_top
        x0 = weighted / mass
        return x0, (x_t - signal * x0) / sigma


def _exponents(x_t: Tensor, signal: Tensor, sigma: Tensor, block: Tensor) -> Tensor:
    """−‖x_t − √ᾱ x^i‖²/(2(1−ᾱ)) `[B, n]`."""
    gaps = x_t[:, None] - signal[:, :, None] * block
    return -0.5 * gaps.square().sum(dim=2) / sigma**2
