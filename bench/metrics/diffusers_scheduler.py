"""A diffusers scheduler in our notation: schedule, prediction, variance and clipping as its configuration means them.

Every scheduler with a table of betas describes Ho et al.'s chain, whatever its sampler does with it: Euler, Heun, DPM and their
kin divide x_t by √ᾱ_t (σ space, σ² = (1−ᾱ)/ᾱ) and multiply again before the network is called. Flow matching and EDM do not.

| configuration | here |
|---|---|
| `prediction_type` epsilon, sample, v_prediction | `eps`, `x0`, `v` |
| `variance_type` fixed_small[_log], fixed_large[_log], learned_range | `posterior`, `beta`, `learned_range` |
| `clip_sample`, `clip_sample_range` | predicted x_0 clamped to ± that range |
| `rescale_betas_zero_snr` | β_T = 1: zero terminal SNR |

**Which table.** `add_noise` reads `alphas_cumprod`, so that is what a network was trained on. Where it is the product of 1 − betas, as
nearly always, the betas are used, from which 1−ᾱ follows without cancellation; else the ᾱ are (CogVideoX shifts them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.terminal.usage import UsageError
from ddpm_ref.schedule import Schedule, schedule_from_beta, schedule_from_log_snr

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "original_sample": "x0", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned_range",
}
_REMEDY = (
    "write a factory that scales x_t to variance 1 and returns bench.metrics.foreign_model.Foreign with a ddpm_ref "
    "schedule; docs/elbo-of-your-model.md has one for flow matching and one for EDM"
)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a scheduler says about its model.

    Attributes:
        schedule: the steps of the chain.
        parameterization: what the network predicts.
        variance: `posterior`, `beta` or `learned_range`.
        clip: clamp of the predicted x_0, None = never.
        said: the same in sentences, for the reader of the result.
    """

    schedule: Schedule
    parameterization: str
    variance: str
    clip: float | None
    said: tuple[str, ...]


def made_by_diffusers(thing: object) -> bool:
    """A model or scheduler of diffusers, or of a class derived from one."""
    return any(kind.__module__.partition(".")[0] == "diffusers" for kind in type(thing).__mro__)


def has_betas(scheduler: Any) -> bool:
    """Betas of Ho et al.'s chain: IPNDM's attribute of that name is an angle, without `alphas_cumprod`."""
    return hasattr(scheduler, "betas") and (
        hasattr(scheduler, "alphas_cumprod") or not made_by_diffusers(scheduler)
    )


def without_betas(scheduler: Any) -> str:
    """Why such a scheduler has no bound here, by its name."""
    name = type(scheduler).__name__
    if "flow" in name.lower():
        why = "its path is flow matching, x_t = (1 - s) x0 + s eps"
    elif hasattr(scheduler, "sigmas") or "sigma_max" in getattr(scheduler, "config", {}):
        why = "it works in sigma space, x_t = x0 + sigma eps, with scaled inputs to the model"
    else:
        why = "it describes no chain q(x_t | x_(t-1)) of Ho et al."
    return f"{name} has no betas: {why}. To measure its model, {_REMEDY}"


def read(scheduler: Any) -> Reading:
    """A scheduler with betas.

    Raises:
        UsageError: a setting under which the model means something that no bound is defined for.
    """
    name, config = type(scheduler).__name__, scheduler.config
    _refuse(name, config)
    prediction = config.get("prediction_type") or "epsilon"
    variance = config.get("variance_type")
    for kind, value, known in (
        ("prediction_type", prediction, PREDICTIONS),
        ("variance_type", variance or "fixed_small", VARIANCES),
    ):
        if value not in known:
            raise UsageError(
                f"{kind} {value!r} of {name} has no bound here; known: {', '.join(known)}"
            )
    schedule, tables = _schedule(scheduler)
    clip = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None
    said = (
        f"{name}: T = {schedule.T}",
        f"prediction_type {prediction}: the model predicts {PREDICTIONS[prediction]}",
        f"variance_type {variance}: {VARIANCES[variance]}"
        if variance
        else "no variance_type: posterior",
        "clip_sample false: nothing clipped"
        if clip is None
        else f"clip_sample true, clip_sample_range {clip:g}: predicted x0 clipped (--clip never leaves it out)",
        *(["zero terminal SNR"] if schedule.beta[-1] == 1 else []),
        *tables,
    )
    return Reading(
        schedule, PREDICTIONS[prediction], VARIANCES[variance or "fixed_small"], clip, said
    )


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    """Settings that change what the model is, or what its sampler does, beyond what a bound follows."""
    if config.get("thresholding"):
        raise UsageError(
            f"{name} has thresholding=True: predicted x0 is clipped at a quantile of itself, and so its mean is not Ho et al.'s; "
            "set it to false in the scheduler's configuration to measure the model without it"
        )
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise UsageError(
            f"{name} has prediction_type flow_prediction or use_flow_sigmas: its betas are not used, its path is flow matching, "
            f"x_t = (1 - s) x0 + s eps; {_REMEDY}"
        )
    if config.get("timestep_type") == "continuous":
        raise UsageError(
            f"{name} has timestep_type continuous: the model takes ln(sigma)/4 as EDM's, not a step; {_REMEDY}"
        )


def _schedule(scheduler: Any) -> tuple[Schedule, list[str]]:
    """The schedule that the network was trained on, and what has to be said about its tables."""
    beta = torch.as_tensor(scheduler.betas).double()
    found = schedule_of(beta)
    given = getattr(scheduler, "alphas_cumprod", None)
    if given is None:
        return found, []
    kept = torch.as_tensor(given).double()
    if kept.shape == beta.shape and belongs(kept, found.alpha_bar[1:]):
        return found, []
    return schedule_from_log_snr(kept.log() - torch.log1p(-kept)), [
        "alphas_cumprod is not the product of 1 - betas: the bound takes alphas_cumprod, as add_noise does"
    ]


def belongs(kept: Tensor, exact: Tensor) -> bool:
    """ᾱ in float32 is the exact one but for rounding: 1e-6, and 1e-4 of itself after a thousand factors."""
    return bool(((kept - exact).abs() <= 1e-6 + 1e-4 * exact).all())


def schedule_of(beta: Tensor) -> Schedule:
    """A schedule from β_1 … β_T `[T]`, also where β_T = 1 (zero terminal SNR)."""
    if beta[-1] < 1:
        return schedule_from_beta(beta)
    kept = torch.log1p(-beta[:-1]).cumsum(0)
    log_snr = kept - (-torch.expm1(kept)).log()
    return schedule_from_log_snr([*log_snr.tolist(), -torch.inf])
