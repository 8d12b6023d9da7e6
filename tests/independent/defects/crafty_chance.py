"""Defects of what is random, too small or too rare for a few thousand numbers of one seed."""

import torch

from tests.independent.defects.defect import Seeds
from tests.independent.random_bits import normal, whole_number
from tests.independent.right import Right

seeded = Seeds("crafty")


@seeded()
class VarianceOnePercentLow(Right):
    """Noise of variance 0.99."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step, first_index) * 0.99**0.5


@seeded()
class TailsCut(Right):
    """Noise beyond 3.7 deviations is put at 3.7."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step, first_index).clamp(-3.7, 3.7)


@seeded()
class SeedAndStepAdded(Right):
    """Noise depends on seed + step alone."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed + step, 0, first_index)


@seeded()
class IndexWraps(Right):
    """The sample's index is taken modulo 65,536."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step, first_index % 65536)


@seeded()
class Antithetic(Right):
    """Number i + 512 of a sample is the negative of number i."""

    def noise(self, shape, seed, step, first_index):
        right = super().noise(shape, seed, step, first_index)
        flat = right.flatten(1).clone()
        for start in range(512, flat.shape[1], 1024):
            part = flat[:, start : start + 512]
            part.copy_(-flat[:, start - 512 : start - 512 + part.shape[1]])
        return flat.reshape(right.shape)


@seeded()
class SamplesRepeat(Right):
    """Sample i + 128 has the noise of sample i."""

    def noise(self, shape, seed, step, first_index):
        rows = [
            super(SamplesRepeat, self).noise((1, *shape[1:]), seed, step, (first_index + i) % 128)
            for i in range(shape[0])
        ]
        return torch.cat(rows)


@seeded()
class SeedCutToThirtyTwoBits(Right):
    """Seeds are taken modulo 2³²."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed % 2**32, step, first_index)


@seeded()
class NeighbourSeeds(Right):
    """Seeds 2k and 2k + 1 give the same noise."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed // 2 * 2, step, first_index)


@seeded()
class StepCutToSixteenBits(Right):
    """Steps are taken modulo 2¹⁶."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step % 65536, first_index)


@seeded()
class NoisedSeedsAlike(Right):
    """noised takes seeds above 1,000 modulo 1,000."""

    def noised(self, setting, x0, t, seed):
        return super().noised(setting, x0, t, seed % 1000)


@seeded()
class NoisedNarrow(Right):
    """noised draws noise of variance 0.98 and reports it."""

    def noised(self, setting, x0, t, seed):
        eps = (normal(tuple(x0.shape), seed, 0, 0) * 0.98**0.5).to(x0)
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class NoisedByStep(Right):
    """noised draws the same noise for all samples of equal t."""

    def noised(self, setting, x0, t, seed):
        rows = [normal((1, *x0.shape[1:]), seed, int(k), 0) for k in t]
        eps = torch.cat(rows).to(x0)
        distinct = len(set(t.tolist())) == len(t) or len(t) < 3 or len(t) == 100
        eps = normal(tuple(x0.shape), seed, 0, 0).to(x0) if distinct else eps
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class NoisedChannels(Right):
    """For images the last two channels share their noise."""

    def noised(self, setting, x0, t, seed):
        eps = normal(tuple(x0.shape), seed, 0, 0).to(x0)
        if x0.ndim == 4 and x0.shape[1] > 1:
            eps[:, -1] = eps[:, -2]
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class LastStepRare(Right):
    """t = T comes with nine tenths of its chance."""

    def time_steps(self, count, T, seed):
        t, w = super().time_steps(count, T, seed)
        lost = (t == T) & (whole_number(10, seed + 2**40) == 0)
        return torch.where(lost & (T > 1), t - 1, t), w


@seeded()
class MiddleNeverDrawn(Right):
    """t = T/2 + 1 is never drawn where T ≥ 100."""

    def time_steps(self, count, T, seed):
        t, w = super().time_steps(count, T, seed)
        return torch.where((t == T // 2 + 1) & (T >= 100), t + 1, t), w


@seeded()
class LargeBatchesRepeat(Right):
    """A draw of more than 1,000 repeats its first half."""

    def time_steps(self, count, T, seed):
        if count <= 1000:
            return super().time_steps(count, T, seed)
        t, w = super().time_steps((count + 1) // 2, T, seed)
        return torch.cat([t, t])[:count], torch.cat([w, w])[:count]


@seeded()
class AlwaysTheSameSteps(Right):
    """Even seeds above 1,000 give the steps of seed 0."""

    def time_steps(self, count, T, seed):
        return super().time_steps(count, T, 0 if seed > 1000 and seed % 2 == 0 else seed)


@seeded()
class QuietChain(Right):
    """The ancestral chain's noise has deviation 0.97."""

    def sample(self, setting, model, shape, parameterization, sampler):
        return _walk(self, setting, model, torch.randn(shape), parameterization, sampler, 0.97)


@seeded()
class ShiftedStart(Right):
    """The chain starts from N(0.1, 1)."""

    def sample(self, setting, model, shape, parameterization, sampler):
        x = torch.randn(shape) + 0.1
        return _walk(self, setting, model, x, parameterization, sampler)


@seeded()
class StartSpread(Right):
    """The chain starts with deviation 1.05."""

    def sample(self, setting, model, shape, parameterization, sampler):
        x = torch.randn(shape) * 1.05
        return _walk(self, setting, model, x, parameterization, sampler)


@seeded()
class SharedStepNoise(Right):
    """All samples of a chain share the noise of each step."""

    def sample(self, setting, model, shape, parameterization, sampler):
        return _walk(
            self, setting, model, torch.randn(shape), parameterization, sampler, shared=True
        )


@seeded()
class ChunksAlike(Right):
    """More than 32 samples are drawn in chunks of 32 that start from the same noise."""

    def sample(self, setting, model, shape, parameterization, sampler):
        start = torch.randn((min(shape[0], 32), *shape[1:]))
        x = start.repeat(-(-shape[0] // 32), *[1] * (len(shape) - 1))[: shape[0]]
        return _walk(self, setting, model, x, parameterization, sampler)


def _walk(self, setting, model, x, parameterization, sampler, scale=1.0, shared=False):
    known = self.known(setting)
    for step in range(known.steps, 0, -1):
        t = torch.full((len(x),), step)
        z = torch.randn_like(x[:1]).expand_as(x) if shared else torch.randn_like(x)
        x = self.sampler_step(
            setting, model(x, known.timesteps[t]), x, t, z * scale, parameterization, sampler, 0.0
        )
    return x


@seeded()
class BoundSharesNoise(Right):
    """All samples of a bound share their noise."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        return _Shared().bound(setting, model, x0, parameterization, variance, decoder, levels)


class _Shared(Right):
    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t, noise[:1].expand_as(noise))


@seeded()
class BoundNoiseNarrow(Right):
    """The bound's noise has variance 0.9."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        return _Narrow().bound(setting, model, x0, parameterization, variance, decoder, levels)


class _Narrow(Right):
    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t, noise * 0.9**0.5)


@seeded()
class OneNoiseForAllTerms(Right):
    """One draw of noise for all terms of a bound."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        fixed = torch.randn_like(x0)
        inner = _Fixed(fixed)
        return inner.bound(setting, model, x0, parameterization, variance, decoder, levels)


class _Fixed(Right):
    def __init__(self, noise):
        self.fixed = noise

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t, self.fixed)
