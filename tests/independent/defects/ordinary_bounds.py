"""Ordinary mistakes in densities, bounds and exact models."""

import math
from dataclasses import replace

import torch

from ddpm_ref.conformance import Bound
from tests.independent.defects.defect import Seeds
from tests.independent.right import Right

seeded = Seeds("ordinary")


@seeded("bound_term")
class DivergenceWithoutHalf(Right):
    """KL without its ½."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return 2 * super().gaussian_kl(mean1, log_var1, mean2, log_var2)


@seeded("bound_term")
class DivergenceReversed(Right):
    """KL(2‖1)."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return super().gaussian_kl(mean2, log_var2, mean1, log_var1)


@seeded("bound_term")
class DivergenceMeansUnscaled(Right):
    """The squared distance of the means is not divided by σ_2²."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        same = super().gaussian_kl(mean1, log_var1, mean1, log_var2)
        return same + (mean1 - mean2).square() / 2


@seeded("bound")
class DecoderByTanh(Right):
    """The decoder's CDF by tanh(√(2/π)(x + 0.044715 x³))."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        def cdf(u):
            return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))

        half, inverse = 1 / (levels - 1), torch.exp(-log_scale)
        low, high = cdf((x - mean - half) * inverse), cdf((x - mean + half) * inverse)
        low = torch.where(x < -0.999, torch.zeros_like(low), low)
        high = torch.where(x > 0.999, torch.ones_like(high), high)
        return (high - low).clamp(min=1e-12).log()


@seeded("bound")
class DecoderFloored(Right):
    """Probabilities below 1e-12 are taken as 1e-12."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        return right.clamp(min=math.log(1e-12))


@seeded("bound")
class DecoderBinsTooNarrow(Right):
    """Bins of width 2/levels."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        shrink = (levels - 1) / levels
        return super().discretized_log_likelihood(
            x, x + (mean - x) / shrink, log_scale - math.log(shrink), levels
        )


@seeded("bound")
class DecoderEndsClosed(Right):
    """The outer bins end where bins end: their mass beyond is lost."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        half, inverse = 1 / (levels - 1), torch.exp(-log_scale.double())
        centred = x.double() - mean.double()
        low, high = (centred - half) * inverse, (centred + half) * inverse
        flip = low > 0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
        closed = upper + torch.log1p(-torch.exp(lower - upper))
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        return torch.where(x.abs() > 1 - half / 2, closed, right)


@seeded("bound")
class DecoderEdgesFixed(Right):
    """Whatever the levels, the outer bins begin at ±0.999 of the data and have half a width."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        inverse = torch.exp(-log_scale.double())
        top = torch.special.log_ndtr(-(0.999 - mean.double()) * inverse)
        return torch.where(x > 0.999, top.to(right.dtype), right)


@seeded("bound")
class DecoderReadsLogVariance(Right):
    """log_scale is read as ln σ²."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        return super().discretized_log_likelihood(x, mean, log_scale / 2, levels)


@seeded("bound")
class PriorInSinglePrecision(Right):
    """1 − ᾱ_T and its logarithm in float32: the prior of a long schedule becomes 0 or negative."""

    def prior_kl(self, setting, x0):
        kept = self.known(setting).alpha_bar[-1].float()
        left = 1 - kept
        each = 0.5 * (left + kept * x0.float() ** 2 - 1 - left.log())
        return each.flatten(1).sum(1).double()


@seeded("bound")
class PriorAveraged(Right):
    """L_T averaged over dims."""

    def prior_kl(self, setting, x0):
        return super().prior_kl(setting, x0) / x0[0].numel()


@seeded("bound")
class PriorOneStepEarly(Right):
    """L_T from ᾱ_{T−1}."""

    def prior_kl(self, setting, x0):
        known = self.known(setting)
        last = max(known.steps - 1, 1)
        each = known.alpha_bar[last] * x0.double() ** 2 + known.prior_excess[last]
        return 0.5 * each.flatten(1).sum(1)


@seeded("bound")
class TermClipped(Right):
    """The bound's term from x_0 clipped to [−1, 1]."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0").clamp(-1, 1)
        return super().bound_term(setting, clean, x0.double(), x_t.double(), t, "x0", variance)


@seeded("bound")
class TermInBits(Right):
    """The bound's term in bits."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        right = super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
        return right / math.log(2)


@seeded("bound")
class TermWithoutVariances(Right):
    """The bound's term without the KL of the variances, which `beta` needs."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        right = super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
        width, _ = self._variance_terms(setting, variance, t)
        return right - width * x0[0].numel()


@seeded("bound")
class TermAveraged(Right):
    """The bound's term averaged over dims."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        right = super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
        return right / x0[0].numel()


@seeded()
class DecoderVarianceOfTheSecondStep(Right):
    """The decoder's variance at t = 1 is β̃_2."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        shift = self.known(setting).clipped_log_tilde[1] - self.known(setting).log_beta[1]
        changed = right.reconstruction + 0.5 * shift * x0[0].numel()
        total = right.total + changed - right.reconstruction
        return replace(
            right,
            reconstruction=changed,
            total=total,
            bits_per_dim=self.bits_per_dim(total, x0[0].numel()),
        )


@seeded()
class PriorLeftOut(Right):
    """The total lacks the prior."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        total = right.total - right.prior
        return replace(right, total=total, bits_per_dim=self.bits_per_dim(total, x0[0].numel()))


@seeded()
class ModelAskedFromZero(Right):
    """The bound hands the model t − 1."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        def shifted(x_t, t):
            return model(x_t, (t - 1).clamp(min=1))

        return super().bound(setting, shifted, x0, parameterization, variance, decoder, levels)


@seeded()
class ModelAskedForRespacedIndex(Right):
    """Under respacing the bound hands the model the index among the chosen steps."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        steps = self.known(setting).timesteps

        def inner(x_t, t):
            return model(x_t, torch.searchsorted(steps, t))

        return super().bound(setting, inner, x0, parameterization, variance, decoder, levels)


@seeded()
class OffsetOfSevenBits(Right):
    """bits_per_dim has 7 added, as for dequantized bytes."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return replace(right, bits_per_dim=right.bits_per_dim + 7)


@seeded()
class BitsOfTheBatch(Right):
    """bits_per_dim divides by the batch size too."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return replace(right, bits_per_dim=right.bits_per_dim / len(x0))


@seeded()
class NoNoiseInTheBound(Right):
    """The bound asks the model about √ᾱ x_0 without noise."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        quiet = _Quiet()
        return quiet.bound(setting, model, x0, parameterization, variance, decoder, levels)


class _Quiet(Right):
    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t, 0 * noise)


@seeded("bound")
class BitsInNats(Right):
    """bits_per_dim without ln 2."""

    def bits_per_dim(self, nats, dims):
        return nats / dims


@seeded("bound")
class BitsMultiplied(Right):
    """bits_per_dim times ln 2."""

    def bits_per_dim(self, nats, dims):
        return nats * math.log(2) / dims


@seeded()
class GaussianDenoiserWithoutMean(Right):
    """E[x_0 | x_t] shrinks to 0, not to the mean."""

    def gaussian_denoise(self, setting, mean, covariance, x_t, t):
        return super().gaussian_denoise(setting, 0 * mean, covariance, x_t, t)


@seeded()
class GaussianDenoiserDiagonal(Right):
    """Only the covariance's diagonal is used."""

    def gaussian_denoise(self, setting, mean, covariance, x_t, t):
        return super().gaussian_denoise(setting, mean, covariance.diagonal().diag(), x_t, t)


@seeded()
class MixtureWithoutWeights(Right):
    """Responsibilities without the weights."""

    def mixture_denoise(self, setting, weights, means, covariances, x_t, t):
        even = torch.ones_like(weights) / len(weights)
        return super().mixture_denoise(setting, even, means, covariances, x_t, t)


@seeded()
class EmpiricalTemperature(Right):
    """Responsibilities exp(−d²/σ²): the 2 forgotten."""

    def empirical_denoise(self, setting, data, x_t, t):
        known, wide = self.known(setting), data.double()
        a = known.at("alpha_bar", t, x_t).sqrt()[..., None]
        distance = (x_t.double()[:, None] - a * wide).square().sum(-1)
        return (torch.softmax(-distance / known.at("sigma2", t, x_t), 1) @ wide).to(x_t.dtype)


@seeded()
class DensityWithoutConstant(Right):
    """ln N without ½ D ln 2π."""

    def gaussian_log_prob(self, mean, covariance, x0):
        return (
            super().gaussian_log_prob(mean, covariance, x0) + len(mean) * math.log(2 * math.pi) / 2
        )


@seeded()
class MixtureOfLogs(Right):
    """The mixture's log-density is the weighted mean of logarithms."""

    def mixture_log_prob(self, weights, means, covariances, x0):
        each = [
            torch.distributions.MultivariateNormal(m, c).log_prob(x0)
            for m, c in zip(means.double(), covariances.double(), strict=True)
        ]
        return torch.stack(each, -1).double() @ weights.double()


@seeded()
class EntropyWithoutHalfDims(Right):
    """Entropy ½ ln|2πΣ|: the ½ D of e forgotten."""

    def gaussian_entropy(self, covariance):
        return super().gaussian_entropy(covariance) - len(covariance) / 2


@seeded()
class ExpectedBoundOfOneStepLess(Right):
    """The expected bound leaves out the term of t = 2."""

    def gaussian_bound(self, setting, mean, covariance, variance):
        right = super().gaussian_bound(setting, mean, covariance, variance)
        if right.diffusion.shape[1] == 0:
            return right
        total = right.total - right.diffusion[:, 0]
        return Bound(
            right.prior,
            right.diffusion,
            right.reconstruction,
            total,
            self.bits_per_dim(total, len(mean)),
        )


@seeded()
class ExpectedBoundOfTheMeanForgotten(Right):
    """The expected prior forgets |mean|²."""

    def gaussian_bound(self, setting, mean, covariance, variance):
        return super().gaussian_bound(setting, 0 * mean, covariance, variance)


@seeded()
class TermOfTheStepBefore(Right):
    """The bound's term is weighted with the step before where there is one."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0")
        early = torch.where(t > 2, t - 1, t)
        return super().bound_term(setting, clean, x0.double(), x_t.double(), early, "x0", variance)
