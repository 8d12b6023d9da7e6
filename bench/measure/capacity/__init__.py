r"""The record "capacity": what a bottleneck of rank h costs each output, for the covariance spectrum of one data set.

For every level of log-SNR the excess of the best linear network of that rank over the best denoiser (`rank_limited_excess`), a mean over
dims in squared units of x_0: for the three outputs, for flow matching, for EDM's skip (the Wiener gain at the data's mean variance), and for
the best fixed skip, which a learned one reaches. Beside it the error of the best linear denoiser itself, which no network undercuts.
"""

from typing import Any

import torch
from torch import Tensor

from bench.data import DataSet
from bench.record import Record, new_record
from ddpm_ref.oracle import (
    GaussianOracle,
    best_skip,
    output_skip,
    rank_limited_excess,
    wiener_gain,
)
from ddpm_ref.schedule import Schedule, schedule_from_log_snr

LEVELS = tuple(float(level) for level in torch.linspace(10, -10, 41).tolist())
OUTPUTS = ("x0", "v", "eps")
_SHARE = 0.99
"""Of the variance, in the directions that count as intrinsic."""


def capacity_record(data: DataSet, rank: int, command: str) -> Record:
    """The price of rank `rank` at 41 levels of log-SNR from 10 to −10, from the spectrum of `data`.

    Args:
        data: a data set; where it is Gaussian by construction its exact spectrum counts, else that of its training part.
        rank: h; more than D is D.
        command: what makes the record again.
    """
    spectrum, source = _spectrum(data)
    dims = len(spectrum)
    schedule = schedule_from_log_snr(LEVELS)
    t = torch.arange(1, schedule.T + 1)
    kept = min(rank, dims)
    excess = {
        name: (cost / dims).tolist() for name, cost in _costs(spectrum, kept, t, schedule).items()
    }
    cheapest = [min(OUTPUTS, key=lambda name: excess[name][k]) for k in range(len(LEVELS))]
    return new_record(
        "capacity",
        protocol={
            "rank": rank,
            "unit": "mean over dims of the squared error of x0",
            "command": command,
        },
        data=data.describe(),
        results={
            "rank": rank,
            "dims": dims,
            "intrinsic": int((spectrum.cumsum(0) < _SHARE * spectrum.sum()).sum()) + 1,
            "spectrum": spectrum.tolist(),
            "spectrum_of": source,
            "log_snr": list(LEVELS),
            "least_error": _least_error(spectrum, schedule),
            "excess": excess,
            "skips": {
                "best": best_skip(spectrum, kept, t, schedule).tolist(),
                "edm": wiener_gain(spectrum.mean(), t, schedule).tolist(),
            },
            "cheapest": None if kept == dims else cheapest,
        },
    )


def _costs(spectrum: Tensor, rank: int, t: Tensor, schedule: Schedule) -> dict[str, Tensor]:
    """Excess `[T]` by output or skip."""
    skips = {
        "flow": output_skip("flow", t, schedule),
        "edm": wiener_gain(spectrum.mean(), t, schedule),
        "best skip": best_skip(spectrum, rank, t, schedule),
    }
    named = {
        name: rank_limited_excess(spectrum, rank, t, schedule, parameterization=name)
        for name in OUTPUTS
    }
    return named | {
        name: rank_limited_excess(spectrum, rank, t, schedule, skip=skip)
        for name, skip in skips.items()
    }


def _least_error(spectrum: Tensor, schedule: Schedule) -> list[float]:
    """Error of the best linear denoiser, mean over dims, `[T]`."""
    gamma = schedule.log_snr[1:, None].exp()
    return (spectrum / (1 + gamma * spectrum)).mean(dim=1).tolist()


def _spectrum(data: DataSet) -> tuple[Tensor, str]:
    """Eigenvalues, largest first, and what they are of."""
    oracle: Any = data.oracle
    if isinstance(oracle, GaussianOracle):
        return oracle.spectrum.flip(0), "the distribution"
    fitted = GaussianOracle.fit(data.train)
    return fitted.spectrum.flip(0), f"{len(data.train)} training examples"
