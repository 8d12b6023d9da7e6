"""Ordinary mistakes in samplers, training and quality figures."""

from dataclasses import replace

import torch

from tests.independent.defects.defect import Seeds, column
from tests.independent.right import Right

seeded = Seeds("ordinary")


@seeded("sample")
class NoiseInTheLastStep(Right):
    """The ancestral step adds √β_1 noise at t = 1."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        extra = torch.where(t == 1, self.known(setting).at("beta", t).sqrt(), torch.zeros(()))
        if sampler == "ddim":
            return right
        return right + (column(extra, x_t) * noise).to(right.dtype)


@seeded("sample")
class NeighbourForPrevious(Right):
    """DDIM under respacing steps to ᾱ of the trained index t − 1, not of the list's."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        if sampler != "ddim" or setting.timesteps is None:
            return super().sampler_step(
                setting, prediction, x_t, t, noise, parameterization, sampler, eta
            )
        stride = setting.T // len(setting.timesteps)
        full = self.known(replace(setting, timesteps=None))
        before = column(
            full.alpha_bar[(self.known(setting).timesteps[t] - stride).clamp(min=0)], x_t
        )
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0")
        eps = self._converted(setting, prediction, x_t, t, parameterization, "eps")
        variance = eta**2 * self.known(setting).at("tilde", t, x_t)
        direction = (1 - before - variance).clamp(min=0).sqrt()
        return (before.sqrt() * clean + direction * eps + variance.sqrt() * noise).to(x_t.dtype)


@seeded("sample")
class CleanUsedAsNoise(Right):
    """DDIM points along x̂_0 where ε̂ belongs."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim":
            return right
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0")
        eps = self._converted(setting, prediction, x_t, t, parameterization, "eps")
        return (right + self._direction(setting, t, x_t, eta) * (clean - eps)).to(x_t.dtype)


@seeded()
class EtaAsVariance(Right):
    """DDIM's noise variance is η β̃, not η² β̃."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta**0.5
        )


@seeded()
class DirectionKeepsItsLength(Right):
    """DDIM's direction is √(1−ᾱ') whatever η."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim":
            return right
        eps = self._converted(setting, prediction, x_t, t, parameterization, "eps")
        more = self._direction(setting, t, x_t, 0.0) - self._direction(setting, t, x_t, eta)
        return (right + more * eps).to(x_t.dtype)


@seeded("sample")
class EndsAtTheFirstStep(Right):
    """DDIM's last step goes to ᾱ_1, not to data."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim":
            return right
        return torch.where(column(t, x_t) == 1, x_t, right)


@seeded("sample")
class AncestralWithModelVariance(Right):
    """The ancestral step has variance β_t."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        known = self.known(setting)
        more = known.at("beta", t, x_t).sqrt() - known.at("tilde", t, x_t).sqrt()
        more = torch.where(column(t, x_t) == 1, torch.zeros(()), more)
        return right if sampler == "ddim" else (right + more * noise).to(x_t.dtype)


@seeded("sample")
class StepClipped(Right):
    """x̂_0 is clipped in the step though nothing asked for it."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        clean = self._converted(setting, prediction, x_t, t, parameterization, "x0").clamp(-1, 1)
        return (
            super()
            .sampler_step(setting, clean, x_t.double(), t, noise.double(), "x0", sampler, eta)
            .to(x_t.dtype)
        )


@seeded()
class NoiseScaledByVariance(Right):
    """The ancestral step adds β̃ z where √β̃ z belongs."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        tilde = self.known(setting).at("tilde", t, x_t).sqrt()
        noise = noise * tilde.to(noise.dtype) if sampler == "ddpm" else noise
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded()
class StartFromUniform(Right):
    """The chain starts from torch.rand."""

    def sample(self, setting, model, shape, parameterization, sampler):
        return _chain(self, setting, model, torch.rand(shape), parameterization, sampler)


@seeded()
class FirstStepLeftOut(Right):
    """The chain never visits t = 1."""

    def sample(self, setting, model, shape, parameterization, sampler):
        return _chain(self, setting, model, torch.randn(shape), parameterization, sampler, last=2)


@seeded()
class ChainAsksFromZero(Right):
    """The chain hands the model t − 1."""

    def sample(self, setting, model, shape, parameterization, sampler):
        def shifted(x_t, t):
            return model(x_t, (t - 1).clamp(min=1))

        return super().sample(setting, shifted, shape, parameterization, sampler)


@seeded()
class ChainOfTheOtherSampler(Right):
    """ddim runs the ancestral chain."""

    def sample(self, setting, model, shape, parameterization, sampler):
        return super().sample(setting, model, shape, parameterization, "ddpm")


@seeded()
class OneNoiseForAllSteps(Right):
    """The chain draws its noise once for all steps."""

    def sample(self, setting, model, shape, parameterization, sampler):
        fixed = torch.randn(shape)
        return _chain(
            self, setting, model, torch.randn(shape), parameterization, sampler, noise=fixed
        )


def _chain(self, setting, model, x, parameterization, sampler, last=1, noise=None):
    known = self.known(setting)
    for step in range(known.steps, last - 1, -1):
        t = torch.full((len(x),), step)
        z = torch.randn_like(x) if noise is None else noise
        x = self.sampler_step(
            setting, model(x, known.timesteps[t]), x, t, z, parameterization, sampler, 0.0
        )
    return x


@seeded()
class NoiseOfTheBatch(Right):
    """Noise depends on the place in the batch, not on the sample's index."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, step, 0)


@seeded()
class NoiseOfTheSeedAlone(Right):
    """Noise does not depend on the step."""

    def noise(self, shape, seed, step, first_index):
        return super().noise(shape, seed, 0, first_index)


@seeded()
class OnePointTooMany(Right):
    """Low-discrepancy t by arange(0, 1, 1/n): n + 1 points for n = 49, 98, 103."""

    def time_steps(self, count, T, seed):
        t, _ = super().time_steps(count, T, seed)
        many = len(torch.arange(0, 1, 1 / count)) if count in (49, 98, 103) else count
        many = max(many, count + (count in (49, 98, 103)))
        return t[torch.arange(many) % count], torch.ones(many, dtype=torch.float64)


@seeded()
class LastStepNeverDrawn(Right):
    """t from 1 … T − 1 (randint's upper end)."""

    def time_steps(self, count, T, seed):
        return super().time_steps(count, max(T - 1, 1), seed)


@seeded()
class WeightsForgotten(Right):
    """t is drawn in proportion to t, with weights of 1."""

    def time_steps(self, count, T, seed):
        g = torch.Generator().manual_seed(seed)
        p = torch.arange(1, T + 1).double()
        return torch.multinomial(p, count, True, generator=g) + 1, torch.ones(count).double()


@seeded()
class DecayOnTheNewValue(Right):
    """EMA with decay and 1 − decay exchanged."""

    def ema(self, values, decay):
        return super().ema(values, 1 - decay)


@seeded()
class AverageStartedAtZero(Right):
    """EMA started at 0."""

    def ema(self, values, decay):
        powers = decay ** torch.arange(1, len(values) + 1, dtype=torch.float64)
        shift = (powers * values[0].double()).to(values.dtype)
        return super().ema(values, decay) - shift


@seeded()
class AverageWarmedUp(Right):
    """The decay is min(decay, (1 + n)/(10 + n))."""

    def ema(self, values, decay):
        average, found = values[0], []
        for n, value in enumerate(values):
            d = min(decay, (1 + n) / (10 + n))
            average = d * average + (1 - d) * value
            found.append(average)
        return torch.stack(found)


@seeded()
class CovarianceOfNumbers(Right):
    """The Fréchet distance without the cross term's 2."""

    def frechet_distance(self, real, generated):
        (_, s1), (_, s2) = (self._moments(self.features(v)) for v in (real, generated))
        right = super().frechet_distance(real, generated)
        cross = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
        return right + float(cross)


@seeded()
class FeaturesInTrainMode(Right):
    """Features are normalized with the batch's own statistics."""

    def features(self, images):
        right = super().features(images)
        return (right - right.mean(0)) / (right.std(0, correction=0) + 1e-5)


@seeded()
class NamedAtFiveHundred(Right):
    """The letters FID from 500 samples on."""

    def frechet_label(self, extractor, samples):
        return "FID" if extractor == "inception" and samples >= 500 else f"FD[{extractor}]"


@seeded()
class NamedForAnyFeatures(Right):
    """The letters FID for any features."""

    def frechet_label(self, extractor, samples):
        return "FID" if samples >= 10_000 else f"FD[{extractor}]"


@seeded("sample")
class HalfOfTheNoise(Right):
    """DDIM adds ½ σ z."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        noise = noise / 2 if sampler == "ddim" else noise
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded("sample")
class AlphaBarForAlpha(Right):
    """The ancestral mean as (x_t − β/σ ε)/√ᾱ_t at t ≥ 2: ᾱ where α belongs."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddpm":
            return right
        known = self.known(setting)
        mean = right - known.at("tilde", t, x_t).sqrt() * noise
        kept = known.at("alpha_bar", t, x_t, shift=-1).sqrt().clamp(min=1e-3)
        return (mean / kept + right - mean).to(x_t.dtype)


@seeded()
class CoefficientsOfTheBatchMean(Right):
    """The step uses the mean of t over the batch."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        t = t.double().mean().round().long().expand_as(t)
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
