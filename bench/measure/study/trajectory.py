"""What a model takes the image to be on its way from noise to a sample: x̂_0 at a few of the sampler's steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.metrics.frechet import to_uint8
from bench.record.pictures import encode
from ddpm_ref.parameterization import convert
from ddpm_ref.reverse import checked_output, evaluation_mode
from ddpm_ref.sampler import SamplerRule, sample_steps, walked_steps
from ddpm_ref.schedule import Schedule

MOMENTS = 8
"""Steps at which x̂_0 is kept, evenly over the walk, its ends among them."""
_PIXELS = 8192
_MOST = 4
"""Numbers that are kept in all, and samples at most: a record stays small."""


def trajectories(
    model: nn.Module,
    shape: Sequence[int],
    schedule: Schedule,
    *,
    output: str,
    steps: int,
    clip: bool,
    seed: int,
    scale: float = 1.0,
) -> dict[str, Any]:
    """x̂_0 of the first samples that `sample` draws with these arguments, JSON values only.

    Args:
        model: what `output` names, of x_t and t.
        shape: of one image, `[C, H, W]`.
        schedule: on which the model was trained.
        output: what the model predicts.
        steps: of the sampler.
        clip: as for `sample`.
        seed: of the sampler's noise.
        scale: what images are divided by to be in [−1, 1].

    Returns:
        `t` (the moments) and pictures `[samples · moments, C, H, W]`, one sample after the other.
    """
    count = max(1, min(_MOST, _PIXELS // (MOMENTS * torch.Size(shape).numel())))
    visited = walked_steps(steps, schedule.T)[::-1]
    states = list(
        sample_steps(
            model,
            (count, *shape),
            schedule,
            parameterization=output,
            rule=SamplerRule(clip=clip),
            steps=steps,
            seed=seed,
        )
    )
    moments = sorted(_moments(steps))
    kept = []
    with evaluation_mode(model):
        for k in moments:
            t = torch.full((count,), visited[k], device=states[k].device)
            prediction, _ = checked_output(model(states[k], t), states[k])
            kept.append(convert(prediction, states[k], t, schedule, source=output, to="x0"))
    images = torch.stack(kept, dim=1).flatten(0, 1).cpu() / scale
    return {"t": [visited[k] for k in moments], **encode(to_uint8(images))}


def _moments(steps: int) -> frozenset[int]:
    """Which of the states 0 … steps−1 are kept."""
    last, most = steps - 1, max(1, min(MOMENTS, steps) - 1)
    return frozenset(round(last * k / most) for k in range(min(MOMENTS, steps)))
