r"""An output is a skip: what a network's estimate of x_0 contains before the network has said anything.

At one t let α = √ᾱ and σ = √(1−ᾱ), so that α² + σ² = 1. A network whose output ŷ stands for y = a·x_0 + b·ε says about x_0, by solving
with x_t = αx_0 + σε (eq. 1 of `ddpm_ref.parameterization`),

    x̂_0 = c x_t + (σ/D) ŷ,        c = −b/D,        D = aσ − bα:                                              (1)

a *fixed* multiple c of its input, and a multiple of what the network says. The squared error of ŷ times (σ/D)² is that of x̂_0.

    output                  skip c
    x0                      0
    eps, score              1/α
    v                       α
    mean                    −c_t/c_0
    x_0 − ε ("flow")        1/(α + σ)

**What the skip should be.** For centred data of variance ℓ in one direction the best estimate is linear, with the Wiener gain k,

    E[x_0 | x_t] = k x_t,        k = αℓ/d,        d = Var x_t = α²ℓ + σ².                                     (2)

A direction that the network leaves to its skip costs d (k − c)²: of two outputs that one is cheaper whose skip lies nearer to the Wiener
gain. k rises with ℓ, from 0 to 1/α, and two skips cost the same where it is their mean m,

    ℓ = mσ²/(α(1 − αm)),        x0 | eps: ℓ = 1/SNR,        x0 | v: ℓ = σ²/(1 + σ²),        v | eps: ℓ = 1 + 1/α²;    (3)

below that variance the smaller skip is the cheaper one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ref.oracle.base import parameter
from ddpm_ref.process import posterior_coefficients
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_name, check_steps


def _x0(t: Tensor, schedule: Schedule) -> Tensor:
    return torch.zeros_like(schedule.lookup("beta", t))


def _eps(t: Tensor, schedule: Schedule) -> Tensor:
    return 1 / schedule.lookup("sqrt_alpha_bar", t)


def _v(t: Tensor, schedule: Schedule) -> Tensor:
    return schedule.lookup("sqrt_alpha_bar", t)


def _mean(t: Tensor, schedule: Schedule) -> Tensor:
    on_x0, on_x_t = posterior_coefficients(t, schedule)
    return -on_x_t / on_x0


def _flow(t: Tensor, schedule: Schedule) -> Tensor:
    signal, sigma = (
        schedule.lookup(f"sqrt_{name}", t) for name in ("alpha_bar", "one_minus_alpha_bar")
    )
    return 1 / (signal + sigma)


SKIPS: dict[str, Callable[[Tensor, Schedule], Tensor]] = {
    "x0": _x0,
    "eps": _eps,
    "score": _eps,
    "v": _v,
    "mean": _mean,
    "flow": _flow,
}
"""The skip c of each output, eq. (1); a function of (t, schedule), float64 `[B]`."""


def output_skip(output: str, t: Tensor, schedule: Schedule) -> Tensor:
    """The skip c that an output amounts to; eq. (1).

    Args:
        output: a parameterization, or `flow` for x0 − eps.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        float64 `[B]`, on t's device.

    Raises:
        ValueError: unknown name, t outside 1 … T, or undefined because ᾱ_t = 0 (checked where t is on the CPU).
        TypeError: arguments of another type.
    """
    check_schedule(schedule)
    check_steps(t, schedule.T)
    check_name("output", output, SKIPS)
    check_defined(output, t, schedule)
    return SKIPS[output](t, schedule)


def wiener_gain(variance: Tensor | float, t: Tensor, schedule: Schedule) -> Tensor:
    """k = αℓ/(α²ℓ + σ²), eq. (2); as a skip that of Karras et al. 2022 (EDM, table 1) for ℓ = σ_data².

    Args:
        variance: ℓ ≥ 0, a number or `[B]`.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        float64 `[B]`, on t's device.

    Raises:
        ValueError: a variance that is negative or not finite, or t outside 1 … T.
        TypeError: arguments of another type.
    """
    check_schedule(schedule)
    check_steps(t, schedule.T)
    given = per_step(variance, t, "variance")
    if t.device.type == "cpu" and bool((given < 0).any()):
        raise ValueError(
            f"variance = {given.min().item():.6g}; a variance is not negative: pass that of the data, 0.25 for instance"
        )
    noisy = schedule.lookup("alpha_bar", t) * given + schedule.lookup("one_minus_alpha_bar", t)
    return schedule.lookup("sqrt_alpha_bar", t) * (given / noisy)


def crossover(
    first: Tensor | float, second: Tensor | float, t: Tensor, schedule: Schedule
) -> Tensor:
    """The variance ℓ in a direction at which two skips cost the same; below it the smaller one is cheaper; eq. (3).

    Args:
        first: a skip, a number or `[B]`; `output_skip` knows those of the outputs.
        second: another.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        float64 `[B]`, on t's device: +inf where the smaller skip is cheaper for every ℓ, 0 where the larger one is.

    Raises:
        ValueError: a skip that is not finite, or t outside 1 … T.
        TypeError: arguments of another type.
    """
    check_schedule(schedule)
    check_steps(t, schedule.T)
    mean = 0.5 * (per_step(first, t, "first") + per_step(second, t, "second"))
    signal, remainder = (
        schedule.lookup(name, t) for name in ("sqrt_alpha_bar", "one_minus_alpha_bar")
    )
    below = signal * (1 - signal * mean)  # > 0 where the Wiener gain reaches the mean at some ℓ
    crossing = mean * remainder / below
    return torch.where(mean <= 0, 0.0, torch.where(below > 0, crossing, torch.inf))


def check_defined(output: str, t: Tensor, schedule: Schedule) -> None:
    """Where no signal is left, the noise in x_t says nothing about x0."""
    if output not in ("eps", "score") or t.device.type != "cpu":
        return
    lost = schedule.lookup("alpha_bar", t) == 0
    if bool(lost.any()):
        raise ValueError(
            f"{output} is undefined at t = {int(t[lost][0])}, where alpha_bar = 0 (zero terminal SNR): x_t is pure noise and "
            "tells nothing about x0; let the model predict v or x0"
        )


def per_step(value: Tensor | float, t: Tensor, name: str) -> Tensor:
    """A number or `[B]` as finite float64 `[B]` on t's device."""
    given = parameter(value, name).to(t.device)
    if given.ndim and given.shape != t.shape:
        raise ValueError(
            f"{name} has shape {list(given.shape)}, t has {list(t.shape)}: pass one number, or one for each step"
        )
    return given.expand(t.shape)
