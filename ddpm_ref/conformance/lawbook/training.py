"""Laws on training: reproducible noise, unbiased steps, the average of weights."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import Case, Law, draw

SIGMAS = 5.5


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


_STEP_FUNCTIONS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda t, T: t.double() / T,
    lambda t, T: (t == 1).double(),
    lambda t, T: (t == T).double(),
    lambda t, T: 1 / t.double(),
)


def _time_unbiased(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for count, T in ((1, 10), (7, 10), (49, 1000)):
        every = torch.arange(1, T + 1)
        truth = torch.stack([f(every, T).mean() for f in _STEP_FUNCTIONS])

        def deviations(
            candidate: Implementation, count: int = count, T: int = T, truth: Tensor = truth
        ) -> Tensor:
            rows = []
            for seed in range(400):
                t, weights = candidate.time_steps(count, T, seed)
                values = [weights.double() * f(t, T) for f in _STEP_FUNCTIONS]
                rows.append(torch.stack([value.mean() for value in values]))
            estimates = torch.stack(rows)
            spread = estimates.std(0) / math.sqrt(len(estimates))
            return (estimates.mean(0) - truth) / spread.clamp(min=1e-12)

        yield Case(
            "time_steps",
            {"count": count, "T": T},
            torch.zeros(len(_STEP_FUNCTIONS), dtype=torch.float64),
            run=deviations,
            label="deviation of the mean of (t/T, t = 1, t = T, 1/t) over 400 seeds, in standard errors",
        )


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


def standard_scores(z: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Deviations of moments 1–4 of n normal numbers and of their products with each of `others`, in standard errors.

    The k-th moment of N(0, 1) over n draws has variance (1, 2, 15, 96)/n, the mean of a product of independent draws 1/n.
    """
    root = math.sqrt(len(z))
    moments = (z.mean(), (z**2).mean() - 1, (z**3).mean(), (z**4).mean() - 3)
    values = [m * root / math.sqrt(v) for m, v in zip(moments, (1, 2, 15, 96), strict=True)]
    return torch.stack([*values, *((z * other).mean() * root for other in others)])


def _noise_normal(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Standardized moments, and correlations with neighbours in every coordinate."""

    def scores(candidate: Implementation) -> Tensor:
        z = candidate.noise((200, 200), 1, 5, 0).double().flatten()
        others = [
            candidate.noise((200, 200), seed, step, first).double().flatten()
            for seed, step, first in ((2, 5, 0), (1, 6, 0), (1, 5, 200))
        ]
        return standard_scores(z, [*others, z.roll(1), z.roll(200)])

    yield Case(
        "noise",
        {"shape": (200, 200), "seed": 1, "step": 5, "first_index": 0},
        torch.zeros(9, dtype=torch.float64),
        run=scores,
        label="standardized moments 1–4 and correlations across seed, step, index, neighbours",
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
        "E[w f(t)] is the mean of f over 1 … T, for f = t/T, 1/t and the indicators of both ends.",
        "Importance weights undo the density that t was drawn from.",
        "Nichol & Dhariwal 2021, eq. 18; Kingma et al. 2021, appendix I.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of 400 independent repetitions.",
        _time_unbiased,
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
        "Moments 1 to 4 and correlations across seeds, steps, samples and neighbours are those of independent N(0, 1).",
        "Each statistic over n draws has variance v/n: 1, 2, 15, 96 for the moments, 1 for correlations.",
        "Any textbook.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors.",
        _noise_normal,
    ),
)
