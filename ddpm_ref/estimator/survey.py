r"""Evaluating the design: a surrogate is subtracted, the remainder is sampled, each example twice.

Wanted is θ = 1/N Σ_i Σ_t E f(i, t, ε) over the examples of a finite data set, for a term f that costs one network output. A surrogate ĥ whose
sum is known (`surrogate`) is subtracted, and the remainder is sampled where it varies most (`design`): for replicate r of example i, with
K points (t_j, ε_j),

    Y_ir = Σ_t E ĥ(i, t, ε) + Σ_j [f(i, t_j, ε_j) − ĥ(i, t_j, ε_j)]/(K q(t_j)),        θ̂ = mean of Y.              (1)

**Unbiased.** E Y_ir = Σ_t E f(i, t, ε) for any q > 0 and any ĥ that do not depend on the replicate's own noise: the coefficients of ĥ for
one replicate come from the *other* one, and from a pilot where there is one, whose evaluations are spent and not averaged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.control import GaussianControl
from ddpm_ref.estimator.design import Points, replicate_points, uniform
from ddpm_ref.estimator.latin import latin_normal
from ddpm_ref.estimator.surrogate import Basis, Observations, choose_basis, unit_of
from ddpm_ref.noise import NoiseStream, Use

Terms = Callable[[Tensor, Tensor, Tensor], Tensor]
"""f: (examples `[n, *dims]`, steps int64 `[n]`, noise `[n, *dims]`) → float64 `[n]`, one network output a row."""

_MAIN_STEP = 1 << 31  # noise that `elbo` does not use: its steps are far below


@dataclass(frozen=True, eq=False)
class Replicates:
    """Y of (1), split into the step t = 1 and the others.

    Attributes:
        first: the part of t = 1, `[m, 2]`.
        rest: that of t ≥ 2, `[m, 2]`.
        curve: smoothed mean of f at t = 1 … T, `[T]`.
    """

    first: Tensor
    rest: Tensor
    curve: Tensor

    @property
    def total(self) -> Tensor:
        """Y, `[m, 2]`."""
        return self.first + self.rest


@dataclass(frozen=True, eq=False)
class Survey:
    """Terms of a data set, and what is known of them beforehand.

    Attributes:
        terms: f.
        data: the finite data set `[N, *dims]`.
        gaussian: control variates.
        profile: q_0 `[T]`.
        stream: where all randomness comes from.
        control: whether control variates are subtracted.
        batch_size: rows per call of `terms`.
    """

    terms: Terms
    data: Tensor
    gaussian: GaussianControl
    profile: Tensor
    stream: NoiseStream
    control: bool
    batch_size: int

    def order(self) -> Tensor:
        """The examples in random order: the first so many are asked by a pilot, the last by the replicates."""
        return torch.argsort(uniform(self.stream, len(self.data), Use.ORDER, step=0), stable=True)

    def replicates(self, pairs: int, q: Tensor, pilot: Observations | None = None) -> Replicates:
        """Two replicates of as many examples as `pairs` evaluations each reach; 2·pairs evaluations.

        Args:
            pairs: evaluations of one replicate.
            q: the distribution of t `[T]`.
            pilot: observations with t drawn from `profile`, which help to fit the surrogate.
        """
        many = min(len(self.data), pairs)
        chosen = self.order()[len(self.data) - many :]
        counts = torch.full((many,), pairs // many)
        counts[: pairs - int(counts.sum())] += 1
        plans = [replicate_points(counts, q, self.stream, replicate) for replicate in (0, 1)]
        seen = [
            self.observe(chosen, plan, Use.NOISE, step=_MAIN_STEP + 3 * replicate)
            for replicate, plan in enumerate(plans)
        ]
        known = [] if pilot is None else [pilot]
        unit = unit_of(*(rows.value for rows in (*known, *seen)))
        known, seen = ([rows.in_units(unit) for rows in part] for part in (known, seen))
        fits = [self._fit(known, other, q) for other in reversed(seen)]
        parts = [
            self._totals(chosen, plan, rows, basis, fit, unit)
            for plan, rows, (basis, fit) in zip(plans, seen, fits, strict=True)
        ]
        return Replicates(
            first=unit * torch.stack([first for first, _ in parts], dim=1),
            rest=unit * torch.stack([rest for _, rest in parts], dim=1),
            curve=unit * torch.stack([basis.curve(fit) for basis, fit in fits]).mean(dim=0),
        )

    def observe(self, chosen: Tensor, points: Points, use: Use, step: int) -> Observations:
        """Evaluate the model at the points, `batch_size` rows at a time."""
        blocks = [
            self._observe_block(chosen, points, slice(start, start + self.batch_size), use, step)
            for start in range(0, len(points.t), self.batch_size)
        ]
        value, image, draw = (torch.cat(column) for column in zip(*blocks, strict=True))
        return Observations(points.t, value, image, draw)

    def _observe_block(
        self, chosen: Tensor, points: Points, rows: slice, use: Use, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, t = self.data.device, points.t[rows]
        x0 = self.data[chosen[points.example[rows]].to(device)]
        noise = self._noise(points, rows, x0.shape[1:], use, step).to(x0.dtype)
        value = self.terms(x0, t.to(device), noise).cpu()
        if not self.control:
            return value, torch.zeros_like(value), torch.zeros_like(value)
        return value, *self.gaussian.features(x0, t, noise)

    def _noise(
        self, points: Points, rows: slice, dims: tuple[int, ...], use: Use, step: int
    ) -> Tensor:
        """The rows' noise out of the whole Latin sets that they belong to."""
        serial = points.noise[rows]
        first, last = int(serial[0]), int(serial[-1])
        noise = latin_normal(
            self.stream,
            points.sizes[first : last + 1],
            dims,
            use=use,
            step=step,
            first_set=first,
            device=self.data.device,
        )
        skipped = rows.start - int(points.sizes[:first].sum())
        return noise[skipped : skipped + len(serial)]

    def _fit(
        self, pilot: list[Observations], other: Observations, q: Tensor
    ) -> tuple[Basis, Tensor]:
        """ĥ from the pilot (drawn from q_0, reweighted), if any, and the other replicate (drawn from q)."""
        seen, scales = other, [1 / q[other.t - 1]]
        for rows in pilot:
            seen = rows.and_then(seen)
            scales.insert(0, (q * self.profile)[rows.t - 1].rsqrt())
        scale = torch.cat(scales)
        basis = choose_basis(self.profile, seen, scale, self.control)
        return basis, basis.fit(seen, scale)

    def _totals(
        self,
        chosen: Tensor,
        plan: Points,
        seen: Observations,
        basis: Basis,
        fit: Tensor,
        unit: float,
    ) -> tuple[Tensor, Tensor]:
        """Y of one replicate in units of the observations, `[m]` each: the step t = 1, and the others."""
        residual = plan.weight * (seen.value - basis.rows(seen) @ fit)
        curve, slope = basis.curve(fit), basis.on_image(fit)
        x0 = self.data[chosen.to(self.data.device)]
        parts = []
        for steps in (slice(0, 1), slice(1, None)):
            inside = torch.zeros_like(curve)
            inside[steps] = 1
            known = (curve * inside).sum().expand(len(chosen)).clone()
            if self.control:
                known += self.gaussian.image_total(x0, slope * inside) / unit
            parts.append(known.index_add(0, plan.example, residual * inside[plan.t - 1]))
        return parts[0], parts[1]
