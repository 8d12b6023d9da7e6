"""Ordinary mistakes in targets, conversions, weights and losses."""

import torch

from tests.independent.defects.defect import Seeds, column, roots
from tests.independent.right import Right

seeded = Seeds("ordinary")


@seeded()
class VelocityMirrored(Right):
    """v = σ x_0 − √ᾱ ε."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        return -right if parameterization == "v" else right


@seeded()
class VelocityCoefficientsExchanged(Right):
    """v = σ ε − √ᾱ x_0."""

    def target(self, setting, parameterization, x0, eps, t):
        if parameterization != "v":
            return super().target(setting, parameterization, x0, eps, t)
        a, s = roots(self, setting, t, x0)
        return (s * eps.double() - a * x0.double()).to(x0.dtype)


@seeded()
class ScoreWithoutSign(Right):
    """score = ε/σ."""

    def target(self, setting, parameterization, x0, eps, t):
        right = super().target(setting, parameterization, x0, eps, t)
        return -right if parameterization == "score" else right


@seeded()
class ScoreByVariance(Right):
    """score = −ε/σ²."""

    def target(self, setting, parameterization, x0, eps, t):
        if parameterization != "score":
            return super().target(setting, parameterization, x0, eps, t)
        return (-eps.double() / roots(self, setting, t, x0)[1] ** 2).to(x0.dtype)


@seeded()
class MeanWithSigmaForVariance(Right):
    """The target mean by (x_t − β/σ² ε)/√α: σ² where σ belongs."""

    def target(self, setting, parameterization, x0, eps, t):
        if parameterization != "mean":
            return super().target(setting, parameterization, x0, eps, t)
        a, s = roots(self, setting, t, x0)
        known = self.known(setting)
        x_t = a * x0.double() + s * eps.double()
        beta, alpha = known.at("beta", t, x0), known.at("alpha", t, x0).clamp(min=1e-300)
        return ((x_t - beta / s**2 * eps.double()) / alpha.sqrt()).to(x0.dtype)


@seeded("convert", "sampler_step", "bound_term", "bound", "sample")
class CleanWithoutDivision(Right):
    """ε to x_0 without the division by √ᾱ."""

    def _converted(self, setting, prediction, x_t, t, source, to):
        right = super()._converted(setting, prediction, x_t, t, source, to)
        a, _ = roots(self, setting, t, x_t)
        return right * a if (source, to) == ("eps", "x0") else right


@seeded()
class NoiseFromCleanWithoutRoot(Right):
    """x_0 to ε divides by 1 − ᾱ."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        _, s = roots(self, setting, t, x_t)
        return (right / s).to(right.dtype) if (source, to) == ("x0", "eps") else right


@seeded()
class NoiseFromVelocityMirrored(Right):
    """v to ε with a minus: σ x_t − √ᾱ v."""

    def convert(self, setting, prediction, x_t, t, source, to):
        turned = -prediction if (source, to) == ("v", "eps") else prediction
        return super().convert(setting, turned, x_t, t, source, to)


@seeded()
class ScoreToNoiseUnscaled(Right):
    """score to ε without σ."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if (source, to) == ("score", "eps"):
            return -prediction
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded()
class CleanClipped(Right):
    """x_0 clipped to [−1, 1] though nothing asked for it."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        return right.clamp(-1, 1) if to == "x0" and source != "x0" else right


@seeded()
class TerminalDivisionGuarded(Right):
    """ε to x_0 at ᾱ = 0 divides by max(√ᾱ, 1e-8) and returns a number."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if (source, to) != ("eps", "x0"):
            return super().convert(setting, prediction, x_t, t, source, to)
        a, s = roots(self, setting, t, x_t)
        return ((x_t.double() - s * prediction.double()) / a.clamp(min=1e-8)).to(x_t.dtype)


@seeded()
class TerminalDivisionUnguarded(Right):
    """ε to x_0 at ᾱ = 0 returns NaN where x_t = ε."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if (source, to) != ("eps", "x0"):
            return super().convert(setting, prediction, x_t, t, source, to)
        a, s = roots(self, setting, t, x_t)
        return ((0 * x_t.double() + s * (x_t - prediction).double() * 0) / a).to(x_t.dtype) + (
            (x_t.double() - s * prediction.double()) / a
        ).to(x_t.dtype)


@seeded()
class MeanReadAsClean(Right):
    """A predicted mean is passed on as x_0."""

    def convert(self, setting, prediction, x_t, t, source, to):
        source = "x0" if source == "mean" and to != "mean" else source
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded("loss")
class MinSnrVelocityLikeNoise(Right):
    """min-SNR in v space is min(S, γ)/S."""

    def weight(self, setting, weighting, t, parameterization):
        if (weighting, parameterization) == ("min_snr", "v"):
            return super().weight(setting, weighting, t, "eps")
        return super().weight(setting, weighting, t, parameterization)


@seeded("loss")
class MinSnrVelocityPlusOne(Right):
    """min-SNR in v space is min(S, γ)/S + 1."""

    def weight(self, setting, weighting, t, parameterization):
        if (weighting, parameterization) == ("min_snr", "v"):
            return super().weight(setting, weighting, t, "eps") + 1
        return super().weight(setting, weighting, t, parameterization)


@seeded("loss")
class MinSnrOfSnrPlusOne(Right):
    """min-SNR in v space is min(S + 1, γ)/(S + 1)."""

    def weight(self, setting, weighting, t, parameterization):
        if (weighting, parameterization) == ("min_snr", "v"):
            shifted = self.known(setting).at("snr", t) + 1
            return shifted.clamp(max=5) / shifted
        return super().weight(setting, weighting, t, parameterization)


@seeded("loss")
class NoiseWeightForClean(Right):
    """The weight of ε space used in x_0 space."""

    def weight(self, setting, weighting, t, parameterization):
        space = "eps" if parameterization == "x0" and weighting == "simple" else parameterization
        return super().weight(setting, weighting, t, space)


@seeded("loss")
class BoundWeightOfLatentDiffusion(Right):
    """The bound's weight in x_0 space as it circulates: √ᾱ/(2(2 − ᾱ))."""

    def weight(self, setting, weighting, t, parameterization):
        if (weighting, parameterization) == ("elbo", "x0"):
            kept = self.known(setting).at("alpha_bar", t)
            return kept.sqrt() / (2 * (2 - kept))
        return super().weight(setting, weighting, t, parameterization)


@seeded("loss")
class BoundWeightCirculatedFix(Right):
    """Its circulated repair: √ᾱ/(2(1 − ᾱ)), still wrong."""

    def weight(self, setting, weighting, t, parameterization):
        if (weighting, parameterization) == ("elbo", "x0"):
            kept = self.known(setting).at("alpha_bar", t)
            return kept.sqrt() / (2 * (1 - kept))
        return super().weight(setting, weighting, t, parameterization)


@seeded("loss")
class PerceptualWeightInCleanSpace(Right):
    """p2 is 1/(1 + SNR) in x_0 space."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        return right / self.known(setting).at("snr", t) if weighting == "p2" else right


@seeded("loss")
class TruncatedTheOtherWay(Right):
    """Truncated SNR is min(SNR, 1)."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        snr = self.known(setting).at("snr", t)
        turned = right * snr.clamp(max=1) / snr.clamp(min=1)
        return turned if weighting == "truncated_snr" else right


@seeded("loss")
class BoundWeightWithoutHalf(Right):
    """The bound's weight without its ½ from t = 2 on."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        return torch.where(t > 1, 2 * right, right) if weighting == "elbo" else right


@seeded("loss")
class BoundWeightFirstFromTheSecond(Right):
    """The bound's weight at t = 1 is that of t = 2."""

    def weight(self, setting, weighting, t, parameterization):
        late = t.clamp(min=min(2, setting.steps)) if weighting == "elbo" else t
        return super().weight(setting, weighting, late, parameterization)


@seeded("loss")
class SquaredSnr(Right):
    """`simple` in x_0 space is SNR², as where "snr" is √SNR and squared twice."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        return right**2 if (weighting, parameterization) == ("simple", "x0") else right


@seeded()
class SummedOverDims(Right):
    """The loss is summed over dims."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right * x0[0].numel()


@seeded()
class MeansMultiplied(Right):
    """mean over the batch of the weights times each sample's error."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        weight = self.weight(setting, weighting, t, parameterization)
        return right / weight * weight.mean()


@seeded()
class OuterProduct(Right):
    """Weights `[B]` meet errors `[B, 1]`: the mean of a (B, B) table."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        weight = self.weight(setting, weighting, t, parameterization)
        return ((right / weight)[:, None] * weight).mean(1)


@seeded()
class AbsoluteError(Right):
    """Large errors are taken as they are, not squared (Huber)."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        target = self.target(setting, parameterization, x0, eps, t).double()
        error = (prediction.double() - target).abs()
        each = torch.where(error < 1, error**2, 2 * error - 1).flatten(1).mean(1)
        return self.weight(setting, weighting, t, parameterization) * each


@seeded()
class LastAxisOnly(Right):
    """The mean over the last axis, summed over the others."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right * (x0[0].numel() / x0.shape[-1])


@seeded()
class HalfTheLoss(Right):
    """½ of the squared error."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        return super().loss(setting, prediction, x0, eps, t, parameterization, weighting) / 2


@seeded()
class TargetDetachedWrongly(Right):
    """The prediction is detached: the loss has no gradient."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        stopped = prediction.detach() + 0 * prediction
        return super().loss(setting, stopped, x0, eps, t, parameterization, weighting)


@seeded()
class HybridWithoutSteps(Right):
    """λ without the factor T."""

    def hybrid_loss(self, setting, simple, bound_term):
        return simple + 0.001 * bound_term


@seeded()
class HybridByThousand(Right):
    """λ T with T = 1000 whatever the schedule."""

    def hybrid_loss(self, setting, simple, bound_term):
        return simple + bound_term


@seeded()
class VelocityToCleanTransposed(Right):
    """v to x_0 as σ x_t − √ᾱ v."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if (source, to) != ("v", "x0"):
            return super().convert(setting, prediction, x_t, t, source, to)
        a, s = roots(self, setting, t, x_t)
        return (s * x_t.double() - a * prediction.double()).to(x_t.dtype)


@seeded()
class ConvertedWithFirstStep(Right):
    """The whole batch is converted with the coefficients of its first sample."""

    def convert(self, setting, prediction, x_t, t, source, to):
        return super().convert(setting, prediction, x_t, t[:1].expand_as(t), source, to)


@seeded()
class PredictionChangedInPlace(Right):
    """Conversion to x_0 works in the caller's x_t."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        if (source, to) == ("eps", "x0"):
            x_t.sub_(column(self.known(setting).at("sigma2", t), x_t).to(x_t.dtype) * prediction)
        return right
