r"""How weights move: warm-up, clipping that favours no objective, and the average that is kept.

**Warm-up and decay.** With W steps of warm-up and, where it decays, its end at step N, the learning rate of step k = 1, 2, … is

    η · min(1, k/W) · ½(1 + cos π·clamp((k−W)/(N−W), 0, 1)):        a ramp, then half a cosine down to 0.               (1)

**Relative clipping.** A fixed threshold on the gradient's norm clips the arm with the larger loss scale more often, and so
confounds a weighting with a step size. Here the yardstick is the run's own past: with g_k the norm of step k and

    r_k = Σ_{j<k} d^{k−1−j} c_j / Σ_{j<k} d^{k−1−j},        c_k = min(g_k, m·r_k),    c_1 = g_1,                 (2)

the gradient is multiplied by c_k/g_k. r_k averages the clipped norms, so that one spike raises it by little, while a norm that
keeps growing is followed. Multiplying the loss by a constant multiplies every g, r and c by it and changes no decision.

**Average of the weights** (`torch.optim.swa_utils.AveragedModel`). After step k

    θ̄_k = d_k θ̄_{k−1} + (1 − d_k) θ_k,      d_k = min(d, k/(k + 9)),      θ̄_1 = θ_1,                              (3)

so that early on, when d would keep the initial weights for 1/(1−d) steps, the average covers about the last tenth of the steps.
An average with half-life h has d = 2^{−1/h}; several may follow one run, each one fused operation over all weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_EMA_LAG = 9


def warmed_up(learning_rate: float, step: int, warmup_steps: int, decay_steps: int = 0) -> float:
    """Learning rate of step 1, 2, …; eq. (1), without the cosine where `decay_steps` is 0."""
    raised = learning_rate * min(1.0, step / max(warmup_steps, 1))
    if decay_steps == 0:
        return raised
    done = (step - warmup_steps) / (decay_steps - warmup_steps)
    return raised * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


@dataclass
class RunningNorm:
    """The yardstick r_k of eq. (2), kept as numerator and denominator.

    Attributes:
        factor: m, how many times r_k a gradient may be long.
        decay: d.
        total: Σ d^{k−1−j} c_j.
        weight: Σ d^{k−1−j}.
    """

    factor: float
    decay: float
    total: float = 0.0
    weight: float = 0.0

    def clip(self, norm: float) -> float:
        """The factor c_k/g_k ≤ 1 for a gradient of norm g_k; takes c_k into the average."""
        limit = self.factor * self.total / self.weight if self.total else norm
        scale = limit / norm if norm > limit else 1.0
        self.total = self.decay * self.total + min(norm, limit)
        self.weight = self.decay * self.weight + 1.0
        return scale


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together; non-finite if one of them is."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def scale_gradients(parameters: Sequence[Tensor], scale: float) -> None:
    """Multiply all gradients by `scale`."""
    torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], scale)


def ema_decay(update: int, ceiling: float) -> float:
    """d_k of eq. (3) for k = `update`."""
    return min(ceiling, update / (update + _EMA_LAG))


def averaged_model(network: nn.Module, ceiling: float) -> AveragedModel:
    """A copy of `network` that follows it by eq. (3): call `.update_parameters(network)` after each step."""

    def average(
        averaged: "tuple[Tensor, ...] | list[Tensor]",
        current: "tuple[Tensor, ...] | list[Tensor]",
        done: "Tensor | int",
    ) -> None:
        del done  # a copy on the weights' device: reading it would wait for the device
        decay = ema_decay(int(model.n_averaged) + 1, ceiling)
        torch._foreach_lerp_(averaged, current, 1 - decay)

    model = AveragedModel(network, multi_avg_fn=average)
    return model


def decay_of(half_life: float) -> float:
    """d = 2^{−1/h}: after h steps a weight counts half."""
    return float(2 ** (-1 / half_life))
