r"""What the closed form says before anything is trained: the price of a network's width for every arm.

The law of `ddpm_ref.oracle.rank` holds for linear networks of rank h, one per level of noise, on centred Gaussian data. For data that are not
Gaussian it is applied to their covariance, for networks that are not linear with h = their least width: there it predicts an order, not a number,
and where h ≥ D it predicts no price at all.
"""

from typing import Any

import torch
from torch import Tensor

from bench.measure.study.design import Arm
from bench.measure.study.judge import Judge
from ddpm_ref.oracle import best_skip, rank_limited_excess, wiener_gain
from ddpm_ref.schedule import Schedule

_WIDTH = ("rank", "width")


def predictions(judge: Judge) -> dict[str, Any]:
    """Arm → excess over the exact denoiser by log-SNR, its mean, the same in v space, and the whole price (rank 0); {} where unknown.

    Every arm is judged at the steps of its own schedule. A convolution has no rank in this sense.
    """
    if judge.setting.design.network not in ("mlp", "low-rank"):
        return {}
    rows = judge.data.train.flatten(1).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(rows.T).reshape(rows.shape[1], -1)).clamp(min=0)
    found = {}
    for arm in judge.setting.design.arms:
        width = _width(judge, arm)
        if width is not None and judge.covered(arm):
            found[arm.name] = _of_arm(judge, arm, spectrum, min(width, len(spectrum)))
    return found


def _width(judge: Judge, arm: Arm) -> int | None:
    options = judge.config(arm).network_options
    named = [options[name] for name in _WIDTH if name in options]
    return int(str(named[0])) if named else None


def _of_arm(judge: Judge, arm: Arm, spectrum: Tensor, rank: int) -> dict[str, Any]:
    schedule, probe = judge.schedule(arm), judge.probe("final", arm)
    t = torch.tensor(probe.steps)
    excess = _excess(judge, arm, spectrum, rank, t, schedule)
    whole = rank_limited_excess(spectrum, 0, t, schedule, parameterization=arm.output)
    in_v = excess / schedule.one_minus_alpha_bar[t]
    return {
        "rank": rank,
        "excess_by_bin": excess.tolist(),
        "excess": float(excess.mean()),
        "excess_v": float(in_v.mean()),
        "rank_0_by_bin": whole.tolist(),
    }


def _excess(
    judge: Judge, arm: Arm, spectrum: Tensor, rank: int, t: Tensor, schedule: Schedule
) -> Tensor:
    config = judge.config(arm)
    if config.skip == "learned":
        skip = best_skip(spectrum, rank, t, schedule)
        return rank_limited_excess(spectrum, rank, t, schedule, skip=skip)
    if config.skip == "edm":
        sigma = float(str(config.skip_options.get("sigma_data", 0.5)))
        skip = wiener_gain(sigma**2, t, schedule)
        return rank_limited_excess(spectrum, rank, t, schedule, skip=skip)
    return rank_limited_excess(spectrum, rank, t, schedule, parameterization=arm.output)
