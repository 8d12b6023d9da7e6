r"""How small the loss can be at the levels of a study of images, and what an error counts there in the bound.

With the posterior variance a term of the bound is (Kingma et al. 2021, eq. 13)

    L_t = ½ (SNR(t−1) − SNR(t)) E‖x_0 − x̂_0‖²    nats,    t ≥ 2,                                            (1)

so that the errors of an arm by level are its L_t. No training brings it below that of the denoiser that has memorized the training
data, and on held-out images that denoiser errs as well (`ddpm_ref.optimal_loss`).
"""

from typing import Any

import torch
from torch import Tensor

from bench.measure.study.design import Arm
from bench.measure.study.judge import Judge
from ddpm_ref.estimator import DenoiserError, optimal_loss

_DIFFERENCES = 100_000_000
"""Numbers that may be looked at in all; a second of one core."""
_FEWEST, _MOST = 16, 256
_SUBSET = 4096
"""Training images that stand for all of a larger set in each answer."""


def least_loss(judge: Judge, arm: Arm) -> dict[str, Any]:
    """Steps, factors of (1) (None at t = 1), and the least error of x_0 per dimension on training and held-out images."""
    probe, data = judge.probe("final", arm), judge.data
    used = min(len(data.train), _SUBSET)
    share = _DIFFERENCES // (2 * used * data.train[0].numel() * len(probe.steps))
    examples = max(_FEWEST, min(_MOST, share))

    def error(images: Tensor | None) -> dict[str, list[float]]:
        return _per_dim(
            optimal_loss(
                data.train,
                torch.tensor(probe.steps),
                probe.schedule,
                images=images,
                examples=min(examples, len(data.train if images is None else images)),
                subset=None if used == len(data.train) else used,
            )
        )

    snr = probe.schedule.log_snr.exp()
    factors = [float(snr[t - 1] - snr[t]) / 2 if t > 1 else None for t in probe.steps]
    return {
        "t": list(probe.steps),
        "factor": factors,
        "training": error(None),
        "heldout": error(data.heldout),
    }


def _per_dim(found: DenoiserError) -> dict[str, list[float]]:
    return {
        "value": (found.value / found.dims).tolist(),
        "stderr": (found.stderr / found.dims).tolist(),
    }
