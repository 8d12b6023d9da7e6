# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of bounds and exact models: units, sums, steps, and what is forgotten."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation, Model
from ddpm_ref.conformance.mutants.mutant import column, mutant
from ddpm_ref.conformance.setting import Setting

_LN2 = math.log(2)


class _Bound(Implementation):
    """Changes the right terms afterwards."""

    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        raise NotImplementedError

    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        right = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        return self.changed(right, x0)


@mutant("the columns of the bound are shifted by one step", "I5-bound", "I4-perfect")
class StepsShifted(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.diffusion is not None
        return replace(terms, diffusion=terms.diffusion.roll(1, 1))


@mutant("the terms of the bound are means over dims", "I5-bound")
class TermsAveraged(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.diffusion is not None
        return replace(terms, diffusion=terms.diffusion / x0[0].numel())


@mutant("the terms of the bound are in bits", "I5-bound")
class TermsInBits(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.diffusion is not None
        return replace(terms, diffusion=terms.diffusion / _LN2)


@mutant("the total forgets the prior term", "I10-total")
class TotalWithoutPrior(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.total is not None
        assert terms.prior is not None
        return replace(terms, total=terms.total - terms.prior)


@mutant("the total averages over t", "I10-total")
class TotalAveraged(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.total is not None
        assert terms.diffusion is not None
        count = terms.diffusion.shape[1] + 1
        return replace(terms, total=terms.total / count)


@mutant(
    "7 bits are added for the 8-bit scale",
    "I10-total",
    origin="+7-bit offset on data that are not dequantized bytes",
)
class EightBitOffset(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.bits_per_dim is not None
        return replace(terms, bits_per_dim=terms.bits_per_dim + 7)


@mutant("bits are divided by the pixels of the whole batch", "I10-total")
class BitsPerBatch(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.bits_per_dim is not None
        return replace(terms, bits_per_dim=terms.bits_per_dim / len(x0))


@mutant(
    "the Gaussian decoder lacks ½ ln 2π",
    "I12-decoder",
    origin="missing entropy term, 0.92 a dimension",
)
class DecoderUnnormalized(_Bound):
    def changed(self, terms: Bound, x0: Tensor) -> Bound:
        assert terms.reconstruction is not None
        missing = 0.5 * math.log(2 * math.pi) * x0[0].numel()
        return replace(terms, reconstruction=terms.reconstruction - missing)


class _BoundInputs(Implementation):
    """Evaluates the right bound of something else."""

    def moved(self, model: Model, x0: Tensor) -> tuple[Model, Tensor]:
        raise NotImplementedError

    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        other, data = self.moved(model, x0)
        return super().bound(setting, other, data, parameterization, variance, decoder, levels)


@mutant(
    "the predicted x0 is clipped to [−1, 1] in the bound",
    "I4-perfect",
    origin="bound evaluated with x0 clipping, trained without",
)
class ClippedInBound(Implementation):
    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        if parameterization != "x0":
            return super().bound(setting, model, x0, parameterization, variance, decoder, levels)

        def clipped(x_t: Tensor, t: Tensor) -> Tensor:
            return model(x_t, t).clamp(-1, 1)

        return super().bound(setting, clipped, x0, parameterization, variance, decoder, levels)


@mutant(
    "the likelihood is that of flipped images",
    "I4-perfect",
    origin="NLL on randomly flipped images",
)
class FlippedImages(_BoundInputs):
    def moved(self, model: Model, x0: Tensor) -> tuple[Model, Tensor]:
        return model, x0.flip(-1)


@mutant("the model is asked for t − 1", "I16-bound-steps")
class BoundStepsFromZero(_BoundInputs):
    def moved(self, model: Model, x0: Tensor) -> tuple[Model, Tensor]:
        def early(x_t: Tensor, t: Tensor) -> Tensor:
            return model(x_t, (t - 1).clamp(min=1))

        return early, x0


@mutant("the discretized decoder always has 256 levels", "I8-decoder")
class AlwaysBytes(Implementation):
    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        fixed = None if levels is None else 256
        data = x0 if levels is None else ((x0 + 1) * 127.5).round() / 127.5 - 1
        return super().bound(setting, model, data, parameterization, variance, decoder, fixed)


@mutant("a single bound term is a mean over dims", "I5-term")
class TermAveraged(Implementation):
    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        right = super().bound_term(setting, prediction, x0, x_t, t, parameterization, variance)
        return right / max(x0[0].numel(), 2)


@mutant("a single bound term mistakes the prediction for ε", "I5-term")
class TermOfNoise(Implementation):
    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        space = (
            "eps"
            if parameterization == "x0" and not setting.zero_terminal_snr
            else parameterization
        )
        return super().bound_term(setting, prediction, x0, x_t, t, space, variance)


@mutant("bits per dim with log10", "I10-bits")
class BitsByTen(Implementation):
    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        return super().bits_per_dim(nats, dims) * _LN2 / math.log(10)


@mutant("bits per pixel: three channels counted as one", "I10-bits")
class BitsPerPixel(Implementation):
    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        return super().bits_per_dim(nats, dims // 3 if dims % 3 == 0 else dims)


# ---------------------------------------------------------------- exact models


@mutant("the Gaussian denoiser uses the diagonal of the covariance", "I30-gaussian-denoiser")
class DiagonalOnly(Implementation):
    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        diagonal = torch.diag(torch.diag(covariance))
        return super().gaussian_denoise(setting, mean, diagonal, x_t, t)


@mutant("the Gaussian denoiser returns E[ε | x_t]", "I30-gaussian-denoiser")
class DenoiserOfNoise(Implementation):
    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        clean = super().gaussian_denoise(setting, mean, covariance, x_t, t)
        return self.convert(setting, clean, x_t, t, "x0", "eps")


@mutant("the mixture denoiser weighs by the prior weights", "I30-mixture-denoiser")
class PriorResponsibilities(Implementation):
    def mixture_denoise(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        x_t: Tensor,
        t: Tensor,
    ) -> Tensor:
        parts = [
            weights[k] * self.gaussian_denoise(setting, means[k], covariances[k], x_t, t)
            for k in range(len(weights))
        ]
        return torch.stack(parts).sum(0)


@mutant("the finite-data denoiser lacks the 2 in 2(1−ᾱ)", "I30-empirical-denoiser")
class TemperatureHalved(Implementation):
    def empirical_denoise(self, setting: Setting, data: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        a = column(setting, "sqrt_alpha_bar", t, x_t)
        rest = column(setting, "one_minus_alpha_bar", t, x_t)
        distance = ((x_t[:, None] - a[:, :, None] * data) ** 2).sum(2)
        return torch.softmax(-distance / rest, 1) @ data


@mutant("the log-density lacks ½ ln det C", "I30-gaussian")
class WithoutDeterminant(Implementation):
    def gaussian_log_prob(self, mean: Tensor, covariance: Tensor, x0: Tensor) -> Tensor:
        return super().gaussian_log_prob(mean, covariance, x0) + 0.5 * torch.logdet(covariance)


@mutant("the mixture's log-density is the mean of its parts' logs", "I30-mixture")
class LogsAveraged(Implementation):
    def mixture_log_prob(
        self, weights: Tensor, means: Tensor, covariances: Tensor, x0: Tensor
    ) -> Tensor:
        parts = [
            weights[k] * self.gaussian_log_prob(means[k], covariances[k], x0)
            for k in range(len(weights))
        ]
        return torch.stack(parts).sum(0)


@mutant("the entropy is ½ ln det C: its constant is missing", "I12-entropy-value")
class EntropyWithoutConstant(Implementation):
    def gaussian_entropy(self, covariance: Tensor) -> float:
        return float(0.5 * torch.logdet(covariance))


class _Expected(Implementation):
    """Changes the right expected bound afterwards."""

    def changed(self, total: Tensor, setting: Setting, dims: int) -> Tensor:
        raise NotImplementedError

    def gaussian_bound(
        self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
    ) -> Bound:
        right = super().gaussian_bound(setting, mean, covariance, variance)
        assert right.total is not None
        return replace(right, total=self.changed(right.total, setting, len(mean)))


@mutant(
    "the expected bound lacks ½ ln 2π a dimension: it falls below the entropy",
    "I12-entropy",
    "I12-value",
)
class BelowEntropy(_Expected):
    def changed(self, total: Tensor, setting: Setting, dims: int) -> Tensor:
        return total - 0.5 * math.log(2 * math.pi) * dims


@mutant("the expected bound ignores the choice of variance", "I12-tight", "I12-value")
class OneVarianceOnly(Implementation):
    def gaussian_bound(
        self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
    ) -> Bound:
        return super().gaussian_bound(setting, mean, covariance, "posterior")


@mutant("the expected bound has a gap that T does not close", "I12-rate", "I12-value")
class ConstantGap(_Expected):
    def changed(self, total: Tensor, setting: Setting, dims: int) -> Tensor:
        return total + 0.01


@mutant("the expected bound drifts upwards with many steps", "I12-euler")
class DriftWithSteps(_Expected):
    def changed(self, total: Tensor, setting: Setting, dims: int) -> Tensor:
        return total + 0.05 * dims if setting.T > 5000 else total


@mutant("steps of the log-SNR are weighted as if they were equal", "I13-interior")
class EvenSteps(_Expected):
    def changed(self, total: Tensor, setting: Setting, dims: int) -> Tensor:
        if setting.log_snr is None:
            return total
        steps = -torch.tensor(setting.log_snr, dtype=torch.float64).diff()
        return total + 0.1 * (steps.std() / steps.mean())
