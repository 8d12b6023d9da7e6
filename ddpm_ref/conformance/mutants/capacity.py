# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of the price of a bottleneck."""

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import column, mutant
from ddpm_ref.conformance.setting import Setting


@mutant("the price of an output in its own units, not in those of x0", "I31-rank")
class PriceInOwnUnits(Implementation):
    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        price = super().rank_limited_excess(setting, eigenvalues, rank, t, parameterization)
        log_snr = column(setting, "log_snr", t, price)
        return price * log_snr.exp() if parameterization == "eps" else price


@mutant("the rank keeps the directions of largest variance, whatever they cost", "I31-rank")
class KeepsPrincipalComponents(Implementation):
    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        dropped = eigenvalues.sort().values[: len(eigenvalues) - rank]
        if len(dropped) == 0:
            return torch.zeros(len(t), dtype=torch.float64)
        return super().rank_limited_excess(setting, dropped, 0, t, parameterization)


@mutant("one rank more than there is", "I31-rank")
class OneRankMore(Implementation):
    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        more = min(rank + 1, len(eigenvalues))
        return super().rank_limited_excess(setting, eigenvalues, more, t, parameterization)
