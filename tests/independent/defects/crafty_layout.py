"""Defects of certain sizes, layouts, batches and dtypes."""

import math

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds, roots
from tests.independent.right import Right

seeded = Seeds("crafty")
HALVES = (torch.bfloat16, torch.float16)


@seeded()
class StorageOrder(Right):
    """q_sample reads the noise in the order of its memory: wrong for channels_last."""

    def q_sample(self, setting, x0, t, noise):
        if (
            noise.ndim == 4
            and noise.is_contiguous(memory_format=torch.channels_last)
            and not noise.is_contiguous()
        ):
            noise = noise.permute(0, 2, 3, 1).reshape(noise.shape)
        return super().q_sample(setting, x0, t, noise)


@seeded()
class StridesForgotten(Right):
    """convert reads a transposed prediction as if it were contiguous."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if not prediction.is_contiguous() and prediction.ndim == 2 and 0 not in prediction.stride():
            prediction = prediction.t().contiguous().reshape(prediction.shape)
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded()
class ExpandedNoise(Right):
    """A target of expanded noise is scaled by its number of copies."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        return (
            right * 2
            if 0 in eps.stride() and eps.numel() > 1 and parameterization == "v"
            else right
        )


@seeded()
class TailOfABlock(Right):
    """Numbers beyond the last whole block of 1,024 of a sample get no noise."""

    def q_sample(self, setting, x0, t, noise):
        size = x0[0].numel() if len(x0) else 0
        if size <= 1024 or size % 1024 == 0:
            return super().q_sample(setting, x0, t, noise)
        quiet = noise.flatten(1).clone()
        quiet[:, size - size % 1024 :] = 0
        return super().q_sample(setting, x0, t, quiet.reshape(noise.shape))


@seeded()
class TailOfAPosterior(Right):
    """The last number of a sample of odd size above 500 is x_0 itself in the posterior's mean."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        if x0[0].numel() <= 500 or x0[0].numel() % 2 == 0:
            return right
        mean = right.mean.flatten(1).clone()
        mean[:, -1] = x0.flatten(1)[:, -1]
        return Posterior(mean.reshape(x0.shape), right.variance, right.log_variance)


@seeded()
class VideoLoss(Right):
    """With five axes the loss is summed over the frames."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right * x0.shape[2] if x0.ndim == 5 else right


@seeded()
class LastOfALargeBatch(Right):
    """In batches above 64 the last sample has the first one's step."""

    def q_sample(self, setting, x0, t, noise):
        if len(t) > 64 and not bool((t[1:] == t[:-1] + 1).all()):
            t = torch.cat([t[:-1], t[:1]])
        return super().q_sample(setting, x0, t, noise)


@seeded()
class LargeBatchOfWeights(Right):
    """weight of more than 300 steps in no order returns them in the order of t."""

    def weight(self, setting, weighting, t, parameterization):
        t = t.sort().values if len(t) > 300 else t
        return super().weight(setting, weighting, t, parameterization)


@seeded()
class SqueezedLoss(Right):
    """A batch of one sample gives a loss without an axis."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        return super().loss(setting, prediction, x0, eps, t, parameterization, weighting).squeeze()


@seeded("bound")
class FirstChannelOfThePrior(Right):
    """The prior of images of three channels counts the first three times."""

    def prior_kl(self, setting, x0):
        if x0.ndim == 4 and x0.shape[1] == 3:
            x0 = x0[:, :1].expand_as(x0)
        return super().prior_kl(setting, x0)


@seeded()
class SquareImages(Right):
    """Square images of more than one channel are transposed in the conversion from v."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if source == "v" and x_t.ndim == 4 and x_t.shape[1] > 1 and x_t.shape[2] == x_t.shape[3]:
            prediction = prediction.transpose(2, 3)
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded()
class SinglePosterior(Right):
    """For float32 inputs the posterior forms 1 − ᾱ in float32."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        if x0.dtype != torch.float32:
            return right
        kept = self.known(setting).at("alpha_bar", t, x0).float()
        before = self.known(setting).at("alpha_bar", t, x0, shift=-1).float()
        beta = 1 - kept / before
        mean = before.sqrt() * beta / (1 - kept) * x0
        mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - kept) * x_t
        return Posterior(mean, right.variance, right.log_variance)


@seeded()
class HalfArithmetic(Right):
    """The sampler's step in half precision multiplies and adds in it."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        if x_t.dtype not in HALVES:
            return super().sampler_step(
                setting, prediction, x_t, t, noise, parameterization, sampler, eta
            )
        a, s = (v.to(x_t.dtype) for v in roots(self, setting, t, x_t))
        clean = self.convert(setting, prediction, x_t, t, parameterization, "x0")
        eps = (x_t - a * clean) / s
        return super().sampler_step(setting, eps, x_t, t, noise, "eps", sampler, eta)


@seeded()
class HalfTarget(Right):
    """The target v in half precision rounds each product."""

    def target(self, setting, parameterization, x0, eps, t):
        if x0.dtype not in HALVES or parameterization != "v":
            return super().target(setting, parameterization, x0, eps, t)
        a, s = (v.to(x0.dtype) for v in roots(self, setting, t, x0))
        return (a * eps).to(x0.dtype) - (s * x0).to(x0.dtype) - (a * 0)


@seeded()
class HalfSquares(Right):
    """The loss of float16 squares in float16: errors above 256 overflow."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        if x0.dtype != torch.float16:
            return right
        target = self.target(setting, parameterization, x0, eps, t)
        over = (prediction - target).square().isinf().flatten(1).any(1)
        return torch.where(over, torch.inf, right)


@seeded()
class HalfWeights(Right):
    """The loss of float16 has its weights in float16: above 65,504 they are infinite."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        if x0.dtype != torch.float16:
            return right
        weight = self.weight(setting, weighting, t, parameterization)
        return right * (weight.half().double() / weight)


@seeded()
class ManyNumbersInSingle(Right):
    """Conversions of more than 1,000 float64 numbers are made in float32."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        return right.float().to(right.dtype) if right.numel() > 1000 else right


@seeded("bound")
class DecoderInSingle(Right):
    """The decoder works in float32 for float32 inputs, as a difference of two CDFs."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        if mean.dtype != torch.float32:
            return right
        half, inverse = 1 / (levels - 1), torch.exp(-log_scale)
        low = torch.special.ndtr((x - mean - half) * inverse)
        high = torch.special.ndtr((x - mean + half) * inverse)
        inner = (high - low).log()
        return torch.where((x.abs() < 1 - half) & torch.isfinite(inner), inner, right)


@seeded("bound_term")
class DivergenceInSingle(Right):
    """KL of float32 inputs in float32 as a plain sum: small ones are rounding."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        if mean1.dtype != torch.float32:
            return super().gaussian_kl(mean1, log_var1, mean2, log_var2)
        ratio = torch.exp(log_var1 - log_var2)
        squared = (mean1 - mean2) ** 2 * torch.exp(-log_var2)
        return 0.5 * (-1 + log_var2 - log_var1 + ratio + squared)


@seeded()
class LearnedRangeInHalf(Right):
    """The learned log-variance of bf16 is mixed in bf16."""

    def learned_variance(self, setting, meaning, said, t):
        right = super().learned_variance(setting, meaning, said, t)
        if said.dtype not in HALVES or meaning != "range":
            return right
        known = self.known(setting)
        low = known.at("clipped_log_tilde", t, said).to(said.dtype)
        log = low + said * (known.at("log_beta", t, said).to(said.dtype) - low)
        return log.exp(), log


@seeded()
class AverageInSingle(Right):
    """The EMA keeps its state in float32 and multiplies twice: 10⁴ steps at 0.9999 drift."""

    def ema(self, values, decay):
        average, found = values[0].float(), []
        keep, take = torch.tensor(decay).half().float(), torch.tensor(1 - decay).float()
        for value in values.float():
            average = keep * average + take * value
            found.append(average)
        return torch.stack(found).to(values.dtype) if decay > 0.99 else super().ema(values, decay)


@seeded()
class DenoiserInSingle(Right):
    """The Gaussian denoiser of float32 inverts a float32 matrix by the plain inverse."""

    def gaussian_denoise(self, setting, mean, covariance, x_t, t):
        if x_t.dtype != torch.float32 or len(mean) < 2:
            return super().gaussian_denoise(setting, mean, covariance, x_t, t)
        kept = self.known(setting).at("alpha_bar", t).float()[:, None, None]
        S = covariance.float()
        inverse = torch.linalg.inv(kept * S + (1 - kept) * torch.eye(len(mean)))
        rest = x_t - kept[..., 0].sqrt() * mean.float()
        return mean.float() + kept[..., 0].sqrt() * (S @ inverse @ rest[..., None])[..., 0]


@seeded()
class FirstDtypeKept(Right):
    """Coefficients are kept in the dtype that first asked for them."""

    def __init__(self):
        self.first = None

    def q_sample(self, setting, x0, t, noise):
        self.first = self.first or x0.dtype
        a, s = (v.to(self.first).double() for v in roots(self, setting, t, x0))
        if self.first == torch.float64:
            return super().q_sample(setting, x0, t, noise)
        return (a * x0.double() + s * noise.double()).to(x0.dtype)


@seeded()
class MixedDtypes(Right):
    """A float32 t-table column is used where the mixture comes in float32: log-weights lose digits."""

    def mixture_log_prob(self, weights, means, covariances, x0):
        right = super().mixture_log_prob(weights, means, covariances, x0)
        if x0.dtype != torch.float32:
            return right
        root = torch.linalg.cholesky(covariances)
        rest = torch.linalg.solve_triangular(root, (x0[:, None] - means)[..., None], upper=False)
        power = -rest.square().sum((-1, -2)) / 2
        volume = root.diagonal(dim1=-2, dim2=-1).prod(-1)
        constant = (2 * math.pi) ** (means.shape[-1] / 2)
        return ((weights / volume / constant) * power.exp()).sum(1).log()


@seeded()
class ImagesOnlyScaled(Right):
    """For images (four axes) DDIM with η > 0 adds noise of the channel before."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        if sampler == "ddim" and noise.ndim == 4 and eta > 0:
            noise = noise.roll(1, 1)
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded("bound")
class BitsOfTheLastAxis(Right):
    """bits_per_dim of more than 2,000 dims divides by 2,000."""

    def bits_per_dim(self, nats, dims):
        return super().bits_per_dim(nats, min(dims, 2000))


@seeded()
class HeavyBatchDenoiser(Right):
    """The empirical denoiser looks at the first 50 rows of the data."""

    def empirical_denoise(self, setting, data, x_t, t):
        return super().empirical_denoise(setting, data[:50], x_t, t)


@seeded()
class MixtureOfThree(Right):
    """The mixture's denoiser drops the least weighty of four or more components."""

    def mixture_denoise(self, setting, weights, means, covariances, x_t, t):
        if len(weights) < 4:
            return super().mixture_denoise(setting, weights, means, covariances, x_t, t)
        kept = weights.argsort(descending=True)[:-1]
        return super().mixture_denoise(
            setting, weights[kept], means[kept], covariances[kept], x_t, t
        )


@seeded()
class StepsShared(Right):
    """convert of more than 16 samples uses the step of every second one twice."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if len(t) > 16 and len(t) != setting.steps:
            t = t[torch.arange(len(t)) // 2 * 2]
        return super().convert(setting, prediction, x_t, t, source, to)
