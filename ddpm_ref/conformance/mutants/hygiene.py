# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of form and of company: gradients, dtypes, layout, samples that are not apart."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import mutant
from ddpm_ref.conformance.setting import Setting


@mutant("the conversion works under no_grad", "I31-gradient")
class ConvertedWithoutGradient(Implementation):
    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        with torch.no_grad():
            return super().convert(setting, prediction, x_t, t, source, to)


@mutant("one half of the target is detached and the other doubled", "I31-gradient")
class TargetHalfDetached(Implementation):
    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        right = super().target(setting, parameterization, x0, eps, t)
        return 2 * right - right.detach()


@mutant("the KL comes in the dtype of a constant, bf16", "I29-results")
class NarrowKl(Implementation):
    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        return super().gaussian_kl(mean1, log_var1, mean2, log_var2).bfloat16()


@mutant("x_t is read as if its memory were contiguous", "I32-layout")
class MemoryForNumbers(Implementation):
    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor):  # type: ignore[no-untyped-def]
        as_stored = torch.as_strided(x_t, x_t.shape, torch.empty(x_t.shape).stride())
        return super().posterior(setting, x0, as_stored, t)
