# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of parameterizations, weightings and losses."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import column, mutant, roots, snr, stale_inside
from ddpm_ref.conformance.setting import Setting


class _Target(Implementation):
    """Gives the targets of one space another formula."""

    space = "v"

    def wrong(self, a: Tensor, s: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        raise NotImplementedError

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        if parameterization != self.space:
            return super().target(setting, parameterization, x0, eps, t)
        return self.wrong(*roots(setting, t, x0), x0, eps)


@mutant("the loss is computed without a graph", "I5-loss-gradient")
class LossWithoutGraph(Implementation):
    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        return super().loss(setting, prediction.detach(), x0, eps, t, parameterization, weighting)


@mutant(
    "one entry inside the tables of weights is that of the step before",
    "I7-definition",
    "I5-weight",
)
class OneWeightStale(Implementation):
    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        return super().weight(setting, weighting, stale_inside(setting, t), parameterization)


@mutant("one entry inside the tables of targets is that of the step before", "I3-target")
class OneTargetStale(Implementation):
    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        return super().target(setting, parameterization, x0, eps, stale_inside(setting, t))


@mutant("one entry inside the tables of conversions is that of the step before", "I3-conversion")
class OneConversionStale(Implementation):
    def convert(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        source: str,
        to: str,
    ) -> Tensor:
        return super().convert(setting, prediction, x_t, stale_inside(setting, t), source, to)


@mutant("v has the other sign", "I3-target")
class VelocityNegated(_Target):
    def wrong(self, a: Tensor, s: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return s * x0 - a * eps


@mutant("v adds its two parts", "I3-target")
class VelocityAdded(_Target):
    def wrong(self, a: Tensor, s: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return a * eps + s * x0


@mutant("the score is −ε", "I3-target")
class ScoreUnscaled(_Target):
    space = "score"

    def wrong(self, a: Tensor, s: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return -eps


@mutant("the score has the sign of ε", "I3-target")
class ScorePositive(_Target):
    space = "score"

    def wrong(self, a: Tensor, s: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return eps / s


class _Conversion(Implementation):
    """Gives one conversion another formula."""

    pair = ("eps", "x0")

    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        raise NotImplementedError

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        if (source, to) != self.pair:
            return super().convert(setting, prediction, x_t, t, source, to)
        return self.wrong(*roots(setting, t, x_t), prediction, x_t)


@mutant("x0 from ε forgets to divide by √ᾱ", "I3-conversion")
class CleanNotDivided(_Conversion):
    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        return x_t - s * prediction


@mutant("x0 from v adds", "I3-conversion")
class CleanFromVelocityAdded(_Conversion):
    pair = ("v", "x0")

    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        return a * x_t + s * prediction


@mutant("x0 is taken for ε", "I3-conversion", "I3-round-trip", origin="x0 used as eps in DDIM")
class CleanAsNoise(_Conversion):
    pair = ("x0", "eps")

    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        return prediction


@mutant("ε from the score with the wrong sign", "I3-conversion", "I3-round-trip")
class NoiseFromScoreSign(_Conversion):
    pair = ("score", "eps")

    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        return s * prediction


@mutant(
    "x0 from ε divides by max(√ᾱ, 1e-8) at zero terminal SNR and goes on",
    "I25-conversion",
    origin="eps-prediction divides by 0 at zero terminal SNR",
)
class DividesByNothing(_Conversion):
    def wrong(self, a: Tensor, s: Tensor, prediction: Tensor, x_t: Tensor) -> Tensor:
        safe = a.clamp(min=1e-8) if bool((a == 0).any()) else a
        return (x_t - s * prediction) / safe


@mutant("x0 from μ̃ divides by a coefficient of the next step", "I3-conversion", "I3-round-trip")
class CleanFromMean(Implementation):
    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        right = super().convert(setting, prediction, x_t, t, source, to)
        if (source, to) != ("mean", "x0"):
            return right
        after = t.clamp(max=setting.steps - 1) + 1 if setting.steps > 1 else t
        ratio = column(setting, "beta", t, x_t) / column(setting, "beta", after, x_t)
        return right * ratio.to(right.dtype)


class _Weight(Implementation):
    """Gives one weighting another formula in one space; `known` is the right weight."""

    weighting = "min_snr"
    space = "v"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        raise NotImplementedError

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        known = super().weight(setting, weighting, t, parameterization)
        if (weighting, parameterization) != (self.weighting, self.space):
            return known
        return self.wrong(snr(setting, t), known)


@mutant(
    "min-SNR for v is min(S, γ)/S + 1",
    "I7-definition",
    "I7-one-objective",
    origin="three different min-SNR weights for v in one library",
)
class MinSnrPlusOne(_Weight):
    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return ratio.clamp(max=5) / ratio + 1


@mutant(
    "min-SNR for v is min(S + 1, γ)/(S + 1)",
    "I7-definition",
    "I7-one-objective",
    origin="three different min-SNR weights for v in one library",
)
class MinSnrShifted(_Weight):
    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return (ratio + 1).clamp(max=5) / (ratio + 1)


@mutant("min-SNR takes the maximum", "I7-definition")
class MinSnrMaximum(_Weight):
    space = "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return ratio.clamp(min=5)


@mutant("truncated SNR takes the minimum", "I7-definition")
class TruncatedMinimum(_Weight):
    weighting, space = "truncated_snr", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return ratio.clamp(max=1)


@mutant("P2's factor is applied in x0 space", "I7-definition", "I7-one-objective")
class P2InClean(_Weight):
    weighting, space = "p2", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return 1 / (1 + ratio)


@mutant(
    "SNR + 1 for v is written SNR · 1",
    "I7-definition",
    "I7-one-objective",
    origin="EDM weight with + for ·",
)
class SumForProduct(_Weight):
    weighting, space = "simple_v", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return ratio * 1


@mutant(
    "the weight of ε is used for x0",
    "I7-definition",
    "I7-one-objective",
    origin="eps weight used for x0",
)
class NoiseWeightForClean(_Weight):
    weighting, space = "simple", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return torch.ones_like(known)


@mutant(
    "the bound's weight for x0 is ½√ᾱ/(2·1−ᾱ)",
    "I5-weight",
    "I6-telescope",
    origin="latent-diffusion's VLB weight: 0.50 for 2726.3",
)
class BoundWeightMistyped(Implementation):
    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        if (weighting, parameterization) != ("elbo", "x0"):
            return super().weight(setting, weighting, t, parameterization)
        kept = torch.sigmoid(snr(setting, t).log())
        return 0.5 * kept.sqrt() / (2 * 1 - kept)


@mutant(
    "the bound's weight for x0 is ½ᾱ/(2(1−ᾱ))",
    "I5-weight",
    "I6-telescope",
    origin="the circulated fix of that weight: 1136.7 for 2726.3",
)
class BoundWeightFixedWrongly(_Weight):
    weighting, space = "elbo", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return 0.25 * ratio


@mutant("the bound's weight lacks its ½", "I5-weight", "I6-telescope")
class BoundWeightDoubled(_Weight):
    weighting, space = "elbo", "x0"

    def wrong(self, ratio: Tensor, known: Tensor) -> Tensor:
        return 2 * known


@mutant(
    "the bound's weight in ε space has variance β instead of β̃", "I5-weight", "I7-one-objective"
)
class BoundWeightLargeVariance(Implementation):
    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        known = super().weight(setting, weighting, t, parameterization)
        if (weighting, parameterization) != ("elbo", "eps"):
            return known
        beta, _ = self.reverse_variance(setting, "beta", t)
        smaller, _ = self.reverse_variance(setting, "posterior", t)
        return known * smaller / beta


@mutant("at t = 1 the bound's weight is that of t = 2", "I5-weight")
class BoundWeightAtOne(Implementation):
    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        moved = t.clamp(min=min(2, setting.steps)) if weighting == "elbo" else t
        return super().weight(setting, weighting, moved, parameterization)


@mutant("weights are 0/0 at zero terminal SNR", "I25-weight", origin="0/0 at zero terminal SNR")
class NothingOverNothing(Implementation):
    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        ratio = snr(setting, t)
        if parameterization != "eps":
            return super().weight(setting, weighting, t, parameterization)
        return super().weight(setting, weighting, t, "x0") / ratio


class _Loss(Implementation):
    """Combines the right per-sample weight and error wrongly."""

    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        aim = self.target(setting, parameterization, x0, eps, t)
        weights = self.weight(setting, weighting, t, parameterization).to(x0.dtype)
        return self.combined(weights, (prediction - aim).flatten(1) ** 2)


@mutant("the loss is mean(w)·mean(error)", "I5-loss", "I17-separable", origin="mean(w)·mean(err)")
class MeansMultiplied(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return (weights.mean() * errors.mean()).expand(len(weights))


@mutant(
    "weights and errors make a (B, B) outer product",
    "I5-loss",
    "I17-separable",
    origin="a (B, B) outer product",
)
class OuterProduct(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return (weights[:, None] * errors.mean(1)).mean(0)


@mutant("the weight is broadcast along dims where B = D", "I5-loss", "I17-separable")
class WeightAlongDims(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        square = errors.shape[0] == errors.shape[1]
        return (errors * (weights if square else weights[:, None])).mean(1)


@mutant("the loss is the sum over dims", "I5-loss", "I10-mean")
class SumOverDims(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return weights * errors.sum(1)


@mutant(
    "the sum over dims carries a factor ½",
    "I10-mean",
    "I5-loss",
    origin="½ factor only in sum mode",
)
class HalfOfSum(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return 0.5 * weights * errors.sum(1)


@mutant("the error is absolute, not squared", "I5-loss")
class AbsoluteError(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return weights * errors.sqrt().mean(1)


@mutant("the loss ignores the weighting", "I5-loss", "I7-same-loss")
class Unweighted(_Loss):
    def combined(self, weights: Tensor, errors: Tensor) -> Tensor:
        return errors.mean(1)


@mutant(
    "λ without × T: the bound counts for a thousandth", "I21-hybrid", origin="hybrid λ without × T"
)
class HybridWithoutSteps(Implementation):
    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        return simple + 0.001 * bound_term
