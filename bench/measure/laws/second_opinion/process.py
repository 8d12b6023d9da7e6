r"""What the number at a witness should be, 50 digits: quantities of one step of the process, and sums of them.

Each function takes a witness and returns (value, by which road). The roads are those of `bench.measure.laws.second_opinion.algebra`; a KL is taken by

    KL(N_1 ‖ N_2) = ½ Σ_{z = ±1} [ln N_1(m_1 + σ_1 z) − ln N_2(m_1 + σ_1 z)],                              (1)

the Gauss–Hermite rule with two nodes, exact for an integrand that is quadratic in z, instead of the closed form.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpmath import mp

from bench.measure.laws.second_opinion.algebra import (
    Number,
    Step,
    Witness,
    bars,
    bin_mass,
    step_of,
    steps_of,
)

Found = tuple[Number, str]
Quantity = Callable[[Witness], Found]


def pick(nested: Any, index: Sequence[int]) -> Number:
    """The element of nested lists at an index; a number stands for a list of equal ones."""
    for k in index:
        nested = nested[k] if isinstance(nested, list) else nested
    return mp.mpf(nested)


def flat(nested: Any) -> list[Number]:
    """The numbers in nested lists, in row-major order."""
    if not isinstance(nested, list):
        return [mp.mpf(nested)]
    return [value for part in nested for value in flat(part)]


def _at_element(witness: Witness) -> tuple[Step, Callable[[str], Number], Mapping[str, Any]]:
    """The step of the failing sample, its arguments by name at the failing element, and all arguments."""
    arguments, index = witness["arguments"], witness["index"]
    step = step_of(arguments["setting"], int(arguments["t"][index[0]]))
    return step, lambda name: pick(arguments[name], index), arguments


def at_sample(witness: Witness, *names: str) -> tuple[Step, list[list[Number]], Mapping[str, Any]]:
    """The step and the flat operands of the failing sample."""
    arguments, which = witness["arguments"], witness["index"][0]
    step = step_of(arguments["setting"], int(arguments["t"][which]))
    return step, [flat(arguments[name][which]) for name in names], arguments


def log_normal(x: Number, mean: Number, variance: Number) -> Number:
    """ln N(x; mean, variance)."""
    return -((x - mean) ** 2 / variance + mp.log(2 * mp.pi * variance)) / 2


def divergence(mean1: Number, variance1: Number, mean2: Number, variance2: Number) -> Number:
    """KL of two Gaussians by eq. (1)."""
    nodes = [mean1 + sign * mp.sqrt(variance1) for sign in (-1, 1)]
    gaps = [log_normal(x, mean1, variance1) - log_normal(x, mean2, variance2) for x in nodes]
    return sum(gaps) / 2


# ------------------------------------------------------------------------------------------------ one step


def q_sample(witness: Witness) -> Found:
    """x_t."""
    step, at, _ = _at_element(witness)
    return step.a * at("x0") + step.s * at("noise"), "√ᾱ x0 + √(1−ᾱ) ε, ᾱ = exp Σ ln(1−β)"


def posterior_mean(witness: Witness) -> Found:
    """μ̃."""
    step, at, _ = _at_element(witness)
    return step.mean(at("x0"), at("x_t")), "precision-weighted mean of two Gaussians"


def posterior_variance(witness: Witness) -> Found:
    """β̃."""
    step, _, _ = _at_element(witness)
    return (
        step.variance,
        "the inverse of the sum of two precisions; 0 at t = 1, where one is infinite",
    )


def posterior_log_variance(witness: Witness) -> Found:
    """ln β̃."""
    step, _, _ = _at_element(witness)
    value = mp.log(step.variance) if step.variance > 0 else mp.ninf
    return value, "ln of the inverse of the sum of two precisions"


def reverse_variance(witness: Witness) -> Found:
    """β_t or β̃_t."""
    step, _, arguments = _at_element(witness)
    return step.reverse(arguments["variance"]), "1 − ᾱ_t/ᾱ_{t−1}, or the inverse sum of precisions"


def learned_variance(witness: Witness) -> Found:
    """σ² (entry 0) or ln σ² (entry 1) of what a network says: a power of the one end times a power of the other."""
    step, at, arguments = _at_element(witness)
    said = at("said")
    if arguments["meaning"] == "log":
        value, by = mp.exp(said), "the exponential of what the network says"
    elif said == 1:
        value, by = step.beta, "β_t, the upper end"
    else:
        value, by = step.beta**said * step.variance ** (1 - said), "β_t^v β̃_t^(1−v)"
    return (value, by) if witness["method"].endswith("[0]") else (mp.log(value), f"ln of {by}")


def table(witness: Witness) -> Found:
    """An entry of a schedule's table."""
    setting, label = witness["arguments"]["setting"], witness["method"]
    last = len(bars(setting)) - 1
    step = step_of(setting, last if label.startswith("last") else witness["index"][0] + 1)
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


def convert(witness: Witness) -> Found:
    """A prediction in another space."""
    step, at, arguments = _at_element(witness)
    clean = step.clean(arguments["source"], at("prediction"), at("x_t"))
    return step.say(arguments["to"], clean, at("x_t")), "through x̂0 and ε̂"


def round_trip(witness: Witness) -> Found:
    """A prediction in another space and back."""
    return pick(witness["arguments"]["prediction"], witness["index"]), "the prediction itself"


def target(witness: Witness) -> Found:
    """What the network is trained to say."""
    step, at, arguments = _at_element(witness)
    x_t = step.a * at("x0") + step.s * at("eps")
    return step.say(arguments["parameterization"], at("x0"), x_t), "from x0 and x_t"


def sampler_step(witness: Witness) -> Found:
    """x_{t−1}."""
    step, at, arguments = _at_element(witness)
    clean = step.clean(arguments["parameterization"], at("prediction"), at("x_t"))
    if step.first:
        return clean, "the last step is x̂0"
    if arguments["sampler"] == "ddpm":
        drawn = mp.sqrt(step.variance) * at("noise")
        return step.mean(clean, at("x_t")) + drawn, "the posterior at x̂0"
    sigma = arguments["eta"] * mp.sqrt(step.variance)
    direction = mp.sqrt(max(1 - step.before - sigma**2, 0)) * step.say("eps", clean, at("x_t"))
    value = mp.sqrt(step.before) * clean + direction + sigma * at("noise")
    return value, "Song et al. 2021, eq. 12, to the step before it in the list"


def ancestral_step(witness: Witness) -> Found:
    """x_{t−1} with a choice of variance."""
    step, at, arguments = _at_element(witness)
    clean = step.clean(arguments["parameterization"], at("prediction"), at("x_t"))
    if step.first:
        return clean, "the last step is x̂0"
    drawn = mp.sqrt(step.reverse(arguments["variance"])) * at("noise")
    return step.mean(clean, at("x_t")) + drawn, "the posterior's mean at x̂0, and σ z"


# ------------------------------------------------------------------------------------------------ objectives


def weight(witness: Witness) -> Found:
    """A weighting's factor."""
    arguments, index = witness["arguments"], witness["index"]
    step = step_of(arguments["setting"], int(arguments["t"][index[0]]))
    by = "its definition, carried over by the squared slope between the two spaces"
    if step.kept == 0:
        step, by = Step(step.before, mp.mpf("1e-40"), first=step.first), f"{by}, at ᾱ_T = 1e-40"
    return step.weight(arguments["weighting"], arguments["parameterization"]), by


def weights_in_sum(witness: Witness) -> Found:
    """Σ_{t≥2} of the bound's weight in x0 space."""
    later = steps_of(witness["arguments"]["setting"])[1:]
    return sum(
        step.weight("elbo", "x0") for step in later
    ), "each weight by its definition, added up"


def loss(witness: Witness) -> Found:
    """Weighted mean squared error."""
    step, (said, clean, noise), arguments = at_sample(witness, "prediction", "x0", "eps")
    space = arguments["parameterization"]
    errors = [
        (p - step.say(space, x, step.a * x + step.s * e)) ** 2
        for p, x, e in zip(said, clean, noise, strict=True)
    ]
    factor = step.weight(arguments["weighting"], space)
    return factor * sum(errors) / len(errors), "weight times mean squared error"


def hybrid(witness: Witness) -> Found:
    """L_simple + λ L_vlb."""
    arguments, index = witness["arguments"], witness["index"]
    simple, term = (pick(arguments[name], index) for name in ("simple", "bound_term"))
    steps = len(bars(arguments["setting"])) - 1
    return simple + mp.mpf("0.001") * steps * term, "L_simple + λ T L_t"


def slope(quantity: Quantity, witness: Witness, operand: str) -> Found:
    """How a quantity moves with the failing element of one operand, times the cotangent: a central difference, right to 30 digits."""
    arguments, index, h = witness["arguments"], witness["index"], mp.mpf("1e-15")

    def moved(by: Number) -> Number:
        changed = {**arguments, operand: _shifted(arguments[operand], index, by)}
        return quantity({**witness, "arguments": changed})[0]

    value = pick(arguments["cotangent"], index) * (moved(h) - moved(-h)) / (2 * h)
    return value, "a difference quotient of the value, in steps of 1e-15, times the cotangent"


def _shifted(nested: Any, index: Sequence[int], by: Number) -> Any:
    """Nested lists with one number moved."""
    if not isinstance(nested, list):
        return mp.mpf(nested) + by
    return [_shifted(v, index[1:], by) if k == index[0] else v for k, v in enumerate(nested)]


# ------------------------------------------------------------------------------------------------ the bound


def bound_term(witness: Witness) -> Found:
    """One KL, summed over dims."""
    step, (said, clean, noisy), arguments = at_sample(witness, "prediction", "x0", "x_t")
    space = arguments["parameterization"]
    guesses = [step.clean(space, p, y) for p, y in zip(said, noisy, strict=True)]
    return _kl(step, arguments["variance"], clean, guesses, noisy), "Σ over dims, " + _TWO_NODES


def prior_kl(witness: Witness) -> Found:
    """KL(q(x_T | x_0) ‖ N(0, I))."""
    arguments = witness["arguments"]
    return _prior(bars(arguments["setting"])[-1], flat(_sample(arguments, witness))), _TWO_NODES


def part_of_bound(witness: Witness) -> Found:
    """A field of the bound for a model that always says the same x0."""
    arguments, field = witness["arguments"], witness["method"].rpartition(".")[2]
    clean = flat(_sample(arguments, witness))
    guess = flat(constant(arguments["model"]))
    guess = guess * len(clean) if len(guess) == 1 else guess
    steps, variance = steps_of(arguments["setting"]), arguments["variance"]
    still = [mp.zero] * len(clean)
    if field == "diffusion":
        step = steps[witness["index"][1] + 1]
        return _kl(step, variance, clean, guess, still), "Σ over dims, " + _TWO_NODES
    decoded = _decoded(steps[0], clean, guess, arguments)
    if field == "reconstruction":
        return decoded, "−ln of the decoder, dim by dim"
    terms = sum(_kl(step, variance, clean, guess, still) for step in steps[1:])
    total = _prior(steps[-1].kept, clean) + terms + decoded
    scale = len(clean) * mp.log(2) if field == "bits_per_dim" else 1
    return total / scale, "prior, KLs and decoder, dim by dim"


_TWO_NODES = "KL by the two-node Gauss–Hermite rule"


def constant(model: str) -> Any:
    """What a model that always says the same x0 says, from its words in a witness."""
    return json.loads(model.removeprefix("always x0 = "))


def _sample(arguments: Mapping[str, Any], witness: Witness) -> Any:
    return arguments["x0"][witness["index"][0]]


def _prior(kept: Number, clean: Sequence[Number]) -> Number:
    return sum(divergence(mp.sqrt(kept) * x, 1 - kept, mp.zero, mp.one) for x in clean)


def _kl(
    step: Step,
    variance: str,
    clean: Sequence[Number],
    guesses: Sequence[Number],
    noisy: Sequence[Number],
) -> Number:
    """The posterior of x0 against that of the guess, with the chain's own variance for the second."""
    spread = step.reverse(variance)
    return sum(
        divergence(step.mean(x, y), step.variance, step.mean(g, y), spread)
        for x, g, y in zip(clean, guesses, noisy, strict=True)
    )


def _decoded(
    step: Step, clean: Sequence[Number], guesses: Sequence[Number], arguments: Mapping[str, Any]
) -> Number:
    """−ln p(x0 | x_1), whose mean at t = 1 is the guess and whose variance is β_1."""
    pairs = list(zip(clean, guesses, strict=True))
    if arguments["decoder"] == "gaussian":
        return -sum(log_normal(x, g, step.beta) for x, g in pairs)
    scale, levels = mp.sqrt(step.beta), arguments["levels"]
    return -sum(mp.log(bin_mass(x, g, scale, levels)) for x, g in pairs)
