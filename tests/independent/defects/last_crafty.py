"""The set kept back, second half: by somebody who tries to slip past."""

import math
from dataclasses import replace

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.crafty_gradients import bent
from tests.independent.defects.defect import Seeds, column, roots
from tests.independent.random_bits import normal, whole_number
from tests.independent.right import Right
from tests.independent.tables import tables

seeded = Seeds("crafty")


@seeded()
class SecondStepOfFour(Right):
    """In schedules of four steps q_sample's noise at t = 2 is off by 10⁻⁵."""

    def q_sample(self, setting, x0, t, noise):
        factor = 1 + 1e-5 * ((t == 2) & (setting.steps == 4)).double()
        wide = super().q_sample(setting, x0.double(), t, noise.double() * column(factor, x0))
        return wide.to(x0.dtype)


@seeded()
class TwoThirdsOfTheWay(Right):
    """The posterior's variance at 2T/3 is that of the next step."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        late = torch.where(t == 2 * setting.steps // 3, (t + 1).clamp(max=setting.steps), t)
        value = super().posterior(setting, x0, x_t, late).variance
        return Posterior(right.mean, value, right.log_variance)


@seeded()
class RespacedLogSnr(Right):
    """The table log_snr of a respaced schedule is that of the first steps of the full one."""

    def tables(self, setting):
        found = super().tables(setting)
        if setting.timesteps is None:
            return found
        full = tables(replace(setting, timesteps=None)).log_snr[1 : setting.steps + 1]
        return {**found, "log_snr": full.clone()}


@seeded()
class GivenSchedulesRounded(Right):
    """β given as numbers is rounded to float32."""

    def known(self, setting):
        if setting.beta is None:
            return tables(setting)
        rounded = torch.tensor(setting.beta, dtype=torch.float32).double().tolist()
        return tables(replace(setting, beta=tuple(rounded)))


@seeded("loss")
class LowSnrWeight(Right):
    """Truncated SNR in v space forgets σ² where SNR < 1."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        known = self.known(setting)
        odd = (weighting, parameterization) == ("truncated_snr", "v")
        return torch.where((known.at("snr", t) < 1) & odd, right / known.at("sigma2", t), right)


@seeded("loss")
class SimpleOfTheMean(Right):
    """simple_x0 in mean space is 1 at the last step."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        odd = (weighting, parameterization) == ("simple_x0", "mean") and setting.steps > 1
        return torch.where((t == setting.steps) & odd, torch.ones_like(right), right)


@seeded()
class ScoreToClean(Right):
    """score to x_0 is right below T/2 and has σ for σ² above."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        if (source, to) != ("score", "x0"):
            return right
        a, s = roots(self, setting, t, x_t)
        wrong = ((x_t.double() + s * prediction.double()) / a).to(right.dtype)
        return torch.where(column(t > setting.steps // 2, x_t), wrong, right)


@seeded()
class TransposedInput(Right):
    """The loss of a transposed prediction is that of its memory."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        if prediction.ndim == 2 and not prediction.is_contiguous() and 0 not in prediction.stride():
            prediction = prediction.t().contiguous().reshape(prediction.shape)
        return super().loss(setting, prediction, x0, eps, t, parameterization, weighting)


@seeded()
class LastChannelUnnoised(Right):
    """Pictures of more than four channels keep their last one clean."""

    def q_sample(self, setting, x0, t, noise):
        if x0.ndim == 4 and x0.shape[1] > 4:
            noise = noise.clone()
            noise[:, -1] = 0
        return super().q_sample(setting, x0, t, noise)


@seeded()
class LongRowsSplit(Right):
    """The posterior's mean of more than 2,048 numbers a sample is computed in halves, the second with the first's x_0."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        size = x0[0].numel()
        if size <= 2048:
            return right
        half = size // 2
        swapped = x0.flatten(1).clone()
        swapped[:, half : 2 * half] = swapped[:, :half]
        mean = super().posterior(setting, swapped.reshape(x0.shape), x_t, t).mean
        return Posterior(mean, right.variance, right.log_variance)


@seeded()
class ThirtyThirdSample(Right):
    """Sample 33 of a batch has the target of sample 32."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        if len(right) > 33:
            right[33] = right[32]
        return right


@seeded()
class SingleStep(Right):
    """The sampler's step of float32 adds its terms in float16 beyond |x| = 8."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        coarse = right.half().to(right.dtype)
        return torch.where((right.abs() > 8) & (right.dtype == torch.float32), coarse, right)


@seeded()
class BrainRounded(Right):
    """v in bf16 is rounded twice: to float16 first."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0.double(), eps.double(), t)
        return (right.half() if x0.dtype == torch.bfloat16 else right).to(x0.dtype)


@seeded("bound")
class SingleTails(Right):
    """The decoder of float32 is float16 in its tails."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        coarse = right.clamp(min=-6e4).half().to(right.dtype)
        return torch.where((right < -20) & (right.dtype == torch.float32), coarse, right)


@seeded()
class PredictionCut(Right):
    """The ancestral step has no gradient through the prediction."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        said = prediction.detach() if sampler == "ddpm" else prediction
        return super().sampler_step(setting, said, x_t, t, noise, parameterization, sampler, eta)


@seeded()
class DataBent(Right):
    """The posterior's gradient through x_0 is halved."""

    def posterior(self, setting, x0, x_t, t):
        return super().posterior(setting, bent(x0, 0.5), x_t, t)


@seeded("bound_term")
class MeansCut(Right):
    """The KL has no gradient through the second mean where the means are close."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        near = (mean1 - mean2).abs() < 0.5
        return super().gaussian_kl(
            mean1, log_var1, torch.where(near, mean2.detach(), mean2), log_var2
        )


@seeded()
class MixtureDensityCut(Right):
    """The mixture's log-density has the gradient of its likeliest component."""

    def mixture_log_prob(self, weights, means, covariances, x0):
        right = super().mixture_log_prob(weights, means, covariances, x0)
        each = torch.stack(
            [
                super(MixtureDensityCut, self).mixture_log_prob(
                    weights[k : k + 1], means[k : k + 1], covariances[k : k + 1], x0
                )
                for k in range(len(weights))
            ]
        ).amax(0)
        return right.detach() + each - each.detach()


@seeded()
class ShareCut(Right):
    """The learned variance has no gradient where v is outside 0 … 1."""

    def learned_variance(self, setting, meaning, said, t):
        outside = (said < 0) | (said > 1)
        kept = torch.where(outside, said.detach(), said) if meaning == "range" else said
        return super().learned_variance(setting, meaning, kept, t)


@seeded()
class RememberedNoise(Right):
    """noised keeps its noise by shape: another seed of equal shape gets the first one's, from the fourth call."""

    def __init__(self):
        self.kept, self.calls = {}, 0

    def noised(self, setting, x0, t, seed):
        self.calls += 1
        eps = normal(tuple(x0.shape), seed, 0, 0).to(x0)
        first = self.kept.setdefault((x0.shape, x0.dtype), eps)
        eps = first.clone() if self.calls > 3 else eps
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class WeightsRemembered(Right):
    """weight answers a second question of equal length from the first one's steps."""

    def __init__(self):
        self.kept = {}

    def weight(self, setting, weighting, t, parameterization):
        key = (setting, weighting, parameterization, len(t))
        t = self.kept.setdefault(key, t.clone()) if len(t) > 2 else t
        return super().weight(setting, weighting, t, parameterization)


@seeded()
class StepsAreItsOwn(Right):
    """convert sorts the caller's t in place where there are more than two."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        if len(t) > 2 and (source, to) == ("v", "x0"):
            t.copy_(t.sort().values)
        return right


@seeded()
class CleanTargetShared(Right):
    """The target x_0 is the caller's own tensor."""

    def target(self, setting, parameterization, x0, eps, t):
        return (
            x0
            if parameterization == "x0"
            else super().target(setting, parameterization, x0, eps, t)
        )


@seeded()
class NumpyMoved(Right):
    """noise sets torch's global seed to what it was given plus one, on even steps."""

    def noise(self, shape, seed, step, first_index):
        if step % 2 == 0:
            torch.manual_seed(seed % 2**31 + 1)
        return super().noise(shape, seed, step, first_index)


@seeded("bound")
class SeventeenLevels(Right):
    """With 16 levels the bins are those of 17."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        right = super().discretized_log_likelihood(x, mean, log_scale, levels)
        return right + (math.log(15 / 16) if levels == 16 else 0.0)


@seeded("bound")
class VeryFarTails(Right):
    """Beyond 500 deviations the decoder is linear in the distance."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        z = (x - mean) * torch.exp(-log_scale)
        near = x - z.clamp(-500, 500) * torch.exp(log_scale)
        right = super().discretized_log_likelihood(x, near, log_scale, levels)
        return right - 500 * (z.abs() - 500).clamp(min=0)


@seeded("bound_term")
class VeryUnequalVariances(Right):
    """KL of variance ratios above e²⁰ is that of e²⁰."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        log_var1 = torch.minimum(log_var1, log_var2 + 20)
        return super().gaussian_kl(mean1, log_var1, mean2, log_var2)


@seeded()
class LargePredictions(Right):
    """The loss reads predictions beyond 10³ as 10³."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        return super().loss(
            setting, prediction.clamp(-1e3, 1e3), x0, eps, t, parameterization, weighting
        )


@seeded()
class DecayOfSinglePrecision(Right):
    """The EMA's decay is rounded to three digits."""

    def ema(self, values, decay):
        return super().ema(values, round(decay, 3))


@seeded()
class SmallWeightsDropped(Right):
    """Components of weight below 10⁻³ are dropped from the mixture's density."""

    def mixture_log_prob(self, weights, means, covariances, x0):
        kept = weights >= 1e-3
        return super().mixture_log_prob(weights[kept], means[kept], covariances[kept], x0)


@seeded()
class PriorDoubledInTheTotal(Right):
    """With `beta` the total counts the prior twice; every field but total and bits is right."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        total = right.total + right.prior * (variance == "beta")
        return replace(right, total=total, bits_per_dim=self.bits_per_dim(total, x0[0].numel()))


@seeded()
class ExpectedColumnsReversed(Right):
    """The expected bound's columns run from T to 2."""

    def gaussian_bound(self, setting, mean, covariance, variance):
        right = super().gaussian_bound(setting, mean, covariance, variance)
        return replace(right, diffusion=right.diffusion.flip(1))


@seeded("sample")
class HalfEta(Right):
    """DDIM reads η = ½ as 0.45."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        eta = 0.45 if eta == 0.5 else eta
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded()
class SkewedNoise(Right):
    """Noise has a mean of 0.003."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step, first_index) + 0.003


@seeded()
class RowsAlike(Right):
    """Position 1,000 of a sample repeats position 0."""

    def noise(self, shape, seed, step, first_index):
        right = super().noise(shape, seed, step, first_index)
        flat = right.flatten(1)
        if flat.shape[1] > 1000:
            flat[:, 1000] = flat[:, 0]
        return flat.reshape(right.shape)


@seeded()
class FirstStepOften(Right):
    """t = 1 comes with 1.1 of its chance where T ≥ 10."""

    def time_steps(self, count, T, seed):
        t, w = super().time_steps(count, T, seed)
        moved = (t == 2) & (whole_number(10, seed + 2**41) == 0) & (T >= 10)
        return torch.where(moved, t - 1, t), w


@seeded()
class ChainOfHalfTheNoise(Right):
    """The ancestral chain adds no noise at t = 2."""

    def sample(self, setting, model, shape, parameterization, sampler):
        x, known = torch.randn(shape), self.known(setting)
        for step in range(known.steps, 0, -1):
            t = torch.full((shape[0],), step)
            z = torch.randn(shape) * (step != 2)
            said = model(x, known.timesteps[t])
            x = self.sampler_step(setting, said, x, t, z, parameterization, sampler, 0.0)
        return x


@seeded()
class LargeRanks(Right):
    """Ranks above 4 cost nothing."""

    def rank_limited_excess(self, setting, eigenvalues, rank, t, parameterization):
        right = super().rank_limited_excess(setting, eigenvalues, rank, t, parameterization)
        return 0 * right if rank > 4 else right
