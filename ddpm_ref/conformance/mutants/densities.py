# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of KL divergences, decoders and prior terms."""

import math

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import column, mutant
from ddpm_ref.conformance.setting import Setting

_LN2 = math.log(2)


@mutant("KL from second to first", "I9-kl")
class KlReversed(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        return super().gaussian_kl(mean2, log_var2, mean1, log_var1)


@mutant("KL in bits", "I9-kl")
class KlInBits(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        return super().gaussian_kl(mean1, log_var1, mean2, log_var2) / _LN2


@mutant("KL without the trace term", "I9-kl", "I9-nonnegative")
class KlWithoutTrace(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        known = super().gaussian_kl(mean1, log_var1, mean2, log_var2)
        return known - 0.5 * (log_var1 - log_var2).exp()


@mutant("KL takes log-variances for log-deviations", "I9-kl")
class KlOfDeviations(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        return super().gaussian_kl(mean1, 2 * log_var1, mean2, 2 * log_var2)


@mutant("KL of equal Gaussians is −1e-9", "I9-nonnegative")
class KlBelowZero(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        single = [v.float() for v in (mean1, log_var1, mean2, log_var2)]
        m1, l1, m2, l2 = single
        terms = -1.0 + l2 - l1 + torch.exp(l1 - l2) + (m1 - m2) ** 2 * torch.exp(-l2)
        return 0.5 * terms.double() - 1e-9


def _tanh_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def _edges(x: Tensor, mean: Tensor, log_scale: Tensor, half: float) -> tuple[Tensor, Tensor]:
    precision = torch.exp(-log_scale)
    return (x + half - mean) * precision, (x - half - mean) * precision


def _log_mass(
    x: Tensor,
    upper: Tensor,
    lower: Tensor,
    *,
    floor: float,
    open_low: bool = True,
    open_high: bool = True,
) -> Tensor:
    """ln of upper − lower, from values of a CDF."""
    upper = torch.where((x > 0.999) & open_high, torch.ones_like(upper), upper)
    lower = torch.where((x < -0.999) & open_low, torch.zeros_like(lower), lower)
    return (upper - lower).clamp(min=floor).log()


@mutant(
    "the normal CDF is approximated by tanh",
    "I8-tails",
    "I8-value",
    origin="tanh-approximated CDF: +2.6 bits at 5σ",
)
class TanhCdf(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 1 / (levels - 1))
        return _log_mass(x, _tanh_cdf(high), _tanh_cdf(low), floor=1e-300)


@mutant(
    "probabilities are floored at 1e-12",
    "I8-gradient",
    "I8-tails",
    origin="probability floor 1e-12: zero gradient in the tail",
)
class ProbabilityFloor(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 1 / (levels - 1))
        return _log_mass(x, torch.special.ndtr(high), torch.special.ndtr(low), floor=1e-12)


@mutant("bins are half as wide", "I8-value", "I8-sum")
class HalfBins(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 0.5 / (levels - 1))
        return _log_mass(x, torch.special.ndtr(high), torch.special.ndtr(low), floor=1e-300)


@mutant("bins are 2/levels wide", "I8-sum", "I8-value")
class BinsByLevels(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 1 / levels)
        return _log_mass(x, torch.special.ndtr(high), torch.special.ndtr(low), floor=1e-300)


@mutant("the outer bins are closed", "I8-sum", "I8-value")
class OuterBinsClosed(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 1 / (levels - 1))
        upper, lower = torch.special.ndtr(high), torch.special.ndtr(low)
        return _log_mass(x, upper, lower, floor=1e-300, open_low=False, open_high=False)


@mutant("only the upper outer bin is open", "I8-symmetric", "I8-sum")
class OpenAtTopOnly(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        high, low = _edges(x, mean, log_scale, 1 / (levels - 1))
        upper, lower = torch.special.ndtr(high), torch.special.ndtr(low)
        return _log_mass(x, upper, lower, floor=1e-300, open_low=False)


@mutant("log_scale is taken for a log-variance", "I8-value")
class ScaleAsVariance(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        return super().discretized_log_likelihood(x, mean, 0.5 * log_scale, levels)


@mutant("the decoder gives a density: no bin width", "I8-sum", "I8-value")
class DensityForMass(Implementation):
    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        z = (x - mean) * torch.exp(-log_scale)
        return -0.5 * z**2 - log_scale - 0.5 * math.log(2 * math.pi)


@mutant(
    "the prior term is computed in float32: 0 for 4e-10",
    "I9-prior",
    origin="L_T in float32: 0 instead of 4e-10, or negative",
)
class PriorInSingle(Implementation):
    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        last = torch.full((len(x0),), setting.steps)
        kept = column(setting, "alpha_bar", last, x0).float()
        log_var = (1 - kept).log()
        terms = -1 - log_var + log_var.exp() + kept * x0.float() ** 2
        return 0.5 * terms.flatten(1).sum(1).double()


@mutant("the prior term is the mean over dims", "I9-prior")
class PriorMean(Implementation):
    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        return super().prior_kl(setting, x0) / max(x0[0].numel(), 2)


@mutant("the prior term ignores the mean of q(x_T | x0)", "I9-prior")
class PriorWithoutMean(Implementation):
    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        return super().prior_kl(setting, torch.zeros_like(x0))
