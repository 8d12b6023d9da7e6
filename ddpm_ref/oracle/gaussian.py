r"""Gaussian data: everything has a closed form.

Let x_0 ~ N(m, Σ) with Σ = U diag(s) Uᵀ. Along each eigenvector the problem is scalar; with z the coordinate of x_0 − m,
a = ᾱ_t, b = 1−ᾱ_t and c = a s + b the variance of the noisy coordinate y = √a z + √b ε,

    E[z | y] = k y,   k = √a s/c,        E[ε | y] = (√b/c) y,        Var[z | y] = s b/c.                       (1)

**The bound in expectation.** The error is z − k y = (b/c) z − k√b ε, so for given x_0, and on average over the data,

    E_ε(z − k y)² = (b/c)² z² + k² b,        E(z − k y)² = s b/c.                                             (2)

which `expected_terms` turns into the terms of the bound.                                                      (3)
For N(0, I) and σ_t² = β_t the chain is the exact reversal, and the bound equals the entropy at every T.

**The model's own density.** The reverse chain is linear and Gaussian: with x̂_0 from (1), p(x_{t−1} | x_t) has the mean
c_0 x̂_0 + c_t x_t, so each coordinate of x_{t−1} stays Gaussian; M ← A M + B, V ← A² V + σ_t² from M = 0, V = 1 at T,           (4)
A = c_0 k + c_t, B = c_0 (1 − k√a) m. The bound for one x_0 is never below −ln of that density at x_0.

**I-MMSE** (Guo, Shamai & Verdú 2005). At the signal-to-noise ratio γ the least error is mmse(γ) = Σ_d s/(1 + γ s).               (5)
"""

import math

import torch
from torch import Tensor

from ddpm_ref.oracle.base import Oracle, check_examples, eigensystem, parameter
from ddpm_ref.oracle.expected import expected_terms
from ddpm_ref.reverse import Variance, reverse_variance
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.terms import ElboTerms

_LOG_2PI = math.log(2 * math.pi)


class GaussianOracle(Oracle):
    """x0 ~ N(mean, covariance) over examples of any shape.

    Args:
        mean: `[*dims]`, finite; real numbers of any dtype, like the covariance, used in float64.
        covariance: `[D, D]` over the flattened dims, symmetric, no negative eigenvalue (0 is allowed: a flat direction).

    Raises:
        ValueError: not finite, wrong shape, not symmetric, or not a covariance.
        TypeError: not real numbers.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        mean = parameter(mean, "mean")
        self.dims = mean.shape
        self.mean = mean.reshape(-1).clone()
        self.spectrum, self.basis = eigensystem(covariance, self.size, "covariance")

    @classmethod
    def fit(cls, data: Tensor) -> "GaussianOracle":
        """The Gaussian with the mean and the (maximum likelihood) covariance of data `[N, *dims]`.

        Raises:
            ValueError: no data, or values that are not finite.
            TypeError: integer data.
        """
        check_examples(data)
        rows = data.double().reshape(len(data), -1)
        centred = rows - rows.mean(dim=0)
        return cls(data.double().mean(dim=0), centred.T @ centred / len(rows))

    def conditional_means(
        self, x_t: Tensor, signal: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x0 | x_t], E[eps | x_t]); eq. (1)."""
        mean, spectrum, basis = self._on(x_t.device)
        y = (x_t - signal * mean) @ basis
        y = y / (signal**2 * spectrum + sigma**2)
        return mean + (signal * spectrum * y) @ basis.T, (sigma * y) @ basis.T

    def log_prob(self, x0: Tensor) -> Tensor:
        """ln N(x0; mean, covariance), float64 `[B]` nats.

        Raises:
            ValueError: x0 not finite or of other dims, or the covariance is singular.
        """
        rows = self._checked_data(x0)
        mean, spectrum, basis = self._on(rows.device)
        if spectrum.min().item() <= 0:
            raise ValueError(
                "the covariance has the eigenvalue 0: there is no density; add a multiple of the identity"
            )
        z = (rows - mean) @ basis
        return -0.5 * (z**2 / spectrum + spectrum.log() + _LOG_2PI).sum(dim=1)

    def entropy(self) -> Tensor:
        """−E ln p = ½ Σ_d ln(2πe s_d), float64 scalar, nats; −inf for a singular covariance."""
        return 0.5 * (self.spectrum.log() + _LOG_2PI + 1).sum()

    def mmse(self, log_snr: Tensor) -> Tensor:
        """Least expected ‖x0 − x̂0‖² at signal-to-noise ratios γ = e^λ, in the shape of `log_snr`; eq. (5)."""
        gamma = torch.as_tensor(log_snr, dtype=torch.float64).exp()[..., None]
        return (self.spectrum / (1 + gamma * self.spectrum)).sum(dim=-1)

    def expected_elbo(
        self, schedule: Schedule, variance: Variance = "posterior", x0: Tensor | None = None
    ) -> ElboTerms:
        """The bound of the exact denoiser in expectation over noise, in closed form; eqs. (2), (3).

        Args:
            schedule: T steps.
            variance: `posterior`, `beta` or a `[T+1]` table, as in `elbo`.
            x0: examples `[B, *dims]`; None averages over the data distribution (B = 1).

        Returns:
            `ElboTerms` for `decoder="gaussian"`.
        """
        check_schedule(schedule)
        if x0 is None:
            squares, energy = self.spectrum[None], self.spectrum.sum() + self.mean.square().sum()
            energy = energy[None]
        else:
            rows = self._checked_data(x0).cpu()
            squares, energy = ((rows - self.mean) @ self.basis).square(), rows.square().sum(dim=1)
        return expected_terms(
            self._squared_error(schedule, squares), energy, self.size, schedule, variance
        )

    def _squared_error(self, schedule: Schedule, squares: Tensor) -> Tensor:
        """E‖x0 − x̂0‖² `[B, T]` for squared coordinates z² `[B, D]`; eq. (2)."""
        a, b = schedule.alpha_bar[1:, None], schedule.one_minus_alpha_bar[1:, None]
        c = a * self.spectrum + b
        return squares @ ((b / c) ** 2).T + (a * b * (self.spectrum / c) ** 2).sum(dim=1)

    def model_log_prob(
        self, x0: Tensor, schedule: Schedule, variance: Variance = "posterior"
    ) -> Tensor:
        """ln p(x0) of the reverse chain that uses the exact denoiser, float64 `[B]` nats; eq. (4).

        This is what the bound bounds: −model_log_prob ≤ bound for every single x0. It differs from `log_prob`, since T
        steps with a fixed variance do not reverse the forward process exactly.
        """
        rows = self._checked_data(x0).cpu()
        centre, spread = torch.zeros_like(self.spectrum), torch.ones_like(self.spectrum)
        sigma2 = reverse_variance(variance, schedule)
        origin = self.mean @ self.basis
        a, b = schedule.alpha_bar, schedule.one_minus_alpha_bar
        for t in range(schedule.T, 0, -1):
            gain = a[t].sqrt() * self.spectrum / (a[t] * self.spectrum + b[t])
            on_x0 = a[t - 1].sqrt() * schedule.beta[t] / b[t]
            on_x_t = (1 - schedule.beta[t]).sqrt() * b[t - 1] / b[t]
            slope = on_x0 * gain + on_x_t
            centre = slope * centre + on_x0 * (1 - gain * a[t].sqrt()) * origin
            spread = slope**2 * spread + sigma2[t]
        gap = rows @ self.basis - centre
        return -0.5 * (gap**2 / spread + spread.log() + _LOG_2PI).sum(dim=1)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        return self.mean.to(device), self.spectrum.to(device), self.basis.to(device)
