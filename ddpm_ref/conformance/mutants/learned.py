# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of variances that a network says."""

from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import column, mutant
from ddpm_ref.conformance.setting import Setting


class _Learned(Implementation):
    """Gives what a network says in one meaning another variance."""

    meaning = "range"

    def wrong(self, setting: Setting, said: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        if meaning != self.meaning:
            return super().learned_variance(setting, meaning, said, t)
        return self.wrong(setting, said, t)


@mutant(
    "the 1e-20 floor becomes the learned range's lower end",
    "I20-range-first",
    origin="the 1e-20 floor becomes the learned range's lower end",
)
class RangeFromFloor(_Learned):
    def wrong(self, setting: Setting, said: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        high = column(setting, "beta", t, said).log()
        low = column(setting, "posterior_variance", t, said).clamp(min=1e-20).log()
        logarithm = said * high + (1 - said) * low
        return logarithm.exp(), logarithm


@mutant("the two ends of the learned range are exchanged", "I20-range", "I20-range-first")
class RangeExchanged(Implementation):
    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        turned = 1 - said if meaning == "range" else said
        return super().learned_variance(setting, meaning, turned, t)


@mutant("the learned range interpolates variances, not their logarithms", "I20-range")
class RangeOfVariances(_Learned):
    def wrong(self, setting: Setting, said: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ends = [self.reverse_variance(setting, name, t)[0] for name in ("posterior", "beta")]
        low, high = (end.reshape(-1, *[1] * (said.ndim - 1)) for end in ends)
        value = said * high + (1 - said) * low
        return value, value.log()


@mutant(
    "what the network says is used as a variance where others take a log-variance",
    "I20-learned",
    origin="network output used as variance where others take log-variance",
)
class LearnedAsVariance(_Learned):
    meaning = "log"

    def wrong(self, setting: Setting, said: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return said, said
