r"""A variance that the network learns: what its second output means, and the loss that trains it.

The bound's step t compares q(x_{t−1} | x_t, x_0), whose variance is β̃_t, with p(x_{t−1} | x_t) = N(μ_θ, σ_t²). β̃_t is the right σ_t² for data at a
point and β_t for data that are N(0, I) (Ho et al. 2020, section 3.2); a network says v, a place between them on a logarithmic scale
(Nichol & Dhariwal 2021, eq. 15),

    ln σ_t² = v ln β_t + (1−v) ln β̃_t,        t ≥ 2;        at t = 1, where ln β̃_1 = −∞, from ln β̃_2 to ln β_1.      (1)

The simple loss has no σ in it. The hybrid loss (their eq. 16) adds the bound's term of the same x_t, an unbiased estimate of L_vlb once
multiplied by T,

    L = w_t ‖f − y‖²/d + λ · T · L_{t−1}/d,        λ = 0.001,   L_{t−1} in nats,                                     (2)

in which μ_θ is held fixed (**no gradient through the mean**): the first term alone decides what is predicted, the second how uncertain it is.
"""

import math

import torch
from torch import Tensor

from ddpm_ref.gaussian import discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.parameterization import convert
from ddpm_ref.process import q_posterior
from ddpm_ref.schedule import Schedule, check_schedule, expand
from ddpm_ref.validation import check_floating, check_number, check_same_shape, check_steps

_LOG_TWO_PI = math.log(2 * math.pi)
HYBRID_SCALE = 0.001
"""λ of eq. (2), Nichol & Dhariwal 2021, section 3.1."""


def range_ends(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(lower, upper) end of the learned range at the steps `t`: ln β̃_t and ln β_t, float64 `[B]` each; eq. (1)."""
    second = t.clamp(min=min(2, schedule.T))
    lower = schedule.lookup("posterior_variance" if schedule.T > 1 else "beta", second).log()
    return lower, schedule.lookup("beta", t).log()


def learned_range(share: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """ln σ_t² from the place v between its two ends; eq. (1), Nichol & Dhariwal 2021 eq. 15.

    Args:
        share: v `[B, *dims]`; 0 is β̃_t, 1 is β_t, and nothing stops a network from saying more or less.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        The log-variance, in the shape and dtype of `share`.

    Raises:
        ValueError: t outside 1 … T.
        TypeError: a tensor or a schedule of another type.
    """
    check_floating(share=share)
    check_schedule(schedule)
    check_steps(t, schedule.T, share.shape[0])
    low, high = (expand(end, share) for end in range_ends(t, schedule))
    return (share * high + (1 - share) * low).to(share.dtype)


def hybrid_loss(
    simple: Tensor, bound_term: Tensor, T: int, *, scale: float = HYBRID_SCALE
) -> Tensor:
    """L_simple + λ·T·L_t; eq. (2), Nichol & Dhariwal 2021 eq. 16.

    Args:
        simple: the weighted squared error of the prediction `[B]`.
        bound_term: the bound's term at the same t `[B]`, in nats per dim for a `simple` that is a mean over dims.
        T: number of steps, which one uniform t stands for.
        scale: λ.

    Returns:
        `[B]`.
    """
    check_same_shape(simple=simple, bound_term=bound_term)
    return simple + check_number("scale", scale, HYBRID_SCALE) * T * bound_term


def bound_terms(
    prediction: Tensor,
    log_variance: Tensor,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    parameterization: str,
    levels: int | None = None,
) -> Tensor:
    """L_{t−1} per dim with the mean held fixed: KL(q(x_{t−1}|x_t, x_0) ‖ p) for t ≥ 2, −ln p(x_0|x_1) for t = 1.

    Args:
        prediction: what the network predicts `[B, *dims]`; no gradient reaches it.
        log_variance: ln σ_t², in the same shape; the gradient is with respect to this.
        x0: data, in the same shape.
        x_t: noisy data, in the same shape.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        parameterization: what `prediction` is.
        levels: grey levels of the data, for the discretized decoder; None = the Gaussian density.

    Returns:
        Nats per dim, `[B]`, in log_variance's dtype.

    Raises:
        ValueError: shapes that differ, t outside 1 … T, a conversion that does not exist at ᾱ_t = 0.
    """
    check_same_shape(prediction=prediction, log_variance=log_variance, x0=x0, x_t=x_t)
    mean = convert(prediction.detach(), x_t, t, schedule, source=parameterization, to="mean")
    forward = q_posterior(x0, x_t, t, schedule)
    first = (t == 1).view(-1, *(1,) * (x0.ndim - 1))
    # At t = 1 q is a point, its log-variance −∞: a number that is not used keeps NaN out of the gradient.
    known = torch.where(first, torch.zeros_like(forward.log_var), forward.log_var)
    divergence = gaussian_kl(forward.mean, known, mean, log_variance)
    if levels is None:
        scaled = (x0 - mean).square() * torch.exp(-log_variance)
        surprise = 0.5 * (scaled + log_variance + _LOG_TWO_PI)
    else:
        surprise = -discretized_gaussian_log_likelihood(x0, mean, 0.5 * log_variance, levels)
    return torch.where(first, surprise, divergence)[..., None].flatten(1).mean(1)
