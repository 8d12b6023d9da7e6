r"""What the network may predict: six names, one table, one determinant.

Given x_t, every customary prediction is a fixed combination y = a·x_0 + b·ε of the two unknowns, a row (a, b):

    name     y                                        a                   b
    eps      ε                                        0                   1
    x0       x_0                                      1                   0
    v        √ᾱ ε − √(1−ᾱ) x_0                         −√(1−ᾱ)             √ᾱ              (Salimans & Ho 2022, appendix D)
    score    ∇ ln q(x_t | x_0) = −ε/√(1−ᾱ)             0                   −1/√(1−ᾱ)       (Song et al. 2021)
    mean     μ̃_t = c_0 x_0 + c_t x_t                   c_0 + c_t √ᾱ         c_t √(1−ᾱ)      (Ho et al. 2020, eq. 7)
    flow     x_0 − ε                                  1                   −1             (Lipman et al. 2023; Liu et al. 2023)

The velocity of flow matching belongs to another path, x_s = (1−s)x_0 + sε, d x_s/ds = −(x_0 − ε). It is the same path on another scale:
x_t = x_s/√((1−s)² + s²) where λ_t = 2 ln((1−s)/s) (`flow_schedule`), so that only the row is new.

x_t itself is the row (√ᾱ, √(1−ᾱ)). To convert y = (a, b) into z = (c, d), find p, q with z = p·y + q·x_t: two equations whose
solution by Cramer's rule is

    D(a, b) = a √(1−ᾱ) − b √ᾱ,       p = D(c, d)/D(a, b),       q = (a d − b c)/D(a, b).                          (1)

So an error of y becomes p times that error in z, and a squared error in one space is a squared error in another with the factor
p²: every loss ratio follows from the same determinant (`ddpm_ref.objective`),

    D(eps) = −√ᾱ,   D(x0) = √(1−ᾱ),   D(v) = −1,   D(score) = √ᾱ/√(1−ᾱ),   D(mean) = c_0 √(1−ᾱ),   D(flow) = √ᾱ + √(1−ᾱ).   (2)

D(eps) and D(score) vanish at zero terminal SNR, ᾱ_T = 0: there x_T = ε says nothing about x_0, and only rows with D = 0 can be
converted into each other.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ref.process import posterior_coefficients
from ddpm_ref.schedule import Schedule, check_schedule, compute_dtype, expand
from ddpm_ref.validation import (
    check_floating,
    check_name,
    check_representable,
    check_same_shape,
    check_steps,
)

Row = Callable[[Tensor, Schedule], tuple[Tensor, Tensor]]


def _roots(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    return schedule.lookup("sqrt_alpha_bar", t), schedule.lookup("sqrt_one_minus_alpha_bar", t)


def _eps(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(schedule.lookup("beta", t))
    return torch.zeros_like(one), one


def _x0(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    zero, one = _eps(t, schedule)
    return one, zero


def _v(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    signal, sigma = _roots(t, schedule)
    return -sigma, signal


def _score(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    _, sigma = _roots(t, schedule)
    return torch.zeros_like(sigma), -1 / sigma


def _mean(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    signal, sigma = _roots(t, schedule)
    on_x0, on_x_t = posterior_coefficients(t, schedule)
    return on_x0 + on_x_t * signal, on_x_t * sigma


def _flow(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    zero, one = _eps(t, schedule)
    return one, zero - one


PARAMETERIZATIONS: dict[str, Row] = {
    "eps": _eps,
    "x0": _x0,
    "v": _v,
    "score": _score,
    "mean": _mean,
    "flow": _flow,
}
"""Row (a, b) of each parameterization: y = a·x0 + b·eps; a function of (t, schedule), float64 `[B]` each."""


def row(parameterization: str, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The row (a, b) with y = a·x0 + b·eps, float64 `[B]` each."""
    check_name("parameterization", parameterization, PARAMETERIZATIONS)
    return PARAMETERIZATIONS[parameterization](t, schedule)


def target(parameterization: str, x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """What a perfect network would output: a·x0 + b·eps.

    Args:
        parameterization: `eps`, `x0`, `v`, `score`, `mean` or `flow`.
        x0: data `[B, *dims]`.
        eps: the noise that made x_t, in x0's shape.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        The target, in x0's shape and dtype.

    Raises:
        ValueError: unknown name, shapes that differ, t outside 1 … T, a coefficient beyond the range of the dtype.
        TypeError: a name, a schedule or a tensor of another type.
    """
    check_floating(x0=x0, eps=eps)
    check_same_shape(x0=x0, eps=eps)
    check_schedule(schedule)
    check_steps(t, schedule.T, x0.shape[0])
    entries = row(parameterization, t, schedule)
    _check_coefficients(entries, t, schedule, x0.dtype, parameterization)
    return _combine(entries, x0, eps)


def convert(
    prediction: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule, *, source: str, to: str
) -> Tensor:
    """The same prediction in another parameterization: p·prediction + q·x_t; eq. (1).

    Args:
        prediction: network output `[B, *dims]` in the parameterization `source`.
        x_t: the noisy data that the network saw, in the same shape.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        source: parameterization of `prediction`.
        to: parameterization wanted.

    Returns:
        The prediction in the parameterization `to`, in its shape and dtype.

    Raises:
        ValueError: unknown name, shapes that differ, t outside 1 … T, or a conversion that does not exist because
            ᾱ_t = 0 (zero terminal SNR; checked where t is on the CPU): predict v or x0 there; or a coefficient beyond the
            range of the dtype.
        TypeError: a name, a schedule or a tensor of another type.
    """
    check_floating(prediction=prediction, x_t=x_t)
    check_same_shape(prediction=prediction, x_t=x_t)
    check_schedule(schedule)
    check_steps(t, schedule.T, x_t.shape[0])
    check_name("parameterization", source, PARAMETERIZATIONS)
    check_name("parameterization", to, PARAMETERIZATIONS)
    if source == to:
        return prediction
    solved = _solve(source, to, t, schedule)
    _check_coefficients(solved, t, schedule, prediction.dtype, f"{source} -> {to}")
    return _combine(solved, prediction, x_t)


def _check_coefficients(
    pair: tuple[Tensor, Tensor], t: Tensor, schedule: Schedule, dtype: torch.dtype, what: str
) -> None:
    """Neither coefficient overflows when it is rounded to the compute dtype, which no usual schedule lets happen."""
    if not schedule.moderate:
        largest = torch.maximum(pair[0].abs(), pair[1].abs())
        check_representable(largest, compute_dtype(dtype), f"a coefficient of {what}", t)


def _combine(weights: tuple[Tensor, Tensor], first: Tensor, second: Tensor) -> Tensor:
    """weights[0]·first + weights[1]·second in the compute dtype, rounded once to first's dtype."""
    dtype = compute_dtype(first.dtype)
    total = expand(weights[0], first) * first.to(dtype) + expand(weights[1], first) * second.to(
        dtype
    )
    return total.to(first.dtype)


def determinant(parameterization: str, t: Tensor, schedule: Schedule) -> Tensor:
    """D(y) of eq. (2), float64 `[B]`: a √(1−ᾱ) − b √ᾱ without its cancellation, which for `mean` loses a small β_t."""
    signal, sigma = _roots(t, schedule)
    match parameterization:
        case "eps":
            return -signal
        case "x0":
            return sigma
        case "v":
            return -torch.ones_like(sigma)
        case "score":
            return signal / sigma
        case "flow":
            return signal + sigma
        case _:
            return posterior_coefficients(t, schedule)[0] * sigma


def _solve(source: str, to: str, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(p, q) of eq. (1); where both rows are multiples of x_t's, z = (d/b)·y."""
    (a, b), (c, d) = row(source, t, schedule), row(to, t, schedule)
    below, above = determinant(source, t, schedule), determinant(to, t, schedule)
    parallel = (below == 0) & (above == 0)
    undefined = (below == 0) & (above != 0)
    if t.device.type == "cpu" and bool(undefined.any()):
        step = int(t[undefined][0])
        raise ValueError(
            f"{source} -> {to} is undefined at t = {step}, where alpha_bar = 0 (zero terminal SNR): x_t is pure noise and "
            "tells nothing about x0; let the model predict v or x0"
        )
    p = torch.where(parallel, d / torch.where(parallel, b, torch.ones_like(b)), above / below)
    q = torch.where(parallel, torch.zeros_like(a), (a * d - b * c) / below)
    return p, q
