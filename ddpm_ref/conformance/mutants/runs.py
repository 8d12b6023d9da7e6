# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of whole runs: chains in half precision, draws of a bound, an estimate from a budget, the order of an average."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation, Model
from ddpm_ref.conformance.mutants.mutant import mutant
from ddpm_ref.conformance.setting import Setting


@mutant("a chain in bf16 keeps its state in bf16", "I15-chain", origin="1,000 DDIM steps in bf16")
class StateInHalf(Implementation):
    def chain_in(
        self, setting: Setting, model: Model, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        x_t = torch.randn(shape, generator=generator).to(dtype)
        original = setting.timesteps or tuple(range(1, setting.T + 1))
        for step in range(setting.steps, 0, -1):
            t = torch.full((shape[0],), step)
            said = model(x_t, torch.full((shape[0],), original[step - 1]))
            x_t = self.sampler_step(setting, said, x_t, t, torch.zeros_like(x_t), "x0", "ddim", 0.0)
        return x_t


@mutant("all draws of the bound have the same noise", "I12-average")
class OneDrawForAll(Implementation):
    def mean_bound(
        self, setting: Setting, model: Model, x0: Tensor, variance: str, draws: int
    ) -> Bound:
        return super().mean_bound(setting, model, x0, variance, 1)


@mutant("the estimate of the bound forgets that examples were chosen unevenly", "I12-estimate")
class EstimateOfTheFirst(Implementation):
    def bound_estimate(
        self, setting: Setting, model: Model, data: Tensor, evaluations: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        return super().bound_estimate(setting, model, data[: len(data) // 2], evaluations, seed)


@mutant("the standard error is that of the variance, not of the mean", "I12-estimate")
class ErrorTenTimesTooSmall(Implementation):
    def bound_estimate(
        self, setting: Setting, model: Model, data: Tensor, evaluations: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        value, error = super().bound_estimate(setting, model, data, evaluations, seed)
        return value, error / 10


@mutant("the average is updated before the step", "I22-order")
class AverageBeforeTheStep(Implementation):
    def trained(self, steps: int) -> tuple[Tensor, Tensor]:
        weights, _ = super().trained(steps)
        averages = [weights[0]]
        for k in range(2, steps + 1):
            decay = k / (k + 9)
            averages.append(decay * averages[-1] + (1 - decay) * weights[k - 2])
        return weights, torch.stack(averages)


@mutant("the sampler's variance `beta` is the posterior's", "I16-variance")
class OneVarianceForBoth(Implementation):
    def ancestral_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        return super().ancestral_step(
            setting, prediction, x_t, t, noise, parameterization, "posterior"
        )
