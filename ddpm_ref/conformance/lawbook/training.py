"""Laws on training: reproducible noise, unbiased steps, the average of weights."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.chance import as_many_as_are_cheap, normality
from ddpm_ref.conformance.lawbook.law import SIGMAS, Case, Law, draw


def _ema(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for length, decay in itertools.product((1, 2, 11), (0.0, 0.5, 0.95)):
        values = draw((length,), 14)
        expected = [values[0]]
        for k in range(1, length):
            powers = torch.tensor([decay ** (k - j) for j in range(1, k + 1)], dtype=torch.float64)
            expected.append(decay**k * values[0] + (1 - decay) * (powers * values[1 : k + 1]).sum())
        yield Case("ema", {"values": values, "decay": decay}, torch.stack(expected))


def _time_count(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for count, T in itertools.product((1, 2, 7, 49, 98, 103, 256), (1, 10, 1000)):

        def summary(candidate: Implementation, count: int = count, T: int = T) -> Tensor:
            t, weights = candidate.time_steps(count, T, 0)
            outside = int(((t < 1) | (t > T)).sum())
            return torch.tensor([len(t), len(weights), outside])

        expected = torch.tensor([count, count, 0], dtype=torch.float64)
        arguments = {"count": count, "T": T, "seed": 0}
        yield Case(
            "time_steps",
            arguments,
            expected,
            run=summary,
            label="(number of t, of weights, of t outside 1…T)",
        )


_REPETITIONS = 400


def _time_unbiased(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for count, T in ((1, 10), (7, 10), (49, 1000), (4096, 1000)):

        def scores(candidate: Implementation, count: int = count, T: int = T) -> Tensor:
            drawn = [candidate.time_steps(count, T, seed) for seed in range(_REPETITIONS)]
            t, weights = (torch.cat(parts).double() for parts in zip(*drawn, strict=True))
            return unbiasedness(t.long(), weights, T)

        yield Case(
            "time_steps",
            {"count": count, "T": T},
            torch.zeros(4, dtype=torch.float64),
            run=scores,
            label=f"t of {_REPETITIONS} draws: counts against w = 1/(T p), their χ², steps never drawn, Σ p, as normal deviates",
        )


def unbiasedness(t: Tensor, weights: Tensor, T: int) -> Tensor:
    """How surprising N draws (t, w) are where E[w f(t)] is to be the mean of every f over 1 … T, as four normal deviates.

    f = 1 at one step alone gives p_t w_t = 1/T, so that each weight *says* the probability of its step and nothing has to be
    estimated: the count of a step is binomial (N, p_t), the steps that never occurred share 1 − Σ p_t, so that one of
    them has its part of it, and Σ p_t ≤ 1. A draw of low
    discrepancy spreads its counts less than that. Where one step comes with several weights, their harmonic mean stands for them.
    """
    from scipy.stats import binom, chi2, norm

    inside = (t >= 1) & (t <= T)
    if not bool(inside.all()) or not bool((weights > 0).all()):
        return torch.full((4,), torch.inf)
    N, index = len(t), t - 1
    counts = torch.zeros(T, dtype=torch.float64).index_add_(0, index, torch.ones(N).double())
    inverse = torch.zeros(T, dtype=torch.float64).index_add_(0, index, 1 / weights.double())
    seen = counts > 0
    p = (inverse / counts)[seen] / T
    total = float(p.sum())
    mass, found = (p / max(total, 1.0)).clamp(max=1.0).numpy(), counts[seen].numpy()
    sides = 2 * np.minimum(binom.cdf(found, N, mass), binom.sf(found - 1, N, mass))
    least = min(float(sides.min()) * len(mass), 1.0)  # Bonferroni
    often = N * mass > 25
    surplus = ((found - N * mass)[often] ** 2 / (N * mass)[often]).sum()
    dispersion = float(chi2.sf(surplus, often.sum())) if often.any() else 1.0
    never = T - int(seen.sum())
    likeliest = (1 - min(total, 1.0)) / never if never else 0.0  # at least so likely is one of them
    missing = min(T * math.exp(N * math.log1p(-min(likeliest, 1 - 1e-16))), 1.0)
    deviates = [float(norm.isf(max(v, 1e-300) / 2)) for v in (least, dispersion, missing)]
    excess = max(abs(total - 1) if bool(seen.all()) else total - 1, 0.0) / 1e-5
    return torch.tensor([*deviates, excess], dtype=torch.float64)


def _noise_split(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for batch, dims in ((5, (3,)), (4, (2, 3, 5))):
        sides = ([batch], [1] * batch, [2, batch - 2])
        for parts in sides:

            def pieces(candidate: Implementation, inputs: Any = (parts, dims, batch)) -> Tensor:
                sizes, rest, whole = inputs
                starts = [11 + sum(sizes[:k]) for k in range(len(sizes))]
                drawn = [
                    candidate.noise((n, *rest), 3, 7, start)
                    for n, start in zip(sizes, starts, strict=True)
                ]
                return (
                    torch.cat(drawn).double() - candidate.noise((whole, *rest), 3, 7, 11).double()
                )

            yield Case(
                "noise",
                {"shape": (batch, *dims), "seed": 3, "step": 7, "first_index": 11},
                torch.zeros(batch, *dims, dtype=torch.float64),
                run=pieces,
                label="noise drawn in pieces minus noise drawn at once",
            )


_BLOCK = (1000, 1000)


def _noise_normal(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Blocks that differ in their first index, in their step and in their seed alone: each must be new noise."""
    ways: dict[str, Callable[[int], tuple[int, int, int]]] = {
        "sample indices": lambda k: (1, 5, _BLOCK[0] * k),
        "steps": lambda k: (1, k, 0),
        "seeds": lambda k: (k, 5, 0),
    }
    for name, place in ways.items():
        enough = 10**7 if name == "sample indices" else 3 * 10**6

        def scores(candidate: Implementation, inputs: Any = (place, enough)) -> Tensor:
            at, wanted = inputs
            return normality(
                as_many_as_are_cheap(lambda k: candidate.noise(_BLOCK, *at(k)).double(), wanted)
            )

        yield Case(
            "noise",
            {"shape": _BLOCK, "neighbours": name},
            torch.zeros(20, dtype=torch.float64),
            run=scores,
            label=f"noise of neighbouring {name}: moments, tails, χ², means and correlations of samples and positions",
        )


LAWS = (
    Law(
        "I22-ema",
        "moving average",
        "After step n: dⁿ v_0 + (1−d) Σ_k d^{n−k} v_k.",
        "Unrolling e_n = d e_{n−1} + (1−d) v_n from e_0 = v_0.",
        "Polyak averaging with exponential weights. Seen: the decay overwritten each step.",
        {torch.float64: 1e-6},
        "Absolute; 1e-6 allows averages kept in float32.",
        _ema,
    ),
    Law(
        "I11-count",
        "number of steps drawn",
        "A t-sampler asked for n steps returns n, all in 1 … T.",
        "A batch has n samples.",
        "Seen: a low-discrepancy sequence by arange(0, 1, 1/n) has n + 1 points for n = 49, 98, 103.",
        {torch.float64: 0.0},
        "Integers.",
        _time_count,
    ),
    Law(
        "I11-unbiased",
        "t-sampler unbiased",
        "E[w f(t)] is the mean of f over 1 … T for every f: step t comes with probability p_t = 1/(T w_t).",
        "Importance weights undo the density that t was drawn from; with f = 1 at one step alone, p_t w_t = 1/T. So each weight says how "
        "often its step may occur, exactly, also where it occurs hardly ever.",
        "Nichol & Dhariwal 2021, eq. 18; Kingma et al. 2021, appendix I.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors, from exact binomial tails and χ² over the steps of {_REPETITIONS} draws.",
        _time_unbiased,
        measures="chance",
    ),
    Law(
        "I28-split",
        "noise independent of the split",
        "Noise of (seed, step, sample index) is the same bit for bit however the batch is cut.",
        "A counter-based generator is a function of its counter.",
        "Salmon et al. 2011.",
        {torch.float64: 0.0},
        "Bit for bit.",
        _noise_split,
    ),
    Law(
        "I28-normal",
        "noise is standard normal",
        "Moments, tails, bins, means and correlations across seeds, steps, samples and positions are those of independent N(0, 1).",
        "Each statistic is turned into a standard normal deviate, counts by their exact binomial tails.",
        "Any textbook.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of up to 10⁷ numbers.",
        _noise_normal,
        measures="chance",
    ),
)
