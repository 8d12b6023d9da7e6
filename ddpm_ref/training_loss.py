r"""What a training step descends: an example's loss, from the network's output and the batch it saw.

    ℓ_i = r_i · (w_{t_i}/w̄) ‖f − y‖²/d,        w̄ = Σ_t e_t w_t / Σ_t e_t,  or 1,                                   (1)

y the target, w the weighting, r the factor of the draw of t (`ddpm_ref.times` eq. 1) and e_t = T · p_t · r_t what it makes of step t: 1 for
an unbiased draw, so that w̄ is then the mean of w over 1 … T. With a learned variance λ·T·L_{t−1}/d is added inside the factor r
(`ddpm_ref.learned` eq. 2).
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ddpm_ref.batches import Batch
from ddpm_ref.config import TrainConfig
from ddpm_ref.learned import bound_terms, hybrid_loss
from ddpm_ref.objective import loss, weight
from ddpm_ref.schedule import Schedule

Output: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
"""What a network answers: a prediction, or the pair of it and a log-variance."""


def example_losses(
    config: TrainConfig, schedule: Schedule
) -> Callable[[Output, Batch], tuple[Tensor, Tensor]]:
    """(output, batch) → (ℓ, ℓ without its factor r), `[b]` each; eq. (1), with w̄ worked out once."""
    weighting, space = config.make_weighting(), config.parameterization
    mean = _mean_weight(config, schedule) if config.normalize_weights else 1.0

    def losses(output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        prediction, log_variance = output if isinstance(output, tuple) else (output, None)
        plain = (
            loss(
                prediction,
                batch.x0,
                batch.eps,
                batch.t,
                batch.schedule,
                parameterization=space,
                weighting=weighting,
            )
            / mean
        )
        if log_variance is not None:
            plain = hybrid_loss(
                plain,
                _bound(config, prediction, log_variance, batch),
                schedule.T,
                scale=config.hybrid_scale,
            )
        counted = plain if batch.factor is None else plain * batch.factor.to(plain.dtype)
        return counted, plain

    return losses


def _bound(config: TrainConfig, prediction: Tensor, log_variance: Tensor, batch: Batch) -> Tensor:
    return bound_terms(
        prediction,
        log_variance,
        batch.x0,
        batch.x_t,
        batch.t,
        batch.schedule,
        parameterization=config.parameterization,
        levels=config.levels or None,
    )


def _mean_weight(config: TrainConfig, schedule: Schedule) -> float:
    every = torch.arange(1, schedule.T + 1)
    weights = weight(
        config.make_weighting(), every, schedule, parameterization=config.parameterization
    )
    counted = config.make_times(schedule).effective
    if bool((counted == 1).all()):
        return weights.mean().item()
    return float((counted * weights).sum() / counted.sum())
