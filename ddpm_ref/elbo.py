r"""The variational bound, term by term, on −log p(x_0) of a model's reverse chain.

A model defines a chain that runs backwards from noise, p(x_T) = N(0, I) and p(x_{t−1} | x_t) = N(μ_θ(x_t, t), σ_t² I). Its
likelihood is an integral over all paths; Jensen's inequality with the forward process as the path distribution bounds it,

    −ln p(x_0) ≤ E_q[−ln p(x_{0:T}) + ln q(x_{1:T} | x_0)],                                               (1)

and q(x_t | x_{t−1}) = q(x_{t−1} | x_t, x_0) q(x_t | x_0)/q(x_{t−1} | x_0) turns the sum of log-ratios into three kinds of terms
(Ho et al. 2020, eq. 5; Sohl-Dickstein et al. 2015), all non-negative but the last:

    prior            L_T = KL(q(x_T | x_0) ‖ N(0, I))                                 no parameters, exact,       (2)
    diffusion        L_{t−1} = E KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)),   t = 2 … T,                     (3)
    reconstruction   L_0 = E[−ln p(x_0 | x_1)].                                                             (4)

The gap in (1) is KL(q(x_{1:T} | x_0) ‖ p(x_{1:T} | x_0)). In (3) both sides are Gaussian, so with μ̃ and β̃_t of
`process.q_posterior` each dimension contributes ½[β̃_t/σ_t² − 1 − ln β̃_t/σ_t² + (μ̃ − μ_θ)²/σ_t²].                             (5)
Only x_t is random: `elbo` draws it, and nothing else is approximated.

**Chain.** μ_θ, σ_t², the decoder and the noise draw of one term are `ReverseProcess`.

**Prior** (2) in closed form, and the struct of all terms: `ddpm_ref.terms`.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_ref.kernels import fast_normal
from ddpm_ref.noise import NoiseStream
from ddpm_ref.reverse import (
    Model,
    Variance,
    check_data,
    evaluation_mode,
    reverse_process,
)
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.terms import ElboTerms, prior_kl
from ddpm_ref.validation import check_count

_MOST_DRAWN = 1 << 31  # steps of the noise stream that are the bound's: r·T + t − 1


def elbo(
    model: Model,
    x0: Tensor,
    schedule: Schedule,
    *,
    parameterization: str = "eps",
    variance: Variance = "posterior",
    decoder: str = "discretized",
    levels: int | None = None,
    seed: int = 0,
    draws: int = 1,
    clip: float | None = None,
    batch_size: int = 256,
    first_index: int = 0,
) -> ElboTerms:
    """Every term of the variational bound (1) for every example: T·draws evaluations of the model per example.

    Draw r of step t uses `NoiseStream(seed).normal(…, step=r·T + t − 1, first_index=first_index)`: the result does not depend on
    how examples are split into batches (up to the model's own rounding).

    Args:
        model: `model(x_t, t) -> prediction` in `parameterization`, or `(prediction, log_variance)` for a learned
            variance, which then replaces `variance`. Called in eval mode without gradient, with the original step index
            `schedule.timesteps[t−1]` and x_t in x0's dtype and device.
        x0: data `[B, *dims]`, on [−1, 1] for images; `[B]` means D = 1.
        schedule: T steps.
        parameterization: what the model predicts: `eps`, `x0`, `v`, `score` or `mean`.
        variance: `posterior` (β̃_t), `beta` (β_t) or a table `[T+1]`; its entry 1 is the decoder's variance, for which both
            names use β_1.
        decoder: `discretized` (grey levels; needs `levels`) or `gaussian` (continuous data).
        levels: number of grey levels: 256 for 8-bit images, 17 for digits.
        seed: of the noise.
        draws: noise draws per term, averaged; at most 2³¹/T.
        clip: clamp the predicted x0 to [−clip, clip]; None (the default) clips nothing. The result's `protocol` says so.
        batch_size: rows of (example, t) per call of the model, which bounds the memory.
        first_index: global index of x0[0], for data evaluated in parts.

    Returns:
        `ElboTerms`, float64 on x0's device: nats summed over dims, without a graph even where x0 requires a gradient.
        A model that returns NaN or infinity is no error: the terms that it enters are then not finite.

    Raises:
        ValueError: unknown names, missing `levels`, data off the lattice, not finite or without dimensions, or a
            parameterization that is undefined on this schedule (`eps`, `score` at zero terminal SNR).
        TypeError: x0 is not floating point, or another argument is of the wrong type.
    """
    check_data("x0", x0)
    check_schedule(schedule)
    check_count("draws", draws, most=_MOST_DRAWN // schedule.T)
    check_count("batch_size", batch_size)
    check_count("first_index", first_index, least=0)
    process = reverse_process(
        model,
        schedule,
        parameterization=parameterization,
        variance=variance,
        decoder=decoder,
        levels=levels,
        clip=clip,
    )
    process.check(x0, batch_size)
    terms = torch.zeros(len(x0), schedule.T, dtype=torch.float64, device=x0.device)
    stream = NoiseStream(seed)
    with evaluation_mode(model):
        for examples, steps, noise in _chunks(
            x0, schedule.T, draws, batch_size, stream, first_index
        ):
            rows = x0[examples].repeat(len(steps), *[1] * (x0.ndim - 1))
            t = torch.tensor(steps, device=x0.device).repeat_interleave(len(rows) // len(steps))
            values = process.terms(rows, t, noise).view(len(steps), -1).T
            terms[examples, steps[0] - 1 : steps[-1]] += values / draws
        prior = prior_kl(x0, schedule)
    return ElboTerms(
        prior=prior,
        diffusion=terms[:, 1:],
        reconstruction=terms[:, 0],
        dims=math.prod(x0.shape[1:]),
        protocol=process.protocol(draws=draws, seed=seed),
    )


def _chunks(
    x0: Tensor, T: int, draws: int, batch_size: int, stream: NoiseStream, first_index: int
) -> Iterator[tuple[slice, list[int], Tensor]]:
    """Blocks of examples × consecutive steps with at most `batch_size` rows, and their noise, step-major."""
    examples_per_block = max(1, min(batch_size, len(x0)))
    steps_per_block = max(1, batch_size // examples_per_block)
    for draw, start, low in itertools.product(
        range(draws), range(0, len(x0), examples_per_block), range(1, T + 1, steps_per_block)
    ):
        examples = slice(start, min(start + examples_per_block, len(x0)))
        steps = list(range(low, min(low + steps_per_block, T + 1)))
        noise = [
            fast_normal(
                stream,
                x0[examples].shape,
                step=draw * T + t - 1,
                first_index=first_index + start,
                device=x0.device,
                dtype=x0.dtype,
            )
            for t in steps
        ]
        yield examples, steps, torch.cat(noise)
