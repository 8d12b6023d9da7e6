"""The record "loss": the validation loss of one model, or of two and their paired difference, each with its interval."""

from collections.abc import Sequence
from typing import Any

from bench.metrics.bits_per_dim import Question
from bench.record import Record, finite, new_record
from bench.terminal.usage import UsageError
from ddpm_ref.estimator import LossEstimate, validation_loss
from ddpm_ref.objective import Weighting

_LETTERS = ("A", "B")
LEVEL = 0.95


def loss_record(
    questions: Sequence[Question],
    subjects: Sequence[str],
    *,
    weighting: Weighting,
    evaluations: int,
    command: str,
) -> Record:
    """One or two models on the same data.

    Args:
        questions: model, schedule, parameterization, data and seed of each.
        subjects: what each is, in words.
        weighting: the objective.
        evaluations: the budget of each model.
        command: what makes the record again.

    Raises:
        UsageError: two models on different schedules or a weighting that is infinite: no common loss.
    """
    try:
        found = [_estimate(question, weighting, evaluations) for question in questions]
        gap = found[0].paired(found[1]) if len(found) == 2 else None
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    named = zip(_LETTERS, subjects, questions, found, strict=False)
    return new_record(
        "loss",
        protocol={
            "weighting": weighting.name,
            "formula": f"{weighting.formula} times the squared error of x0, mean over dims, data and t",
            "evaluations": evaluations,
            "T": questions[0].schedule.T,
            "seed": questions[0].seed,
            "command": command,
        },
        data=questions[0].source,
        seeds=[questions[0].seed],
        results={
            "losses": [
                {"name": letter, "subject": subject, "output": question.parameterization}
                | _figures(estimate)
                | {"evaluations": estimate.evaluations, "examples": estimate.examples}
                for letter, subject, question, estimate in named
            ],
            "difference": None if gap is None else _figures(gap),
        },
    )


def _estimate(question: Question, weighting: Weighting, evaluations: int) -> LossEstimate:
    return validation_loss(
        question.model,
        question.data,
        question.schedule,
        parameterization=question.parameterization,
        weighting=weighting,
        evaluations=evaluations,
        seed=question.seed,
        batch_size=question.batch_size,
    )


def _figures(estimate: Any) -> dict[str, float | None]:
    """Value, standard error and 95 % interval; None where a model diverged."""
    low, high = estimate.interval(LEVEL)
    return {
        "value": finite(estimate.value),
        "stderr": finite(estimate.stderr),
        "degrees_of_freedom": finite(estimate.degrees_of_freedom),
        "low": finite(low),
        "high": finite(high),
    }
