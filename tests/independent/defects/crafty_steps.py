"""Defects that hide at few steps, lengths, schedules and names that nobody asks about."""

from dataclasses import replace
from itertools import pairwise
from math import exp

import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds, column, named, of_betas
from tests.independent.right import Right
from tests.independent.tables import tables

seeded = Seeds("crafty")


def off_at(t, step, amount):
    """1, and 1 + amount at one step, `[B]`."""
    return 1 + amount * (t == step).double()


@seeded()
class OneInteriorStep(Right):
    """q_sample has 1 % more noise at t = 617 of 1000 and nowhere else."""

    def q_sample(self, setting, x0, t, noise):
        factor = off_at(t, 617 if setting.steps == 1000 else 0, 0.01)
        return super().q_sample(setting, x0, t, noise * column(factor, x0).to(noise.dtype))


@seeded()
class ThreePosteriorSteps(Right):
    """The posterior's mean at t = 333 … 335 uses the neighbour's coefficients, in schedules longer than 500."""

    def posterior(self, setting, x0, x_t, t):
        stale = (t > 332) & (t < 336) & (setting.steps > 500)
        mean = super().posterior(setting, x0, x_t, torch.where(stale, t + 1, t)).mean
        right = super().posterior(setting, x0, x_t, t)
        return Posterior(mean, right.variance, right.log_variance)


@seeded("weight")
class OneRespacedStep(Right):
    """Under respacing the last but one step reads the trained index one early."""

    def known(self, setting):
        right = tables(setting)
        if setting.timesteps is None or len(setting.timesteps) < 3:
            return right
        steps = list(setting.timesteps)
        if steps[-2] - 1 <= steps[-3]:
            return right
        steps[-2] -= 1
        return replace(tables(replace(setting, timesteps=tuple(steps))), timesteps=right.timesteps)


@seeded()
class EqualStepsShortcut(Right):
    """Where all t of a batch of four or more are equal, the coefficients are those of t − 1."""

    def convert(self, setting, prediction, x_t, t, source, to):
        if len(t) >= 4 and bool((t == t[0]).all()):
            t = (t - 1).clamp(min=1)
        return super().convert(setting, prediction, x_t, t, source, to)


@seeded()
class StepsSorted(Right):
    """t is sorted before its coefficients are read."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        t = t.sort().values
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


@seeded("loss")
class LastWeightOfLongSchedules(Right):
    """The bound's weight at T is that of T − 1 where T > 1500."""

    def weight(self, setting, weighting, t, parameterization):
        if weighting == "elbo" and setting.steps > 1500:
            t = t.clamp(max=setting.steps - 1)
        return super().weight(setting, weighting, t, parameterization)


@seeded()
class LongSchedulesInSinglePrecision(Right):
    """Tables longer than 2,000 steps are products in float32."""

    def known(self, setting):
        right = tables(setting)
        if right.steps <= 2000:
            return right
        kept = (1 - right.beta).float().cumprod(0).double()
        return replace(right, alpha_bar=kept, sigma2=1 - kept)


@seeded()
class VeryLongSchedulesInterpolated(Right):
    """A named schedule of more than 3,000 steps is read off one of 3,000."""

    def known(self, setting):
        if setting.T <= 3000 or setting.beta is not None or setting.timesteps is not None:
            return tables(setting)
        coarse = tables(replace(setting, T=3000)).alpha_bar
        place = torch.linspace(0, 3000, setting.T + 1, dtype=torch.float64)
        low = place.long().clamp(max=2999)
        kept = coarse[low] + (place - low) * (coarse[low + 1] - coarse[low])
        return of_betas(1 - kept[1:] / kept[:-1], setting)


@seeded("loss")
class WeightInSinglePrecision(Right):
    """The bound's weight from t = 501 on is rounded to float32."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        rounded = right.float().double()
        return torch.where((t > 500) & (weighting == "elbo"), rounded, right)


@seeded()
class ThreeStepsOnly(Right):
    """A schedule of three steps has the wrong middle β."""

    def known(self, setting):
        right = tables(setting)
        if setting.T != 3 or setting.timesteps is not None:
            return right
        beta = right.beta[1:].clone()
        beta[1] = (beta[0] * beta[2]).sqrt()
        return of_betas(beta, setting)


@seeded()
class OddLengths(Right):
    """Named schedules of an odd number of steps above 14 are those of one more step, cut."""

    def known(self, setting):
        plain = setting.beta is None and setting.log_snr is None and setting.timesteps is None
        if setting.T % 2 == 0 or setting.T < 15 or not plain:
            return tables(setting)
        return of_betas(tables(replace(setting, T=setting.T + 1)).beta[1:-1], setting)


@seeded("posterior", "target", "convert", "sampler_step", "weight", "loss")
class RescaledLastButOne(Right):
    """With zero terminal SNR the mean's coefficients at T − 1 are those without rescaling."""

    def mean_coefficients(self, setting, t, like):
        clean, noisy = super().mean_coefficients(setting, t, like)
        if not setting.zero_terminal_snr or setting.steps < 3:
            return clean, noisy
        plain = super().mean_coefficients(replace(setting, zero_terminal_snr=False), t, like)
        at = column(t == setting.steps - 1, like)
        return torch.where(at, plain[0], clean), torch.where(at, plain[1], noisy)


@seeded()
class RescaledAfterRespacing(Right):
    """Zero terminal SNR and respacing together: the steps are chosen first, and rescaled then."""

    def known(self, setting):
        if not setting.zero_terminal_snr or setting.timesteps is None or len(setting.timesteps) < 2:
            return tables(setting)
        chosen = tables(replace(setting, zero_terminal_snr=False))
        betas = tuple(float(b) for b in chosen.beta[1:])
        anew = tables(replace(setting, name="anew", T=chosen.steps, beta=betas, timesteps=None))
        return replace(anew, timesteps=chosen.timesteps)


@seeded()
class BetasSorted(Right):
    """β given as numbers is sorted."""

    def known(self, setting):
        if setting.beta is None:
            return tables(setting)
        return tables(replace(setting, beta=tuple(sorted(setting.beta))))


@seeded()
class LogSnrClamped(Right):
    """log-SNR given as numbers is clamped to ±8."""

    def known(self, setting):
        if setting.log_snr is None or max(map(abs, setting.log_snr)) <= 8:
            return tables(setting)
        scale = 8 / max(map(abs, setting.log_snr))
        return tables(replace(setting, log_snr=tuple(v * scale for v in setting.log_snr)))


@seeded()
class LargeBetasCapped(Right):
    """β given as numbers is capped at 0.5."""

    def known(self, setting):
        if setting.beta is None:
            return tables(setting)
        return tables(replace(setting, beta=tuple(min(b, 0.5) for b in setting.beta)))


@seeded()
class SigmoidOfOtherLength(Right):
    """Sigmoid schedules other than of 1,000 steps run from −3 to 2.9."""

    def known(self, setting):
        if not named(setting, "sigmoid") or setting.T in (1, 1000):
            return tables(setting)
        T = setting.T
        f = [1 / (1 + exp(-2.9)) - 1 / (1 + exp(3 - 5.9 * t / T)) for t in range(T + 1)]
        return of_betas([min(1 - b / a, 0.999) for a, b in pairwise(f)], setting)


@seeded("loss")
class ThresholdRounded(Right):
    """min-SNR compares the SNR rounded to a whole number with γ."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        snr = self.known(setting).at("snr", t)
        wrong = torch.where((snr > 5) & (snr.round() <= 5), right * snr / 5, right)
        return wrong if weighting == "min_snr" else right


@seeded("loss")
class PerceptualMean(Right):
    """p2 in mean space lacks the mean's coefficient at t = 2."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        clean, _ = self.mean_coefficients(setting, t, t.double())
        odd = (weighting, parameterization) == ("p2", "mean")
        return torch.where((t == 2) & odd, right * clean**2, right)


@seeded("loss")
class TruncatedScore(Right):
    """Truncated SNR in score space lacks σ² where SNR > 1."""

    def weight(self, setting, weighting, t, parameterization):
        right = super().weight(setting, weighting, t, parameterization)
        known = self.known(setting)
        odd = (weighting, parameterization) == ("truncated_snr", "score")
        return torch.where((known.at("snr", t) > 1) & odd, right / known.at("sigma2", t), right)


@seeded()
class MeanToScore(Right):
    """mean to score has the sign of ε."""

    def convert(self, setting, prediction, x_t, t, source, to):
        right = super().convert(setting, prediction, x_t, t, source, to)
        return -right if (source, to) == ("mean", "score") else right


@seeded()
class LastReverseVariance(Right):
    """β_T in place of β̃_T at T, where T > 100."""

    def reverse_variance(self, setting, variance, t):
        value, log = super().reverse_variance(setting, variance, t)
        last = (t == setting.steps) & (setting.steps > 100)
        other = super().reverse_variance(setting, "beta", t)
        return torch.where(last, other[0], value), torch.where(last, other[1], log)


@seeded()
class LogTableNearTheEnd(Right):
    """The table log_snr is linear over the last three of many steps."""

    def tables(self, setting):
        found = super().tables(setting)
        log = found["log_snr"].clone()
        if len(log) > 20 and bool(torch.isfinite(log[-1])):
            log[-3:-1] = log[-4] + (log[-1] - log[-4]) * torch.tensor([1 / 3, 2 / 3])
        return {**found, "log_snr": log}


@seeded()
class RangeAtTheSecondStep(Right):
    """The learned range's lower end at t = 2 is that of t = 3."""

    def learned_variance(self, setting, meaning, said, t):
        late = torch.where((t == 2) & (setting.steps > 2) & (meaning == "range"), t + 1, t)
        _, log = super().learned_variance(setting, meaning, said, late)
        right = super().learned_variance(setting, meaning, said, t)
        if meaning != "range":
            return right
        at, high = column(t == 2, said), self.known(setting)
        shift = high.at("log_beta", t, said) - high.at("log_beta", late, said)
        log = torch.where(at, (log + said * shift).to(log.dtype), right[1])
        return torch.exp(log), log


@seeded()
class HybridOfTheTrainedLength(Right):
    """Under respacing λ is multiplied by the trained length."""

    def hybrid_loss(self, setting, simple, bound_term):
        return simple + 0.001 * setting.T * bound_term
