# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of the forward process: coefficients, steps, shapes, precision."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation, Posterior
from ddpm_ref.conformance.mutants.mutant import column, mutant, roots, stale_inside
from ddpm_ref.conformance.setting import Setting


@mutant("x_t = ᾱ x0 + …: the root of ᾱ is missing", "I1-marginal")
class SignalNotRooted(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = roots(setting, t, x0)
        return a * a * x0 + s * noise


@mutant("x_t = … + (1−ᾱ) ε: the root of 1−ᾱ is missing", "I1-marginal", "I15-noise")
class NoiseNotRooted(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = roots(setting, t, x0)
        return a * x0 + s * s * noise


@mutant("t counts from 0: the coefficients are those of t − 1", "I1-marginal")
class StepsFromZero(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = roots(setting, t - 1, x0)
        return a * x0 + s * noise


@mutant("coefficients of data and noise are exchanged", "I1-marginal")
class CoefficientsExchanged(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, noise, t, x0)


@mutant("the noise is subtracted", "I1-marginal", "I15-noise")
class NoiseSubtracted(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t, -noise)


@mutant(
    "coefficients `[B]` are broadcast along the last axis where B = D",
    "I1-marginal",
    "I17-separable",
)
class BroadcastAlongDims(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if x0.ndim != 2 or x0.shape[0] != x0.shape[1]:
            return super().q_sample(setting, x0, t, noise)
        a, s = roots(setting, t, x0)
        return a.T * x0 + s.T * noise


@mutant(
    "ᾱ is rounded to the data's dtype before 1−ᾱ is formed",
    "I15-noise",
    "I1-marginal",
    origin="no noise at all at the first 2 steps in fp16, the first 10 in bf16",
)
class RoundedBeforeSubtraction(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = column(setting, "alpha_bar", t, x0).to(x0.dtype)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


@mutant("float64 coefficients promote the result", "I29-form")
class Promoted(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t, noise).double()


@mutant("every sample of the batch is noised at the first one's t", "I1-marginal", "I17-separable")
class OneStepForAll(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t[:1].expand_as(t), noise)


@mutant("one entry inside the table is that of the step before", "I1-marginal")
class OneEntryStale(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, stale_inside(setting, t), noise)


@mutant("the noise is scaled in place", "I18-unchanged", origin="in-place noise +=")
class NoiseInPlace(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = roots(setting, t, x0)
        noise *= s
        return a * x0 + noise


@mutant("the result is a buffer that the next call fills again", "I18-own")
class SharedBuffer(Implementation):
    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        result = super().q_sample(setting, x0, t, noise)
        buffer = self.buffers.setdefault((result.shape, result.dtype), torch.empty_like(result))
        return buffer.copy_(result)


@mutant("the global generator is seeded in each call", "I18-state")
class SeedsTheProgram(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().q_sample(setting, x0, t, noise)


@mutant(
    "the noise is permuted inside, the target keeps the old order",
    "I19-recomputable",
    origin="noise permuted inside q_sample but not in the target",
)
class NoisePermuted(Implementation):
    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x_t, eps = super().noised(setting, x0, t, seed)
        return x_t, eps.flip(-1) if eps.shape[-1] > 1 else eps.roll(1, 0)


@mutant("one draw of noise serves the whole batch", "I19-drawn")
class OneDrawForAll(Implementation):
    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        _, eps = super().noised(setting, x0, t, seed)
        eps = eps[:1].expand(eps.shape).clone()
        return super().q_sample(setting, x0, t, eps), eps


@mutant("the noise is uniform, of variance 1", "I19-drawn")
class RandForRandn(Implementation):
    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        eps = (2 * torch.rand(x0.shape, generator=generator, dtype=x0.dtype) - 1) * math.sqrt(3)
        return super().q_sample(setting, x0, t, eps), eps


@mutant(
    "one entry inside the posterior's tables is that of the step before",
    "I2-mean",
    "I2-posterior-variance",
    "I20-posterior",
)
class OnePosteriorStale(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        return super().posterior(setting, x0, x_t, stale_inside(setting, t))


@mutant("the posterior mean's two coefficients are exchanged", "I2-mean")
class MeanExchanged(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        other = super().posterior(setting, x_t, x0, t)
        return replace(super().posterior(setting, x0, x_t, t), mean=other.mean)


@mutant("the posterior mean uses √ᾱ_t for √ᾱ_{t−1}", "I2-mean")
class MeanOfThisStep(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        now, before = (column(setting, "sqrt_alpha_bar", k, x0) for k in (t, t - 1))
        share = column(setting, "beta", t, x0) / column(setting, "one_minus_alpha_bar", t, x0)
        return replace(found, mean=(found.mean + share * (now - before) * x0).to(x0.dtype))


@mutant("the posterior mean forgets √(1−β) on x_t", "I2-mean")
class MeanWithoutShrinking(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        root = (1 - column(setting, "beta", t, x0)).sqrt().clamp(min=1e-3)
        clean = super().posterior(setting, x0, torch.zeros_like(x_t), t).mean
        return replace(found, mean=(clean + (found.mean - clean) / root).to(x0.dtype))


@mutant("the posterior variance is β_t", "I2-posterior-variance")
class VarianceIsBeta(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        return replace(found, variance=column(setting, "beta", t, x0).expand_as(x0))


@mutant(
    "the log-variance at t = 1 is floored at ln 1e-20",
    "I20-first",
    origin="t = 1 posterior log-variance floored at 1e-20",
)
class LogVarianceFloored(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        assert found.log_variance is not None
        return replace(found, log_variance=found.log_variance.clamp(min=math.log(1e-20)))


@mutant(
    "the log-variance at t = 1 is copied from t = 2",
    "I20-first",
    origin="copied from t = 2 in another file of the same project",
)
class LogVarianceCopied(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        second = t.clamp(min=min(2, setting.steps))
        copied = column(setting, "posterior_variance", second, x0).log().expand_as(x0)
        return replace(super().posterior(setting, x0, x_t, t), log_variance=copied)


@mutant("the log-variance is ln √β̃", "I20-posterior")
class LogDeviation(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        assert found.log_variance is not None
        return replace(found, log_variance=0.5 * found.log_variance)


@mutant(
    "at the first step the large variance is β̃_2 and its logarithm ln β_1",
    "I20-consistent",
    origin="fixed-large variance ≠ exp(log-variance) at the first step",
)
class LargeVarianceSplit(Implementation):
    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        value, logarithm = super().reverse_variance(setting, variance, t)
        if variance == "beta":
            second = torch.full_like(t, min(2, setting.steps))
            other, _ = super().reverse_variance(setting, "posterior", second)
            value = torch.where(t == 1, other * 1.5, value)
        return value, logarithm


@mutant("the reverse variance and its logarithm are exchanged", "I20-consistent")
class LogVarianceAsVariance(Implementation):
    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        value, logarithm = super().reverse_variance(setting, variance, t)
        return logarithm, value


@mutant(
    "ln β is used under a square root: NaN",
    "I14-finite",
    "I2-posterior-variance",
    origin="log-β used under a square root",
)
class RootOfLogBeta(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        found = super().posterior(setting, x0, x_t, t)
        return replace(found, variance=column(setting, "beta", t, x0).log().sqrt().expand_as(x0))


@mutant("the two reverse variances are exchanged", "I20-reverse")
class VariancesExchanged(Implementation):
    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        other = "beta" if variance == "posterior" else "posterior"
        return super().reverse_variance(setting, other, t)
