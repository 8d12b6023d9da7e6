r"""The law that makes a bound a bound: for every single x_0 it lies above −ln p_model(x_0).

Which p_model? That of the reverse chain itself, x_T ~ N(0, I), x_{t−1} ~ N(c_0 x̂_0(x_t) + c_t x_t, σ_t²). If x̂_0 is linear in x_t the chain is
Gaussian in every coordinate: with x̂_0 = m + k_t(x_t − √ᾱ_t m), k_t = √ᾱ_t s/(ᾱ_t s + 1 − ᾱ_t), the best one for N(m, s),

    M ← A M + c_0 (1 − k_t √ᾱ_t) m,   V ← A² V + σ_t²,   A = c_0 k_t + c_t,   from M = 0, V = 1 at T to t = 0.     (1)

The bound asks for an expectation over noise, which many copies of one x_0 estimate. For N(0, 1) and σ_t² = β_t the chain reverses the
noising exactly, and the bound *equals* −ln p(x_0) for each x_0: nothing may be missing, least of all the noise in x_t, which
cancels wherever a model always says the same, as in the laws of `lawbook.bound`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation
from ddpm_ref.conformance.lawbook.bound import VARIANCES
from ddpm_ref.conformance.lawbook.chance import normality
from ddpm_ref.conformance.lawbook.law import SIGMAS, Case, Law, seeded, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Number, Row, Truth, at_steps, reverse_variance
from ddpm_ref.conformance.setting import Setting

_COPIES, _SHORTEST = 2048, 3
_POINTS = (0.0, 0.5, -1.75)
_DATA = ((0.0, 1.0), (0.25, 0.36))
"""(mean, variance) of each coordinate of the data."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """The best estimate of x_0 for coordinates N(mean, spread), as a model that says x_0."""

    known: Truth
    mean: float
    spread: float

    def gain(self, row: Row) -> Number:
        """k_t of the module's docstring."""
        return row.a * self.spread / (row.alpha_bar * self.spread + row.rest)

    @cached_property
    def lines(self) -> Tensor:
        """(slope, intercept) of x̂_0 in x_t by original step, `[2, …]`."""
        return self.known.by_original(
            self.gain, lambda row: (1 - self.gain(row) * row.a) * self.mean
        )

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂_0 for noisy data `[B, *dims]` at original steps t `[B]`."""
        slope, intercept = at_steps(self.lines, t).reshape(2, -1, *[1] * (x_t.ndim - 1))
        said: Tensor = (slope * x_t.double() + intercept).to(x_t.dtype)
        return said

    def marginal(self, variance: str) -> tuple[float, float]:
        """(M, V) of a coordinate at t = 0, eq. (1)."""
        centre, spread = 0, 1
        for row in self.known.rows[:0:-1]:
            gain = self.gain(row)
            slope = row.clean_part * gain + row.noisy_part
            centre = slope * centre + row.clean_part * (1 - gain * row.a) * self.mean
            spread = slope**2 * spread + reverse_variance(variance, row)
        return float(centre), float(spread)


def negative_log_density(x0: Tensor, centre: float, spread: float) -> Tensor:
    """−ln N(x_0; centre, spread I) of rows `[B, D]`, nats `[B]`."""
    terms = (x0 - centre) ** 2 / spread + math.log(2 * math.pi * spread)
    return 0.5 * terms.sum(1)


def deviation(bound: Bound, floor: Tensor, *, equal: bool) -> Tensor:
    """How far the mean over the copies of each point lies below the floor (where they are equal: from it), in standard errors.

    A spread of less than what float32 leaves in the sum is taken for that: constant terms have none.
    """
    assert bound.total is not None
    drawn = bound.total.double().view(len(floor), -1)
    least = 1e-6 * (1 + floor.abs())
    scores = (drawn.mean(1) - floor) / (drawn.std(1) / math.sqrt(drawn.shape[1])).clamp(min=least)
    return scores if equal else scores.clamp(max=0.0)


def _pointwise(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    x0 = torch.tensor(_POINTS, dtype=torch.float64)[:, None].expand(-1, 2).contiguous()
    ordered = sorted(settings_with_truth(implementation), key=lambda pair: pair[1].T)
    for setting, known in ordered[:_SHORTEST]:
        for mean, spread in _DATA:
            for variance in VARIANCES:
                yield _case(setting, LinearModel(known, mean, spread), x0, variance)


def _case(setting: Setting, model: LinearModel, x0: Tensor, variance: str) -> Case:
    copies = x0.repeat_interleave(_COPIES, 0)
    inputs: tuple[Any, ...] = (setting, model, copies, "x0", variance, "gaussian", None)

    equal = variance == "beta" and (model.mean, model.spread) == (0.0, 1.0)

    def scores(candidate: Implementation) -> Tensor:
        floor = negative_log_density(x0, *model.marginal(variance))
        with seeded():
            return deviation(candidate.bound(*inputs), floor, equal=equal)

    return Case(
        "bound",
        {"setting": setting, "x0": x0, "parameterization": "x0", "variance": variance},
        torch.zeros(len(x0), dtype=torch.float64),
        run=scores,
        label=f"mean of {_COPIES} bounds {'minus' if equal else 'below'} −ln p_model(x0), in standard errors",
    )


def _draws(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """(x_t − √ᾱ x_0)/√(1−ᾱ) of everything that the bound hands to the model, where all x_0 are the same."""
    x0 = torch.tensor([[0.5, -1.75, 1.0, 0.0, -0.25, 1.5, -1.0, 0.75]], dtype=torch.float64)
    data = x0.expand(_COPIES, -1).contiguous()
    ordered = sorted(settings_with_truth(implementation), key=lambda pair: pair[1].T)
    for setting, known in ordered[:_SHORTEST]:
        if known.T < 2:
            continue

        def scores(candidate: Implementation, inputs: Any = (setting, known)) -> Tensor:
            where, truth = inputs
            scales = truth.by_original(lambda row: row.a, lambda row: row.s)
            blocks: list[Tensor] = []

            def model(x_t: Tensor, t: Tensor) -> Tensor:
                a, s = at_steps(scales, t)[:, :, None]
                blocks.append((x_t.double() - a * x0) / s)
                return x0.expand_as(x_t).to(x_t.dtype)

            with seeded():
                candidate.bound(where, model, data, "x0", "posterior", "gaussian", None)
            z = torch.cat(blocks) if blocks else torch.full((2, 8), torch.inf)
            if z.numel() % data.numel():
                return normality([z])
            return normality(list(z.split(len(data))))

        yield Case(
            "bound",
            {"setting": setting, "parameterization": "x0", "variance": "posterior"},
            torch.zeros(20, dtype=torch.float64),
            run=scores,
            label="noise in what the bound hands to the model: moments, tails, χ², means and correlations of samples, positions and terms",
        )


LAWS = (
    Law(
        "I12-draws",
        "noise in the bound",
        "Each term of the bound hands the model √ᾱ x0 + √(1−ᾱ) z of its own x0, with z ~ N(0, I) new for each term, sample and position.",
        "L_t is an expectation over q(x_t | x0).",
        "Ho et al. 2020, eq. 5. Seen: one noise for all t; x_t of other data.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {_COPIES * 8:,} numbers a term.",
        _draws,
        measures="chance",
    ),
    Law(
        "I12-pointwise",
        "bound above −ln p",
        "For each x0 the bound, in expectation over noise, is at least −ln of the model's own density at x0; equal for N(0, I) "
        "and variance β_t.",
        "Jensen's inequality for the chain's marginal, which is Gaussian for a linear x̂0: M ← A M + c_0(1 − k a)m, V ← A²V + σ².",
        "Ho et al. 2020, eq. 3.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {_COPIES} draws.",
        _pointwise,
        measures="chance",
    ),
)
