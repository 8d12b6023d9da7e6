"""What a seeded defect is: a class over `Right` that overrides one method and is wrong in one way, said in its docstring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance import Implementation
from tests.independent.right import Right
from tests.independent.tables import Tables, from_alpha_bars, tables

WHOLE_SCHEDULE = "known"
"""The method of `Right` by which a whole schedule is replaced, so that every method agrees with the wrong one."""


@dataclass(frozen=True)
class Defect:
    """A seeded defect.

    Attributes:
        id: the class's name in hyphens.
        kind: `ordinary` (seen in somebody's code) or `crafty` (made to slip past the laws).
        method: the method of the interface that is wrong.
        cause: methods that a report may name and be right.
        description: what is wrong.
        build: makes the implementation.
    """

    id: str
    kind: str
    method: str
    cause: tuple[str, ...]
    description: str
    build: type[Right]


class Seeds:
    """A list of defects that a module registers its classes in."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.found: list[Defect] = []

    def __call__(self, *cause: str) -> Callable[[type[Right]], type[Right]]:
        """Registers a class; `cause` are methods that may be named besides the one overridden."""

        def register(made: type[Right]) -> type[Right]:
            overridden = next(name for name in vars(made) if not name.startswith("__"))
            within = (
                overridden if hasattr(Implementation, overridden) else cause[0] if cause else ""
            )
            method = "tables" if overridden == WHOLE_SCHEDULE else within
            name = "".join(f"-{c.lower()}" if c.isupper() else c for c in made.__name__)
            made.name = f"defect {name[1:]}"
            words = " ".join((made.__doc__ or "").split())
            causes = tuple(dict.fromkeys((method, *cause)))
            self.found.append(Defect(name[1:], self.kind, method, causes, words, made))
            return made

        return register


def column(values: Tensor, like: Tensor) -> Tensor:
    """`[B]` as `[B, 1, …]`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def roots(self: Right, setting: Any, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(√ᾱ, √(1−ᾱ)), float64 `[B, 1, …]`."""
    known = self.known(setting)
    return known.at("alpha_bar", t, like).sqrt(), known.at("sigma2", t, like).sqrt()


def of_betas(betas: Sequence[Any], setting: Any) -> Tables:
    """The tables of other β; rescaling is left to the right code, so such settings stay as they are."""
    if setting.zero_terminal_snr:
        return tables(setting)
    plain = tables(replace(setting, name="wrong", beta=tuple(float(b) for b in betas)))
    return plain


def of_decay(f: Sequence[Any], setting: Any, cap: float = 0.999) -> Tables:
    """The tables of ᾱ_t = f(t)/f(0), β capped."""
    betas = [min(1 - float(b) / float(a), cap) for a, b in pairwise(f)]
    return of_betas(betas, setting)


def named(setting: Any, name: str) -> bool:
    """The setting is that schedule, given by its name."""
    return setting.name == name and setting.beta is None and setting.log_snr is None


def ramp(first: float, last: float, count: int) -> Tensor:
    """Evenly spaced float64 numbers."""
    return torch.linspace(first, last, count, dtype=torch.float64)


__all__ = [
    "Defect", "Seeds", "column", "from_alpha_bars", "named", "of_betas", "of_decay", "ramp", "roots",
]  # fmt: skip
