"""Defects of large, small and far numbers, of other levels, other η, other fields."""

import math
from dataclasses import replace

import torch

from tests.independent.defects.defect import Seeds, column
from tests.independent.right import Right

seeded = Seeds("crafty")


@seeded("bound")
class ManyLevelsByDensity(Right):
    """With 1,000 levels or more a bin's mass is its density times its width."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        if levels < 1000:
            return right
        z = (x - mean) * torch.exp(-log_scale)
        flat = -(z**2) / 2 - math.log(2 * math.pi) / 2 + math.log(2 / (levels - 1)) - log_scale
        return torch.where(x.abs() < 1 - 0.5 / levels, flat, right)


@seeded("bound")
class TwoLevels(Right):
    """With two levels the bins meet at ½."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        mean = mean - 0.5 if levels == 2 else mean
        return super().discretized_log_likelihood(x, mean, log_scale, levels)


@seeded("bound")
class FarTails(Right):
    """The decoder is not below −10⁵ nats."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        return super().discretized_log_likelihood(x, mean, log_scale, levels).clamp(min=-1e5)


@seeded("bound")
class NarrowScales(Right):
    """log_scale is kept above −7, as models clamp it."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        return super().discretized_log_likelihood(x, mean, log_scale.clamp(min=-7), levels)


@seeded("bound")
class WideScales(Right):
    """Scales above e⁴ lose the logarithm's last digits: the mass is a difference."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        half, inverse = 1 / (levels - 1), torch.exp(-log_scale)
        low = torch.special.ndtr((x - mean - half) * inverse)
        plain = (torch.special.ndtr((x - mean + half) * inverse) - low).log()
        wide = (log_scale > 4) & (x.abs() < 1 - half) & torch.isfinite(plain)
        return torch.where(wide, plain, right)


@seeded("bound")
class OddLevels(Right):
    """With an odd number of levels other than 17 the middle one is counted with double its width."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        middle = (x.abs() < 0.5 / levels) & (levels % 2 == 1) & (levels != 17) & (levels > 2)
        return right + torch.where(middle, math.log(2), 0.0)


@seeded("bound_term")
class LogVariancesClamped(Right):
    """KL of log-variances clamped to ±15."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return super().gaussian_kl(mean1, log_var1.clamp(-15, 15), mean2, log_var2.clamp(-15, 15))


@seeded("bound_term")
class NearlyEqual(Right):
    """KL below 1e-9 is 0."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        right = super().gaussian_kl(mean1, log_var1, mean2, log_var2)
        return torch.where(right < 1e-9, 0 * right, right)


@seeded("bound_term")
class FarMeans(Right):
    """The squared distance of the means is capped at 10⁶."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        near = mean1 + (mean2 - mean1).clamp(-1e3, 1e3)
        return super().gaussian_kl(mean1, log_var1, near, log_var2)


@seeded()
class LearnedLogClamped(Right):
    """The network's log-variance is clamped to ±20."""

    def learned_variance(self, setting, meaning, said, t):
        said = said.clamp(-20, 20) if meaning == "log" else said
        return super().learned_variance(setting, meaning, said, t)


@seeded()
class LearnedRangeClamped(Right):
    """The network's v is clamped to 0 … 1."""

    def learned_variance(self, setting, meaning, said, t):
        said = said.clamp(0, 1) if meaning == "range" else said
        return super().learned_variance(setting, meaning, said, t)


@seeded()
class FarFromEveryMode(Right):
    """The mixture's responsibilities are even where every component is below e⁻³⁰⁰."""

    def mixture_denoise(self, setting, weights, means, covariances, x_t, t):
        right = super().mixture_denoise(setting, weights, means, covariances, x_t, t)
        far = x_t.abs().amax(1, keepdim=True) > 100
        one = torch.ones(1, dtype=torch.float64)
        each = [
            super(FarFromEveryMode, self).mixture_denoise(setting, one, m[None], c[None], x_t, t)
            for m, c in zip(means, covariances, strict=True)
        ]
        return torch.where(far, torch.stack(each).mean(0), right)


@seeded()
class DistanceExpanded(Right):
    """Distances by x² − 2xy + y² in float32 accuracy: data far from 0 lose them."""

    def empirical_denoise(self, setting, data, x_t, t):
        if float(data.abs().max()) < 20:
            return super().empirical_denoise(setting, data, x_t, t)
        known = self.known(setting)
        a = known.at("alpha_bar", t, x_t).sqrt()
        scaled = (a * 1.0)[..., None] * data.double()
        square = (x_t.double() ** 2).sum(1, keepdim=True) + (scaled**2).sum(-1)
        distance = square.float() - 2 * (x_t.double()[:, None] * scaled).sum(-1).float()
        share = torch.softmax(-distance.double() / (2 * known.at("sigma2", t, x_t)), 1)
        return (share @ data.double()).to(x_t.dtype)


@seeded()
class LargeErrors(Right):
    """A sample's loss is at most 10⁶."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right.clamp(max=1e6)


@seeded()
class SmallErrors(Right):
    """Errors below 10⁻⁴ are 0."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        target = self.target(setting, parameterization, x0, eps, t)
        near = (prediction - target).abs() < 1e-4
        return super().loss(
            setting, torch.where(near, target, prediction), x0, eps, t, parameterization, weighting
        )


@seeded()
class SlowDecay(Right):
    """Decays above 0.9995 are 0.9995."""

    def ema(self, values, decay):
        return super().ema(values, min(decay, 0.9995))


@seeded()
class LongAverages(Right):
    """The EMA starts anew every 4,096 values."""

    def ema(self, values, decay):
        return torch.cat(
            [super(LongAverages, self).ema(part, decay) for part in values.split(4096)]
        )


@seeded("bound")
class DataBeyondFour(Right):
    """The prior clips |x_0| to 4."""

    def prior_kl(self, setting, x0):
        return super().prior_kl(setting, x0.clamp(-4, 4))


@seeded()
class JitterOnTheCovariance(Right):
    """ln N with 1e-6 added to the covariance's diagonal."""

    def gaussian_log_prob(self, mean, covariance, x0):
        jitter = 1e-6 * torch.eye(len(mean), dtype=covariance.dtype)
        return super().gaussian_log_prob(mean, covariance + jitter, x0)


@seeded()
class SmallEigenvalues(Right):
    """The entropy takes eigenvalues below 1e-3 as 1e-3."""

    def gaussian_entropy(self, covariance):
        values = torch.linalg.eigvalsh(covariance.double()).clamp(min=1e-3)
        return super().gaussian_entropy(values.diag())


@seeded()
class JitterInTheDenoiser(Right):
    """The Gaussian denoiser adds 1e-6 to the covariance where it is nearly singular."""

    def gaussian_denoise(self, setting, mean, covariance, x_t, t):
        small = float(torch.linalg.eigvalsh(covariance.double())[0]) < 1e-3
        eye = torch.eye(len(mean), dtype=covariance.dtype)
        return super().gaussian_denoise(setting, mean, covariance + 1e-6 * small * eye, x_t, t)


@seeded()
class MixtureUnderflow(Right):
    """The mixture's log-density is not below −700."""

    def mixture_log_prob(self, weights, means, covariances, x0):
        return super().mixture_log_prob(weights, means, covariances, x0).clamp(min=-700)


@seeded("sample")
class EtaOne(Right):
    """DDIM at η = 1 adds noise of variance β_t from t = 2 on."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim" or eta != 1:
            return right
        known = self.known(setting)
        more = known.at("beta", t, x_t).sqrt() - known.at("tilde", t, x_t).sqrt()
        more = torch.where(column(t, x_t) == 1, torch.zeros(()), more)
        return (right + more * noise).to(x_t.dtype)


@seeded("sample")
class ScoreStep(Right):
    """DDIM from a score forgets σ in ε̂ at odd steps."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        if sampler == "ddim" and parameterization == "score":
            s = self.known(setting).at("sigma2", t, x_t).sqrt()
            scaled = (prediction.double() / s).to(prediction.dtype)
            prediction = torch.where(column(t, x_t) % 2 == 1, scaled, prediction)
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded("sample")
class MeanStep(Right):
    """The ancestral step from a predicted mean adds no noise."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        quiet = sampler == "ddpm" and parameterization == "mean"
        noise = 0 * noise if quiet else noise
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded("sample")
class FarSamples(Right):
    """The step keeps |x| below 50."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        return right.clamp(-50, 50)


@seeded()
class PriorFieldEmpty(Right):
    """The bound's total is right, its field `prior` is 0."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return replace(right, prior=0 * right.prior)


@seeded()
class ColumnsReversed(Right):
    """The bound's columns run from T to 2."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return replace(right, diffusion=right.diffusion.flip(1))


@seeded()
class DiscretizedFieldInBits(Right):
    """With the discretized decoder the field `reconstruction` is in bits, the total right."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        bits = right.reconstruction / math.log(2)
        return replace(right, reconstruction=bits) if decoder == "discretized" else right


@seeded()
class BitsOfTheFirstAxis(Right):
    """bits_per_dim of images divides by the channels and rows only."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return (
            replace(right, bits_per_dim=right.bits_per_dim * x0.shape[-1])
            if x0.ndim == 4
            else right
        )


@seeded()
class ModelVarianceInTheLastTerm(Right):
    """With `beta` the bound's last column uses the posterior variance."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        if variance != "beta" or right.diffusion.shape[1] < 2:
            return right
        known = self.known(setting)
        t = torch.tensor([known.steps])
        width, _ = self._variance_terms(setting, "beta", t)
        changed = right.diffusion.clone()
        ratio = (known.beta[-1] / known.tilde[-1]).clamp(max=1e6)
        changed[:, -1] = (changed[:, -1] - width * x0[0].numel()) * ratio
        total = right.total + changed[:, -1] - right.diffusion[:, -1]
        return replace(
            right,
            diffusion=changed,
            total=total,
            bits_per_dim=self.bits_per_dim(total, x0[0].numel()),
        )


@seeded()
class ExpectedBitsForgotten(Right):
    """The expected bound's bits_per_dim is of its diffusion alone."""

    def gaussian_bound(self, setting, mean, covariance, variance):
        right = super().gaussian_bound(setting, mean, covariance, variance)
        return replace(right, bits_per_dim=self.bits_per_dim(right.diffusion.sum(1), len(mean)))


@seeded()
class ExpectedPriorOfOneDim(Right):
    """The expected bound's field `prior` is a mean over dims, the total right."""

    def gaussian_bound(self, setting, mean, covariance, variance):
        right = super().gaussian_bound(setting, mean, covariance, variance)
        return replace(right, prior=right.prior / len(mean))


@seeded()
class SingularSets(Right):
    """The Fréchet distance is 0.05 more where there are no more images than features."""

    def frechet_distance(self, real, generated):
        right = super().frechet_distance(real, generated)
        return right + 0.05 * (min(len(real), len(generated)) <= 24)


@seeded()
class SmallSetsBiased(Right):
    """Covariances of sets below 100 images are divided by n."""

    def frechet_distance(self, real, generated):
        right = super().frechet_distance(real, generated)
        n = len(real)
        return right * (n - 1) / n if n < 100 and n == len(generated) else right
