"""Defects of the gradient alone: every value is right."""

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds, roots
from tests.independent.right import Right

seeded = Seeds("crafty")


class Bent(torch.autograd.Function):
    """The identity, with its gradient multiplied."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


def bent(x, factor):
    return Bent.apply(x, factor)


@seeded()
class NoiseCut(Right):
    """No gradient of q_sample through the noise."""

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0, t, noise.detach())


@seeded()
class DataCut(Right):
    """No gradient of q_sample through x_0."""

    def q_sample(self, setting, x0, t, noise):
        return super().q_sample(setting, x0.detach(), t, noise)


@seeded()
class NoisyCut(Right):
    """No gradient of a conversion through x_t."""

    def convert(self, setting, prediction, x_t, t, source, to):
        return super().convert(setting, prediction, x_t.detach(), t, source, to)


@seeded()
class PredictionBent(Right):
    """A conversion's gradient through the prediction is doubled from v to ε."""

    def convert(self, setting, prediction, x_t, t, source, to):
        factor = 2.0 if (source, to) == ("v", "eps") else 1.0
        return super().convert(setting, bent(prediction, factor), x_t, t, source, to)


@seeded("bound_term")
class SecondVarianceCut(Right):
    """No gradient of the KL through log_var2."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return super().gaussian_kl(mean1, log_var1, mean2, log_var2.detach())


@seeded("bound_term")
class FirstMeanTwice(Right):
    """The KL's gradient through mean1 is doubled."""

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        return super().gaussian_kl(bent(mean1, 2.0), log_var1, mean2, log_var2)


@seeded("bound")
class ScaleCutAtTheEnds(Right):
    """No gradient of the decoder through log_scale in the outer bins."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        stopped = torch.where(x.abs() > 1 - 1 / levels, log_scale.detach(), log_scale)
        return super().discretized_log_likelihood(x, mean, stopped, levels)


@seeded("bound")
class MeanCutInTheTails(Right):
    """No gradient of the decoder through the mean beyond 12 deviations."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        far = (x - mean).abs() * torch.exp(-log_scale) > 12
        return super().discretized_log_likelihood(
            x, torch.where(far, mean.detach(), mean), log_scale, levels
        )


@seeded("bound")
class TailsNotANumber(Right):
    """The decoder's gradient is NaN beyond 30 deviations: 0 · ∞ of a branch not taken."""

    def discretized_log_likelihood(self, x, mean, log_scale, levels):
        far = (x - mean).abs() * torch.exp(-log_scale) > 30
        poison = torch.where(far, mean * 0, torch.ones_like(mean)).sqrt()
        shift = torch.where(far, poison * 0, torch.zeros_like(mean))
        return super().discretized_log_likelihood(x, mean + shift, log_scale, levels)


@seeded()
class StepWithoutGraph(Right):
    """The sampler's step runs without gradient."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        with torch.no_grad():
            return super().sampler_step(
                setting, prediction, x_t, t, noise, parameterization, sampler, eta
            )


@seeded()
class LossGradientClipped(Right):
    """The loss's gradient is that of errors clamped to ±1."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        target = self.target(setting, parameterization, x0, eps, t)
        small = target + (prediction - target).clamp(-1, 1)
        shown = super().loss(setting, small, x0, eps, t, parameterization, weighting)
        return right.detach() + shown - shown.detach()


@seeded()
class LossGradientOfTheTarget(Right):
    """The loss has no gradient through x_0."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        return super().loss(setting, prediction, x0.detach(), eps, t, parameterization, weighting)


@seeded()
class LossByRoot(Right):
    """The loss is the square of a norm: its gradient at error 0 is NaN."""

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        return right.sqrt() ** 2


@seeded()
class PosteriorMirrored(Right):
    """The posterior's gradient through x_t has the wrong sign."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, bent(x_t, -1.0), t)
        return Posterior(right.mean, right.variance, right.log_variance)


@seeded()
class TargetCut(Right):
    """No gradient of the targets score and mean through ε."""

    def target(self, setting, parameterization, x0, eps, t):
        eps = eps.detach() if parameterization in ("score", "mean") else eps
        return super().target(setting, parameterization, x0, eps, t)


@seeded("bound")
class PriorCut(Right):
    """No gradient of the prior through x_0."""

    def prior_kl(self, setting, x0):
        return super().prior_kl(setting, x0.detach())


@seeded("bound")
class TermCut(Right):
    """The bound's term stops the gradient of the prediction for `beta`."""

    def bound_term(self, setting, prediction, x0, x_t, t, parameterization, variance):
        prediction = prediction.detach() if variance == "beta" else prediction
        return super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)


@seeded()
class LearnedLogCut(Right):
    """The log-variance that the network says has no gradient."""

    def learned_variance(self, setting, meaning, said, t):
        value, log = super().learned_variance(setting, meaning, said, t)
        return value, log.detach()


@seeded()
class DensityTwice(Right):
    """The Gaussian log-density's gradient through x_0 is doubled."""

    def gaussian_log_prob(self, mean, covariance, x0):
        return super().gaussian_log_prob(mean, covariance, bent(x0, 2.0))


@seeded()
class DenoiserCut(Right):
    """The Gaussian denoiser has no gradient through x_t."""

    def gaussian_denoise(self, setting, mean, covariance, x_t, t):
        return super().gaussian_denoise(setting, mean, covariance, x_t.detach(), t)


@seeded()
class ResponsibilitiesCut(Right):
    """The mixture denoiser's gradient leaves the responsibilities out."""

    def mixture_denoise(self, setting, weights, means, covariances, x_t, t):
        right = super().mixture_denoise(setting, weights, means, covariances, x_t, t)
        parts = [
            super(ResponsibilitiesCut, self).mixture_denoise(
                setting, torch.ones(1).double(), means[k : k + 1], covariances[k : k + 1], x_t, t
            )
            for k in range(len(weights))
        ]
        mean = torch.stack(parts).mean(0)
        return right.detach() + mean - mean.detach()


@seeded()
class HybridCut(Right):
    """The hybrid loss has no gradient through the bound's term."""

    def hybrid_loss(self, setting, simple, bound_term):
        return super().hybrid_loss(setting, simple, bound_term.detach())


@seeded()
class StepNoiseCut(Right):
    """The DDIM step has no gradient through x_t."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if sampler != "ddim" or parameterization == "x0":
            return right
        _, s = roots(self, setting, t, x_t)
        return right + (x_t.detach() - x_t) * (s / s).to(x_t.dtype) * 0.1
