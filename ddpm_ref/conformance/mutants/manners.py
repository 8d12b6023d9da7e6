# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of manners: what a call leaves behind, and what it takes from where it should not."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import mutant
from ddpm_ref.conformance.setting import Setting


@mutant("tables are kept in the dtype of the first call", "I18-history")
class TablesOfTheFirstCall(Implementation):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.__dict__.setdefault("kept", x0.dtype)
        return super().q_sample(setting, x0.to(kept), t, noise.to(kept)).to(x0.dtype)


@mutant("seeded noise is drawn by seeding the program's generator", "I18-generator")
class SeedsForItsNoise(Implementation):
    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return super().noised(setting, x0, t, seed)
