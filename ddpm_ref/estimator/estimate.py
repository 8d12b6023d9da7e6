r"""`estimate_elbo`: the mean bound of a finite data set from a fixed number of network evaluations.

The full sum costs T evaluations per example and draw. But its terms are alike from step to step and from example to example, and most
of what they are is known beforehand. Let f(i, t, ε) be the term of example i at step t, 1 … T, for the noise ε; wanted is

    θ = 1/N Σ_i L_T(i) + 1/N Σ_i Σ_t E f(i, t, ε).                                                            (1)

L_T is exact and free. For the rest, a surrogate ĥ whose sum is known (`surrogate`) is subtracted, and the remainder is sampled where it
varies most (`design`): for replicate r of example i, with K points (t_j, ε_j),

    Y_ir = Σ_t E ĥ(i, t, ε) + Σ_j [f(i, t_j, ε_j) − ĥ(i, t_j, ε_j)]/(K q(t_j)),        θ̂ = mean of L_T + mean of Y.      (2)

**Unbiased.** E Y_ir = Σ_t E f(i, t, ε) for any q > 0 and any ĥ that do not depend on the replicate's own noise. q comes from a pilot, whose
evaluations are spent and not averaged; the coefficients of ĥ for one replicate come from the pilot and the *other* replicate.

**Standard error**: m of N examples are drawn without replacement and each has two replicates: `replicates`. The observations are the
replicates, not their points, which share noise and offsets. The lattice between examples only makes that error larger than the truth: in
trials by a few percent. (Differences of neighbours in the lattice would take that out, but they were found as much too small.)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.control import GaussianControl
from ddpm_ref.estimator.design import Points, neyman, pilot_points, replicate_points, uniform
from ddpm_ref.estimator.latin import latin_normal
from ddpm_ref.estimator.replicates import (
    degrees_of_freedom,
    student_interval,
    two_stage_error,
)
from ddpm_ref.estimator.surrogate import (
    Basis,
    Observations,
    choose_basis,
    rough_profile,
    unit_of,
)
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.reverse import (
    Model,
    Protocol,
    ReverseProcess,
    Variance,
    check_data,
    evaluation_mode,
    reverse_process,
    reverse_variance,
)
from ddpm_ref.schedule import Schedule
from ddpm_ref.terms import prior_kl
from ddpm_ref.validation import check_count

_PILOT_SHARE = 0.08
_SMALLEST = 32  # a pilot of 12 and two replicates of 10
_LARGEST = 1 << 31
_MAIN_STEP = 1 << 31  # noise that `elbo` does not use: its steps are far below


@dataclass(frozen=True, eq=False)
class ElboEstimate:
    """An unbiased estimate of the mean bound over a finite data set.

    Attributes:
        bits_per_dim: the estimate, bits per dimension.
        stderr: its standard error, bits per dimension.
        degrees_of_freedom: how many independent squares the standard error is worth (`replicates`, 2): 1 for one example, from a third
            of their number to all for many.
        evaluations: network outputs spent, the pilot's included; never above the budget.
        prior: mean L_T, nats, exact.
        diffusion: mean Σ_{t≥2} L_{t−1}, nats, with its standard error.
        reconstruction: mean L_0, nats, with its standard error.
        curve: smoothed mean of the term of step t = 1 … T, nats `[T]`: for a picture; it is not unbiased at each t.
        dims: D.
        examples: how many of the data were visited.
        data_size: N.
        protocol: how a term is evaluated.
    """

    bits_per_dim: float
    stderr: float
    degrees_of_freedom: float
    evaluations: int
    prior: float
    diffusion: tuple[float, float]
    reconstruction: tuple[float, float]
    curve: Tensor
    dims: int
    examples: int
    data_size: int
    protocol: Protocol

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """bits_per_dim ± t·stderr, bits per dimension, with Student's t for `degrees_of_freedom`.

        It covers less often than `level` where rare events hold most of the variance, for replicates that have both missed them
        agree and tell nothing of it; and where one of many examples holds it.

        Raises:
            ValueError: level outside (0, 1).
        """
        return student_interval(self.bits_per_dim, self.stderr, self.degrees_of_freedom, level)


def estimate_elbo(
    model: Model,
    data: Tensor,
    schedule: Schedule,
    *,
    evaluations: int,
    parameterization: str = "eps",
    variance: Variance = "posterior",
    decoder: str = "discretized",
    levels: int | None = None,
    seed: int = 0,
    draws: int = 1,
    clip: float | None = None,
    batch_size: int = 256,
    control: bool = True,
) -> ElboEstimate:
    """The mean over `data` of `elbo(…).bits_per_dim`, estimated from at most `evaluations` network outputs.

    At equal error it needs hundreds of times fewer evaluations than the full sum and thousands of times fewer than a uniform t
    (measured by `ddpm-bench estimator`), and pays most from about four evaluations per example on, where every example is
    visited. The interval is Student's: wide for one or two examples, and still too short where rare events hold most of the
    variance, such as a decoder far too narrow for its errors, and the budget meets few of them.

    Args:
        model: as in `elbo`.
        data: the finite data set `[N, *dims]`, whose mean bound is wanted; `[N]` means D = 1.
        schedule: T steps.
        evaluations: the budget; one evaluation is one network output for one sample. 32 … 2³¹; four or
            more per example are useful.
        parameterization: as in `elbo`, like the following.
        variance: `posterior`, `beta` or a `[T+1]` table.
        decoder: `discretized` or `gaussian`.
        levels: grey levels of the discretized decoder.
        seed: of the noise, the steps and the choice of examples.
        draws: `elbo`'s; the expected bound is the same for any number, and the budget alone decides here.
        clip: clamp the predicted x0; None clips nothing.
        batch_size: rows per call of the model.
        control: subtract the fitted Gaussian's control variates.

    Returns:
        `ElboEstimate`. A model that returns NaN or infinity at a step that is drawn is no error: estimate, standard error and
        interval are then NaN.

    Raises:
        ValueError: as `elbo`, whichever steps and examples are drawn, or a budget outside 32 … 2³¹.
    """
    check_data("data", data)
    _check_budget(evaluations, len(data), draws, batch_size)
    process = reverse_process(
        model,
        schedule,
        parameterization=parameterization,
        variance=variance,
        decoder=decoder,
        levels=levels,
        clip=clip,
    )
    process.check(data, batch_size)
    gaussian = GaussianControl(data, schedule, reverse_variance(variance, schedule))
    survey = _Survey(process, data, gaussian, NoiseStream(seed), control, batch_size)
    with evaluation_mode(model):
        replicates = survey.run(evaluations)
    return _summary(survey, replicates, prior_kl(data, schedule).mean().item(), seed)


@dataclass(frozen=True, eq=False)
class _Replicates:
    """Y of eq. (2), split into the decoder's step and the others, `[m, 2]` each, and what was spent on it."""

    reconstruction: Tensor
    diffusion: Tensor
    curve: Tensor
    evaluations: int


@dataclass(frozen=True, eq=False)
class _Survey:
    """One run of the estimator: pilot, allocation, two replicates."""

    process: ReverseProcess
    data: Tensor
    gaussian: GaussianControl
    stream: NoiseStream
    control: bool
    batch_size: int

    def run(self, budget: int) -> _Replicates:
        """Spend the budget."""
        size = len(self.data)
        order = torch.argsort(uniform(self.stream, size, Use.ORDER, step=0), stable=True)
        profile = rough_profile(self.gaussian, self.process.schedule.T)
        pilot_size = max(12, int(_PILOT_SHARE * budget))
        points = pilot_points(pilot_size, size, profile, self.stream)
        pilot = self._observe(order, points, Use.PILOT, step=2)
        q = self._allocate(pilot.in_units(unit_of(pilot.value)), profile)

        pairs = (budget - pilot_size) // 2
        many = min(size, pairs)
        chosen = order[size - many :]
        counts = torch.full((many,), pairs // many)
        counts[: pairs - int(counts.sum())] += 1
        plans = [replicate_points(counts, q, self.stream, replicate) for replicate in (0, 1)]
        seen = [
            self._observe(chosen, plan, Use.NOISE, step=_MAIN_STEP + 3 * replicate)
            for replicate, plan in enumerate(plans)
        ]
        unit = unit_of(pilot.value, *(rows.value for rows in seen))
        pilot, *seen = (rows.in_units(unit) for rows in (pilot, *seen))
        fits = [self._fit(profile, pilot, other, q) for other in reversed(seen)]
        parts = [
            self._totals(chosen, plan, rows, basis, fit, unit)
            for plan, rows, (basis, fit) in zip(plans, seen, fits, strict=True)
        ]
        return _Replicates(
            reconstruction=unit * torch.stack([first for first, _ in parts], dim=1),
            diffusion=unit * torch.stack([rest for _, rest in parts], dim=1),
            curve=unit * torch.stack([basis.curve(fit) for basis, fit in fits]).mean(dim=0),
            evaluations=pilot_size + 2 * pairs,
        )

    def _observe(self, chosen: Tensor, points: Points, use: Use, step: int) -> Observations:
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
        value = self.process.terms(x0, t.to(device), noise).cpu()
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

    def _allocate(self, pilot: Observations, profile: Tensor) -> Tensor:
        """q from the pilot's residuals."""
        scale = 1 / profile[pilot.t - 1]
        basis = choose_basis(profile, pilot, scale, self.control)
        residual = (pilot.value - basis.rows(pilot) @ basis.fit(pilot, scale)) * scale
        return neyman(residual, pilot.t, profile)

    def _fit(
        self, profile: Tensor, pilot: Observations, other: Observations, q: Tensor
    ) -> tuple[Basis, Tensor]:
        """ĥ from the pilot (drawn from q_0, reweighted) and the other replicate (drawn from q)."""
        scale = torch.cat([(q * profile)[pilot.t - 1].rsqrt(), 1 / q[other.t - 1]])
        seen = pilot.and_then(other)
        basis = choose_basis(profile, seen, scale, self.control)
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


def _check_budget(evaluations: int, size: int, draws: int, batch_size: int) -> None:
    check_count("evaluations", evaluations, least=_SMALLEST, most=_LARGEST)
    if size == 0:
        raise ValueError("data holds no example: a mean over nothing is undefined")
    check_count("draws", draws)
    check_count("batch_size", batch_size)


def _summary(survey: _Survey, found: _Replicates, prior: float, seed: int) -> ElboEstimate:
    """Means and standard errors from the replicates."""
    size, dims = len(survey.data), survey.data[0].numel()
    total = found.reconstruction + found.diffusion
    unit = dims * math.log(2)
    return ElboEstimate(
        bits_per_dim=(prior + total.mean().item()) / unit,
        stderr=two_stage_error(total, size) / unit,
        degrees_of_freedom=degrees_of_freedom(total, size),
        evaluations=found.evaluations,
        prior=prior,
        diffusion=(found.diffusion.mean().item(), two_stage_error(found.diffusion, size)),
        reconstruction=(
            found.reconstruction.mean().item(),
            two_stage_error(found.reconstruction, size),
        ),
        curve=found.curve,
        dims=dims,
        examples=len(total),
        data_size=size,
        protocol=survey.process.protocol(draws=1, seed=seed),
    )
