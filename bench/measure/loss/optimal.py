r"""The record "optimal-loss": how small the loss of a data set can be at each level of noise.

    training      the least loss that there is, which a network reaches by memorizing (`ddpm_ref.optimal_loss`),
    held out      the error of that same denoiser on images that it does not hold,
    linear        the error of the best linear denoiser, on either part: a network worse than this has not learned yet.

All are means over dims of the squared error of x_0. In eps they count SNR times, in v (SNR + 1) times.
"""

import torch
from torch import Tensor

from bench.data import DataSet
from bench.record import Record, new_record
from ddpm_ref.estimator import DenoiserError, optimal_loss
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.schedule import Schedule, schedule_from_log_snr

LEVELS = tuple(float(level) for level in range(8, -9, -1))
_LARGEST_EXACT = 4_000_000
"""Numbers in the training part up to which every one of them enters each answer."""
_SUBSET = 4096


def optimal_loss_record(
    data: DataSet, *, examples: int, subset: int | None, seed: int, command: str
) -> Record:
    """The least loss at log-SNR 8, 7 … −8.

    Args:
        data: the data set.
        examples: how many training and how many held-out examples are asked about.
        subset: how many of the training examples stand for all in each answer; None chooses all, or 4,096 of large sets.
        seed: of the choices and the noise.
        command: what makes the record again.
    """
    schedule = schedule_from_log_snr(LEVELS)
    t = torch.arange(1, schedule.T + 1)
    if subset is None and data.train.numel() > _LARGEST_EXACT:
        subset = _SUBSET
    asked = {"training": None, "heldout": data.heldout}
    found = {
        part: optimal_loss(
            data.train,
            t,
            schedule,
            images=images,
            examples=min(examples, len(data.train if images is None else images)),
            subset=subset,
            seed=seed,
        )
        for part, images in asked.items()
    }
    linear, dims = GaussianOracle.fit(data.train), data.train[0].numel()
    return new_record(
        "optimal-loss",
        protocol={
            "examples": examples,
            "subset": subset,
            "seed": seed,
            "unit": "mean over dims of the squared error of x0",
            "command": command,
        },
        data=data.describe(),
        seeds=[seed],
        results={
            "log_snr": list(LEVELS),
            "dims": dims,
            "used": found["training"].used,
            "examples": {part: error.examples for part, error in found.items()},
            **{part: _as_json(error) for part, error in found.items()},
            "linear": {
                "training": (linear_error(linear, data.train, schedule) / dims).tolist(),
                "heldout": (linear_error(linear, data.heldout, schedule) / dims).tolist(),
            },
        },
    )


def _as_json(error: DenoiserError) -> dict[str, list[float]]:
    names = ("value", "stderr", "bias", "bias_stderr")
    return {name: (getattr(error, name) / error.dims).tolist() for name in names} | {
        "degrees_of_freedom": error.degrees_of_freedom.tolist()
    }


def linear_error(oracle: GaussianOracle, images: Tensor, schedule: Schedule) -> Tensor:
    """Mean over images of E_ε‖x0 − x̂0‖² of the best linear denoiser, `[T]`: (σ²/d)² z² + k²σ² in each eigendirection."""
    z2 = ((images.double().flatten(1) - oracle.mean) @ oracle.basis).square().mean(dim=0)
    signal, noise = schedule.alpha_bar[1:, None], schedule.one_minus_alpha_bar[1:, None]
    total = signal * oracle.spectrum + noise
    error = (noise / total) ** 2 * z2 + signal * noise * (oracle.spectrum / total) ** 2
    return error.sum(dim=1)
