r"""A finite data set as the distribution: the denoiser that a network of unlimited capacity would learn from it.

x_0 uniform on x^1 … x^N makes x_t a mixture of N Gaussians around √ᾱ x^i, and

    E[x_0 | x_t] = Σ_i r_i x^i,        r_i ∝ exp(−‖x_t − √ᾱ x^i‖²/(2(1−ᾱ))).                                 (1)

At low noise the nearest example takes all the weight: the optimum *memorizes*, which is the reason why no network should reach it.
E[ε | x_t] = (x_t − √ᾱ E[x_0 | x_t])/√(1−ᾱ).

**Memory.** The sum over the data runs in blocks with a running maximum m of the exponents: numerator and denominator are scaled by
e^{old m − new m} when a block raises it. Nothing of size B × N × D, nor of size B × N for large N, is ever formed.
"""

import torch
from torch import Tensor

from ddpm_ref.oracle.base import Oracle, check_examples

_BLOCK = 4096


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
        for start in range(0, len(self.data), _BLOCK):
            block = self.data[start : start + _BLOCK].to(x_t.device)
            exponent = _exponents(x_t, signal, sigma, block)
            new_top = torch.maximum(top, exponent.amax(dim=1, keepdim=True))
            rescale, share = (top - new_top).exp(), (exponent - new_top).exp()
            weighted = rescale * weighted + share @ block
            mass = rescale * mass + share.sum(dim=1, keepdim=True)
            top = new_top
        x0 = weighted / mass
        return x0, (x_t - signal * x0) / sigma


def _exponents(x_t: Tensor, signal: Tensor, sigma: Tensor, block: Tensor) -> Tensor:
    """−‖x_t − √ᾱ x^i‖²/(2(1−ᾱ)) `[B, n]` without the term −‖x_t‖²/(2(1−ᾱ)), which all examples share."""
    cross = (signal * x_t) @ block.T - 0.5 * signal**2 * block.square().sum(dim=1)
    return cross / sigma**2
