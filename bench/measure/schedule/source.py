"""A schedule as somebody states it: a name, a scheduler_config.json of diffusers, or a JSON file with tables.

What a file says is kept as it stands (`tables`), beside the schedule in float64 that follows from it; whether they agree is judged by
`bench.measure.schedule.findings`. Configurations are evaluated in closed form, without diffusers:

    linear              β_t from beta_start to beta_end, evenly                                Ho et al. 2020
    scaled_linear       √β_t evenly                                                            Rombach et al. 2022
    squaredcos_cap_v2   `cosine_schedule`                                                      Nichol & Dhariwal 2021
    sigmoid             β_t = σ(−6 … 6)(beta_end − beta_start) + beta_start                    GeoDiff, Xu et al. 2022
    FlowMatch…          x_t = (1−s)x_0 + sε, hence λ = 2 ln((1−s)/s) after division by √((1−s)² + s²)     Lipman et al. 2023
    EDM…                x_t = x_0 + σε, hence λ = −2 ln σ after division by √(1 + σ²)          Karras et al. 2022
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.metrics.diffusers_scheduler import schedule_of
from bench.terminal.usage import UsageError, readable_file, unknown
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    cosine_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_log_snr,
)

_TABLES = {
    "beta": "beta",
    "betas": "beta",
    "alpha_bar": "alpha_bar",
    "alphas_cumprod": "alpha_bar",
    "log_snr": "log_snr",
    "snr": "snr",
    "sigmas": "sigma",
}
"""Names in a file → what they mean: β, ᾱ, ln SNR, SNR = ᾱ/(1−ᾱ), σ = √((1−ᾱ)/ᾱ), each for t = 1 … T."""

_SPACINGS = ("leading", "linspace", "trailing")
_LARGEST, _MOST_STEPS = 1e300, 10_000_000
_CLEAN = {"beta": 0.0, "alpha_bar": 1.0, "log_snr": math.inf, "snr": math.inf, "sigma": 0.0}


@dataclass(frozen=True, eq=False)
class Stated:
    """A schedule with what was said about it.

    Attributes:
        name: for the title.
        tables: by meaning, each `[T]` float64 for t = 1 … T, as given.
        schedule: what follows from them, None where they describe none.
        reason: why there is none.
        predicts: `eps`, `x0`, `v`, or `velocity` of flow matching.
        spacing: how a sampler of fewer steps chooses them: `leading`, `linspace` or `trailing`.
        offset: added to each chosen step.
        said: what was read.
    """

    name: str
    tables: Mapping[str, Tensor]
    schedule: Schedule | None
    reason: str = ""
    predicts: str = "eps"
    spacing: str = "leading"
    offset: int = 0
    said: tuple[str, ...] = field(default=())


def _scaled_linear_schedule(
    T: int, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """√β_t from √beta_start to √beta_end, evenly: latent and Stable Diffusion (Rombach et al. 2022, their code)."""
    return schedule_of(_between(math.sqrt(beta_start), math.sqrt(beta_end), T) ** 2)


NAMED: dict[str, Callable[[int], Schedule]] = {
    **SCHEDULES,
    "scaled_linear": _scaled_linear_schedule,
}
"""Names that `ddpm-bench schedule` takes: ours, and Stable Diffusion's."""


def _between(start: float, end: float, T: int) -> Tensor:
    fraction = torch.arange(T, dtype=torch.float64) / max(T - 1, 1)
    return start * (1 - fraction) + end * fraction


def read(spec: str, T: int | None, zero_terminal_snr: bool) -> Stated:
    """The schedule of a name or a file.

    Raises:
        UsageError: an unknown name, a file that is none, or options that belong to a name.
    """
    if spec in NAMED:
        try:
            schedule = NAMED[spec](T or 1000)
            if zero_terminal_snr:
                schedule = rescale_to_zero_terminal_snr(schedule)
        except ValueError as error:
            raise UsageError(f"schedule {spec}, T = {T}: {error}") from error
        return Stated(spec, {"beta": schedule.beta[1:]}, schedule, said=("closed form in float64",))
    if not spec.endswith(".json"):
        raise unknown("schedule", spec, [*NAMED, "FILE.json"])
    for option, given in (("--T", T), ("--zero-terminal-snr", zero_terminal_snr or None)):
        if given is not None:
            raise UsageError(f"{option} belongs to a name: {spec} brings its own; leave it out")
    path = readable_file(spec)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UsageError(f"{spec} cannot be read as JSON: it is nested too deeply") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{spec} cannot be read as JSON: {error}") from error
    if not isinstance(entries, dict):
        raise UsageError(
            f"{spec} holds a {type(entries).__name__}: an object is expected, such as a scheduler_config.json"
        )
    return from_entries(path.name, entries)


def from_entries(name: str, entries: Mapping[str, Any]) -> Stated:
    """A configuration or tables, as JSON holds them."""
    given = {
        meaning: _numbers(name, key, entries[key])
        for key, meaning in _TABLES.items()
        if isinstance(entries.get(key), list)
    }
    if given:
        return _from_tables(name, given, entries)
    if "beta_schedule" not in entries and "_class_name" not in entries:
        raise UsageError(
            f"{name} is neither a diffusers configuration (_class_name, beta_schedule) nor does it hold a table; "
            f"tables: {', '.join(_TABLES)}"
        )
    return _from_configuration(name, entries)


def _numbers(name: str, key: str, values: list[Any]) -> Tensor:
    """A table as float64; JSON's NaN and null are kept as NaN, for the findings."""
    try:
        table = torch.tensor(
            [math.nan if v is None else float(v) for v in values], dtype=torch.float64
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name}: {key} holds something that is not a number: {error}") from error
    if table.numel() == 0:
        raise UsageError(f"{name}: {key} is empty; give a number for each step")
    meaning = _TABLES[key]
    clean = table[0].item() == _CLEAN[meaning]
    return table[1:] if clean and len(table) > 1 else table


def _number(entries: Mapping[str, Any], key: str, usual: float) -> float:
    """An entry as a finite float; where it is missing or null, `usual`."""
    value = entries.get(key)
    if value is None:
        return usual
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -_LARGEST <= value <= _LARGEST:
        raise UsageError(
            f"{key} = {str(value)[:40]!r}: a finite number is expected, such as {usual:g}"
        )
    return float(value)


def _whole(entries: Mapping[str, Any], key: str, usual: int, least: int) -> int:
    """An entry as an int from `least` to the most steps that a schedule may have; where it is missing or null, `usual`."""
    value = _number(entries, key, usual)
    if value != int(value) or not least <= value <= _MOST_STEPS:
        raise UsageError(
            f"{key} = {value:g}: a whole number from {least} to {_MOST_STEPS:,} is expected, such as {usual}"
        )
    return int(value)


def _options(entries: Mapping[str, Any]) -> dict[str, Any]:
    predictions = {
        "epsilon": "eps",
        "sample": "x0",
        "v_prediction": "v",
        "flow_prediction": "velocity",
    }
    prediction = entries.get("prediction_type") or "epsilon"
    spacing = entries.get("timestep_spacing") or _SPACINGS[0]
    for kind, name, known in (
        ("prediction_type", prediction, tuple(predictions)),
        ("timestep_spacing", spacing, _SPACINGS),
    ):
        if name not in known:
            raise unknown(kind, str(name), known)
    return {
        "predicts": predictions[prediction],
        "spacing": spacing,
        "offset": _whole(entries, "steps_offset", 0, least=0),
    }


def _from_tables(name: str, given: Mapping[str, Tensor], entries: Mapping[str, Any]) -> Stated:
    """The schedule of the most exact table: β, else λ, else what λ follows from."""
    options = _options(entries)
    try:
        schedule = _schedule(given)
    except ValueError as error:
        return Stated(name, given, None, str(error), **options)
    return Stated(name, given, schedule, said=(f"tables {', '.join(given)}",), **options)


def _schedule(given: Mapping[str, Tensor]) -> Schedule:
    if "beta" in given:
        return schedule_of(given["beta"])
    return schedule_from_log_snr(_log_snr_of(given))


def _log_snr_of(given: Mapping[str, Tensor]) -> Tensor:
    """λ `[T]` of the first table there is."""
    if "log_snr" in given:
        return given["log_snr"]
    if "snr" in given:
        return given["snr"].log()
    if "sigma" in given:
        return -2 * given["sigma"].log()
    return given["alpha_bar"].log() - torch.log1p(-given["alpha_bar"])


def _from_configuration(name: str, entries: Mapping[str, Any]) -> Stated:
    kind = str(entries.get("_class_name", "a scheduler"))
    T = _whole(entries, "num_train_timesteps", 1000, least=1)
    options = _options(entries)
    if "FlowMatch" in kind:
        s = torch.arange(1, T + 1, dtype=torch.float64) / T
        shift = _positive(entries, "shift", 1.0)
        s = shift * s / (1 + (shift - 1) * s)
        log_snr = 2 * (torch.log1p(-s) - s.log())
        said = f"{kind}: flow matching with shift {shift:g}, x_t divided by sqrt((1-s)^2 + s^2)"
        options["predicts"] = "velocity"
        return Stated(name, {"log_snr": log_snr}, _rising(kind, log_snr), said=(said,), **options)
    if kind.startswith("EDM"):
        log_snr = -2 * _edm_sigmas(entries, T).log()
        said = f"{kind}: sigma space, x_t divided by sqrt(1 + sigma^2)"
        options["predicts"] = "v"
        return Stated(name, {"log_snr": log_snr}, _rising(kind, log_snr), said=(said,), **options)
    schedule = _configured(kind, entries, T)
    said = f"{kind}: {entries.get('beta_schedule', 'linear')}, evaluated in float64"
    return Stated(name, {"beta": schedule.beta[1:]}, schedule, said=(said,), **options)


def _rising(kind: str, log_snr: Tensor) -> Schedule:
    try:
        return schedule_from_log_snr(log_snr)
    except ValueError as error:
        raise UsageError(f"{kind}: {error}") from error


def _positive(entries: Mapping[str, Any], key: str, usual: float) -> float:
    value = _number(entries, key, usual)
    if value <= 0:
        raise UsageError(f"{key} = {value:g}: a number above 0 is expected, such as {usual:g}")
    return value


def _truth(entries: Mapping[str, Any], key: str) -> bool:
    value = entries.get(key)
    if not isinstance(value, bool | None):
        raise UsageError(f"{key} = {str(value)[:40]!r}: true or false is expected")
    return bool(value)


def _edm_sigmas(entries: Mapping[str, Any], T: int) -> Tensor:
    """σ rising (Karras et al. 2022, eq. 5, or geometric)."""
    low, high = _positive(entries, "sigma_min", 0.002), _positive(entries, "sigma_max", 80.0)
    spacing = entries.get("sigma_schedule") or "karras"
    if spacing not in ("karras", "exponential"):
        raise unknown("sigma_schedule", str(spacing), ("karras", "exponential"))
    if spacing == "exponential":
        return torch.exp(_between(math.log(low), math.log(high), T))
    rho = _positive(entries, "rho", 7.0)
    return _between(low ** (1 / rho), high ** (1 / rho), T) ** rho


def _configured(kind: str, entries: Mapping[str, Any], T: int) -> Schedule:
    start, end = _number(entries, "beta_start", 1e-4), _number(entries, "beta_end", 0.02)
    named: dict[str, Callable[[], Schedule]] = {
        "linear": lambda: linear_schedule(T, start, end),
        "scaled_linear": lambda: _scaled_linear_schedule(T, start, end),
        "squaredcos_cap_v2": lambda: cosine_schedule(T),
        "sigmoid": lambda: schedule_of(torch.sigmoid(_between(-6, 6, T)) * (end - start) + start),
    }
    trained = entries.get("trained_betas")
    choice = entries.get("beta_schedule", "linear")
    if trained is not None and not isinstance(trained, list):
        raise UsageError(
            f"{kind}: trained_betas is a {type(trained).__name__}: a list of numbers is expected"
        )
    if not trained and (not isinstance(choice, str) or choice not in named):
        raise unknown("beta_schedule", str(choice), [*named, "trained_betas"])
    try:
        schedule = schedule_of(_numbers(kind, "betas", trained)) if trained else named[choice]()
        shift = _positive(entries, "snr_shift_scale", 1.0)
        if shift != 1 and "CogVideoX" in kind:
            schedule = schedule_from_log_snr(schedule.log_snr[1:] - math.log(shift))
        return (
            rescale_to_zero_terminal_snr(schedule)
            if _truth(entries, "rescale_betas_zero_snr")
            else schedule
        )
    except ValueError as error:
        raise UsageError(f"{kind}, {choice}, T = {T}: {error}") from error
