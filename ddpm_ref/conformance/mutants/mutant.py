"""What a mutant is: one method of an implementation, wrong in one way that somebody's code was wrong in.

A mutant is written as a class over `Implementation` that overrides one method and calls `super()` for the right answer. It is
put on top of an implementation that is right (`build(Reference)`), so that everything else stays right; the laws named as
its causes must then reject it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.reference import Reference, schedule_of
from ddpm_ref.conformance.setting import Setting


@dataclass(frozen=True)
class Mutant:
    """A seeded defect.

    Attributes:
        name: words joined by hyphens.
        says: what is wrong.
        origin: where such a defect was seen; empty for one of our own invention.
        causes: ids of the laws that name this cause; at least one of them must fail, and nothing unrelated may.
        kind: the class that overrides the method.
    """

    name: str
    says: str
    origin: str
    causes: tuple[str, ...]
    kind: type[Implementation]

    def build(self, base: type[Implementation] = Reference) -> Implementation:
        """The implementation `base` with this defect."""
        words = {"name": f"mutant {self.name}"}
        built: Implementation = type(self.kind.__name__, (self.kind, base), words)()
        return built


MUTANTS: dict[str, Mutant] = {}
"""All mutants by name."""


def mutant(
    says: str, *causes: str, origin: str = ""
) -> Callable[[type[Implementation]], type[Implementation]]:
    """Register a class as a mutant; its name is the class's, in hyphens."""

    def register(kind: type[Implementation]) -> type[Implementation]:
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("-")
        MUTANTS[name] = Mutant(name, says, origin, causes, kind)
        return kind

    return register


def column(setting: Setting, table: str, t: Tensor, like: Tensor) -> Tensor:
    """Our own table at t, float64, shaped `[B, 1, …]`: mutants are wrong in one thing, not in their tables."""
    values = schedule_of(setting).lookup(table, t)
    return values.reshape(-1, *[1] * (like.ndim - 1))


def roots(setting: Setting, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(√ᾱ, √(1−ᾱ)) in the dtype of `like`."""
    names = ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar")
    a, s = (column(setting, name, t, like).to(like.dtype) for name in names)
    return a, s


def snr(setting: Setting, t: Tensor) -> Tensor:
    """SNR(t), float64 `[B]`."""
    return torch.exp(schedule_of(setting).lookup("log_snr", t))


def stale_inside(setting: Setting, t: Tensor) -> Tensor:
    """The steps as a table of hundreds with one stale entry, far from both ends, looks them up."""
    stale = setting.steps // 3
    return torch.where(t == stale, t - 1, t) if setting.steps >= 100 else t
