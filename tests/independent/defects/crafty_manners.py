"""Defects of state, memory and order: the first answer is right."""

import numpy as np
import torch

from ddpm_ref.conformance import Posterior
from tests.independent.defects.defect import Seeds
from tests.independent.right import Right

seeded = Seeds("crafty")


@seeded()
class RememberedByShape(Right):
    """In float32 q_sample answers a second call of equal shape and steps with the first result."""

    def __init__(self):
        self.kept = {}

    def q_sample(self, setting, x0, t, noise):
        key = (setting, x0.shape, tuple(t.tolist()))
        if x0.dtype != torch.float32:
            return super().q_sample(setting, x0, t, noise)
        return self.kept.setdefault(key, super().q_sample(setting, x0, t, noise)).clone()


@seeded("tables")
class CacheWithoutNumbers(Right):
    """Tables are kept by name and length: two schedules of given β are taken for one."""

    def __init__(self):
        self.kept = {}

    def known(self, setting):
        key = (setting.name, setting.T, setting.zero_terminal_snr, setting.timesteps)
        if key not in self.kept:
            self.kept[key] = super().known(setting)
        return self.kept[key]


@seeded("tables")
class CacheWithoutRescaling(Right):
    """Tables are kept without regard to zero terminal SNR in schedules of other than 1,000 steps."""

    def __init__(self):
        self.kept = {}

    def known(self, setting):
        if setting.T == 1000:
            return super().known(setting)
        key = (setting.name, setting.T, setting.beta, setting.log_snr, setting.timesteps)
        if key not in self.kept:
            self.kept[key] = super().known(setting)
        return self.kept[key]


@seeded("tables")
class CacheByCountOfSteps(Right):
    """Tables are kept by the number of respaced steps, not by which they are."""

    def __init__(self):
        self.kept = {}

    def known(self, setting):
        key = (
            setting.name,
            setting.T,
            setting.beta,
            setting.log_snr,
            setting.zero_terminal_snr,
            setting.steps,
        )
        if key not in self.kept:
            self.kept[key] = super().known(setting)
        return self.kept[key]


@seeded()
class TargetIsTheNoise(Right):
    """The target ε is the caller's own tensor."""

    def target(self, setting, parameterization, x0, eps, t):
        return (
            eps
            if parameterization == "eps"
            else super().target(setting, parameterization, x0, eps, t)
        )


@seeded()
class ConversionToItself(Right):
    """From a space to itself the caller's own tensor comes back."""

    def convert(self, setting, prediction, x_t, t, source, to):
        return (
            prediction if source == to else super().convert(setting, prediction, x_t, t, source, to)
        )


@seeded()
class TablesShared(Right):
    """The tables handed out are those that are read: whoever changes them changes the schedule."""

    def tables(self, setting):
        known = self.known(setting)
        names = {"beta": "beta", "alpha_bar": "alpha_bar", "one_minus_alpha_bar": "sigma2"}
        shared = {key: getattr(known, field)[1:] for key, field in names.items()}
        return {**super().tables(setting), **shared}


@seeded()
class NoiseMovesTheGenerator(Right):
    """noise draws from the global generator although it has a seed."""

    def noise(self, shape, seed, step, first_index):
        torch.rand(1)
        return super().noise(shape, seed, step, first_index)


@seeded()
class NoisedReseeds(Right):
    """noised sets the global seed."""

    def noised(self, setting, x0, t, seed):
        torch.manual_seed(seed)
        return super().noised(setting, x0, t, seed)


@seeded()
class SampleStopsGradients(Right):
    """sample switches gradients off for good."""

    def sample(self, setting, model, shape, parameterization, sampler):
        torch.set_grad_enabled(False)
        return super().sample(setting, model, shape, parameterization, sampler)


@seeded()
class BoundWidensTheDefault(Right):
    """bound sets torch's default dtype to float64."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        found = super().bound(setting, model, x0, parameterization, variance, decoder, levels)
        torch.set_default_dtype(torch.float64)
        return found


@seeded()
class StepsReseedNumpy(Right):
    """time_steps sets NumPy's global seed."""

    def time_steps(self, count, T, seed):
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the defect
        return super().time_steps(count, T, seed)


@seeded()
class TiredAfterFifty(Right):
    """From the fiftieth call on an instance's posterior uses x_t for x_0."""

    def __init__(self):
        self.calls = 0

    def posterior(self, setting, x0, x_t, t):
        self.calls += 1
        return super().posterior(setting, x_t if self.calls >= 50 else x0, x_t, t)


@seeded()
class StatisticsByShape(Right):
    """The statistics of real images are kept by shape: a second set of equal shape gets those of the first."""

    def __init__(self):
        self.kept = {}

    def frechet_distance(self, real, generated):
        real = self.kept.setdefault(real.shape, real.clone())
        return super().frechet_distance(real, generated)


@seeded()
class FeaturesClampTheirInput(Right):
    """features clamps the caller's images to [−1, 1] in place."""

    def features(self, images):
        return super().features(images.clamp_(-1, 1))


@seeded()
class AverageInPlace(Right):
    """The EMA is written over the values."""

    def ema(self, values, decay):
        found = super().ema(values, decay)
        if values.dtype == torch.float32:
            values.copy_(found)
        return found


@seeded()
class StepWorksInTheNoise(Right):
    """The ancestral step in float32 scales the caller's noise."""

    def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
        right = super().sampler_step(
            setting, prediction, x_t, t, noise, parameterization, sampler, eta
        )
        if noise.dtype == torch.float32 and sampler == "ddpm":
            noise.mul_(0.5)
        return right


@seeded()
class BufferUsedAgain(Right):
    """The loss of float32 is returned in one buffer for each size."""

    def __init__(self):
        self.buffers = {}

    def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
        right = super().loss(setting, prediction, x0, eps, t, parameterization, weighting)
        if prediction.dtype != torch.float32 or right.requires_grad:
            return right
        return self.buffers.setdefault(len(right), torch.empty_like(right)).copy_(right)


@seeded()
class VarianceExpanded(Right):
    """The posterior's variance is an expanded view: writing to one number changes all."""

    def posterior(self, setting, x0, x_t, t):
        right = super().posterior(setting, x0, x_t, t)
        table = self.known(setting).tilde
        value = (
            table.as_strided(x0.shape, (0,) * x0.ndim, int(t[0])) if len(t) == 1 else right.variance
        )
        return Posterior(right.mean, value, right.log_variance)


@seeded()
class AnsweredFromTheLastSetting(Right):
    """weight keeps the tables of the setting before where both have equal length."""

    def __init__(self):
        self.last = None

    def weight(self, setting, weighting, t, parameterization):
        if self.last is None or self.last.steps != setting.steps or setting.zero_terminal_snr:
            self.last = setting
        return super().weight(self.last, weighting, t, parameterization)


@seeded()
class ModelAskedTwice(Right):
    """The bound asks the model twice for each step and takes the mean."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        def twice(x_t, t):
            return (model(x_t, t) + model(x_t, t)) / 2

        return super().bound(setting, twice, x0, parameterization, variance, decoder, levels)


@seeded()
class GeneratorFrozen(Right):
    """bound puts the global generator back: two calls have the same noise."""

    def bound(self, setting, model, x0, parameterization, variance, decoder, levels):
        with torch.random.fork_rng(devices=[]):
            return super().bound(setting, model, x0, parameterization, variance, decoder, levels)


@seeded()
class ChainFrozen(Right):
    """sample draws from a generator of its own seed: all chains are one."""

    def sample(self, setting, model, shape, parameterization, sampler):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return super().sample(setting, model, shape, parameterization, sampler)
