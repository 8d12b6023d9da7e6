r"""A mixture of Gaussians with full covariances: several modes, and still an exact denoiser.

x_0 ~ Σ_k w_k N(m_k, Σ_k). Noise keeps each component Gaussian, x_t | k ~ N(√ᾱ m_k, C_k) with C_k = ᾱ Σ_k + (1−ᾱ) I, so that given x_t

    r_k ∝ w_k N(x_t; √ᾱ m_k, C_k),                                                                        (1)
    E[x_0 | x_t] = Σ_k r_k E[x_0 | x_t, k],        E[ε | x_t] = Σ_k r_k E[ε | x_t, k],                          (2)

with the conditional means of `GaussianOracle` inside. The responsibilities r_k are a softmax of log-densities.

**In one dimension** the least error is an integral,

    mmse(γ) = E Var[x_0 | x_t],     Var[x_0 | x_t] = Σ_k r_k (v_k + (x̂_k − x̂)²),     v_k = s_k (1−ᾱ)/c_k,          (3)

taken by adaptive quadrature, for all steps at once, over the standardized x_t of each component. `expected_terms` turns
it into the bound.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm_ref.oracle.base import Oracle, eigensystem, parameter
from ddpm_ref.oracle.expected import expected_terms
from ddpm_ref.reverse import Variance
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.terms import ElboTerms

_LOG_2PI = math.log(2 * math.pi)


class MixtureOracle(Oracle):
    """x0 ~ Σ_k weights[k] N(means[k], covariances[k]).

    Args:
        weights: `[K]`, positive, summing to 1 within 1e-6 (then normalized exactly).
        means: `[K, *dims]`.
        covariances: `[K, D, D]`, symmetric, no negative eigenvalue.

    All three are real numbers of any dtype, used in float64.

    Raises:
        ValueError: shapes that do not match, values that are not finite, or weights that are no probabilities.
        TypeError: not real numbers.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        weights, means = parameter(weights, "weights"), parameter(means, "means")
        if means.ndim == 0 or not isinstance(covariances, Tensor | Sequence):
            raise TypeError(
                f"means have shape {list(means.shape)}, covariances are a {type(covariances).__name__}: pass [K, *dims] and "
                "[K, D, D], one row for each component"
            )
        if isinstance(covariances, Tensor) and covariances.ndim == 0:
            raise ValueError("covariances have shape []: pass [K, D, D], one for each component")
        count = len(means)
        if weights.shape != (count,) or len(covariances) != count:
            raise ValueError(
                f"weights {list(weights.shape)}, means {list(means.shape)}, {len(covariances)} covariances: "
                "all three must count the same components"
            )
        total = weights.sum().item()
        if abs(total - 1) > 1e-6 or weights.min().item() <= 0:
            raise ValueError(
                f"weights sum to {total:.9g} with minimum {weights.min().item():.3g}; "
                "probabilities are positive and sum to 1: pass weights / weights.sum()"
            )
        self.dims = means.shape[1:]
        self.weights = weights / total
        self.means = means.reshape(count, -1).clone()
        systems = [
            eigensystem(matrix, self.size, f"covariances_{k}")
            for k, matrix in enumerate(covariances)
        ]
        self.spectra = torch.stack([values for values, _ in systems])
        self.bases = torch.stack([vectors for _, vectors in systems])

    def conditional_means(
        self, x_t: Tensor, signal: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x0 | x_t], E[eps | x_t]); eq. (2)."""
        means, spectra, bases = (
            table.to(x_t.device) for table in (self.means, self.spectra, self.bases)
        )
        noisy = signal[:, :, None] ** 2 * spectra + sigma[:, :, None] ** 2  # [B, K, D]
        y = torch.einsum("bkd,kde->bke", x_t[:, None] - signal[:, :, None] * means, bases)
        share = self._responsibilities(y, noisy)[:, :, None]
        y = y / noisy
        x0 = means + torch.einsum("bke,kde->bkd", signal[:, :, None] * spectra * y, bases)
        eps = torch.einsum("bke,kde->bkd", sigma[:, :, None] * y, bases)
        return (share * x0).sum(dim=1), (share * eps).sum(dim=1)

    def _responsibilities(self, y: Tensor, variance: Tensor) -> Tensor:
        """r_k `[B, K]` from centred coordinates and their variances `[B, K, D]`; eq. (1)."""
        log_density = -0.5 * (y**2 / variance + variance.log()).sum(dim=-1)
        return torch.softmax(self.weights.log().to(y.device) + log_density, dim=1)

    def log_prob(self, x0: Tensor) -> Tensor:
        """ln Σ_k w_k N(x0; m_k, Σ_k), float64 `[B]` nats.

        Raises:
            ValueError: x0 not finite or of other dims, or a covariance is singular.
        """
        rows = self._checked_data(x0)
        spectra = self.spectra.to(rows.device)
        if spectra.min().item() <= 0:
            raise ValueError(
                "a covariance has the eigenvalue 0: there is no density; add a multiple of the identity"
            )
        gaps = rows[:, None] - self.means.to(rows.device)
        y = torch.einsum("bkd,kde->bke", gaps, self.bases.to(rows.device))
        log_density = -0.5 * (y**2 / spectra + spectra.log() + _LOG_2PI).sum(dim=-1)
        return torch.logsumexp(self.weights.log().to(rows.device) + log_density, dim=1)

    def entropy(self) -> Tensor:
        """−E ln p, float64 scalar, nats, by quadrature; one dimension only."""
        self._require_line("entropy")

        def integrand(z: float) -> Tensor:
            x0 = self.means + z * self.spectra.sqrt()
            return -_normal(z) * (self.weights @ self.log_prob(x0.view(-1, *self.dims)))[None]

        return _integrate(integrand)[0]

    def mmse(self, log_snr: Tensor) -> Tensor:
        """Least expected (x0 − x̂0)² at γ = e^λ, in the shape of `log_snr`; eq. (3), one dimension only."""
        self._require_line("mmse")
        given = torch.as_tensor(log_snr, dtype=torch.float64)
        flat = given.reshape(-1)
        signal, sigma = torch.sigmoid(flat).sqrt(), torch.sigmoid(-flat).sqrt()
        noisy = signal[:, None] ** 2 * self.spectra[:, 0] + sigma[:, None] ** 2  # [n, K]

        def integrand(z: float) -> Tensor:
            x_t = (
                signal[:, None] * self.means[:, 0] + z * noisy.sqrt()
            )  # [n, K]: x_t of each component
            return _normal(z) * (self._variance(x_t, signal, sigma, noisy) @ self.weights)

        return _integrate(integrand).view(given.shape)

    def _variance(self, x_t: Tensor, signal: Tensor, sigma: Tensor, noisy: Tensor) -> Tensor:
        """Var[x0 | x_t] `[n, J]` for x_t `[n, J]`, one level of noise a row; eq. (3)."""
        means, spectra = self.means[:, 0], self.spectra[:, 0]
        y = x_t[:, :, None] - signal[:, None, None] * means  # [n, J, K]
        c = noisy[:, None, :]
        logits = self.weights.log() - 0.5 * (y**2 / c + c.log())
        share = torch.softmax(logits, dim=-1)
        each = means + signal[:, None, None] * spectra / c * y
        centre = (share * each).sum(dim=-1, keepdim=True)
        within = spectra * sigma[:, None, None] ** 2 / c
        return (share * (within + (each - centre) ** 2)).sum(dim=-1)

    def expected_elbo(self, schedule: Schedule, variance: Variance = "posterior") -> ElboTerms:
        """The bound of the exact denoiser in expectation over data and noise (B = 1); one dimension only.

        `decoder="gaussian"`; the squared error comes from `mmse`, by quadrature to about 1e-12.
        """
        check_schedule(schedule)
        energy = self.weights @ (self.spectra[:, 0] + self.means[:, 0] ** 2)
        error = self.mmse(schedule.log_snr[1:])
        return expected_terms(error[None], energy[None], 1, schedule, variance)

    def _require_line(self, what: str) -> None:
        if self.size != 1:
            raise ValueError(
                f"{what} of a mixture has a closed form in no dimension, and by quadrature only in one, not {self.size}: "
                "average log_prob or elbo over samples instead"
            )


def _normal(z: float) -> float:
    return math.exp(-0.5 * z * z - 0.5 * _LOG_2PI)


def _integrate(integrand: Callable[[float], Tensor]) -> Tensor:
    """∫ integrand(z) dz over the line, for an integrand that a normal density weighs (nothing is left beyond ±13)."""
    from scipy.integrate import quad_vec

    value, _ = quad_vec(
        lambda z: integrand(z).numpy(), -13.0, 13.0, epsabs=1e-14, epsrel=1e-12, norm="max"
    )
    return torch.as_tensor(value, dtype=torch.float64)
