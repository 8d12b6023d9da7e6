r"""Numbers that carry how far rounding moves them: one evaluation of a formula gives the answer and its condition.

A computed z = f(x, y) differs from the exact one by the errors of x and y, passed on, and by one rounding of its own. To first order, in units of the
unit roundoff u of the arithmetic,

    δz = |∂f/∂x| δx + |∂f/∂y| δy + |z|,                                                              (1)

which is an upper bound whatever the signs: elementwise sums of absolute terms, and never a difference of a few random ones (Higham 2002,
section 3.3, running error analysis). Two such bounds go along: the *arithmetic* of the code under test, in which arguments are exact, and its *tables*, of which every
entry is off by a known amount to begin with and every derived one is rounded by itself.
"""

from collections.abc import Callable
from typing import Any, Union

import torch
from torch import Tensor

_Operand = Union["Bounded", float, int]


class Bounded:
    """A float64 tensor with its two bounds of eq. (1).

    Attributes:
        value: the answer.
        bound: `[2, …]`, (arithmetic, table) in units of u.
    """

    __slots__ = ("bound", "value")

    def __init__(self, value: Tensor, bound: Tensor) -> None:
        self.value = value
        self.bound = bound

    def _like(self, other: _Operand) -> "Bounded":
        """The other operand; a plain number is one that every code has exactly."""
        if isinstance(other, Bounded):
            return other
        return given(torch.full((1,) * self.value.ndim, float(other), dtype=torch.float64))

    def _rounded(self, value: Tensor, passed: Tensor) -> "Bounded":
        return Bounded(value, passed + value.abs())

    def __add__(self, other: _Operand) -> "Bounded":
        y = self._like(other)
        return self._rounded(self.value + y.value, self.bound + y.bound)

    __radd__ = __add__

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.bound)

    def __sub__(self, other: _Operand) -> "Bounded":
        return self + -self._like(other)

    def __rsub__(self, other: _Operand) -> "Bounded":
        return self._like(other) + -self

    def __mul__(self, other: _Operand) -> "Bounded":
        y = self._like(other)
        passed = y.value.abs() * self.bound + self.value.abs() * y.bound
        return self._rounded(self.value * y.value, passed)

    __rmul__ = __mul__

    def __truediv__(self, other: _Operand) -> "Bounded":
        y = self._like(other)
        quotient = self.value / y.value
        passed = (self.bound + quotient.abs() * y.bound) / y.value.abs()
        return self._rounded(quotient, passed)

    def __rtruediv__(self, other: _Operand) -> "Bounded":
        return self._like(other) / self

    def __pow__(self, exponent: float) -> "Bounded":
        value = self.value**exponent
        slope = abs(exponent) * self.value.abs() ** (exponent - 1)
        return self._rounded(value, slope * self.bound)

    def __abs__(self) -> "Bounded":
        return Bounded(self.value.abs(), self.bound)

    def sqrt(self) -> "Bounded":
        """√x: exact for an exact 0, and of no condition at all for another one."""
        root = self.value.sqrt()
        lost = torch.where(self.bound > 0, torch.inf, 0.0)
        return self._rounded(root, torch.where(root > 0, 0.5 * self.bound / root, lost))

    def exp(self) -> "Bounded":
        """eˣ."""
        value = self.value.exp()
        return self._rounded(value, value * self.bound)

    def log(self) -> "Bounded":
        """ln x; −∞ without a bound for 0."""
        found = self._rounded(self.value.log(), self.bound / self.value)
        return Bounded(found.value, torch.where(self.value > 0, found.bound, 0.0))

    def minimum(self, ceiling: float) -> "Bounded":
        """min(x, ceiling)."""
        above = self.value > ceiling
        return Bounded(self.value.clamp(max=ceiling), torch.where(above, 0.0, self.bound))

    def maximum(self, floor: float) -> "Bounded":
        """max(x, floor)."""
        below = self.value < floor
        return Bounded(self.value.clamp(min=floor), torch.where(below, 0.0, self.bound))

    def total(self) -> "Bounded":
        """Σ over all but the first axis, `[B]`."""
        flat, bound = self.value.flatten(1), self.bound.flatten(2)
        return Bounded(flat.sum(1), bound.sum(2) + flat.abs().sum(1))


def given(value: Tensor) -> Bounded:
    """An argument: exact for whoever receives it."""
    value = value.double()
    return Bounded(value, torch.zeros(2, *value.shape, dtype=torch.float64))


def stored(value: Tensor, movement: Tensor) -> Bounded:
    """A table entry that is off by `movement` roundings of itself."""
    kept = value.double()
    bound = torch.stack([kept.abs(), kept.abs() * movement])
    return Bounded(kept, bound)


def where(condition: Tensor, one: Bounded, other: Bounded) -> Bounded:
    """Elementwise choice."""
    return Bounded(
        torch.where(condition, one.value, other.value),
        torch.where(condition, one.bound, other.bound),
    )


def sqrt(x: Any) -> Any:
    """√ of a `Bounded` or of an mpmath number; the formulas are written once for both."""
    return x.sqrt() if isinstance(x, Bounded) else x.context.sqrt(x)


def exp(x: Any) -> Any:
    """Exponential of either."""
    return x.exp() if isinstance(x, Bounded) else x.context.exp(x)


def log(x: Any) -> Any:
    """Natural logarithm of either."""
    return x.log() if isinstance(x, Bounded) else x.context.log(x)


def either(condition: "bool | Tensor", one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """`one()` where the condition holds, else `other()`; elementwise for a mask."""
    if isinstance(condition, Tensor):
        return where(condition, one(), other())
    return one() if condition else other()


def at_most(x: Any, ceiling: float) -> Any:
    """min(x, ceiling)."""
    return x.minimum(ceiling) if isinstance(x, Bounded) else min(x, x.context.mpf(ceiling))


def at_least(x: Any, floor: float) -> Any:
    """max(x, floor)."""
    return x.maximum(floor) if isinstance(x, Bounded) else max(x, x.context.mpf(floor))
