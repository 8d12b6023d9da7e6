r"""What there is to say about a schedule: errors, which make it unusable or contradict each other, and notes.

**Terminal step.** Sampling starts from N(0, I), training ended at q(x_T) with √ᾱ_T of the data left (Lin et al. 2024). For data with variance ℓ
and mean μ along a direction, E[x_0|x_T] = μ + k(x_T − √ᾱ μ) with k = √ᾱ ℓ/d, d = ᾱℓ + 1−ᾱ. Started from N(0, 1) in place of N(√ᾱ μ, d), the
exact reverse process ends with

    mean μ(1−ᾱ)/d,        variance k² + ℓ(1−ᾱ)/d        in place of μ, ℓ,                                         (1)

so that a picture's brightness (nearly the largest eigenvalue's direction) is pulled towards 0, grey. L_T is between
−½(ᾱ_T + ln(1−ᾱ_T)) nats/dim for x_0 = 0 and −½ ln(1−ᾱ_T) for |x_0| = 1.

**Precision.** Where ᾱ is rounded to 16 bits before 1−ᾱ is formed, the first steps have no noise at all: ᾱ rounds to 1.

**Monotone weighting** (Kingma & Gao 2023). Σ_t w_t L_t with w_t = (factor on the squared error)/(factor of the bound), in any space, is by Abel's summation

    Σ_{t ≥ 2} w_t L_t = Σ_{s ≥ 2} p_w(s) Σ_{t ≥ s} L_t,        p_w(s) = w_s − w_{s−1},   w_1 = 0,                  (2)

a mixture of bounds of noisy data exactly where w never falls with t. The decoder's term, t = 1, stands apart. For a weighting with its own
density of λ the bound's factor is the one in continuous time, so that w is w̃(λ).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.measure.laws.published_weightings import DRAWN, PUBLISHED, spacing
from bench.measure.schedule.source import Stated
from ddpm_ref.objective import WEIGHTINGS, Weighting, weight
from ddpm_ref.schedule import Schedule

_AGREE = {"beta": 1e-4, "alpha_bar": 1e-4, "snr": 1e-3, "log_snr": 1e-3, "sigma": 1e-3}
"""How far a table in float32 may be from the one that follows from another: 1−ᾱ by subtraction loses 2^−24/(1−ᾱ_1) = 6e-4 of itself."""
_FALL = 1e-9
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def error(text: str) -> dict[str, str]:
    """A finding that makes the exit status 1."""
    return {"level": "error", "text": text}


def note(text: str) -> dict[str, str]:
    """A finding to know about."""
    return {"level": "note", "text": text}


def _weighting_named(name: str) -> Weighting:
    """One of `ddpm_ref`'s or of the published ones.

    Raises:
        ValueError: an unknown name.
    """
    from ddpm_ref.validation import unknown_name

    known = {**WEIGHTINGS, **PUBLISHED}
    if name not in known:
        raise unknown_name("weighting", name, known)
    return known[name]


def examine(
    stated: Stated,
    *,
    steps: Sequence[int] = (),
    weightings: Sequence[str] = (),
    parameterization: str | None = None,
    data: Tensor | None = None,
) -> dict[str, Any]:
    """Everything about a schedule, as JSON values.

    Args:
        stated: what somebody says.
        steps: numbers of steps of a sampler.
        weightings: names to look at; those whose monotony is asked for.
        parameterization: what the network predicts; None = as the file says.
        data: images `[N, …]` for the bias of the last step.
    """
    predicts = parameterization or stated.predicts
    findings = _table_errors(stated)
    found: dict[str, Any] = {
        "name": stated.name, "read": list(stated.said), "predicts": predicts, "findings": findings,
    }  # fmt: skip
    schedule = stated.schedule
    if schedule is None:
        if not any(each["level"] == "error" for each in findings):
            findings.append(error(stated.reason))
        return found
    found |= {"T": schedule.T, **_terminal(schedule), "vanishing": _vanishing_steps(schedule)}
    found["spacing"] = [row for n in steps for row in sampler_steps(stated, schedule.T, n)]
    found["weightings"] = [monotony(name, schedule, predicts) for name in weightings]
    found["curves"] = _curves(schedule, weightings)
    if data is not None:
        found["leak"] = leak(schedule, data)
    findings += (
        _undefined(schedule, predicts) + _notes(found) + _outside(found["spacing"], schedule.T)
    )
    return found


def _table_errors(stated: Stated) -> list[dict[str, str]]:
    """NaN, values that no schedule has, and tables that do not belong to each other."""
    found = []
    for name, table in stated.tables.items():
        bad = torch.isnan(table)
        if name != "log_snr":
            bad |= torch.isinf(table)
        if bool(bad.any()):
            t = bad.tolist().index(True) + 1
            found.append(error(f"{name}[{t}] is {table[t - 1].item()}"))
    if found or stated.schedule is None:
        return found
    exact = stated.schedule
    expected = {
        "beta": exact.beta, "alpha_bar": exact.alpha_bar, "log_snr": exact.log_snr,
        "snr": exact.log_snr.exp(), "sigma": (-exact.log_snr / 2).exp(),
    }  # fmt: skip
    for name, table in stated.tables.items():
        if len(table) != exact.T:
            found.append(error(f"{name} has {len(table)} entries, the schedule {exact.T} steps"))
            continue
        off = ~_close(table, expected[name][1:], _AGREE[name], absolute=name == "log_snr")
        if bool(off.any()):
            t = off.tolist().index(True) + 1
            first = next(iter(stated.tables)) if "beta" not in stated.tables else "beta"
            found.append(
                error(
                    f"{name} does not belong to {first}: {name}[{t}] = {table[t - 1].item():.6g}, but {expected[name][t].item():.6g} follows; "
                    f"{int(off.sum())} of {exact.T} steps differ"
                )
            )
    return found


def _close(given: Tensor, expected: Tensor, tolerance: float, *, absolute: bool) -> Tensor:
    scale = torch.ones_like(expected) if absolute else expected.abs()
    same = (given == expected) | ((given - expected).abs() <= tolerance * scale + 1e-9)
    return same | (expected == math.inf) | (expected == -math.inf)


def _terminal(schedule: Schedule) -> dict[str, float | None]:
    """√ᾱ_T, SNR(T), λ_T, and L_T in bits per dimension for x_0 = 0 and |x_0| = 1."""
    kept = schedule.alpha_bar[-1].item()
    log_left = math.log1p(-kept)
    log_snr = schedule.log_snr[-1].item()
    return {
        "sqrt_alpha_bar_T": math.sqrt(kept),
        "snr_T": kept / schedule.one_minus_alpha_bar[-1].item(),
        "log_snr_T": log_snr if math.isfinite(log_snr) else None,
        "log_snr_1": schedule.log_snr[1].item(),
        "beta_1": schedule.beta[1].item(),
        "beta_T": schedule.beta[-1].item(),
        "prior_bits_zero": _prior_at_zero(kept) / math.log(2),
        "prior_bits_one": -0.5 * log_left / math.log(2),
    }


def _prior_at_zero(kept: float) -> float:
    """−½(ᾱ + ln(1−ᾱ)), by its series ½(ᾱ²/2 + ᾱ³/3 + …) where the two cancel."""
    if kept > 0.05:
        return -0.5 * (kept + math.log1p(-kept))
    return 0.5 * math.fsum(kept**k / k for k in range(2, 14))


def _vanishing_steps(schedule: Schedule) -> dict[str, int]:
    """How many first steps have ᾱ = 1 in 16 bits."""
    kept = schedule.alpha_bar[1:]
    return {name: int((kept.to(dtype).double() == 1).sum()) for name, dtype in _HALF.items()}


def sampler_steps(stated: Stated, T: int, n: int) -> list[dict[str, Any]]:
    """First and last step, t = 1 … T, of a sampler with n steps, in each spacing of diffusers (Lin et al. 2024, table 2)."""
    schedule = stated.schedule
    assert schedule is not None
    rows = []
    for kind in ("leading", "linspace", "trailing"):
        chosen = _chosen(kind, T, n, stated.offset)
        last = chosen[-1]
        inside = 1 <= last <= T
        rows.append(
            {
                "steps": n, "spacing": kind, "configured": kind == stated.spacing, "first": chosen[0], "last": last,
                "sqrt_alpha_bar": math.sqrt(schedule.alpha_bar[last].item()) if inside else None,
            }
        )  # fmt: skip
    return rows


def _chosen(kind: str, T: int, n: int, offset: int) -> list[int]:
    """Steps of ours, ascending; `round` rounds halves to even, as NumPy does."""
    if kind == "leading":
        return [k * (T // n) + 1 + offset for k in range(n)]
    if kind == "linspace":
        return [round(k * (T - 1) / max(n - 1, 1)) + 1 for k in range(n)]
    return sorted(round(T - k * (T / n)) for k in range(n))


def _outside(rows: Sequence[dict[str, Any]], T: int) -> list[dict[str, str]]:
    return [
        error(
            f"a sampler with {row['steps']} {row['spacing']} steps asks for t = {row['last']}, but there are {T}: lower steps_offset"
        )
        for row in rows
        if row["configured"] and not 1 <= row["last"] <= T
    ]


def _undefined(schedule: Schedule, predicts: str) -> list[dict[str, str]]:
    if schedule.alpha_bar[-1] == 0 and predicts in ("eps", "score"):
        return [
            error(
                f"a network that predicts {predicts} says nothing about x0 at T = {schedule.T}: alpha_bar_T = 0 divides by zero; "
                "predict v or x0 under zero terminal SNR"
            )
        ]
    return []


def _notes(found: dict[str, Any]) -> list[dict[str, str]]:
    said = []
    if found["sqrt_alpha_bar_T"] > 0:
        said.append(
            note(
                f"{found['sqrt_alpha_bar_T']:.4g} of the data is left at T, while sampling starts from pure noise: "
                f"L_T = {found['prior_bits_zero']:.3g} … {found['prior_bits_one']:.3g} bits/dim for |x0| from 0 to 1"
            )
        )
    lost = {name: count for name, count in found["vanishing"].items() if count}
    if lost:
        said.append(
            note(
                "no noise at all in "
                + ", ".join(f"the first {count} steps in {name}" for name, count in lost.items())
                + ", where alpha_bar is rounded before 1 - alpha_bar is formed: form coefficients in float64, round last"
            )
        )
    said += [
        note(
            f"with {row['steps']} {row['spacing']} steps sampling starts at t = {row['last']} of {found['T']}, "
            f"where {row['sqrt_alpha_bar']:.3g} of the data is left; trailing starts at T"
        )
        for row in found["spacing"]
        if row["configured"] and row["last"] < found["T"]
    ]
    said += [
        note(
            f"{row['name']}: not monotone: w falls {row['falls']} times between t = {row['from']} and {row['to']}"
        )
        for row in found["weightings"]
        if not row["monotone"]
    ]
    return said


def leak(schedule: Schedule, data: Tensor) -> dict[str, float]:
    """(1) along the direction of the largest variance of the data `[N, …]`, and L_T of the data, bits per dimension."""
    from ddpm_ref.terms import prior_kl

    rows = data.flatten(1).double()
    centre = rows.mean(0)
    _, singular, directions = torch.linalg.svd(rows - centre, full_matrices=False)
    variance = (singular[0] ** 2 / max(len(rows) - 1, 1)).item()
    mean = abs(float(centre @ directions[0]))
    kept, left = schedule.alpha_bar[-1].item(), schedule.one_minus_alpha_bar[-1].item()
    reached = kept * variance + left
    gain = math.sqrt(kept) * variance / reached
    return {
        "largest_eigenvalue": variance,
        "mean": mean,
        "mean_sampled": mean * left / reached,
        "deviation": math.sqrt(variance),
        "deviation_sampled": math.sqrt(gain**2 + variance * left / reached),
        "prior_bits": prior_kl(data, schedule).mean().item() / (rows.shape[1] * math.log(2)),
    }


def relative_weights(name: str, schedule: Schedule) -> Tensor:
    """w_t of (2) for t = 2 … T, in x0 space, where every factor is finite.

    A density of λ ends before the last two steps of zero terminal SNR, whose d_t is infinite.
    """
    t = torch.arange(2, schedule.T + 1)
    if name in DRAWN:
        t = t[torch.isfinite(spacing(t, schedule))]
    bound = PUBLISHED["continuous_elbo"] if name in DRAWN else WEIGHTINGS["elbo"]
    factors = (
        weight(each, t, schedule, parameterization="x0") for each in (_weighting_named(name), bound)
    )
    return next(factors) / next(factors)


def monotony(name: str, schedule: Schedule, predicts: str) -> dict[str, Any]:
    """Whether w rises with t, with p_w of (2) in units of the largest w, which sums to 1 where it does."""
    values = relative_weights(name, schedule) if schedule.T > 1 else torch.ones(1)
    rise = values.diff()
    falls = (rise < -_FALL * values[:-1].abs()).nonzero().flatten().tolist()
    density = torch.cat([values[:1], rise]) / values.max()
    return {
        "name": name,
        "output": predicts,
        "monotone": not falls,
        "falls": len(falls),
        "from": falls[0] + 3 if falls else None,
        "to": falls[-1] + 3 if falls else None,
        "p_w": density.tolist(),
    }


def _curves(schedule: Schedule, weightings: Sequence[str]) -> dict[str, Any]:
    """What the picture shows, over λ_t for t = 2 … T where finite."""
    t = torch.arange(2, schedule.T + 1)
    t = t[torch.isfinite(schedule.log_snr[t])]
    t = t[torch.isfinite(spacing(t, schedule))]
    density = 1 / (schedule.T * spacing(t, schedule))
    weights = {}
    for name in weightings if len(t) else ():
        values = relative_weights(name, schedule)[: len(t)]
        weights[name] = (values / values.max()).tolist()
    return {
        "log_snr": schedule.log_snr[t].tolist(),
        "t": t.tolist(),
        "density": density.tolist(),
        "weights": weights,
    }
