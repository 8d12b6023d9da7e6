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

Number = Any
"""An mpmath real."""
Witness = Mapping[str, Any]

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
    from mpmath import mp

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
    from mpmath import mp

    if not mp.isfinite(value):
        return measured != float(value)
    size = abs(value) if value != 0 else mp.one
    return not abs(measured - value) <= _AGREES * size


def _digits(value: Number) -> str:
    from mpmath import mp

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
    from mpmath import mp

    message = str(witness.get("message", ""))
    if any(words in message for words in (" raised ", " has shape ", "no finite value exists")):
        return None
    if label in _IDENTITIES or label.startswith("number of"):
        return mp.mpf(_IDENTITIES.get(label, 0)), "an identity: it holds exactly"
    for start, quantity in _QUANTITIES.items():
        if label.startswith(start):
            return quantity(witness)
    return None


# ------------------------------------------------------------------------------------------------ schedules


def _beta(setting: Witness) -> list[Number]:
    """β_1 … β_T by definition."""
    from mpmath import mp

    name, T = setting["name"], setting["T"]
    if "beta" in setting:
        return [mp.mpf(value) for value in setting["beta"]]
    if name == "linear":
        low, high = mp.mpf("0.0001"), mp.mpf("0.02")
        return [low + (high - low) * k / max(T - 1, 1) for k in range(T)]
    curve = {"cosine": _cosine, "sigmoid": _sigmoid}[name]
    kept = [curve(mp.mpf(k) / T) for k in range(T + 1)]
    return [min(1 - kept[k + 1] / kept[k], mp.mpf("0.999")) for k in range(T)]


def _cosine(u: Number) -> Number:
    from mpmath import mp

    return (1 + mp.cos(mp.pi * (u + mp.mpf("0.008")) / mp.mpf("1.008"))) / 2


def _sigmoid(u: Number) -> Number:
    """(σ(3) − σ(6u − 3))/(σ(3) − σ(−3)), with σ(x) = (1 + tanh(x/2))/2."""
    from mpmath import mp

    top = mp.tanh(mp.mpf(3) / 2)
    return (top - mp.tanh(3 * u - mp.mpf(3) / 2)) / (2 * top)


def _bars(setting: Witness) -> list[Number]:
    """ᾱ at 0 and at each visited step."""
    from mpmath import mp

    if "log_snr" in setting:
        every = [mp.one, *(1 / (1 + mp.exp(-mp.mpf(v))) for v in setting["log_snr"])]
    else:
        total, every = mp.zero, [mp.one]
        for value in _beta(setting):
            total += mp.log(1 - value)
            every.append(mp.exp(total))
    if setting.get("zero_terminal_snr"):
        every = _rescaled(every)
    return (
        every
        if "timesteps" not in setting
        else [every[0], *(every[k] for k in setting["timesteps"])]
    )


def _rescaled(kept: Sequence[Number]) -> list[Number]:
    """Lin et al. 2024, algorithm 1."""
    from mpmath import mp

    first, last = mp.sqrt(kept[1]), mp.sqrt(kept[-1])
    return [mp.one, *((mp.sqrt(k) - last) ** 2 * (first / (first - last)) ** 2 for k in kept[1:])]


class _Step:
    """One step t of a setting: signal a, noise s, the pair before it, β, and the two Gaussians that meet in the posterior."""

    def __init__(self, setting: Witness, t: int) -> None:
        from mpmath import mp

        bars = _bars(setting)
        self.T = len(bars) - 1
        self.kept, self.before = bars[t], bars[t - 1]
        self.a, self.s = mp.sqrt(self.kept), mp.sqrt(1 - self.kept)
        self.beta = 1 - self.kept / self.before
        self.first = t == 1

    @property
    def variance(self) -> Number:
        """β̃: inverse of the sum of two precisions; 0 at t = 1."""
        if self.first:
            return 0 * self.beta
        return 1 / (1 / (1 - self.before) + (1 - self.beta) / self.beta)

    def mean(self, x0: Number, x_t: Number) -> Number:
        """μ̃: precision-weighted; x0 at t = 1."""
        from mpmath import mp

        if self.first:
            return x0
        prior = mp.sqrt(self.before) * x0 / (1 - self.before)
        return self.variance * (prior + mp.sqrt(1 - self.beta) * x_t / self.beta)

    def clean(self, space: str, said: Number, x_t: Number) -> Number:
        """x̂0 from a prediction."""
        if space == "mean":
            nothing = self.mean(0, x_t)
            return (said - nothing) / (self.mean(1, x_t) - nothing)
        rows: dict[str, Callable[[], Number]] = {
            "x0": lambda: said,
            "eps": lambda: (x_t - self.s * said) / self.a,
            "v": lambda: self.a * x_t - self.s * said,
            "score": lambda: (x_t + self.s**2 * said) / self.a,
        }
        return rows[space]()

    def say(self, space: str, x0: Number, x_t: Number) -> Number:
        """The prediction that means x̂0 = x0."""
        eps = (x_t - self.a * x0) / self.s
        rows: dict[str, Callable[[], Number]] = {
            "x0": lambda: x0,
            "eps": lambda: eps,
            "v": lambda: self.a * eps - self.s * x0,
            "score": lambda: -eps / self.s,
            "mean": lambda: self.mean(x0, x_t),
        }
        return rows[space]()

    def weight(self, weighting: str, space: str) -> Number:
        """The factor in that space, from its definition in one space and the slope between the two."""
        slope = self.say(space, 1, 0) - self.say(space, 0, 0)
        eps_slope = self.say("eps", 1, 0) - self.say("eps", 0, 0)
        snr = (self.a / self.s) ** 2
        definitions: dict[str, Callable[[], Number]] = {
            "simple": lambda: eps_slope**2,
            "simple_x0": lambda: self.kept**0,
            "simple_v": lambda: snr + 1,
            "elbo": lambda: self._elbo(),
            "truncated_snr": lambda: max(snr, 1),
            "min_snr": lambda: min(snr, 5),
            "p2": lambda: snr / (1 + snr),
        }
        return definitions[weighting]() / slope**2

    def _elbo(self) -> Number:
        if self.first:
            return 1 / (2 * self.beta)
        return (self.mean(1, 0) - self.mean(0, 0)) ** 2 / (2 * self.variance)

    def reverse(self, variance: str) -> Number:
        """β_t, or β̃_t with β_1 at t = 1."""
        return self.beta if variance == "beta" or self.first else self.variance


# ------------------------------------------------------------------------------------------------ quantities


def _pick(nested: Any, index: Sequence[int]) -> Number:
    from mpmath import mp

    for k in index:
        nested = nested[k]
    return mp.mpf(nested)


def _at(witness: Witness) -> tuple[_Step, Callable[[str], Number], Mapping[str, Any]]:
    """The step of the failing sample, its arguments by name at the failing element, and all arguments."""
    arguments, index = witness["arguments"], witness["index"]
    step = _Step(arguments["setting"], int(arguments["t"][index[0]]))
    return step, lambda name: _pick(arguments[name], index), arguments


def _q_sample(witness: Witness) -> tuple[Number, str]:
    step, at, _ = _at(witness)
    return step.a * at("x0") + step.s * at("noise"), "√ᾱ x0 + √(1−ᾱ) ε, ᾱ = exp Σ ln(1−β)"


def _posterior_mean(witness: Witness) -> tuple[Number, str]:
    step, at, _ = _at(witness)
    return step.mean(at("x0"), at("x_t")), "precision-weighted mean of two Gaussians"


def _posterior_log_variance(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

    step, _, _ = _at(witness)
    value = mp.log(step.variance) if step.variance > 0 else mp.ninf
    return value, "ln of the inverse of the sum of two precisions"


def _reverse_variance(witness: Witness) -> tuple[Number, str]:
    step, _, arguments = _at(witness)
    return step.reverse(arguments["variance"]), "1 − ᾱ_t/ᾱ_{t−1}, or the inverse sum of precisions"


def _table(witness: Witness) -> tuple[Number, str]:
    setting, label = witness["arguments"]["setting"], witness["method"]
    last = len(_bars(setting)) - 1
    step = _Step(setting, last if label.startswith("last") else witness["index"][0] + 1)
    from mpmath import mp

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
    step = _Step(arguments["setting"], int(arguments["t"][index[0]]))
    value = step.weight(arguments["weighting"], arguments["parameterization"])
    return value, "its definition, carried over by the squared slope between the two spaces"


def _flat(nested: Any) -> list[Number]:
    from mpmath import mp

    return (
        [mp.mpf(nested)]
        if not isinstance(nested, list)
        else [v for part in nested for v in _flat(part)]
    )


def _sample(witness: Witness, *names: str) -> tuple[_Step, list[list[Number]], Mapping[str, Any]]:
    """The step and the flat operands of the failing sample."""
    arguments, which = witness["arguments"], witness["index"][0]
    step = _Step(arguments["setting"], int(arguments["t"][which]))
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
    from mpmath import mp

    step, (said, clean, noisy), arguments = _sample(witness, "prediction", "x0", "x_t")
    spread = step.reverse(arguments["variance"])
    total = mp.zero
    for p, x, y in zip(said, clean, noisy, strict=True):
        gap = step.mean(x, y) - step.mean(step.clean(arguments["parameterization"], p, y), y)
        total += (mp.log(spread / step.variance) + (step.variance + gap**2) / spread - 1) / 2
    return total, "Σ over dims of the KL between the two Gaussians"


def _sampler_step(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

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
    from mpmath import mp

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
    from mpmath import mp

    ends = [(e - mean) / scale for e in (low, high)]
    return mp.quad(mp.npdf, ends)


def _bin_value(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

    return mp.log(_mass(*_bin(witness))), "ln ∫ of the normal density over the bin, by quadrature"


def _bin_gradient(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

    low, high, mean, scale = _bin(witness)
    ends = [mp.npdf((e - mean) / scale) if mp.isfinite(e) else mp.zero for e in (low, high)]
    value = (ends[0] - ends[1]) / (scale * _mass(low, high, mean, scale))
    return value, "difference of the density at the bin's ends over its mass"


def _gaussian_denoise(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

    step, (noisy,), arguments = _sample(witness, "x_t")
    mean, covariance = mp.matrix(_flat(arguments["mean"])), mp.matrix(arguments["covariance"])
    spread = step.kept * covariance + (1 - step.kept) * mp.eye(len(noisy))
    gain = mp.lu_solve(spread, mp.matrix(noisy) - step.a * mean)
    answer = mean + step.a * covariance * gain
    return answer[witness["index"][1]], "linear regression of x0 on x_t"


def _hybrid(witness: Witness) -> tuple[Number, str]:
    from mpmath import mp

    arguments, index = witness["arguments"], witness["index"]
    simple, term = (_pick(arguments[name], index) for name in ("simple", "bound_term"))
    steps = len(_bars(arguments["setting"])) - 1
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
