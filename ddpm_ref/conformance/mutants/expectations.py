# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects that hide where noise cancels or where few noise levels are looked at: only an expectation shows them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation, Model
from ddpm_ref.conformance.mutants.mutant import column, mutant
from ddpm_ref.conformance.reference import schedule_of
from ddpm_ref.conformance.setting import Setting


def grouped(
    right: Callable[..., Bound],
    setting: Setting,
    spoiled: Callable[[Tensor], Model],
    x0: Tensor,
    *options: Any,
) -> Bound:
    """The right bound with a model that is spoiled by what x_0 is: equal rows are asked together."""
    rows, place = torch.unique(x0, dim=0, return_inverse=True)
    parts = [
        right(setting, spoiled(row), x0[place == k], *options)
        for k, row in enumerate(rows.split(1))
    ]
    order = torch.argsort(torch.cat([torch.nonzero(place == k)[:, 0] for k in range(len(rows))]))
    names = ("prior", "diffusion", "reconstruction", "total", "bits_per_dim")
    return Bound(**{n: torch.cat([getattr(part, n) for part in parts])[order] for n in names})


@mutant("the model sees x_t without noise in the bound", "I12-pointwise")
class NoiseForgotten(Implementation):
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
        right, options = super().bound, (parameterization, variance, decoder, levels)
        if parameterization != "x0":
            return right(setting, model, x0, *options)
        own = {int(k): n for n, k in enumerate(schedule_of(setting).timesteps, 1)}

        def quiet(clean: Tensor) -> Model:
            def ask(x_t: Tensor, t: Tensor) -> Tensor:
                root = column(
                    setting, "sqrt_alpha_bar", torch.tensor([own[int(k)] for k in t]), x_t
                )
                return model((root * clean).to(x_t.dtype), t)

            return ask

        return grouped(right, setting, quiet, x0, *options)


@mutant(
    "the bound evaluates its terms at an x_t of other data",
    "I12-pointwise",
    "I12-draws",
    origin="L_t at x_t of an independent trajectory",
)
class UnrelatedNoisy(Implementation):
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
        own = {int(k): n for n, k in enumerate(schedule_of(setting).timesteps, 1)}

        def elsewhere(clean: Tensor) -> Model:
            def ask(x_t: Tensor, t: Tensor) -> Tensor:
                steps = torch.tensor([own[int(k)] for k in t])
                root = column(setting, "sqrt_alpha_bar", steps, x_t)
                return model((x_t.double() - root * clean).to(x_t.dtype), t)

            return ask

        return grouped(
            super().bound, setting, elsewhere, x0, parameterization, variance, decoder, levels
        )


@mutant("the denoiser knows t to the nearest hundred", "I27-i-mmse")
class CoarseTime(Implementation):
    def mixture_denoise(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        x_t: Tensor,
        t: Tensor,
    ) -> Tensor:
        rounded = torch.where((t > 1) & (t < setting.steps), (t + 50) // 100 * 100, t)
        known = rounded.clamp(1, setting.steps)
        return super().mixture_denoise(setting, weights, means, covariances, x_t, known)
