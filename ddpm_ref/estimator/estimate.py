r"""`estimate_elbo`: the mean bound of a finite data set from a fixed number of network evaluations.

The full sum costs T evaluations per example and draw. But its terms are alike from step to step and from example to example, and most
of what they are is known beforehand. Let f(i, t, ε) be the term of example i at step t, 1 … T, for the noise ε; wanted is

    θ = 1/N Σ_i L_T(i) + 1/N Σ_i Σ_t E f(i, t, ε).                                                            (1)

L_T is exact and free. For the rest, a pilot tells how much the terms vary from t to t (`design`), and two replicates of each example, less
a surrogate whose sum is known, are averaged (`survey`, 1).

**Standard error**: m of N examples are drawn without replacement and each has two replicates: `replicates`. The observations are the
replicates, not their points, which share noise and offsets. The lattice between examples only makes that error larger than the truth: in
trials by a few percent. (Differences of neighbours in the lattice would take that out, but they were found as much too small.)
"""

import math
from dataclasses import dataclass

from torch import Tensor

from ddpm_ref.estimator.control import GaussianControl, bound_price
from ddpm_ref.estimator.design import neyman, pilot_points
from ddpm_ref.estimator.replicates import (
    degrees_of_freedom,
    student_interval,
    two_stage_error,
)
from ddpm_ref.estimator.surrogate import Observations, choose_basis, rough_profile, unit_of
from ddpm_ref.estimator.survey import Replicates, Survey
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.reverse import (
    Model,
    Protocol,
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
    gaussian = GaussianControl(
        data, schedule, bound_price(schedule, reverse_variance(variance, schedule))
    )
    profile = rough_profile(gaussian, schedule.T)
    survey = Survey(process.terms, data, gaussian, profile, NoiseStream(seed), control, batch_size)
    pilot_size = max(12, int(_PILOT_SHARE * evaluations))
    pairs = (evaluations - pilot_size) // 2
    with evaluation_mode(model):
        pilot, q = _pilot(survey, pilot_size)
        found = survey.replicates(pairs, q, pilot)
    return _summary(
        found,
        process.protocol(draws=1, seed=seed),
        prior_kl(data, schedule).mean().item(),
        data,
        pilot_size + 2 * pairs,
    )


def _pilot(survey: Survey, count: int) -> tuple[Observations, Tensor]:
    """`count` observations with t drawn from the rough profile, and the allocation q that follows from their residuals."""
    points = pilot_points(count, len(survey.data), survey.profile, survey.stream)
    pilot = survey.observe(survey.order(), points, Use.PILOT, step=2)
    seen, scale = pilot.in_units(unit_of(pilot.value)), 1 / survey.profile[pilot.t - 1]
    basis = choose_basis(survey.profile, seen, scale, survey.control)
    residual = (seen.value - basis.rows(seen) @ basis.fit(seen, scale)) * scale
    return pilot, neyman(residual, seen.t, survey.profile)


def _check_budget(evaluations: int, size: int, draws: int, batch_size: int) -> None:
    check_count("evaluations", evaluations, least=_SMALLEST, most=_LARGEST)
    if size == 0:
        raise ValueError("data holds no example: a mean over nothing is undefined")
    check_count("draws", draws)
    check_count("batch_size", batch_size)


def _summary(
    found: Replicates, protocol: Protocol, prior: float, data: Tensor, evaluations: int
) -> ElboEstimate:
    """Means and standard errors from the replicates."""
    size, dims = len(data), data[0].numel()
    unit = dims * math.log(2)
    return ElboEstimate(
        bits_per_dim=(prior + found.total.mean().item()) / unit,
        stderr=two_stage_error(found.total, size) / unit,
        degrees_of_freedom=degrees_of_freedom(found.total, size),
        evaluations=evaluations,
        prior=prior,
        diffusion=(found.rest.mean().item(), two_stage_error(found.rest, size)),
        reconstruction=(found.first.mean().item(), two_stage_error(found.first, size)),
        curve=found.curve,
        dims=dims,
        examples=len(found.total),
        data_size=size,
        protocol=protocol,
    )
