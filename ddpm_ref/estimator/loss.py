r"""`validation_loss`: the mean of a weighted loss over a finite data set and all steps, from a fixed number of network evaluations.

Wanted is, for the loss of `objective` in any weighting,

    θ = 1/N Σ_i 1/T Σ_t E w_t/D ‖ŷ(x_t, t) − y‖²,        x_t = √ᾱ_t x_0^i + √(1−ᾱ_t) ε,                          (1)

an expectation over ε. A few fixed t, as validation losses usually are, is another number; a random t for each example is unbiased, but
varies by more than two checkpoints differ. This is `survey` (1) with f the summand of (1).

**Paired.** What is evaluated, which examples at which t with which noise, depends on data, schedule, weighting, budget and seed: there
is no pilot, and t is drawn from the profile that the fitted Gaussian has in this weighting. Two models that are asked the same questions
differ by what they answer: the difference of their replicates,

    Δ_ir = Y_ir − Y'_ir,        θ − θ' ≈ mean of Δ,                                                            (2)

has lost what both have in common, and its standard error is that of `replicates` (1) for Δ.

One weighting is one objective, whichever space its error is written in: models with different outputs can be compared.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.control import GaussianControl
from ddpm_ref.estimator.replicates import degrees_of_freedom, student_interval, two_stage_error
from ddpm_ref.estimator.surrogate import rough_profile
from ddpm_ref.estimator.survey import Survey, Terms
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import Weighting, named_weighting, weight
from ddpm_ref.parameterization import PARAMETERIZATIONS, target
from ddpm_ref.process import q_sample
from ddpm_ref.reverse import Model, check_data, check_model, checked_output, evaluation_mode
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_count, check_name

_SMALLEST = 8


@dataclass(frozen=True)
class Questions:
    """What a model was asked: two estimates are paired where these agree.

    Attributes:
        data: SHA-256 of the examples and their dtype.
        schedule: SHA-256 of its tables and of the timesteps that models receive.
        weighting: the objective.
        evaluations: the budget.
        seed: of examples, steps and noise.
    """

    data: str
    schedule: str
    weighting: Weighting
    evaluations: int
    seed: int


@dataclass(frozen=True, eq=False)
class Difference:
    """One model's loss minus another's, asked the same questions: below 0 where the first is better.

    Attributes:
        value: the difference of the two estimates.
        stderr: its standard error, which what they have in common does not enter.
        degrees_of_freedom: of the standard error, for Student's t.
    """

    value: float
    stderr: float
    degrees_of_freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """value ± t·stderr."""
        return student_interval(self.value, self.stderr, self.degrees_of_freedom, level)


@dataclass(frozen=True, eq=False)
class LossEstimate:
    """An unbiased estimate of the mean loss (1) of a finite data set.

    Attributes:
        value: the estimate, a mean over dims, as `loss`.
        stderr: its standard error.
        degrees_of_freedom: how many independent squares the standard error is worth (`replicates`, 2).
        evaluations: network outputs spent, never above the budget.
        curve: smoothed mean loss at t = 1 … T, `[T]`: for a picture; it is not unbiased at each t.
        examples: how many of the data were visited.
        data_size: N.
        questions: what was asked.
        replicates: Y, float64 `[examples, 2]`.
    """

    value: float
    stderr: float
    degrees_of_freedom: float
    evaluations: int
    curve: Tensor
    examples: int
    data_size: int
    questions: Questions
    replicates: Tensor

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """value ± t·stderr with Student's t; too short where rare events hold most of the variance and were missed."""
        return student_interval(self.value, self.stderr, self.degrees_of_freedom, level)

    def paired(self, other: "LossEstimate") -> Difference:
        """This loss minus the other's, eq. (2).

        Raises:
            ValueError: the two were asked different questions; the message says in what they differ.
        """
        mine, theirs = self.questions, other.questions
        differing = [name for name in vars(mine) if getattr(mine, name) != getattr(theirs, name)]
        if differing:
            raise ValueError(
                f"the two estimates differ in {', '.join(differing)}: only models asked the same questions are paired; "
                "call validation_loss with the same data, schedule, weighting, evaluations and seed for both"
            )
        gaps = self.replicates - other.replicates
        return Difference(
            value=gaps.mean().item(),
            stderr=two_stage_error(gaps, self.data_size),
            degrees_of_freedom=degrees_of_freedom(gaps, self.data_size),
        )


def validation_loss(
    model: Model,
    data: Tensor,
    schedule: Schedule,
    *,
    parameterization: str,
    weighting: str | Weighting,
    evaluations: int,
    seed: int = 0,
    batch_size: int = 256,
    control: bool = True,
) -> LossEstimate:
    """The mean over data and t = 1 … T of `loss(…)` in that weighting, from at most `evaluations` network outputs; eq. (1).

    Args:
        model: `model(x_t, t) -> prediction` in `parameterization`; of a pair with a log-variance the prediction counts.
            Called in eval mode without gradient, with the original step index and x_t in the dtype of data.
        data: the finite data set `[N, *dims]`; `[N]` means D = 1.
        schedule: T steps.
        parameterization: what the model predicts.
        weighting: a name in `WEIGHTINGS` or a `Weighting`.
        evaluations: the budget; one evaluation is one network output for one sample. 8 … 2³¹; four or more per example
            visit every example twice.
        seed: of examples, steps and noise: equal seeds ask equal questions.
        batch_size: rows per call of the model, on which the result does not depend.
        control: subtract the fitted Gaussian's control variates.

    Returns:
        `LossEstimate`. A model that returns NaN or infinity at a step that is drawn is no error: value and standard error are
        then NaN.

    Raises:
        ValueError: no example, data that are not finite, a budget below 8, unknown names, or a weighting that is infinite in
            that space at some step (zero terminal SNR).
        TypeError: integer data, or arguments of another type.
    """
    check_data("data", data)
    check_model(model)
    check_schedule(schedule)
    check_name("parameterization", parameterization, PARAMETERIZATIONS)
    budget = check_count("evaluations", evaluations, least=_SMALLEST, most=1 << 31)
    check_count("batch_size", batch_size)
    if len(data) == 0:
        raise ValueError("data holds no example: a mean over nothing is undefined")
    chosen, size = named_weighting(weighting), data[0].numel()
    steps = torch.arange(1, schedule.T + 1)
    weight(chosen, steps, schedule, parameterization=parameterization)  # refuses what is infinite
    price = weight(chosen, steps, schedule, parameterization="x0") / (schedule.T * size)
    gaussian = GaussianControl(data, schedule, price)
    profile = rough_profile(gaussian, schedule.T)
    survey = Survey(
        _summand(model, schedule, parameterization, chosen),
        data,
        gaussian,
        profile,
        NoiseStream(seed),
        control,
        batch_size,
    )
    with evaluation_mode(model):
        found = survey.replicates(budget // 2, profile)
    return LossEstimate(
        value=found.total.mean().item(),
        stderr=two_stage_error(found.total, len(data)),
        degrees_of_freedom=degrees_of_freedom(found.total, len(data)),
        evaluations=2 * (budget // 2),
        curve=schedule.T * found.curve,
        examples=len(found.total),
        data_size=len(data),
        questions=Questions(_hash(data), _schedule_hash(schedule), chosen, budget, seed),
        replicates=found.total,
    )


def _summand(
    model: Model, schedule: Schedule, parameterization: str, weighting: Weighting
) -> Terms:
    """w_t/(T·D) ‖ŷ − y‖² of (1), in float64 from the very x_t that the model saw."""

    def terms(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t = q_sample(x0, t, schedule, noise)
        # A copy: a network may begin with a layer that works in place.
        output = model(x_t.clone(), schedule.original_timesteps(t))
        prediction, _ = checked_output(output, x_t)
        wanted = target(parameterization, x0.double(), noise.double(), t, schedule)
        error = (prediction.double() - wanted).reshape(len(t), -1).square().mean(dim=1)
        return (
            weight(weighting, t, schedule, parameterization=parameterization) * error / schedule.T
        )

    return terms


def _hash(*tensors: Tensor) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        rows = tensor.detach().cpu().contiguous()
        total.update(f"{tuple(rows.shape)} {rows.dtype};".encode())
        total.update(rows.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _schedule_hash(schedule: Schedule) -> str:
    return _hash(schedule.beta, schedule.log_snr, schedule.timesteps)
