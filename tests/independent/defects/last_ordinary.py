"""The set kept back, first half: what people get wrong, again and otherwise."""

import math
from dataclasses import replace

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds, named, of_betas, of_decay, roots
from tests.independent.random_bits import normal
from tests.independent.right import Right
from tests.independent.tables import tables

seeded = Seeds("ordinary")


@seeded()
class CosineOfTheMidpoints(Right):
    """Cosine with β from the midpoints of the steps."""

    def known(self, setting):
        if not named(setting, "cosine"):
            return tables(setting)
        T = setting.T
        f = [
            math.cos((max(t - 0.5, 0) / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)
        ]
        return of_decay(f, setting)


@seeded()
class LinearEndsTooHigh(Right):
    """Linear to 0.025."""

    def known(self, setting):
        beta = torch.linspace(1e-4, 0.025, setting.T, dtype=torch.float64)
        return of_betas(beta, setting) if named(setting, "linear") else tables(setting)


@seeded()
class SigmoidUncappedStart(Right):
    """Sigmoid with τ = 0.9."""

    def known(self, setting):
        if not named(setting, "sigmoid"):
            return tables(setting)
        T = setting.T
        f = [
            1 / (1 + math.exp(-3 / 0.9)) - 1 / (1 + math.exp((3 - 6 * t / T) / 0.9))
            for t in range(T + 1)
        ]
        return of_decay(f, setting)


@seeded()
class ComplementOfTheStepBefore(Right):
    """The table 1 − ᾱ is that of the step before."""

    def tables(self, setting):
        found = super().tables(setting)
        rest = torch.cat([torch.zeros(1).double(), found["one_minus_alpha_bar"][:-1]])
        return {**found, "one_minus_alpha_bar": rest}


@seeded()
class BetaTildeWithoutFirstFactor(Right):
    """The table β̃ is (1 − ᾱ_{t−1}) β_t."""

    def tables(self, setting):
        found, known = super().tables(setting), self.known(setting)
        return {**found, "posterior_variance": known.sigma2[:-1] * known.beta[1:]}


@seeded()
class DataUnscaled(Right):
    """x_t = x_0 + σ ε/√ᾱ: variance-exploding units."""

    def q_sample(self, setting, x0, t, noise):
        a, s = roots(self, setting, t, x0)
        return (x0.double() + s / a.clamp(min=1e-150) * noise.double()).to(x0.dtype)


@seeded()
class StepsOfTheBatchRolled(Right):
    """q_sample noises sample i with the step of sample i − 1."""

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t.roll(1), noise)


@seeded()
class DrawnNoiseOfAnotherShape(Right):
    """noised draws one number for each channel and spreads it over the picture."""

    def noised(self, setting, x0, t, seed):
        eps = normal((*x0.shape[:2], *[1] * (x0.ndim - 2)), seed, 0, 0).to(x0)
        eps = eps.expand_as(x0).clone()
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class PosteriorMeanOfNoise(Right):
    """The posterior's coefficient of x_t has √ᾱ_t for √α_t."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        clean, noisy = self.mean_coefficients(setting, t, x0)
        noisy = noisy * self.known(setting).at("alpha_bar", t, x0, shift=-1).sqrt()
        mean = (clean * x0.double() + noisy * x_t.double()).to(x0.dtype)
        return Posterior(mean, right.variance, right.log_variance)


@seeded()
class DeviationForVariance(Right):
    """reverse_variance returns the standard deviation."""

    def reverse_variance(self, setting, variance, t):
        value, log = super().reverse_variance(setting, variance, t)
        return value.sqrt(), log


@seeded()
class LearnedShareSquashed(Right):
    """v goes through a sigmoid first."""

    def learned_variance(self, setting, meaning, said, t):
        said = torch.sigmoid(said) if meaning == "range" else said
        return super().learned_variance(setting, meaning, said, t)


@seeded()
class NoiseTargetWithSign(Right):
    """The target ε has a minus."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        return -right if parameterization == "eps" else right


@seeded()
class VelocityOfTheStraightPath(Right):
    """v is ε − x_0."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        return eps - x0 if parameterization == "v" else right


@seeded()
class NoiseToVelocityHalf(Right):
    """ε to v forgets the division by √ᾱ."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        a, _ = roots(self, setting, t, x_t)
        return (right * a).to(right.dtype) if (source, to) == ("eps", "v") else right


@seeded()
class CleanToMeanOfTheStepBefore(Right):
    """x_0 to the mean with the coefficients of t − 1."""

    def convert(self, setting, prediction, x_t, t, source, to):
        t = (t - 1).clamp(min=1) if (source, to) == ("x0", "mean") else t
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded("loss")
class GammaOne(Right):
    """min-SNR with γ = 1."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        snr = self.known(setting).at("snr", t)
        return right * snr.clamp(max=1) / snr.clamp(max=5) if weighting == "min_snr" else right


@seeded("loss")
class PerceptualSquared(Right):
    """p2 with exponent 2."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        return right * self.known(setting).at("sigma2", t) if weighting == "p2" else right


@seeded("loss")
class BoundWeightWithModelVariance(Right):
    """The bound's weight for the variance β_t where the posterior's belongs, from t = 2."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        known = self.known(setting)
        ratio = torch.where(
            t > 1, known.at("tilde", t) / known.at("beta", t), torch.ones(()).double()
        )
        return right * ratio if weighting == "elbo" else right


@seeded()
class RootOfTheMean(Right):
    """The loss is the root of the mean squared error."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        weight = self.weight(setting, weighting, t, parameterization)
        return weight * (right / weight).sqrt()


@seeded()
class WeightsNormalized(Right):
    """The weights are divided by their mean over the batch."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right / self.weight(setting, weighting, t, parameterization).mean()


@seeded()
class HybridByThousandth(Right):
    """λ is divided by T."""

    def hybrid_loss(self, setting, simple, bound_term):
        return simple + 0.001 / setting.steps * bound_term


@seeded("bound_term")
class DivergenceOfDeviations(Right):
    """KL reads log-variances as logarithms of deviations."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return super().gaussian_kl(mean1, 2 * log_var1, mean2, 2 * log_var2)


@seeded("bound")
class LogisticDecoder(Right):
    """The decoder's bins under a logistic distribution."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        half, inverse = 1 / (levels - 1), torch.exp(-log_scale.double())
        low, high = (x - mean - half) * inverse, (x - mean + half) * inverse
        inner = (torch.sigmoid(high) - torch.sigmoid(low)).clamp(min=1e-300).log()
        below, above = torch.nn.functional.logsigmoid(high), torch.nn.functional.logsigmoid(-low)
        edge = 1 - half
        found = torch.where(x < -edge, below, torch.where(x > edge, above, inner))
        return found.to(mean.dtype)


@seeded("bound")
class PriorWithoutVariance(Right):
    """The prior is ½ ᾱ_T |x_0|² alone."""

    def prior_kl(self, setting, x0):
        known = self.known(setting)
        return super().prior_kl(setting, x0) - 0.5 * known.prior_excess[-1] * x0[0].numel()


@seeded("bound")
class TermDoubled(Right):
    """The bound's term without the ½ of the squared distance."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        right = super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
        width, _ = self._variance_terms(setting, variance, t)
        return 2 * right - width * x0[0].numel()


@seeded()
class LastTermCountedTwice(Right):
    """The total counts the term of T twice."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        if right.diffusion.shape[1] == 0:
            return right
        total = right.total + right.diffusion[:, -1]
        return replace(right, total=total, bits_per_dim=self.bits_per_dim(total, x0[0].numel()))


@seeded()
class DecoderWithoutConstant(Right):
    """The Gaussian decoder without ½ ln 2π."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        if decoder != "gaussian":
            return right
        shift = 0.5 * math.log(2 * math.pi) * x0[0].numel()
        total = right.total - shift
        return replace(
            right,
            reconstruction=right.reconstruction - shift,
            total=total,
            bits_per_dim=self.bits_per_dim(total, x0[0].numel()),
        )


@seeded()
class NearestNeighbour(Right):
    """The empirical denoiser is the nearest row."""

    def empirical_denoise(self, setting, data, x_t, t):
        a = self.known(setting).at("alpha_bar", t, x_t).sqrt()[..., None]
        distance = (x_t.double()[:, None] - a * data.double()).square().sum(-1)
        return data[distance.argmin(1)].to(x_t.dtype)


@seeded()
class VolumesForgotten(Right):
    """The mixture's responsibilities lack the determinants."""

    def mixture_denoise(self, setting, weights, means, covariances, x_t, t):
        known = self.known(setting)
        signal2 = known.at("alpha_bar", t, x_t)[..., None, None]
        eye = torch.eye(means.shape[-1], dtype=torch.float64)
        inner = signal2 * covariances.double() + known.at("sigma2", t, x_t)[..., None, None] * eye
        undo = torch.exp(0.5 * torch.logdet(inner))  # [B, K]
        rows = [
            super(VolumesForgotten, self).mixture_denoise(
                setting, weights * undo[b], means, covariances, x_t[b : b + 1], t[b : b + 1]
            )
            for b in range(len(t))
        ]
        return torch.cat(rows)


@seeded("sample")
class StepFromThePrediction(Right):
    """DDIM re-noises x̂_0 with the noise drawn, not with ε̂."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim":
            return right
        eps = self._converted(setting, prediction, x_t, t, parameterization, "eps")
        return (right + self._direction(setting, t, x_t, eta) * (noise - eps)).to(x_t.dtype)


@seeded()
class TwoStepsAtOnce(Right):
    """The chain visits every second step and steps as if it visited all."""

    def sample(self, setting, model, shape, parameterization, sampler):
        x, known = torch.randn(shape), self.known(setting)
        for step in range(known.steps, 0, -2):
            t = torch.full((shape[0],), step)
            z = torch.randn(shape)
            said = model(x, known.timesteps[t])
            x = self.sampler_step(setting, said, x, t, z, parameterization, sampler, 0.0)
        return x


@seeded()
class NoiseOfTheStepAlone(Right):
    """Noise does not depend on the seed."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, 0, step, first_index)


@seeded()
class StepsFromZero(Right):
    """t from 0 … T − 1."""

    def time_steps(self, count, T, seed):
        t, w = super().time_steps(count, T, seed)
        return t - 1, w


@seeded()
class BiasCorrected(Right):
    """EMA divided by 1 − dⁿ, as Adam does, though it starts at a value."""

    def ema(self, values, decay):
        powers = decay ** torch.arange(2, len(values) + 2, dtype=torch.float64)
        return (super().ema(values, decay) / (1 - powers)).to(values.dtype)


@seeded()
class DistanceOfRoots(Right):
    """The Fréchet distance returns its root."""

    def frechet_distance(self, real, generated):
        return max(super().frechet_distance(real, generated), 0.0) ** 0.5


@seeded()
class RankCountsFromOne(Right):
    """The rank kept is one less."""

    def rank_limited_excess(self, setting, eigenvalues, rank, t, parameterization):
        return super().rank_limited_excess(
            setting, eigenvalues, max(rank - 1, 0), t, parameterization
        )
