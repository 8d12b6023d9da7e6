r"""The common yardsticks: what every arm is measured by, whatever it outputs and however it was trained.

Noisy held-out images are made once, the same for every arm, at steps whose log-SNR λ lies in the middle of equal bins. On
them a prediction is converted to ε̂, in float64, and

    e(λ) = mean ‖ε − ε̂‖²/d,      the x_0-MSE is e(λ) e^{−λ}   (by eq. (1) of `bench.measure.study`).          (1)

Averaged evenly over λ ∈ [λ_T, λ_1], e is the diffusion part of the bound: as T → ∞ that part tends to

    ½ ∫ e(λ) dλ = ½ (λ_1 − λ_T) · mean e    nats per dimension  (Kingma et al. 2021, eq. 17),          (2)

so the mean ε-MSE *over log-SNR* judges likelihood, and the mean x_0-MSE judges the image error that is dominated by high noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import weight
from ddpm_ref.parameterization import convert
from ddpm_ref.process import q_sample
from ddpm_ref.reverse import Model, checked_output, evaluation_mode
from ddpm_ref.schedule import Schedule

_SEED = 987_001
_BATCH = 512
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Probe:
    """Noisy images on which models are judged.

    Attributes:
        schedule: the shared schedule.
        steps: t of each level, strictly increasing, `K` of them.
        x_t: `[K, N, C, H, W]`.
        eps: the noise in them, likewise.
    """

    schedule: Schedule
    steps: tuple[int, ...]
    x_t: Tensor
    eps: Tensor

    @property
    def log_snr(self) -> list[float]:
        """λ of each level."""
        return [float(self.schedule.log_snr[t]) for t in self.steps]

    def eps_errors(self, model: Model, parameterization: str) -> list[float]:
        """ε-MSE at each level, eq. (1).

        Args:
            model: `model(x_t, t) -> prediction`, or a pair with a log-variance; called in eval mode without gradient.
            parameterization: what it predicts.
        """
        with evaluation_mode(model):
            return [self._error(model, parameterization, k) for k in range(len(self.steps))]

    def excess(self, model: Model, parameterization: str, exact: Denoiser) -> list[float]:
        """mean ‖x̂_0 − E[x_0 | x_t]‖² at each level, summed over dims: what the exact denoiser would save.

        Args:
            model: as in `eps_errors`.
            parameterization: what it predicts.
            exact: `exact(x_t, t) -> E[x_0 | x_t]`.
        """
        with evaluation_mode(model):
            return [self._excess(model, parameterization, exact, k) for k in range(len(self.steps))]

    def _excess(self, model: Model, parameterization: str, exact: Denoiser, level: int) -> float:
        x_t = self.x_t[level]
        t = torch.full((len(x_t),), self.steps[level], device=x_t.device)
        predicted = convert(
            checked_output(model(x_t, t), x_t)[0].double(),
            x_t.double(),
            t,
            self.schedule,
            source=parameterization,
            to="x0",
        )
        return float((predicted - exact(x_t.double(), t)).square().sum()) / len(x_t)

    def _error(self, model: Model, parameterization: str, level: int) -> float:
        total, x_t, eps = 0.0, self.x_t[level], self.eps[level]
        for start in range(0, len(x_t), _BATCH):
            rows, noise = x_t[start : start + _BATCH], eps[start : start + _BATCH]
            t = torch.full((len(rows),), self.steps[level], device=rows.device)
            predicted = convert(
                checked_output(model(rows, t), rows)[0].double(),
                rows.double(),
                t,
                self.schedule,
                source=parameterization,
                to="eps",
            )
            total += float((predicted - noise.double()).square().sum())
        return total / eps.numel()


def make_probe(images: Tensor, schedule: Schedule, steps: Sequence[int]) -> Probe:
    """Noisy versions of the images at the given steps; level k uses noise step k of the probe's own stream."""
    stream = NoiseStream(_SEED)
    noise = torch.stack(
        [
            stream.normal(images.shape, step=k, device=images.device, dtype=images.dtype)
            for k in range(len(steps))
        ]
    )
    noisy = [
        q_sample(images, torch.full((len(images),), t, device=images.device), schedule, eps)
        for t, eps in zip(steps, noise, strict=True)
    ]
    return Probe(schedule, tuple(steps), torch.stack(noisy), noise)


def even_in_log_snr(
    schedule: Schedule, bins: int, judged: tuple[float, float] | None = None
) -> list[int]:
    """The step nearest to the middle of each of `bins` equal log-SNR bins between λ_1 and λ_T, or over the range `judged`.

    Raises:
        ValueError: the range is not finite, or T is too small to give every bin a step of its own.
    """
    table = schedule.log_snr[1:]
    first, last = judged or (float(table[0]), float(table[-1]))
    if not math.isfinite(last):
        raise ValueError(
            "log-SNR is infinite at T: the study needs a finite range, so no zero terminal SNR, or `judged` in the design"
        )
    middles = [first + (last - first) * (k + 0.5) / bins for k in range(bins)]
    steps = [int((table - middle).abs().argmin()) + 1 for middle in middles]
    if len(set(steps)) < bins:
        raise ValueError(f"T = {schedule.T} cannot fill {bins} log-SNR bins: raise T or lower bins")
    return steps


def even_in_t(schedule: Schedule, levels: int) -> list[int]:
    """Steps in the middle of `levels` equal parts of 1 … T: an average over them is one over uniform t."""
    count = min(levels, schedule.T)
    return [int(schedule.T * (k + 0.5) / count) + 1 for k in range(count)]


def x0_errors(eps_errors: Sequence[float], schedule: Schedule, steps: Sequence[int]) -> list[float]:
    """x_0-MSE from ε-MSE, eq. (1)."""
    return [
        error * float(torch.exp(-schedule.log_snr[t]))
        for error, t in zip(eps_errors, steps, strict=True)
    ]


def own_objective(eps_errors: Sequence[float], probe: Probe, weighting: str) -> float:
    """The arm's own objective, normalized to mean weight 1 over the probe's steps in ε space: Σ w e / Σ w."""
    t = torch.tensor(probe.steps)
    w = weight(weighting, t, probe.schedule, parameterization="eps")
    errors = torch.tensor(eps_errors, dtype=torch.float64)
    return float((w * errors).sum() / w.sum())
