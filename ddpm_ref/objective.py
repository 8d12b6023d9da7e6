r"""The training objective: one weighting, written in any space.

The bound's term for t ≥ 2 is a KL between Gaussians of the same variance, which is a distance of means (Ho et al. 2020, eq. 8):

    L_{t−1} = ‖μ̃_t − μ_θ‖²/(2σ_t²).                                                                          (1)

Both means are c_0 x_0 + c_t x_t with the same x_t, so only the error of x_0 is left; with σ_t² = β̃_t, and from
c_0² = ᾱ_{t−1} β_t²/(1−ᾱ_t)²,

    L_{t−1} = c_0²/(2β̃_t) ‖x_0 − x̂_0‖² = ½ [SNR(t−1) − SNR(t)] ‖x_0 − x̂_0‖².                                  (2)

By eq. (1) of `ddpm_ref.parameterization`, an error in the space of y = a·x_0 + b·ε is the error in x_0 times D(y)/D(x0), so that

    w_y = w_{x0} · (1−ᾱ_t)/D(y)².                                                                            (3)

In ε this gives Ho et al. eq. 12, β_t²/(2σ_t²(1−β_t)(1−ᾱ_t)). **Dropping that factor** is `simple`: not the bound any more, but the
bound with its terms reweighted by SNR(t)/(½[SNR(t−1) − SNR(t)]), which rises with the noise: sample quality for likelihood.

    weighting       in x0 space                                            in eps space
    simple          SNR                                                    1                      (Ho et al. eq. 14)
    simple_x0       1                                                      1/SNR
    simple_v        SNR + 1                                                1 + 1/SNR              (Salimans & Ho 2022)
    elbo            ½[SNR(t−1) − SNR(t)];  1/(2β_1) at t = 1               Ho et al. eq. 12
    truncated_snr   max(SNR, 1)                                            max(1, 1/SNR)          (Salimans & Ho 2022)
    min_snr         min(SNR, γ)                                            min(1, γ/SNR)          (Hang et al. 2023)
    p2              SNR/(k + SNR)^γ                                        1/(k + SNR)^γ          (Choi et al. 2022)

At t = 1 the reconstruction −ln N(x_0; x̂_0, β_1) has the weight 1/(2β_1), in ε space 1/(2(1−β_1)): the limit of no formula for t ≥ 2.

**Numerics.** Every entry is ln w in x0 space as a function of λ = ln SNR; (3) adds ln((1−ᾱ)/D²). λ is floored at −2000, where e^λ
and its square root are 0 and the sum of the two still cancels to 3e-13: finite limits at zero terminal SNR come out right, the others
overflow and raise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.gaussian import common_dtype
from ddpm_ref.parameterization import target
from ddpm_ref.process import posterior_coefficients
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import (
    check_floating,
    check_name,
    check_number,
    check_representable,
    check_same_shape,
    check_steps,
)

_LOG_SNR_FLOOR = -2000.0


@dataclass(frozen=True)
class Weighting:
    """One objective: the factor on the squared error of x0, known by its logarithm.

    Weightings of equal parameters compare and hash equal.

    Attributes:
        name: as in `WEIGHTINGS`.
        formula: the factor in x0 space, for people; S stands for SNR(t).
        log_weight: (λ_t, t, schedule) → ln of the factor in x0 space, float64 `[B]`.
        source: where it comes from.
    """

    name: str
    formula: str
    log_weight: Callable[[Tensor, Tensor, Schedule], Tensor]
    source: str = ""

    def __str__(self) -> str:
        return self.name


def _log_elbo(log_snr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """ln ½[SNR(t−1) − SNR(t)] = ln ½ SNR(t−1) β_t/(1−ᾱ_t), by eq. (4) of the schedule; −ln 2β_1 at t = 1."""
    first = t == 1
    before = schedule.lookup("log_snr", torch.where(first, t, t - 1))
    beta, left = schedule.lookup("beta", t), schedule.lookup("one_minus_alpha_bar", t)
    fall = before + torch.log(beta) - torch.log(left)
    return torch.where(first, -torch.log(beta), fall) - math.log(2)


def _log1p_exp(x: Tensor) -> Tensor:
    """ln(1 + e^x) at any x; torch's softplus needs a threshold, below which it may overflow and above which it drops e^−x."""
    return torch.logaddexp(x, torch.zeros_like(x))


@dataclass(frozen=True)
class _LogCapped:
    """ln min(SNR, γ); equal for equal γ, as no two lambdas are."""

    gamma: float

    def __call__(self, log_snr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        return log_snr.clamp(max=math.log(self.gamma))


@dataclass(frozen=True)
class _LogTempered:
    """ln SNR/(k + SNR)^γ; equal for equal k and γ."""

    k: float
    gamma: float

    def __call__(self, log_snr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        offset = math.log(self.k)
        return log_snr - self.gamma * (offset + _log1p_exp(log_snr - offset))


def min_snr(gamma: float = 5.0) -> Weighting:
    """min(SNR, γ) in x0 space, min(1, γ/SNR) in eps space (Hang et al. 2023, eq. 11).

    Args:
        gamma: the cap γ, > 0.
    """
    gamma = check_number("gamma", gamma, 5.0)
    if not 0 < gamma < math.inf:
        raise ValueError(
            f"gamma = {gamma}; the cap of min_snr is a positive number: the usual value is 5"
        )
    name = "min_snr" if gamma == 5 else f"min_snr(gamma={gamma:g})"
    return Weighting(name, f"min(S, {gamma:g})", _LogCapped(gamma), "Hang et al. 2023")


def p2(k: float = 1.0, gamma: float = 1.0) -> Weighting:
    """1/(k + SNR)^γ in eps space (Choi et al. 2022, eq. 8).

    Args:
        k: stabilizer, > 0.
        gamma: strength, ≥ 0; 0 is `simple`.
    """
    k, gamma = check_number("k", k, 1.0), check_number("gamma", gamma, 1.0)
    if not (0 < k < math.inf and 0 <= gamma < math.inf):
        raise ValueError(
            f"k = {k}, gamma = {gamma}: the rule is k > 0 and gamma >= 0; usual values are 1 and 1"
        )
    name = "p2" if k == 1 and gamma == 1 else f"p2(k={k:g}, gamma={gamma:g})"
    return Weighting(name, f"S/({k:g} + S)^{gamma:g}", _LogTempered(k, gamma), "Choi et al. 2022")


@dataclass(frozen=True)
class _LogRaised:
    """ln(S + 1/σ_d²); equal for equal σ_d."""

    sigma_data: float

    def __call__(self, log_snr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        offset = -2 * math.log(self.sigma_data)
        return offset + _log1p_exp(log_snr - offset)


def edm(sigma_data: float = 0.5) -> Weighting:
    """S + 1/σ_d² in x0 space: 1/c_out² of EDM's preconditioning, 1 in the space of its network (Karras et al. 2022, table 1).

    Args:
        sigma_data: standard deviation of the data σ_d, > 0; 1 is `simple_v`.
    """
    sigma_data = check_number("sigma_data", sigma_data, 0.5)
    if not 0 < sigma_data < math.inf:
        raise ValueError(
            f"sigma_data = {sigma_data}; it is the standard deviation of the data: about 0.5 for images on [-1, 1]"
        )
    name = "edm" if sigma_data == 0.5 else f"edm(sigma_data={sigma_data:g})"
    formula = f"S + {1 / sigma_data**2:g}"
    return Weighting(name, formula, _LogRaised(sigma_data), "Karras et al. 2022, table 1")


def _log_of_flow(log_snr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """2 ln(1 + √S)."""
    return 2 * _log1p_exp(log_snr / 2)


TRAINING_WEIGHTINGS: dict[str, Weighting] = {
    w.name: w
    for w in (
        edm(),
        Weighting("simple_flow", "(1 + √S)²", _log_of_flow, "Lipman et al. 2023"),
    )
}
"""Weightings that a training may name besides `WEIGHTINGS`: EDM's, and 1 in the space of a flow's velocity."""

WEIGHTINGS: dict[str, Weighting] = {
    w.name: w
    for w in (
        Weighting("simple", "S", lambda s, t, schedule: s, "Ho et al. 2020, eq. 14"),
        Weighting("simple_x0", "1", lambda s, t, schedule: torch.zeros_like(s)),
        Weighting(
            "simple_v",
            "S + 1",
            lambda s, t, schedule: _log1p_exp(s),
            "Salimans & Ho 2022",
        ),
        Weighting(
            "elbo", "½[S(t−1) − S(t)], t ≥ 2; 1/(2β₁), t = 1", _log_elbo, "Ho et al. 2020, eq. 12"
        ),
        Weighting(
            "truncated_snr",
            "max(S, 1)",
            lambda s, t, schedule: s.clamp(min=0.0),
            "Salimans & Ho 2022",
        ),
        min_snr(),
        p2(),
    )
}
"""Weightings by name; `min_snr(gamma=…)` and `p2(k=…, gamma=…)` make others."""


def _log_v(t: Tensor, schedule: Schedule) -> Tensor:
    return torch.log(schedule.lookup("one_minus_alpha_bar", t))


def _log_score(t: Tensor, schedule: Schedule) -> Tensor:
    return _log_v(t, schedule) - _floored_log_snr(t, schedule)


def _log_mean(t: Tensor, schedule: Schedule) -> Tensor:
    return -2 * torch.log(posterior_coefficients(t, schedule)[0])


def _log_flow(t: Tensor, schedule: Schedule) -> Tensor:
    signal = schedule.lookup("sqrt_alpha_bar", t)
    return _log_v(t, schedule) - 2 * torch.log(
        signal + schedule.lookup("sqrt_one_minus_alpha_bar", t)
    )


_LOG_RATIO: dict[str, Callable[[Tensor, Schedule], Tensor]] = {
    "x0": lambda t, schedule: torch.zeros_like(schedule.lookup("beta", t)),
    "eps": lambda t, schedule: -_floored_log_snr(t, schedule),
    "v": _log_v,
    "score": _log_score,
    "mean": _log_mean,
    "flow": _log_flow,
}
"""ln[(1−ᾱ)/D²] of eq. (3) with D from eq. (2) of the parameterization."""


def _floored_log_snr(t: Tensor, schedule: Schedule) -> Tensor:
    return schedule.lookup("log_snr", t).clamp(min=_LOG_SNR_FLOOR)


def weight(
    weighting: str | Weighting, t: Tensor, schedule: Schedule, *, parameterization: str
) -> Tensor:
    """The factor on the squared error in the space of `parameterization`; eq. (3).

    Args:
        weighting: a name in `WEIGHTINGS` or a `Weighting`.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        parameterization: the space in which the squared error is written.

    Returns:
        float64 `[B]`, on t's device.

    Raises:
        ValueError: unknown name, t outside 1 … T, or a weight that is infinite because ᾱ_t = 0 (checked where t is on
            the CPU): write the loss in x0 or v space there.
        TypeError: a name, a schedule or t of another type.
    """
    check_schedule(schedule)
    check_steps(t, schedule.T)
    check_name("parameterization", parameterization, _LOG_RATIO)
    chosen = named_weighting(weighting)
    log_x0 = chosen.log_weight(_floored_log_snr(t, schedule), t.long(), schedule)
    value = torch.exp(log_x0 + _LOG_RATIO[parameterization](t, schedule))
    if t.device.type == "cpu" and bool(torch.isinf(value).any()):
        step = int(t[torch.isinf(value)][0])
        raise ValueError(
            f"the weight {chosen.name} is infinite in {parameterization} space at t = {step}, where alpha_bar = "
            f"{schedule.alpha_bar[step].item():.3g} (0 is zero terminal SNR); write the loss in x0 or v space"
        )
    return value


def loss(
    prediction: Tensor,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    parameterization: str,
    weighting: str | Weighting,
) -> Tensor:
    """w_t · mean over dims of (prediction − target)².

    For `elbo`, times the number of dims it is the bound's KL term in nats (t ≥ 2), and at t = 1 the Gaussian decoder's
    negative log-likelihood up to its constant ½ ln(2πβ_1) per dim.

    Args:
        prediction: network output `[B, *dims]`; `[B]` means D = 1.
        x0: data, in the same shape.
        eps: the noise that made x_t, in the same shape.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        parameterization: what `prediction` is.
        weighting: a name in `WEIGHTINGS` or a `Weighting`.

    Returns:
        `[B]`. Dtypes may differ, as they do under autocast: the target, its error and the mean are computed in the widest of
        the three, at least float32, and the result is in that dtype. So a bf16 prediction is compared with the unrounded target.

    Raises:
        ValueError: as `target` and `weight`; examples of no number; a weight beyond the range of the dtype (checked where
            t is on the CPU).
        TypeError: as `target` and `weight`.
    """
    check_floating(prediction=prediction, x0=x0, eps=eps)
    check_same_shape(prediction=prediction, x0=x0, eps=eps)
    if 0 in x0.shape[1:]:
        raise ValueError(
            f"x0 has shape {list(x0.shape)}: the mean over dims of no numbers is undefined; [B] is D = 1"
        )
    dtype = torch.promote_types(torch.float32, common_dtype(prediction, x0, eps))
    factor = weight(weighting, t, schedule, parameterization=parameterization)
    check_representable(factor, dtype, f"the weight in {parameterization} space", t)
    # Where weights near the ends of float32 meet errors near the other, 0 · inf would be NaN.
    wide = dtype if schedule.moderate else torch.float64
    wanted = target(parameterization, x0.to(wide), eps.to(wide), t, schedule)
    error = (prediction.to(wide) - wanted)[..., None].flatten(1).square().mean(1)
    return (factor.to(device=error.device, dtype=wide) * error).to(dtype)


def named_weighting(weighting: str | Weighting) -> Weighting:
    """The weighting itself, or the one of that name.

    Raises:
        ValueError: unknown name.
        TypeError: neither a name nor a `Weighting`.
    """
    if isinstance(weighting, Weighting):
        return weighting
    check_name("weighting", weighting, WEIGHTINGS)
    return WEIGHTINGS[weighting]
