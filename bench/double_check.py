r"""A second opinion on every verdict "bug": the number at the witness, computed again with 50 digits.

Nothing here comes from `ddpm_ref`, the laws included: from the arguments in a witness the answer is derived by another road where there
is one,

    ᾱ_t          exp Σ ln(1−β_s) instead of a running product,
    μ̃, β̃         precision-weighted product of the two Gaussians instead of Ho et al. eq. 7,
    conversions  through x̂0 and ε̂ = (x_t − √ᾱ x̂0)/√(1−ᾱ) instead of one determinant,
    weights      the squared ratio of two predictions' differences instead of a table of factors,
    bin masses   ∫ of the density by quadrature instead of a difference of error functions.

A verdict is *confirmed* where the measured number misses this value by more than 1e-9 of its size (or 1e-9 where it is 0): more than
rounding in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpmath import mp

from bench.fifty_digits import Number, Step, Witness, bars

_AGREES = 1e-9


def double_check(law: str, witness: Witness | None) -> dict[str, Any] | None:
    """The value at a witness with 50 digits, how it was found, and whether the measured number misses it.

    Args:
        law: id of the law, which says what a count or a refusal was about.
        witness: as in `Outcome.witness`.

    Returns:
        `value` (50 digits, or None where there is no number), `by`, `measured`, `confirmed` (None where nothing can be compared);
        None without a witness.
    """
    if witness is None:
        return None
    label = str(witness["method"])
    try:
        with mp.workdps(50):
            found = _value(label, witness)
    except (ArithmeticError, LookupError, TypeError, ValueError) as failure:
        return _nothing(f"not computed for this setting: {type(failure).__name__}: {failure}")
    if found is None:
        return _nothing(_without_number(witness))
    value, by = found
    measured = float(witness["measured"])
    return {
        "value": _digits(value),
        "by": by,
        "measured": measured
        if measured == measured and abs(measured) != float("inf")
        else str(measured),
        "confirmed": bool(_misses(measured, value)),
    }


def _nothing(why: str) -> dict[str, Any]:
    return {"value": None, "by": why, "measured": None, "confirmed": None}


def _misses(measured: float, value: Number) -> bool:
    if not mp.isfinite(value):
        return measured != float(value)
    size = abs(value) if value != 0 else mp.one
    return not abs(measured - value) <= _AGREES * size


def _digits(value: Number) -> str:
    return str(mp.nstr(value, 50, strip_zeros=False)) if mp.isfinite(value) else str(value)


def _without_number(witness: Witness) -> str:
    message = str(witness.get("message", ""))
    if " raised " in message:
        return "no number to compare: " + message.partition(" raised ")[2]
    if " has shape " in message:
        return "no number to compare: " + message
    return "no number exists there: x_T = ε where ᾱ_T = 0, so x_T says nothing about x0"


def _value(label: str, witness: Witness) -> tuple[Number, str] | None:
    """(value, how), or None where there is no number."""
    message = str(witness.get("message", ""))
    if any(words in message for words in (" raised ", " has shape ", "no finite value exists")):
        return None
    if label in _IDENTITIES or label.startswith("number of"):
        return mp.mpf(_IDENTITIES.get(label, 0)), "an identity: it holds exactly"
    for start, quantity in _QUANTITIES.items():
        if label.startswith(start):
            return quantity(witness)
    return None


# ------------------------------------------------------------------------------------------------ quantities


def _pick(nested: Any, index: Sequence[int]) -> Number:
    for k in index:
        nested = nested[k]
    return mp.mpf(nested)


def _at(witness: Witness) -> tuple[Step, Callable[[str], Number], Mapping[str, Any]]:
    """The step of the failing sample, its arguments by name at the failing element, and all arguments."""
    arguments, index = witness["arguments"], witness["index"]
    step = Step(arguments["setting"], int(arguments["t"][index[0]]))
    return step, lambda name: _pick(arguments[name], index), arguments


def _q_sample(witness: Witness) -> tuple[Number, str]:
    step, at, _ = _at(witness)
    return step.a * at("x0") + step.s * at("noise"), "√ᾱ x0 + √(1−ᾱ) ε, ᾱ = exp Σ ln(1−β)"


def _posterior_mean(witness: Witness) -> tuple[Number, str]:
    step, at, _ = _at(witness)
    return step.mean(at("x0"), at("x_t")), "precision-weighted mean of two Gaussians"


def _posterior_log_variance(witness: Witness) -> tuple[Number, str]:
    step, _, _ = _at(witness)
    value = mp.log(step.variance) if step.variance > 0 else mp.ninf
    return value, "ln of the inverse of the sum of two precisions"


def _reverse_variance(witness: Witness) -> tuple[Number, str]:
    step, _, arguments = _at(witness)
    return step.reverse(arguments["variance"]), "1 − ᾱ_t/ᾱ_{t−1}, or the inverse sum of precisions"


def _table(witness: Witness) -> tuple[Number, str]:
    setting, label = witness["arguments"]["setting"], witness["method"]
    last = len(bars(setting)) - 1
    step = Step(setting, last if label.startswith("last") else witness["index"][0] + 1)
    columns: dict[str, Callable[[], Number]] = {
        "beta": lambda: step.beta,
        "one_minus_alpha_bar": lambda: 1 - step.kept,
        "alpha_bar": lambda: step.kept,
        "log_snr": lambda: 2 * mp.log(step.a / step.s),
        "snr": lambda: (step.a / step.s) ** 2,
        "posterior_variance": lambda: step.variance,
    }
    key = label.partition("'")[2].partition("'")[0]
    return columns[key](), "from the schedule's definition"


def _convert(witness: Witness) -> tuple[Number, str]:
    step, at, arguments = _at(witness)
    clean = step.clean(arguments["source"], at("prediction"), at("x_t"))
    return step.say(arguments["to"], clean, at("x_t")), "through x̂0 and ε̂"


def _target(witness: Witness) -> tuple[Number, str]:
    step, at, arguments = _at(witness)
    x_t = step.a * at("x0") + step.s * at("eps")
    return step.say(arguments["parameterization"], at("x0"), x_t), "from x0 and x_t"


def _weight(witness: Witness) -> tuple[Number, str]:
    arguments, index = witness["arguments"], witness["index"]
    step = Step(arguments["setting"], int(arguments["t"][index[0]]))
    value = step.weight(arguments["weighting"], arguments["parameterization"])
    return value, "its definition, carried over by the squared slope between the two spaces"


def _flat(nested: Any) -> list[Number]:
    return (
        [mp.mpf(nested)]
        if not isinstance(nested, list)
        else [v for part in nested for v in _flat(part)]
    )


def _sample(witness: Witness, *names: str) -> tuple[Step, list[list[Number]], Mapping[str, Any]]:
    """The step and the flat operands of the failing sample."""
    arguments, which = witness["arguments"], witness["index"][0]
    step = Step(arguments["setting"], int(arguments["t"][which]))
    return step, [_flat(arguments[name][which]) for name in names], arguments


def _loss(witness: Witness) -> tuple[Number, str]:
    step, (said, clean, noise), arguments = _sample(witness, "prediction", "x0", "eps")
    space = arguments["parameterization"]
    errors = [
        (p - step.say(space, x, step.a * x + step.s * e)) ** 2
        for p, x, e in zip(said, clean, noise, strict=True)
    ]
    factor = step.weight(arguments["weighting"], space)
    return factor * sum(errors) / len(errors), "weight times mean squared error"


def _bound_term(witness: Witness) -> tuple[Number, str]:
    step, (said, clean, noisy), arguments = _sample(witness, "prediction", "x0", "x_t")
    spread = step.reverse(arguments["variance"])
    total = mp.zero
    for p, x, y in zip(said, clean, noisy, strict=True):
        gap = step.mean(x, y) - step.mean(step.clean(arguments["parameterization"], p, y), y)
        total += (mp.log(spread / step.variance) + (step.variance + gap**2) / spread - 1) / 2
    return total, "Σ over dims of the KL between the two Gaussians"


def _sampler_step(witness: Witness) -> tuple[Number, str]:
    step, at, arguments = _at(witness)
    clean = step.clean(arguments["parameterization"], at("prediction"), at("x_t"))
    if step.first:
        return clean, "the last step is x̂0"
    if arguments["sampler"] == "ddpm":
        return step.mean(clean, at("x_t")) + mp.sqrt(step.variance) * at(
            "noise"
        ), "the posterior at x̂0"
    sigma = arguments["eta"] * mp.sqrt(step.variance)
    direction = mp.sqrt(max(1 - step.before - sigma**2, 0)) * step.say("eps", clean, at("x_t"))
    value = mp.sqrt(step.before) * clean + direction + sigma * at("noise")
    return value, "Song et al. 2021, eq. 12, to the step before it in the list"


def _bin(witness: Witness) -> tuple[Number, Number, Number, Number]:
    """(low, high, mean, scale) of the failing element's bin; the outer ends are infinite."""
    arguments, index = witness["arguments"], witness["index"]
    x, mean = _pick(arguments["x"], index), _pick(arguments["mean"], index)
    scale, levels = mp.exp(_pick(arguments["log_scale"], index)), arguments["levels"]
    half = mp.one / (levels - 1)
    place = int(mp.nint((x + 1) / (2 * half)))
    centre = -1 + 2 * half * place
    low = mp.ninf if place == 0 else centre - half
    high = mp.inf if place == levels - 1 else centre + half
    return low, high, mean, scale


def _mass(low: Number, high: Number, mean: Number, scale: Number) -> Number:
    ends = [(e - mean) / scale for e in (low, high)]
    return mp.quad(mp.npdf, ends)


def _bin_value(witness: Witness) -> tuple[Number, str]:
    return mp.log(_mass(*_bin(witness))), "ln ∫ of the normal density over the bin, by quadrature"


def _bin_gradient(witness: Witness) -> tuple[Number, str]:
    low, high, mean, scale = _bin(witness)
    ends = [mp.npdf((e - mean) / scale) if mp.isfinite(e) else mp.zero for e in (low, high)]
    value = (ends[0] - ends[1]) / (scale * _mass(low, high, mean, scale))
    return value, "difference of the density at the bin's ends over its mass"


def _gaussian_denoise(witness: Witness) -> tuple[Number, str]:
    step, (noisy,), arguments = _sample(witness, "x_t")
    mean, covariance = mp.matrix(_flat(arguments["mean"])), mp.matrix(arguments["covariance"])
    spread = step.kept * covariance + (1 - step.kept) * mp.eye(len(noisy))
    gain = mp.lu_solve(spread, mp.matrix(noisy) - step.a * mean)
    answer = mean + step.a * covariance * gain
    return answer[witness["index"][1]], "linear regression of x0 on x_t"


def _hybrid(witness: Witness) -> tuple[Number, str]:
    arguments, index = witness["arguments"], witness["index"]
    simple, term = (_pick(arguments[name], index) for name in ("simple", "bound_term"))
    steps = len(bars(arguments["setting"])) - 1
    return simple + mp.mpf("0.001") * steps * term, "L_simple + λ T L_t"


_IDENTITIES = {
    "√ᾱ x0 + √(1−ᾱ) target − x_t": 0,
    "exp(log-variance)/variance": 1,
}

_QUANTITIES: dict[str, Callable[[Witness], tuple[Number, str]]] = {
    "q_sample keeps": lambda witness: (1, "yes or no"),
    "q_sample": _q_sample,
    "posterior(…).mean": _posterior_mean,
    "posterior(…).log_variance": _posterior_log_variance,
    "reverse_variance": _reverse_variance,
    "tables": _table,
    "last entry of tables": _table,
    "convert": _convert,
    "target": _target,
    "weight": _weight,
    "loss": _loss,
    "bound_term": _bound_term,
    "sampler_step": _sampler_step,
    "discretized_log_likelihood": _bin_value,
    "gradient of discretized_log_likelihood": _bin_gradient,
    "gaussian_denoise": _gaussian_denoise,
    "hybrid_loss": _hybrid,
}
"""Start of a witness's label → its value."""
