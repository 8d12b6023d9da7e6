r"""How steady a run was: figures that do not depend on the scale of the arm's own loss.

Over the second half of a run, with losses l_k and gradient norms g_k,

    loss noise         std(l)/mean(l)                    of the minibatch loss,                        (1)
    gradient spread    std(ln g)                         of the gradient norm,                         (2)
    worst spike        max(g)/median(g),
    clipped            share of steps whose gradient was shortened.

All four are unchanged when the loss is multiplied by a constant, so they may be compared between arms.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class TrainingStep(Protocol):
    """What is read off a step."""

    @property
    def step(self) -> int:
        """Its number, from 1."""

    @property
    def loss(self) -> float:
        """The minibatch loss."""

    @property
    def gradient_norm(self) -> float:
        """Before clipping."""

    @property
    def clipped(self) -> bool:
        """Whether the gradient was shortened."""


class Series:
    """Loss, gradient norm and clipping of every step of a run."""

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.norm: list[float] = []
        self.clipped: list[bool] = []

    def add(self, step: TrainingStep) -> None:
        """Take in one step; values that are not finite (a diverged last step) are left out."""
        if math.isfinite(step.loss) and math.isfinite(step.gradient_norm):
            self.loss.append(step.loss)
            self.norm.append(step.gradient_norm)
            self.clipped.append(step.clipped)

    def curve(self, bins: int) -> dict[str, list[float]]:
        """Mean loss and median gradient norm in at most `bins` consecutive stretches of the run."""
        edges = np.unique(np.linspace(0, len(self.loss), bins + 1).astype(int))
        stretches = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        return {
            "steps": [(low + 1 + high) / 2 for low, high in stretches],
            "loss": [float(np.mean(self.loss[low:high])) for low, high in stretches],
            "gradient_norm": [float(np.median(self.norm[low:high])) for low, high in stretches],
        }


def stability(series: Series) -> dict[str, Any]:
    """Figures (1), (2) and their companions; None where the run was too short for them."""
    half = len(series.loss) // 2
    losses, norms = series.loss[half:], series.norm[half:]
    if len(losses) < 2 or min(norms) <= 0:
        return dict.fromkeys(("loss_noise", "gradient_spread", "worst_spike", "clipped"))
    return {
        "loss_noise": _relative_spread(losses),
        "gradient_spread": float(np.std(np.log(norms), ddof=1)),
        "worst_spike": float(max(norms) / np.median(norms)),
        "clipped": float(np.mean(series.clipped[half:])),
    }


def _relative_spread(values: Sequence[float]) -> float | None:
    mean = float(np.mean(values))
    return float(np.std(values, ddof=1)) / mean if mean > 0 else None
