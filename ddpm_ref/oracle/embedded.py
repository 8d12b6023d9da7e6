r"""A distribution on a plane of a larger space: the exact denoiser is the plane's own.

x_0 = o + P u with orthonormal columns P `[D, d]` and u of known distribution. With x_t = √ᾱ x_0 + √(1−ᾱ) ε split into the plane's
coordinates y and what is orthogonal to them,

    y = Pᵀ(x_t − √ᾱ o) = √ᾱ u + √(1−ᾱ) Pᵀε,        x_t − √ᾱ o − P y = √(1−ᾱ) (I − PPᵀ) ε,                       (1)

the second part is noise alone and independent of the first, Pᵀε is N(0, I_d), and so

    E[x_0 | x_t] = o + P E[u | y],        E[ε | x_t] = P E[Pᵀε | y] + (x_t − √ᾱ o − P y)/√(1−ᾱ).              (2)

There is no density in R^D unless d = D.
"""

import torch
from torch import Tensor

from ddpm_ref.oracle.base import Oracle, parameter

_ORTHONORMAL = 1e-9


class EmbeddedOracle(Oracle):
    """x0 = offset + embedding · u, u distributed as `inner`.

    Args:
        inner: the distribution of u, over vectors `[d]`.
        embedding: P `[D, d]`, orthonormal columns.
        offset: o `[D]`; None is 0.

    Raises:
        ValueError: columns that are not orthonormal, or shapes that do not match.
        TypeError: not real numbers, or no oracle.
    """

    def __init__(self, inner: Oracle, embedding: Tensor, offset: Tensor | None = None) -> None:
        if not isinstance(inner, Oracle):
            raise TypeError(
                f"inner is a {type(inner).__name__}; pass the oracle of u, MixtureOracle(…) for instance"
            )
        self.inner = inner
        self.embedding = parameter(embedding, "embedding")
        if self.embedding.ndim != 2 or self.embedding.shape[1] != inner.size:
            raise ValueError(
                f"embedding has shape {list(self.embedding.shape)}, expected [D, {inner.size}] for a distribution over "
                f"{inner.size} numbers"
            )
        gram = self.embedding.T @ self.embedding
        error = (gram - torch.eye(inner.size, dtype=torch.float64)).abs().max().item()
        if error > _ORTHONORMAL:
            raise ValueError(
                f"the columns of embedding are orthonormal up to {error:.3g} only: pass torch.linalg.qr(embedding).Q"
            )
        self.dims = self.embedding.shape[:1]
        zero = torch.zeros(self.size, dtype=torch.float64)
        self.offset = zero if offset is None else parameter(offset, "offset")
        if self.offset.shape != self.dims:
            raise ValueError(
                f"offset has shape {list(self.offset.shape)}, expected {list(self.dims)}: one number for each row of embedding"
            )

    def conditional_means(
        self, x_t: Tensor, signal: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x0 | x_t], E[eps | x_t]); eq. (2)."""
        plane, offset = self.embedding.to(x_t.device), self.offset.to(x_t.device)
        centred = x_t - signal * offset
        y = centred @ plane
        u, e = self.inner.conditional_means(y, signal, sigma)
        return offset + u @ plane.T, e @ plane.T + (centred - y @ plane.T) / sigma
