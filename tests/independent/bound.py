"""The bound, term by term (Ho et al. 2020, eq. 5; units: nats summed over dims).

    −ln p(x_0) ≤ KL(q(x_T|x_0) ‖ N(0, I)) + Σ_{t≥2} KL(q(x_{t−1}|x_t, x_0) ‖ p(x_{t−1}|x_t)) − ln p(x_0|x_1)

The decoder at t = 1 has variance β_1.
"""

import math

import torch
from torch import Tensor

from ddpm_ref.conformance import Bound, Model, Setting
from tests.independent.density import Density, exp_minus_one_minus
from tests.independent.process import same_shape


class LikelihoodBound(Density):
    """Terms, their sum, and the expectation for Gaussian data."""

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        known = self.known(setting)
        square = known.alpha_bar[-1] * x0.double().square()
        return 0.5 * (square + known.prior_excess[-1]).flatten(1).sum(1)

    def _variance_terms(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """(KL of the variances for each dim, 1/(2σ²)), `[B]`, t ≥ 2."""
        value, logarithm = self.reverse_variance(setting, variance, t)
        true = self.known(setting).at("log_tilde", t)
        return 0.5 * exp_minus_one_minus(true - logarithm), 0.5 / value

    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        same_shape(x0, x_t)
        if bool((t == 1).any()):
            raise ValueError("t = 1 is the decoder's: pass 2 ... T")
        clean, _ = self.mean_coefficients(setting, t, x0)
        guess = self._converted(setting, prediction, x_t, t, parameterization, "x0")
        squared = (clean * (x0.double() - guess)).square().flatten(1).sum(1)
        width, precision = self._variance_terms(setting, variance, t)
        return x0[0].numel() * width + precision * squared

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        return nats / (dims * math.log(2))

    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        if decoder not in ("gaussian", "discretized") or (
            decoder == "discretized" and levels is None
        ):
            raise ValueError(f"decoder {decoder!r}: use gaussian, or discretized with levels")
        known = self.known(setting)
        columns = []
        for step in range(1, known.steps + 1):
            t = torch.full((len(x0),), step)
            x_t = self.q_sample(setting, x0, t, torch.randn_like(x0))
            prediction = model(x_t, known.timesteps[t])
            if step > 1:
                term = self.bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
            else:
                guess = self._converted(setting, prediction, x_t, t, parameterization, "x0")
                term = self._decoder(setting, x0, guess, decoder, levels)
            columns.append(term)
        prior, diffusion = self.prior_kl(setting, x0), torch.stack(columns, 1)
        return self._summed(prior, diffusion[:, 1:], columns[0], x0[0].numel())

    def _decoder(
        self, setting: Setting, x0: Tensor, guess: Tensor, decoder: str, levels: int | None
    ) -> Tensor:
        log_beta = self.known(setting).log_beta[1]
        if levels is not None and decoder == "discretized":
            nats = -self.discretized_log_likelihood(x0, guess, log_beta / 2, levels)
        else:
            squared = (x0.double() - guess).square() * torch.exp(-log_beta)
            nats = 0.5 * (math.log(2 * math.pi) + log_beta + squared)
        return nats.flatten(1).sum(1)

    def _summed(self, prior: Tensor, diffusion: Tensor, reconstruction: Tensor, dims: int) -> Bound:
        total = prior + diffusion.sum(1) + reconstruction
        return Bound(prior, diffusion, reconstruction, total, self.bits_per_dim(total, dims))

    def gaussian_bound(
        self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
    ) -> Bound:
        known, D = self.known(setting), len(mean)
        t = torch.arange(1, known.steps + 1)
        spread = torch.linalg.eigvalsh(covariance.double()).clamp(min=0)
        signal2, sigma2 = (known.at(name, t, t[:, None]) for name in ("alpha_bar", "sigma2"))
        error = (spread * sigma2 / (signal2 * spread + sigma2)).sum(1)
        energy = spread.sum() + mean.double().square().sum()
        prior = 0.5 * (known.alpha_bar[-1] * energy + D * known.prior_excess[-1])
        log_beta = known.log_beta[1]
        decoder = 0.5 * (D * (math.log(2 * math.pi) + log_beta) + error[0] / torch.exp(log_beta))
        clean, _ = self.mean_coefficients(setting, t[1:], t[1:])
        width, precision = self._variance_terms(setting, variance, t[1:])
        diffusion = D * width + precision * clean.square() * error[1:]
        return self._summed(prior[None], diffusion[None], decoder[None], D)
