r"""The forward process q: noising in one shot, and its exact reversal given the data.

Iterating eq. (1) of `ddpm_ref.schedule` t times gives, with one standard normal draw ε (Ho et al. 2020, eq. 4),

    x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε.                                                                            (1)

The bound compares the model with the posterior of the previous step. x_{t−1} given x_0 is N(√ᾱ_{t−1} x_0, 1−ᾱ_{t−1}); x_t given
x_{t−1} is N(√(1−β_t) x_{t−1}, β_t). A product of Gaussians in x_{t−1}: precisions add (Ho et al. eqs. 6, 7),

    1/β̃_t = 1/(1−ᾱ_{t−1}) + (1−β_t)/β_t        ⟹    β̃_t = β_t (1−ᾱ_{t−1})/(1−ᾱ_t),                           (2)
    μ̃_t = c_0 x_0 + c_t x_t,    c_0 = √ᾱ_{t−1} β_t/(1−ᾱ_t),    c_t = √(1−β_t) (1−ᾱ_{t−1})/(1−ᾱ_t).              (3)

At t = 1 the posterior is the point x_0: c_0 = 1, c_t = 0, ln β̃_1 = −∞.

**Precision.** Both coefficients of (1) are rounded once from float64, to float32 for bf16 and fp16 data; the sum is rounded once
to the data's dtype. Code that forms 1−ᾱ in bf16 adds no noise at all during the first ten steps of the linear schedule.
"""

import torch
from torch import Tensor

from ddpm_ref.gaussian import Gaussian
from ddpm_ref.schedule import Schedule, check_schedule, compute_dtype, expand
from ddpm_ref.validation import check_floating, check_same_shape, check_steps


def q_sample(x0: Tensor, t: Tensor, schedule: Schedule, noise: Tensor) -> Tensor:
    """x_t = √ᾱ_t x0 + √(1−ᾱ_t) noise; eq. (1), Ho et al. 2020 eq. 4.

    This is the definition that every fused kernel must reproduce bit for bit: two products and one sum in the compute
    dtype (float32 for bf16 and fp16), no fused multiply-add, one rounding to x0's dtype.

    Args:
        x0: data `[B, *dims]`, floating point.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        noise: ε, in x0's shape and device.

    Returns:
        x_t, in x0's shape, dtype and device.

    Raises:
        ValueError: shapes or devices differ, or t outside 1 … T.
        TypeError: integer images, a floating-point t, or a schedule that is no `Schedule`.
    """
    check_floating(x0=x0, noise=noise)
    check_same_shape(x0=x0, noise=noise)
    check_schedule(schedule)
    check_steps(t, schedule.T, x0.shape[0])
    dtype = compute_dtype(x0.dtype)
    signal = expand(schedule.lookup("sqrt_alpha_bar", t), x0) * x0.to(dtype)
    added = expand(schedule.lookup("sqrt_one_minus_alpha_bar", t), x0) * noise.to(dtype)
    return (signal + added).to(x0.dtype)


def posterior_coefficients(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(c_0, c_t) of the posterior mean (3), float64 `[B]` each."""
    t = t.long()
    beta, left = schedule.lookup("beta", t), schedule.lookup("one_minus_alpha_bar", t)
    root_before = schedule.lookup("sqrt_alpha_bar", t - 1)
    left_before = schedule.lookup("one_minus_alpha_bar", t - 1)
    root_kept = schedule.lookup("sqrt_alpha_bar", t) / root_before
    return root_before * beta / left, root_kept * (left_before / left)


def q_posterior(x0: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Gaussian:
    """q(x_{t−1} | x_t, x0) = N(μ̃_t, β̃_t I); eqs. (2), (3), Ho et al. 2020 eqs. 6, 7.

    Args:
        x0: data `[B, *dims]`.
        x_t: noisy data, in x0's shape.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        `Gaussian` with `mean` and `log_var` in x_t's shape and dtype; `log_var` is −inf at t = 1.

    Raises:
        ValueError: shapes or devices differ, or t outside 1 … T.
        TypeError: as `q_sample`.
    """
    check_floating(x0=x0, x_t=x_t)
    check_same_shape(x_t=x_t, x0=x0)
    check_schedule(schedule)
    check_steps(t, schedule.T, x_t.shape[0])
    dtype = compute_dtype(x_t.dtype)
    on_x0, on_x_t = posterior_coefficients(t, schedule)
    mean = expand(on_x0, x_t) * x0.to(dtype) + expand(on_x_t, x_t) * x_t.to(dtype)
    log_var = expand(torch.log(schedule.lookup("posterior_variance", t)), x_t)
    return Gaussian(mean.to(x_t.dtype), log_var.to(x_t.dtype).expand_as(x_t))
