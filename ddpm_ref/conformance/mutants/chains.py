# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of sampling, training and the sample-quality harness."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation, Model
from ddpm_ref.conformance.mutants.mutant import column, mutant, stale_inside
from ddpm_ref.conformance.setting import Setting


class _Step(Implementation):
    """Changes one reverse step: the t that is looked up, or the result, of which `right` is the right one."""

    def moved(self, setting: Setting, t: Tensor) -> Tensor:
        return t

    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        return right

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        looked_up = self.moved(setting, t)
        right = super().sampler_step(
            setting, prediction, x_t, looked_up, noise, parameterization, sampler, eta
        )
        return self.changed(right, setting, t, noise, sampler, eta).to(right.dtype)


def _deviation(setting: Setting, t: Tensor, like: Tensor) -> Tensor:
    return column(setting, "posterior_variance", t, like).sqrt()


@mutant("the step to 0 adds noise", "I16-last", "I16-ancestral")
class NoiseAtTheEnd(_Step):
    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        deviation = column(setting, "beta", t, noise).sqrt()
        first = (t == 1).reshape(deviation.shape)
        return right + torch.where(first, deviation * noise, torch.zeros_like(noise))


@mutant("the ancestral step scales its noise by β̃ instead of √β̃", "I16-ancestral")
class VarianceForDeviation(_Step):
    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        deviation = _deviation(setting, t, noise)
        return right + (deviation**2 - deviation) * noise if sampler == "ddpm" else right


@mutant(
    "one entry inside the sampler's tables is that of the step before", "I16-ancestral", "I16-ddim"
)
class OneStepStale(_Step):
    def moved(self, setting: Setting, t: Tensor) -> Tensor:
        return stale_inside(setting, t)


@mutant("the step draws noise of its own", "I18-repeatable", "I16-ancestral")
class OwnNoise(_Step):
    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        scale = _deviation(setting, t, noise) * (1.0 if sampler == "ddpm" else eta)
        return right + scale * (torch.randn_like(noise) - noise)


@mutant("the ancestral step adds no noise", "I16-ancestral")
class NoNoise(_Step):
    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        return right - _deviation(setting, t, noise) * noise if sampler == "ddpm" else right


@mutant(
    "DDIM's variance is proportional to η, its deviation to √η",
    "I16-ddim",
    origin="DDIM noise variance ∝ η instead of η²",
)
class VarianceByEta(_Step):
    def changed(
        self, right: Tensor, setting: Setting, t: Tensor, noise: Tensor, sampler: str, eta: float
    ) -> Tensor:
        extra = (eta**0.5 - eta) * _deviation(setting, t, noise) * noise
        return right + extra if sampler == "ddim" else right


@mutant("DDIM adds noise without shortening the direction to x_t", "I16-ddim")
class DirectionNotShortened(Implementation):
    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        straight = 0.0 if sampler == "ddim" else eta
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, straight
        )
        added = eta * _deviation(setting, t, noise) * noise
        return (right + added).to(right.dtype) if sampler == "ddim" else right


@mutant(
    "DDIM takes the predicted x0 for ε", "I16-ddim", "I16-last", origin="x0 used as eps in DDIM"
)
class CleanForNoiseInStep(Implementation):
    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        wrong = sampler == "ddim" and parameterization == "x0" and not setting.zero_terminal_snr
        space = "eps" if wrong else parameterization
        return super().sampler_step(setting, prediction, x_t, t, noise, space, sampler, eta)


@mutant(
    "under respacing the step before is found from the stride, not from the list",
    "I16-ddim",
    "I16-ancestral",
    origin="prev_timestep from the stride instead of the list",
)
class StrideForList(Implementation):
    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        if setting.timesteps is not None:
            stride = setting.T // setting.steps
            even = tuple(range(setting.T - stride * (setting.steps - 1), setting.T + 1, stride))
            setting = Setting(setting.name, setting.T, setting.zero_terminal_snr, even)
        return super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )


class _Chain(Implementation):
    """Samples with another model, shape or sampler than those given."""

    def heard(self, model: Model) -> Model:
        return model

    def _drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _taken(self, sampler: str) -> str:
        return sampler

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        found = super().sample(
            setting, self.heard(model), self._drawn(shape), parameterization, self._taken(sampler)
        )
        return found.expand(shape).clone()


@mutant("all chains of a batch share their noise", "I16-ends")
class OneChainForAll(_Chain):
    def _drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape[1:])


@mutant("the ancestral sampler runs as DDIM, without noise", "I16-ends")
class DeterministicAncestral(_Chain):
    def _taken(self, sampler: str) -> str:
        return "ddim"


@mutant("the sampler asks the model for t − 1", "I16-visited")
class SamplerFromZero(_Chain):
    def heard(self, model: Model) -> Model:
        return lambda x_t, t: model(x_t, (t - 1).clamp(min=1))


@mutant("the sampler asks the model twice a step", "I16-visited")
class AskedTwice(_Chain):
    def heard(self, model: Model) -> Model:
        return lambda x_t, t: 0.5 * (model(x_t, t) + model(x_t, t))


@mutant(
    "the chain starts from uniform numbers",
    "I16-start",
    origin="torch.rand in place of torch.randn",
)
class UniformStart(_Chain):
    def heard(self, model: Model) -> Model:
        calls: list[Tensor] = []

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            calls.append(t)
            return model(torch.special.ndtr(x_t) if len(calls) == 1 else x_t, t)

        return ask


@mutant("all chains of a batch share the noise of their steps", "I16-noise")
class SharedStepNoise(Implementation):
    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        x_t = torch.randn(shape, generator=generator, dtype=torch.float64)
        original = setting.timesteps or tuple(range(1, setting.T + 1))
        for step in range(setting.steps, 0, -1):
            t = torch.full((shape[0],), step)
            said = model(x_t, torch.full((shape[0],), original[step - 1]))
            one = torch.randn((1, *shape[1:]), generator=generator, dtype=torch.float64)
            x_t = self.sampler_step(
                setting, said, x_t, t, one.expand(shape), parameterization, sampler, 0.0
            )
        return x_t


@mutant("samples are clipped to [−1, 1] at the end", "I16-chain")
class ClippedAtTheEnd(Implementation):
    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        return super().sample(setting, model, shape, parameterization, sampler).clamp(-1, 1)


# ---------------------------------------------------------------- training


@mutant(
    "a low-discrepancy draw by arange(0, 1, 1/n) has n + 1 points for some n",
    "I11-count",
    origin="low-discrepancy t giving n + 1 points for n = 49, 98, 103",
)
class OnePointTooMany(Implementation):
    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        points = torch.arange(0, 1, 1 / count, dtype=torch.float64)
        return (points * T).long().clamp(max=T - 1) + 1, torch.ones_like(points)


@mutant("t is drawn from 0 … T − 1", "I11-count", "I11-unbiased")
class DrawnFromZero(Implementation):
    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        t, weights = super().time_steps(count, T, seed)
        return t - 1, weights


@mutant("t = T is never drawn", "I11-unbiased")
class LastNeverDrawn(Implementation):
    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        t, weights = super().time_steps(count, T, seed)
        return torch.where(t == T, max(T - 1, 1), t), weights


@mutant("t is drawn unevenly and the weights do not undo it", "I11-unbiased")
class UnevenWithoutWeights(Implementation):
    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        first, weights = super().time_steps(count, T, 2 * seed)
        second, _ = super().time_steps(count, T, 2 * seed + 1)
        return torch.maximum(first, second), weights


@mutant(
    "the average's decay is overwritten by k/(k + 9) at each step",
    "I22-ema",
    origin="EMA decay overwritten each step",
)
class DecayOverwritten(Implementation):
    def ema(self, values: Tensor, decay: float) -> Tensor:
        history = [values[0]]
        for k, value in enumerate(values[1:], 1):
            overwritten = k / (k + 9)
            history.append(overwritten * history[-1] + (1 - overwritten) * value)
        return torch.stack(history)


@mutant("the average starts at 0", "I22-ema")
class AverageFromZero(Implementation):
    def ema(self, values: Tensor, decay: float) -> Tensor:
        powers = decay ** torch.arange(1, len(values) + 1, dtype=values.dtype)
        return super().ema(values, decay) - powers * values[0]


@mutant("decay and its complement are exchanged", "I22-ema")
class DecayComplemented(Implementation):
    def ema(self, values: Tensor, decay: float) -> Tensor:
        return super().ema(values, 0.9 - 0.5 * decay)


@mutant("noise is drawn by position in the batch, not by sample index", "I28-split", "I28-normal")
class NoiseByPosition(Implementation):
    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        return super().noise(shape, seed, step, 0)


@mutant("every step draws the same noise", "I28-normal")
class NoiseRepeated(Implementation):
    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        return super().noise(shape, seed, 0, first_index)


@mutant("the noise is uniform with variance 1", "I28-normal")
class NoiseUniform(Implementation):
    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        normal = super().noise(shape, seed, step, first_index)
        uniform: Tensor = (torch.special.ndtr(normal) - 0.5) * 12**0.5
        return uniform


@mutant("sine and cosine of one pair are used as if they were one number", "I28-normal")
class NoisePaired(Implementation):
    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        normal = super().noise(shape, seed, step, first_index)
        return torch.where(torch.arange(shape[-1]) % 2 == 1, normal.roll(1, -1), normal)


# ---------------------------------------------------------------- sample quality


@mutant(
    "the feature network is in train mode: it normalizes by the batch",
    "I23-company",
    origin="feature network in train mode",
)
class FeaturesOfTheBatch(Implementation):
    def features(self, images: Tensor) -> Tensor:
        found = super().features(images)
        result: Tensor = (found - found.mean(0)) / (1 + found.var(0, correction=0).sqrt())
        return result


@mutant(
    "statistics are cached without a key: the first set stands for all",
    "I23-distance",
    origin="cached statistics without a key",
)
class CachedWithoutKey(Implementation):
    def __init__(self) -> None:
        self.kept: Tensor | None = None

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        self.kept = real if self.kept is None else self.kept
        return super().frechet_distance(self.kept, generated)


@mutant("the distance forgets the cross term", "I23-zero", "I23-distance")
class CrossTermForgotten(Implementation):
    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        spread = self.features(real).double().var(0).sum()
        return super().frechet_distance(real, generated) + 2 * float(spread)


@mutant("a number from 500 samples is called FID", "I23-name", origin="FID with n = 500")
class CalledFid(Implementation):
    def frechet_label(self, extractor: str, samples: int) -> str:
        return "FID"
