r"""Laws on whole runs: a chain in half precision, a bound with several draws or from a budget, a training that averages its weights.

**A chain in half precision.** A DDIM step near the clean end changes x by less than half a unit in the last place of bf16; rounded away at each
step, these changes add up to a spread that is 1.6–2.6 times what it should be. The end of the chain is Gaussian with the moments of
`sampling.chain_moments`, whatever the dtype of the network.

**A bound with R draws** has the expectation of one draw, −ln p(x_0) for N(0, I) and variance β, and 1/R of its variance.

**A bound from a budget** estimates the mean over a data set. For a model that always says g it is a closed form; the estimate is unbiased, and its standard
error is that of its spread over seeds.

**An average of weights** at step k is d_k of the one before it and 1 − d_k of the weight *after* step k, d_k = k/(k + 9).
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.bound import decoder_term, prior_term, step_term
from ddpm_ref.conformance.lawbook.law import SIGMAS, Case, Law, Sampled, seeded, settings_with_truth
from ddpm_ref.conformance.lawbook.pointwise import LinearModel, negative_log_density
from ddpm_ref.conformance.lawbook.sampling import GaussianModel, chain_moments
from ddpm_ref.conformance.lawbook.truth import MP, Truth
from ddpm_ref.conformance.setting import Setting

_CHAINS = (1024, 8)
_DRAWS, _COPIES = 16, 1024
_SEEDS, _BUDGET = 32, 512


def _halves(usual: bool, implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Both halves on the first long schedule, one after the other on the rest: a thousand steps each."""
    long = [pair for pair in settings_with_truth(implementation) if pair[1].T >= 200]
    for place, (setting, known) in enumerate(long):
        for number, kind in enumerate((torch.bfloat16, torch.float16)):
            if (place == 0 or (place + number) % 2 == 0) != usual:
                continue
            mean, variance = chain_moments(known, "ddim")

            def spread(
                candidate: Implementation,
                inputs: Any = (setting, known, kind),
                moments: tuple[float, float] = (mean, variance),
            ) -> Tensor:
                where, truth, half = inputs
                with seeded():
                    ends = candidate.chain_in(where, GaussianModel(truth), _CHAINS, half).double()
                deviation = math.sqrt(moments[1])
                return torch.stack(
                    [ends.std() / deviation - 1, (ends.mean() - moments[0]) / deviation]
                )

            yield Case(
                "chain_in",
                {"setting": setting, "dtype": str(kind)},
                torch.zeros(2, dtype=torch.float64),
                run=spread,
                label="spread over what it should be, minus 1, and shift of the ends of a DDIM chain",
            )


def _draws(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _shortest(implementation):
        model = LinearModel(known, 0.0, 1.0)
        x0 = torch.tensor([[0.5, -1.75]], dtype=torch.float64)
        floor = negative_log_density(x0, 0.0, 1.0)

        def scores(candidate: Implementation, inputs: Any = (setting, model, x0, floor)) -> Tensor:
            where, says, point, right = inputs
            copies = point.expand(_COPIES, -1).contiguous()
            with seeded():
                one, many = (
                    candidate.mean_bound(where, says, copies, "beta", n).total for n in (1, _DRAWS)
                )
            if one is None or many is None:
                return torch.full((2,), torch.inf)
            shift = (many.mean() - right) / (many.std() / math.sqrt(_COPIES))
            ratio = (one.var() / many.var() / _DRAWS).log()
            kurtosis = _kurtosis(one) + _kurtosis(many) - 2
            return torch.stack([shift.reshape(()), ratio / (kurtosis / _COPIES).sqrt()]).double()

        yield Case(
            "mean_bound",
            {"setting": setting, "variance": "beta", "draws": _DRAWS},
            torch.zeros(2, dtype=torch.float64),
            run=scores,
            label=f"mean of bounds of {_DRAWS} draws from −ln p(x0), and ln of the variance of one draw over {_DRAWS} times theirs, in standard errors",
        )


def _kurtosis(values: Tensor) -> Tensor:
    return ((values - values.mean()) ** 4).mean() / values.var() ** 2


def _shortest(implementation: Implementation) -> list[tuple[Setting, Truth]]:
    found = [pair for pair in settings_with_truth(implementation) if pair[1].T >= 3]
    return sorted(found, key=lambda pair: pair[1].T)[:2]


def _estimates(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """A model that always says 0.25, of data that differ: only the choice of steps and examples is left to chance."""
    data = torch.linspace(-1.0, 1.0, 63, dtype=torch.float64).reshape(21, 3)
    for setting, known in _shortest(implementation):

        def scores(candidate: Implementation, inputs: Any = (setting, known)) -> Tensor:
            where, truth = inputs
            pairs = [
                candidate.bound_estimate(where, _says, data.float(), _BUDGET, seed)
                for seed in range(_SEEDS)
            ]
            right = float(_mean_bound(truth, data, 0.25)) / data.shape[1]
            values, errors = (
                torch.stack([torch.as_tensor(v).double() for v in part])
                for part in zip(*pairs, strict=True)
            )
            least = 1e-5 * (1 + abs(right))
            shift = (values.mean() - right) / (values.std() / math.sqrt(_SEEDS)).clamp(min=least)
            claimed, found = errors.square().mean().sqrt(), values.std()
            honest = (found / claimed.clamp(min=least)).clamp(min=1e-6).log()
            # Of a claim three times too small or large nothing is left to chance.
            return torch.stack([shift, honest * SIGMAS / math.log(3) if found > least else shift])

        yield Case(
            "bound_estimate",
            {"setting": setting, "evaluations": _BUDGET},
            torch.zeros(2, dtype=torch.float64),
            run=scores,
            label=f"mean of {_SEEDS} estimates from the closed form in standard errors, and ln of their spread over the claimed one (ln 3 is {SIGMAS})",
        )


def _says(x_t: Tensor, t: Tensor) -> Tensor:
    return torch.full_like(x_t, 0.25)


def _mean_bound(known: Truth, data: Tensor, guess: float) -> Any:
    """The mean over data of eqs. (1) and (2) of `lawbook.bound`, with the posterior variance."""
    dims, total = data.shape[1], MP.zero
    for sample in data.float().double().tolist():
        error = sum((MP.mpf(v) - guess) ** 2 for v in sample)
        total += prior_term(known.rows[-1], dims, sum(MP.mpf(v) ** 2 for v in sample))
        total += decoder_term(known.rows[1], dims, error)
        total += sum(step_term("posterior", row, dims, error) for row in known.rows[2:])
    return total / len(data)


def _trained(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    steps = 6

    def gaps(candidate: Implementation) -> Tensor:
        weights, averages = (v.double() for v in candidate.trained(steps))
        decay = torch.arange(2, steps + 1).double() / (torch.arange(2, steps + 1) + 9)
        followed = decay * averages[:-1] + (1 - decay) * weights[1:]
        moved = (weights[1:] - weights[:-1]).abs().max()
        return (averages[1:] - followed) / moved

    yield Case(
        "trained",
        {"steps": steps},
        torch.zeros(steps - 1, dtype=torch.float64),
        run=gaps,
        label="average of a weight minus what follows from the weight after the step, over the largest move",
    )


LAWS = (
    Law(
        "I15-chain",
        "chains in half precision",
        "The end of a DDIM chain has the mean and the spread that follow from its steps, also for a network in bf16 or fp16.",
        "The state between the steps is float32 or wider: a step of 1e-4 of x is below the spacing of bf16.",
        "finegrain-ai/refiners PR 449, diffusers issue 3056. Seen: chains whose ends spread 1.6–2.6 times too much.",
        {torch.float64: 0.1},
        "Relative to the spread: 2 % by chance over 8,192 numbers, and the rounding of the network's own output.",
        Sampled(partial(_halves, True), partial(_halves, False)),
        measures="discretization",
    ),
    Law(
        "I12-average",
        "bound with several draws",
        "The mean of R independent draws has the expectation of one, −ln p(x0) for N(0, I) and variance β, and 1/R of its variance.",
        "Independent draws with the same law.",
        "Law of large numbers. Seen: one noise for all draws.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors.",
        _draws,
        measures="chance",
    ),
    Law(
        "I12-estimate",
        "bound from a budget",
        "An estimate of the bound from a budget is unbiased, and its standard error is its spread over seeds.",
        "For a model that always says g the mean over the data is a closed form, and only steps and examples are chosen.",
        "Importance sampling with weights that undo it.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {_SEEDS} seeds; a factor of 3 in the claimed error.",
        _estimates,
        measures="chance",
    ),
    Law(
        "I22-order",
        "average follows the step",
        "After step k the average is d_k of the one before and 1 − d_k of the weight after that step, d_k = k/(k + 9).",
        "An average that is updated before the step lags by one.",
        "Polyak averaging with exponential weights.",
        {torch.float64: 1e-3},
        "In units of the largest move of the weight, kept in float32.",
        _trained,
        measures="discretization",
    ),
)
