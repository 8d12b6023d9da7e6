"""Ordinary mistakes in schedules, forward process and variances."""

import math
from dataclasses import replace

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds, column, named, of_betas, of_decay, ramp, roots
from tests.independent.right import Right
from tests.independent.tables import tables

seeded = Seeds("ordinary")


def cosine(T, s=0.008, shift=0):
    return [math.cos(((t + shift) / T + s) / (1 + s) * math.pi / 2) ** 2 for t in range(T + 1)]


@seeded()
class CosineUncapped(Right):
    """Cosine without the cap β ≤ 0.999: ᾱ_T is 0 but for rounding."""

    def known(self, setting):
        T = setting.T
        return (
            of_decay(cosine(T), setting, cap=1 - 1e-12)
            if named(setting, "cosine")
            else tables(setting)
        )


@seeded()
class CosineOffsetForgotten(Right):
    """Cosine with s = 0."""

    def known(self, setting):
        right = tables(setting)
        return of_decay(cosine(setting.T, s=0.0), setting) if named(setting, "cosine") else right


@seeded()
class CosineShiftedByOne(Right):
    """Cosine read at t + 1."""

    def known(self, setting):
        if not named(setting, "cosine") or setting.T < 3:
            return tables(setting)
        f = cosine(setting.T, shift=1)
        return of_decay([*f[:-1], f[-2] * 1e-3], setting)


@seeded()
class CosineNotSquared(Right):
    """Cosine itself as ᾱ, its square forgotten."""

    def known(self, setting):
        f = [math.sqrt(v) for v in cosine(setting.T)]
        return of_decay(f, setting) if named(setting, "cosine") else tables(setting)


@seeded()
class LinearScaledByLength(Right):
    """Linear with ends times 1000/T, and β left above 1 out by a cap."""

    def known(self, setting):
        if not named(setting, "linear") or setting.zero_terminal_snr:
            return tables(setting)
        scale = 1000 / setting.T
        return of_betas(ramp(1e-4 * scale, 0.02 * scale, setting.T).clamp(max=0.999), setting)


@seeded()
class LinearOfRoots(Right):
    """ "Linear" that is linear in √β (scaled_linear)."""

    def known(self, setting):
        betas = ramp(1e-4**0.5, 0.02**0.5, setting.T).square()
        return of_betas(betas, setting) if named(setting, "linear") else tables(setting)


@seeded()
class LinearEndLeftOut(Right):
    """Linear over T + 1 points of which the last is left out."""

    def known(self, setting):
        betas = ramp(1e-4, 0.02, setting.T + 1)[:-1]
        return of_betas(betas, setting) if named(setting, "linear") else tables(setting)


@seeded()
class SigmoidEndsSwappedForTanh(Right):
    """Sigmoid from −3 to 3 by tanh, which is the sigmoid of twice the argument."""

    def known(self, setting):
        T = setting.T
        f = [math.tanh(3) - math.tanh(-3 + 6 * t / T) for t in range(T + 1)]
        return of_decay(f, setting) if named(setting, "sigmoid") else tables(setting)


@seeded()
class SigmoidNotNormalized(Right):
    """Sigmoid whose ᾱ does not begin at 1: β_1 takes the jump."""

    def known(self, setting):
        if not named(setting, "sigmoid"):
            return tables(setting)
        T = setting.T
        f = [1 / (1 + math.exp(-3 + 6 * t / T)) for t in range(T + 1)]
        return of_decay([1.0, *f[1:]], setting)


@seeded()
class KeptInSinglePrecision(Right):
    """ᾱ kept in float32 under float64 tables: 1 − ᾱ_1 is off in the fourth digit."""

    def known(self, setting):
        right = tables(setting)
        kept = right.alpha_bar.float().double()
        return replace(right, alpha_bar=kept, sigma2=1 - kept)


@seeded()
class RescaledWithoutRoot(Right):
    """Zero terminal SNR by shifting ᾱ where √ᾱ belongs."""

    def known(self, setting):
        right = tables(setting)
        if not setting.zero_terminal_snr or setting.timesteps is not None:
            return right
        kept = tables(replace(setting, zero_terminal_snr=False)).alpha_bar[1:]
        kept = (kept - kept[-1]) * kept[0] / (kept[0] - kept[-1])
        kept = torch.cat([torch.ones(1, dtype=torch.float64), kept])
        return replace(right, alpha_bar=kept, sigma2=1 - kept, snr=kept / (1 - kept))


@seeded()
class RescaledWithoutScale(Right):
    """Zero terminal SNR by the shift of √ᾱ alone, not scaled back to its first value."""

    def known(self, setting):
        right = tables(setting)
        if not setting.zero_terminal_snr or setting.timesteps is not None:
            return right
        root = tables(replace(setting, zero_terminal_snr=False)).alpha_bar.sqrt()
        kept = (root - root[-1]).square()
        kept[0] = 1
        return replace(right, alpha_bar=kept, sigma2=1 - kept, snr=kept / (1 - kept))


@seeded("reverse_variance", "posterior", "sampler_step")
class BetaOfEveryStep(Right):
    """Under respacing β is that of the full schedule."""

    def known(self, setting):
        right = tables(setting)
        if setting.timesteps is None:
            return right
        full = tables(replace(setting, timesteps=None))
        beta = full.beta[right.timesteps]
        return replace(right, beta=beta, log_beta=beta.log())


@seeded()
class RespacedOneEarly(Right):
    """Under respacing ᾱ is read one index early."""

    def known(self, setting):
        if setting.timesteps is None:
            return tables(setting)
        full = tables(replace(setting, timesteps=None))
        right = tables(setting)
        kept = full.alpha_bar[(right.timesteps - 1).clamp(min=0)]
        return replace(right, alpha_bar=kept, sigma2=1 - kept)


@seeded()
class LogSnrInDecibels(Right):
    """The table log_snr is 10 log₁₀."""

    def tables(self, setting):
        found = super().tables(setting)
        return {**found, "log_snr": found["log_snr"] * 10 / math.log(10)}


@seeded()
class SnrIsItsRoot(Right):
    """The table snr is √ᾱ/√(1−ᾱ)."""

    def tables(self, setting):
        found = super().tables(setting)
        return {**found, "snr": found["snr"].sqrt()}


@seeded()
class AlphaForAlphaBar(Right):
    """The table alpha_bar is α."""

    def tables(self, setting):
        found = super().tables(setting)
        return {**found, "alpha_bar": 1 - found["beta"]}


@seeded()
class PosteriorVarianceFloored(Right):
    """The table β̃ has 1e-20 at t = 1."""

    def tables(self, setting):
        found = super().tables(setting)
        return {**found, "posterior_variance": found["posterior_variance"].clamp(min=1e-20)}


@seeded()
class PosteriorVarianceIsBeta(Right):
    """The table β̃ is β from t = 2 on."""

    def tables(self, setting):
        found = super().tables(setting)
        value = found["beta"].clone()
        value[0] = 0
        return {**found, "posterior_variance": value}


@seeded()
class NoiseByVariance(Right):
    """(1−ᾱ) ε where √(1−ᾱ) ε belongs."""

    def q_sample(self, setting, x0, t, noise):
        a, s = roots(self, setting, t, x0)
        return (a * x0.double() + s**2 * noise.double()).to(x0.dtype)


@seeded()
class RootsExchanged(Right):
    """√ᾱ on the noise, √(1−ᾱ) on the data."""

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, noise, t, x0)


@seeded()
class CoefficientsCastFirst(Right):
    """ᾱ cast to the sample's dtype before 1 − ᾱ is formed."""

    def q_sample(self, setting, x0, t, noise):
        kept = self.known(setting).at("alpha_bar", t, x0).to(x0.dtype)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


@seeded()
class OneStepLate(Right):
    """q_sample reads the tables at t + 1, at T at T."""

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, (t + 1).clamp(max=setting.steps), noise)


@seeded()
class NoiseScaledInPlace(Right):
    """noise.mul_(√(1−ᾱ)) changes the caller's noise."""

    def q_sample(self, setting, x0, t, noise):
        a, s = roots(self, setting, t, x0)
        noise.mul_(s.to(noise.dtype))
        return (a * x0.double() + noise.double()).to(x0.dtype)


@seeded()
class BroadcastAlongTheLastAxis(Right):
    """Coefficients `[B]` meet the last axis where it has B entries."""

    def q_sample(self, setting, x0, t, noise):
        if x0.ndim != 2 or x0.shape[1] != len(t):
            return super().q_sample(setting, x0, t, noise)
        a, s = (v.flatten() for v in roots(self, setting, t, x0))
        return (a * x0.double() + s * noise.double()).to(x0.dtype)


@seeded()
class Promoted(Right):
    """The result of q_sample is float64 whatever x0 is."""

    def q_sample(self, setting, x0, t, noise):
        a, s = roots(self, setting, t, x0)
        return a * x0 + s * noise


@seeded()
class TargetPermuted(Right):
    """The noise reported as target is that of the next sample."""

    def noised(self, setting, x0, t, seed):
        x_t, eps = super().noised(setting, x0, t, seed)
        return x_t, eps.roll(1, 0)


@seeded()
class OneDrawForTheBatch(Right):
    """One draw of noise for all samples."""

    def noised(self, setting, x0, t, seed):
        eps = super().noised(setting, x0[:1], t[:1], seed)[1].expand_as(x0).clone()
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class UniformNoise(Right):
    """Noise is uniform, scaled to variance 1."""

    def noised(self, setting, x0, t, seed):
        g = torch.Generator().manual_seed(seed)
        eps = ((torch.rand(x0.shape, generator=g) - 0.5) * 12**0.5).to(x0)
        return self.q_sample(setting, x0, t, eps), eps


@seeded()
class PosteriorCoefficientsExchanged(Right):
    """The posterior's coefficients of x_0 and x_t are exchanged."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        return Posterior(
            super().posterior(setting, x_t, x0, t).mean, *list(vars(right).values())[1:]
        )


@seeded()
class PosteriorWithCurrentAlphaBar(Right):
    """√ᾱ_t where √ᾱ_{t−1} belongs in the coefficient of x_0."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        clean, noisy = self.mean_coefficients(setting, t, x0)
        clean = clean * self.known(setting).at("alpha", t, x0).sqrt()
        mean = (clean * x0.double() + noisy * x_t.double()).to(x0.dtype)
        return Posterior(mean, right.variance, right.log_variance)


@seeded()
class FirstLogVarianceFloored(Right):
    """ln(max(β̃, 1e-20))."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        return Posterior(right.mean, right.variance, right.log_variance.clamp(min=math.log(1e-20)))


@seeded()
class FirstLogVarianceFromTheSecond(Right):
    """ln β̃_2 at t = 1."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        second = self.known(setting).at("clipped_log_tilde", t, x0).to(x0.dtype)
        return Posterior(right.mean, right.variance, second.expand_as(x0).clone())


@seeded()
class PosteriorVarianceOfTheModel(Right):
    """The posterior's variance is β_t from t = 2 on."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        beta = torch.where(t == 1, torch.zeros(()), self.known(setting).at("beta", t))
        return Posterior(
            right.mean, column(beta, x0).to(x0.dtype).expand_as(x0), right.log_variance
        )


@seeded()
class LogOfTheDeviation(Right):
    """log_variance is ln of the standard deviation."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        return Posterior(right.mean, right.variance, right.log_variance / 2)


@seeded()
class FixedLargeWithSmallFirstLog(Right):
    """`beta` at t = 1: variance β_1 beside ln β̃_2."""

    def reverse_variance(self, setting, variance, t):
        value, log = super().reverse_variance(setting, variance, t)
        first = self.known(setting).at("clipped_log_tilde", t)
        return value, torch.where((t == 1) & (variance == "beta"), first, log)


@seeded()
class VariancesExchanged(Right):
    """`posterior` gives β and `beta` gives β̃."""

    def reverse_variance(self, setting, variance, t):
        other = {"posterior": "beta", "beta": "posterior"}[variance]
        return super().reverse_variance(setting, other, t)


@seeded()
class LearnedRangeMixesVariances(Right):
    """The learned variance is v β + (1−v) β̃, not the exponential of mixed logarithms."""

    def learned_variance(self, setting, meaning, said, t):
        if meaning != "range":
            return super().learned_variance(setting, meaning, said, t)
        known = self.known(setting)
        low = known.at("clipped_log_tilde", t, said).exp()
        value = said * known.at("beta", t, said) + (1 - said) * low
        return value, value.log()


@seeded()
class LearnedRangeUnshifted(Right):
    """v is read as −1 … 1 where it is 0 … 1."""

    def learned_variance(self, setting, meaning, said, t):
        return super().learned_variance(
            setting, meaning, (said + 1) / 2 if meaning == "range" else said, t
        )


@seeded()
class LearnedLogOfDeviation(Right):
    """`log` is read as ln σ: the variance is its square."""

    def learned_variance(self, setting, meaning, said, t):
        value, log = super().learned_variance(setting, meaning, said, t)
        return (value**2, log) if meaning == "log" else (value, log)


@seeded()
class LearnedVarianceItself(Right):
    """`log`: what the network says is used as the variance."""

    def learned_variance(self, setting, meaning, said, t):
        value, log = super().learned_variance(setting, meaning, said, t)
        return (said.clone(), log) if meaning == "log" else (value, log)


@seeded()
class LearnedRangeEndsExchanged(Right):
    """The range runs from ln β at 0 to ln β̃ at 1."""

    def learned_variance(self, setting, meaning, said, t):
        return super().learned_variance(
            setting, meaning, 1 - said if meaning == "range" else said, t
        )


@seeded()
class LearnedFirstFloor(Right):
    """At t = 1 the range's lower end is ln 1e-20."""

    def learned_variance(self, setting, meaning, said, t):
        value, log = super().learned_variance(setting, meaning, said, t)
        if meaning != "range":
            return value, log
        high = self.known(setting).at("log_beta", t, said)
        floored = said * high + (1 - said) * math.log(1e-20)
        log = torch.where(column(t, said) == 1, floored.to(log.dtype), log)
        return log.exp(), log
