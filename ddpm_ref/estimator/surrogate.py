r"""A surrogate for the term of step t that can be summed exactly: the regression behind the control variates.

    ĥ(i, t, ε) = c_0(t) q_0(t) + c_1(t) H(i, t) + c_2(t) G(i, t, ε),                                           (1)

with the control variates H, G of `control` and a rough profile q_0 of the terms over t. Since G has mean zero over ε,

    E Σ_t ĥ(i, t, ε) = Σ_t [c_0(t) q_0(t) + c_1(t) H(i, t)]                                                   (2)

is known whatever the coefficients are, and only f − ĥ remains to be sampled. The coefficients are piecewise linear in the position of t
under q_0, with t = 1 (the decoder) for itself, fitted by least squares to f/q with a slight ridge: with t drawn from q, the mean
square of (f − ĥ)/q is the variance of what remains.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.control import GaussianControl


@dataclass(frozen=True, eq=False)
class Observations:
    """Evaluated terms: one row for each network evaluation, all float64 on the CPU.

    Attributes:
        t: steps, int64 `[n]`.
        value: f, the term in nats `[n]`.
        image: H `[n]`, or zeros without control.
        draw: G `[n]`, or zeros.
    """

    t: Tensor
    value: Tensor
    image: Tensor
    draw: Tensor

    def where(self, rows: Tensor) -> "Observations":
        """The rows that a mask `[n]` selects."""
        return Observations(self.t[rows], self.value[rows], self.image[rows], self.draw[rows])

    def in_units(self, unit: float) -> "Observations":
        """All terms divided by `unit`."""
        return Observations(self.t, self.value / unit, self.image / unit, self.draw / unit)

    def and_then(self, other: "Observations") -> "Observations":
        """Both, one after the other."""
        return Observations(
            torch.cat([self.t, other.t]),
            torch.cat([self.value, other.value]),
            torch.cat([self.image, other.image]),
            torch.cat([self.draw, other.draw]),
        )


@dataclass(frozen=True, eq=False)
class Basis:
    """Piecewise linear functions of t: `knots` hats for the mean curve and `control_knots` for each control.

    Attributes:
        profile: q_0, float64 `[T]`, sums to 1.
        knots: pieces of c_0.
        control_knots: pieces of c_1 and of c_2; 0 = no control variates.
    """

    profile: Tensor
    knots: int
    control_knots: int

    def curve(self, coefficients: Tensor) -> Tensor:
        """c_0(t) q_0(t) for t = 1 … T."""
        shape: Tensor = self._hats(self.knots) @ coefficients[: self.knots + 2]
        curve: Tensor = shape * self.profile
        return curve

    def on_image(self, coefficients: Tensor) -> Tensor:
        """c_1(t) for t = 1 … T."""
        if self.control_knots == 0:
            return torch.zeros_like(self.profile)
        start, width = self.knots + 2, self.control_knots + 2
        slope: Tensor = self._hats(self.control_knots) @ coefficients[start : start + width]
        return slope

    def rows(self, seen: Observations) -> Tensor:
        """The design matrix of (1), `[n, parameters]`."""
        columns = [self._hats(self.knots)[seen.t - 1] * self.profile[seen.t - 1, None]]
        if self.control_knots:
            hats = self._hats(self.control_knots)[seen.t - 1]
            columns += [hats * seen.image[:, None], hats * seen.draw[:, None]]
        return torch.cat(columns, dim=1)

    def fit(self, seen: Observations, scale: Tensor) -> Tensor:
        """Least-squares coefficients of value·scale on rows·scale, with one pseudo-observation of 0 for each."""
        rows = self.rows(seen) * scale[:, None]
        # Columns whose squares underflow count as 0: divided by less, they would swamp the pseudo-observations.
        least = math.sqrt(torch.finfo(torch.float64).tiny)
        size = rows.square().mean(dim=0).sqrt().clamp(min=least)
        rows = rows / size
        gram = rows.T @ rows + torch.eye(rows.shape[1], dtype=torch.float64)
        solution: Tensor = torch.linalg.solve(gram, rows.T @ (seen.value * scale)) / size
        return solution

    def _hats(self, pieces: int) -> Tensor:
        """`[T, pieces + 2]`: hat functions over the position of t under q_0, and the indicator of t = 1."""
        position = (self.profile.cumsum(0) - 0.5 * self.profile).clamp(0, 1) * pieces
        left = position.floor().clamp(max=pieces - 1).long()
        hats = torch.zeros(len(position), pieces + 2, dtype=torch.float64)
        step = torch.arange(len(position))
        hats[step, left] = 1 - (position - left)
        hats[step, left + 1] = position - left
        hats[0] = 0
        hats[0, -1] = 1
        return hats


def unit_of(*values: Tensor) -> float:
    """The power of two at their largest size, to divide by before squaring: exact, and no square overflows; 1 for none."""
    peak = torch.cat(values).abs().max().item()
    return math.ldexp(1.0, math.frexp(peak)[1] - 1) if 0 < peak < math.inf else 1.0


def choose_basis(profile: Tensor, seen: Observations, scale: Tensor, control: bool) -> Basis:
    """The basis that predicts best what it was not fitted to: without control, or with few or more pieces of it.

    Cross-validation in four folds of blocks of eight rows. Where data are far from Gaussian and few, a control variate
    costs more in the error of its coefficient than it explains.

    Args:
        profile: q_0 `[T]`.
        seen: the observations that the fit may use.
        scale: weight of each row in the fit `[n]`.
        control: whether control variates are wanted at all.
    """
    count = len(seen.t)
    knots = max(2, min(12, count // 40))
    widest = max(1, min(4, count // 100))
    options = sorted({0, 1, widest}) if control else [0]
    candidates = [Basis(profile, knots, control_knots) for control_knots in options]
    return min(candidates, key=lambda basis: _prediction_error(basis, seen, scale))


def _prediction_error(basis: Basis, seen: Observations, scale: Tensor) -> float:
    """Mean square of (value − prediction)·scale over held-out folds."""
    fold = torch.arange(len(seen.t)) // 8 % 4
    error = 0.0
    for held_out in range(4):
        inside, outside = fold != held_out, fold == held_out
        test = seen.where(outside)
        if not bool(inside.any()) or len(test.t) == 0:
            continue
        fit = basis.fit(seen.where(inside), scale[inside])
        gap = (test.value - basis.rows(test) @ fit) * scale[outside]
        error += gap.square().sum().item()
    return error


def rough_profile(control: GaussianControl, T: int) -> Tensor:
    """q_0 before any evaluation: the Gaussian's own terms, with a share for 1/t and a uniform one as insurance."""
    step = torch.arange(1, T + 1, dtype=torch.float64)
    shares = ((0.7, control.profile), (0.2, 1 / step), (0.1, torch.ones_like(step)))
    tiny = torch.finfo(
        torch.float64
    ).tiny  # a single example has no variance, and the Gaussian no term
    total = torch.stack([weight * part / part.sum().clamp(min=tiny) for weight, part in shares])
    profile = total.sum(dim=0)
    normalized: Tensor = profile / profile.sum()
    return normalized
