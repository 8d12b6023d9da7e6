r"""A second opinion on every verdict "bug": the number at the witness, computed again with 50 digits.

Nothing here comes from `ddpm_ref`, the laws included: from the arguments in a witness the answer is derived by another road where there
is one,

    ᾱ_t          exp Σ ln(1−β_s) instead of a running product,
    μ̃, β̃         precision-weighted product of the two Gaussians instead of Ho et al. eq. 7,
    conversions  through x̂0 and ε̂ = (x_t − √ᾱ x̂0)/√(1−ᾱ) instead of one determinant,
    weights      the squared ratio of two predictions' differences instead of a table of factors,
    KLs          a two-node Gauss–Hermite rule instead of the closed form,
    gradients    a difference quotient of the value, in steps of 1e-15,
    bin masses   ∫ of the density by quadrature instead of a difference of error functions,

(`bench.measure.laws.second_opinion.process`, `bench.measure.laws.second_opinion.density`). A verdict is *confirmed* where the measured number misses this value by more than
1e-9 of its size (or 1e-9 where it is 0): more than rounding in float64. What an implementation draws itself, what no closed form knows, and what depends on
more than the arguments in the witness is not recomputed, and the answer says so.
"""

from collections.abc import Mapping
from typing import Any

from mpmath import mp

from bench.measure.laws.second_opinion import density, distance, process
from bench.measure.laws.second_opinion.algebra import Number, Witness
from bench.measure.laws.second_opinion.process import Found, Quantity

_AGREES = 1e-9

_QUANTITIES: Mapping[str, Quantity] = {
    "q_sample": process.q_sample,
    "posterior(…).mean": process.posterior_mean,
    "posterior(…).variance": process.posterior_variance,
    "posterior(…).log_variance": process.posterior_log_variance,
    "reverse_variance(…)[0]": process.reverse_variance,
    "learned_variance(…)[0]": process.learned_variance,
    "learned_variance(…)[1]": process.learned_variance,
    "last entry of tables['alpha_bar']": process.table,
    "convert": process.convert,
    "convert and back": process.round_trip,
    "target": process.target,
    "sampler_step": process.sampler_step,
    "ancestral_step": process.ancestral_step,
    "weight": process.weight,
    "Σ over t ≥ 2 of the elbo weight in x0 space": process.weights_in_sum,
    "loss": process.loss,
    "hybrid_loss": process.hybrid,
    "bound_term": process.bound_term,
    "prior_kl": process.prior_kl,
    "bound(…).diffusion": process.part_of_bound,
    "bound(…).reconstruction": process.part_of_bound,
    "bound(…).total": process.part_of_bound,
    "bound(…).bits_per_dim": process.part_of_bound,
    "gaussian_kl": density.gaussian_kl,
    "discretized_log_likelihood": density.bin_value,
    "gradient of discretized_log_likelihood in the mean": density.bin_gradient,
    "gaussian_log_prob": density.gaussian_log_prob,
    "mixture_log_prob": density.mixture_log_prob,
    "gaussian_entropy": density.gaussian_entropy,
    "gaussian_denoise": density.gaussian_denoise,
    "mixture_denoise": density.mixture_denoise,
    "empirical_denoise": density.empirical_denoise,
    "rank_limited_excess": density.rank_limited_excess,
    "(D/2) ln 2πe − ½∫[D/(1+γ) − error of mixture_denoise] dγ": density.entropy_by_denoising,
    "gaussian_bound(…).total": density.gaussian_bound,
    "gaussian_bound(N(0, I)).total": density.gaussian_bound,
    "gap at T = 128 over gap at T = 256": density.gap_ratio,
    "limit of the gap on N(0, 1) with the posterior variance": density.gap_limit,
    "limit of the bound, bent interior minus straight": density.interior_limit,
    "sample": density.chain_end,
    "steps at which the bound asks the model": density.asked_by_bound,
    "steps at which the sampler asks the model": density.asked_by_sampler,
    "bits_per_dim": density.bits_per_dim,
    "(number of t, of weights, of t outside 1…T)": density.drawn_steps,
    "frechet_of_moments": distance.frechet_of_moments,
    "frechet_of_features": distance.frechet_of_features,
    "ema": density.moving_average,
}
"""A witness's label → its value."""

_DIFFERENTIATED = {"posterior": "posterior(…).mean", "learned_variance": "learned_variance(…)[1]"}
"""Method → the part of its result that gradients are asked of."""

_IDENTITIES = {
    "√ᾱ x0 + √(1−ᾱ) target − x_t": 0,
    "exp(log-variance)/variance": 1,
    "q_sample keeps (dtype, shape) of x0": 1,
    "loss of doubled dims over loss": 1,
    "Σ over levels of exp(discretized_log_likelihood)": 1,
    "log-likelihood minus that of the mirror image": 0,
    "average of a weight minus what follows from the weight after the step, over the largest move": 0,
    "noise drawn in pieces minus noise drawn at once": 0,
    "Fréchet distance over its closed form on the same features": 1,
    "Fréchet distance of a set from itself, over the features' total variance": 0,
    "features of a batch minus features one by one, and minus a second call": 0,
    "the bare name FID where it does not belong": 0,
    "Fréchet distance in batches over its closed form on the same features": 1,
    "what the network is shown of one colour k, minus (k − 128)/128": 0,
    "what the network is shown of k/255 as a float, minus of k as a byte": 0,
    "what the network is shown of a grey image, minus of the same in three channels": 0,
    "what the network is shown of a small image over its range, minus TensorFlow's bilinear": 0,
}
"""Label → what it is whatever the numbers are."""

_COUNTS = ("number of ", "entries of ", "results of ")
"""Starts of labels of counts of what must not be."""

_DIFFERENCES = (" of its samples one by one", " of contiguous ones")
"""Ends of labels of differences of what must not differ."""

_INEQUALITIES = (
    "gaussian_kl below 0",
    "expected bound below the entropy",
    "nats from [ln β̃_2, ln β_1] to the lower end of the learned range",
)
"""Ends of labels of shortfalls, which are 0 where nothing falls short."""

_MARGINS = {
    "gaussian_kl below 0": 1e-12,
    "expected bound below the entropy": 1e-10,
    "nats from [ln β̃_2, ln β_1]": 1e-11,
    "(D/2) ln 2πe": 1e-4,
    "limit of the gap": 1e-2,
    "limit of the bound": 1e-3,
    "average of a weight": 1e-3,
    "Σ over levels of exp(discretized_log_likelihood)": 1e-10,
    "what the network is shown of one colour": 1 / 127,
    "what the network is shown": 1e-5,
}
"""Starts of labels → by how much (nats, moves of a float32 weight, or of the range −1 … 1) a right implementation may miss the value there: by rounding, or by the law's own numerical
integration or extrapolation."""

_NO_VALUE = {
    "convert": "no number exists there: x_T = ε where ᾱ_T = 0, so x_T says nothing about x0",
    "weight": "no number exists there: the weight grows without bound as ᾱ_T → 0",
}
"""Label → why the only right answer is a refusal or an infinity."""


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
    reason = _without_number(label, str(witness.get("message", "")))
    if reason is not None:
        return _nothing(reason)
    try:
        with mp.workdps(50):
            found = _value(label, witness)
            return _nothing(_not_recomputed(label)) if found is None else _compared(witness, found)
    except (ArithmeticError, LookupError, TypeError, ValueError) as failure:
        return _nothing(f"{_not_recomputed(label)} ({type(failure).__name__}: {failure})")


def _compared(witness: Witness, found: Found) -> dict[str, Any]:
    value, by = found
    measured = float(witness["measured"])
    finite = measured == measured and abs(measured) != float("inf")
    return {
        "value": _digits(value),
        "by": by,
        "measured": measured if finite else str(measured),
        "confirmed": bool(_misses(str(witness["method"]), measured, value)),
    }


def _nothing(why: str) -> dict[str, Any]:
    return {"value": None, "by": why, "measured": None, "confirmed": None}


def _not_recomputed(label: str) -> str:
    return f"not recomputed: {label}"


def _misses(label: str, measured: float, value: Number) -> bool:
    if not mp.isfinite(value):
        return measured != float(value)
    size = abs(value) if value != 0 else mp.one
    margins = (nats for start, nats in _MARGINS.items() if label.startswith(start))
    return not abs(measured - value) <= next(margins, _AGREES * size)


def _digits(value: Number) -> str:
    return str(mp.nstr(value, 50, strip_zeros=False)) if mp.isfinite(value) else str(value)


def _without_number(label: str, message: str) -> str | None:
    """Why there is nothing to compare, None where there is."""
    if " raised " in message:
        return "no number to compare: " + message.partition(" raised ")[2]
    if " has shape " in message:
        return "no number to compare: " + message
    if "no finite value exists" in message:
        return _NO_VALUE.get(label, f"no number exists there: {message}")
    return None


def _value(label: str, witness: Witness) -> Found | None:
    """(value, how), or None where it is not known how."""
    if label in _QUANTITIES:
        return _QUANTITIES[label](witness)
    if label.startswith("tables["):
        return process.table(witness)
    if label.startswith("gradient of "):
        return _gradient(label, witness)
    if label.endswith(_INEQUALITIES):
        return mp.zero, "an inequality: nothing falls short where it holds"
    identity = _identity(label)
    return None if identity is None else (mp.mpf(identity), "an identity: it holds exactly")


def _gradient(label: str, witness: Witness) -> Found | None:
    """The slope of a method's value in one operand, times the cotangent."""
    method, _, operand = label.removeprefix("gradient of ").partition(" in ")
    part = _DIFFERENTIATED.get(method, method)
    if part not in _QUANTITIES or operand not in witness["arguments"]:
        return None
    return process.slope(_QUANTITIES[part], {**witness, "method": part}, operand)


def _identity(label: str) -> int | None:
    """What a quotient is that compares like with like, or a difference or count of what must not differ."""
    if label.startswith(_COUNTS) or label.endswith(_DIFFERENCES):
        return 0
    if label.startswith("weight in ") and " over weight in " in label:
        return 1
    return _IDENTITIES.get(label)
