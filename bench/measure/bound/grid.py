"""`expected_elbo` against Monte Carlo of `elbo`: one z-score a cell; all together they must be standard normal."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.terminal.progress import progress
from ddpm_ref.elbo import elbo
from ddpm_ref.noise import NoiseStream
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)


@dataclass(frozen=True)
class Cell:
    """One comparison: a Gaussian of `size` dims, a schedule, T steps, a variance."""

    size: int
    schedule: str
    T: int
    variance: str


def _log_snr(T: int) -> Schedule:
    return schedule_from_log_snr(torch.linspace(8, -8, T + 1, dtype=torch.float64)[1:])


def _zero_terminal(T: int) -> Schedule:
    return rescale_to_zero_terminal_snr(SCHEDULES["linear"](T))


_MAKERS: dict[str, Callable[[int], Schedule]] = {
    **SCHEDULES,
    "log-SNR": _log_snr,
    "zero terminal SNR": _zero_terminal,
}


def cells(sizes: tuple[int, ...], steps: tuple[int, ...]) -> list[Cell]:
    """Every combination; a single step cannot have zero terminal SNR."""
    return [
        Cell(size, name, T, variance)
        for size in sizes
        for name in _MAKERS
        for T in steps
        for variance in ("posterior", "beta")
        if not (name == "zero terminal SNR" and T == 1)
    ]


def _random_gaussian(size: int) -> GaussianOracle:
    """A Gaussian with a full covariance, from a stated seed."""
    stream = NoiseStream(20)
    root = stream.normal((size, size), step=size, dtype=torch.float64) / math.sqrt(size)
    mean = stream.normal((1, size), step=1000 + size, dtype=torch.float64)[0]
    return GaussianOracle(mean, root @ root.T + 0.05 * torch.eye(size, dtype=torch.float64))


def z_score(cell: Cell, samples: int, number: int) -> float:
    """(mean of `elbo` over fresh examples − expected bound)/standard error."""
    oracle, schedule = _random_gaussian(cell.size), _MAKERS[cell.schedule](cell.T)
    x0 = _draw(oracle, samples, seed=1000 + number)
    found = elbo(
        oracle.model(schedule, "v"),
        x0,
        schedule,
        parameterization="v",
        variance=cell.variance,
        decoder="gaussian",
        seed=number,
        batch_size=samples,
    ).total
    expected = oracle.expected_elbo(schedule, cell.variance).total.item()
    return (found.mean().item() - expected) / (found.std().item() / math.sqrt(samples))


def _draw(oracle: GaussianOracle, count: int, seed: int) -> Tensor:
    z = NoiseStream(seed).normal((count, oracle.size), step=0, dtype=torch.float64)
    return (z * oracle.spectrum.sqrt()) @ oracle.basis.T + oracle.mean


def monte_carlo_grid(
    sizes: tuple[int, ...] = (1, 3, 64),
    steps: tuple[int, ...] = (1, 2, 10, 100, 1000),
    samples: int = 1000,
) -> dict[str, object]:
    """All cells: their z-scores, the largest, and the Kolmogorov–Smirnov p-value against N(0, 1)."""
    from scipy import stats

    wanted = cells(sizes, steps)
    scores = [
        z_score(cell, samples, number)
        for number, cell in enumerate(progress(wanted, total=len(wanted), label="Monte Carlo grid"))
    ]
    return {
        "samples": samples,
        "cells": [
            {"size": c.size, "schedule": c.schedule, "T": c.T, "variance": c.variance, "z": z}
            for c, z in zip(wanted, scores, strict=True)
        ],
        "largest": max(map(abs, scores)),
        "ks_p_value": float(stats.kstest(scores, "norm").pvalue),
    }
