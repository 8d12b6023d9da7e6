r"""What the number at a witness should be, 50 digits: densities, exact models, expected bounds, averages.

Each function takes a witness and returns (value, by which road):

    bin masses        ∫ of the density by quadrature instead of a difference of error functions,
    Bayes' rule       plain products of densities instead of a log-sum-exp,
    expected bounds   the error of the best model as the trace of (C⁻¹ + SNR·I)⁻¹ instead of Σ c s²/(ᾱc + s²),
    moving averages   the recursion instead of its unrolled sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mpmath import mp

from bench.measure.laws.second_opinion.algebra import (
    Number,
    Step,
    Witness,
    bin_edges,
    bin_mass,
    step_of,
    steps_of,
)
from bench.measure.laws.second_opinion.process import (
    Found,
    at_sample,
    constant,
    divergence,
    flat,
    log_normal,
    pick,
)

# ------------------------------------------------------------------------------------------------ pairs of Gaussians, bins


def gaussian_kl(witness: Witness) -> Found:
    """KL of two Gaussians."""
    names = ("mean1", "log_var1", "mean2", "log_var2")
    m1, l1, m2, l2 = (pick(witness["arguments"][name], witness["index"]) for name in names)
    value = divergence(m1, mp.exp(l1), m2, mp.exp(l2))
    return value, "KL by the two-node Gauss–Hermite rule"


def _bin(witness: Witness) -> tuple[Number, Number, Number, int]:
    arguments, index = witness["arguments"], witness["index"]
    x, mean, log_scale = (pick(arguments[name], index) for name in ("x", "mean", "log_scale"))
    return x, mean, mp.exp(log_scale), arguments["levels"]


def bin_value(witness: Witness) -> Found:
    """ln of a bin's mass."""
    value = mp.log(bin_mass(*_bin(witness)))
    return value, "ln ∫ of the normal density over the bin, by quadrature"


def bin_gradient(witness: Witness) -> Found:
    """Its derivative in the mean."""
    x, mean, scale, levels = _bin(witness)
    ends = [
        mp.npdf((edge - mean) / scale) if mp.isfinite(edge) else mp.zero
        for edge in bin_edges(x, levels)
    ]
    value = (ends[0] - ends[1]) / (scale * bin_mass(x, mean, scale, levels))
    return value, "difference of the density at the bin's ends over its mass"


# ------------------------------------------------------------------------------------------------ exact models


def _density(x: Sequence[Number], mean: Sequence[Number], covariance: Any) -> Number:
    """N(x; mean, covariance)."""
    spread, gap = mp.matrix(covariance), mp.matrix(x) - mp.matrix(mean)
    whitened = (gap.T * mp.lu_solve(spread, gap))[0]
    return mp.exp(-whitened / 2) / mp.sqrt(mp.det(2 * mp.pi * spread))


def gaussian_log_prob(witness: Witness) -> Found:
    """ln N(x_0; mean, covariance)."""
    arguments = witness["arguments"]
    x0 = flat(arguments["x0"][witness["index"][0]])
    value = mp.log(_density(x0, flat(arguments["mean"]), arguments["covariance"]))
    return value, "ln of the density"


def mixture_log_prob(witness: Witness) -> Found:
    """ln Σ w N."""
    arguments = witness["arguments"]
    x0 = flat(arguments["x0"][witness["index"][0]])
    parts = zip(flat(arguments["weights"]), *_components(arguments), strict=True)
    return mp.log(sum(w * _density(x0, m, c) for w, m, c in parts)), "ln of the sum of densities"


def gaussian_entropy(witness: Witness) -> Found:
    """½ ln det(2πe C)."""
    spread = mp.matrix(witness["arguments"]["covariance"])
    return mp.log(mp.det(2 * mp.pi * mp.e * spread)) / 2, "½ ln det(2πe C)"


def _components(arguments: Mapping[str, Any]) -> tuple[list[list[Number]], Any]:
    return [flat(mean) for mean in arguments["means"]], arguments["covariances"]


def _noised(step: Step, covariance: Any) -> Any:
    """ᾱ C + (1−ᾱ) I, the covariance of x_t."""
    spread = mp.matrix(covariance)
    return step.kept * spread + (1 - step.kept) * mp.eye(spread.rows)


def _regression(
    step: Step, noisy: Sequence[Number], mean: Sequence[Number], covariance: Any
) -> Any:
    """E[x_0 | x_t] of one Gaussian."""
    centre = mp.matrix(mean)
    gain = mp.lu_solve(_noised(step, covariance), mp.matrix(noisy) - step.a * centre)
    return centre + step.a * mp.matrix(covariance) * gain


def gaussian_denoise(witness: Witness) -> Found:
    """E[x_0 | x_t] of Gaussian data."""
    step, (noisy,), arguments = at_sample(witness, "x_t")
    answer = _regression(step, noisy, flat(arguments["mean"]), arguments["covariance"])
    return answer[witness["index"][1]], "linear regression of x0 on x_t"


def mixture_denoise(witness: Witness) -> Found:
    """E[x_0 | x_t] of a mixture."""
    step, (noisy,), arguments = at_sample(witness, "x_t")
    total, mass = mp.zero, mp.zero
    for w, m, c in zip(flat(arguments["weights"]), *_components(arguments), strict=True):
        share = w * _density(noisy, [step.a * v for v in m], _noised(step, c).tolist())
        total += share * _regression(step, noisy, m, c)[witness["index"][1]]
        mass += share
    return total / mass, "Bayes' rule with plain densities"


def empirical_denoise(witness: Witness) -> Found:
    """E[x_0 | x_t] of a finite data set."""
    step, (noisy,), arguments = at_sample(witness, "x_t")
    total, mass = mp.zero, mp.zero
    for row in arguments["data"]:
        point = flat(row)
        logs = [log_normal(y, step.a * x, step.s**2) for y, x in zip(noisy, point, strict=True)]
        share = mp.exp(sum(logs))
        total += share * point[witness["index"][1]]
        mass += share
    return total / mass, "Bayes' rule with plain densities"


def rank_limited_excess(witness: Witness) -> Found:
    """What the best linear network of a rank errs by beyond E[x_0 | x_t]."""
    arguments, which = witness["arguments"], witness["index"][0]
    step = step_of(arguments["setting"], int(arguments["t"][which]))
    space = arguments["parameterization"]
    in_x0, in_noise = (step.say(space, x0, step.a * x0 + step.s * e) for x0, e in ((1, 0), (0, 1)))
    slope = step.say(space, 1, 0) - step.say(space, 0, 0)

    def price(spread: Number) -> Number:
        shared = in_x0 * step.a * spread + in_noise * step.s
        return shared**2 / (step.kept * spread + 1 - step.kept) / slope**2

    prices = sorted(price(spread) for spread in flat(arguments["eigenvalues"]))
    lost = prices[: len(prices) - int(arguments["rank"])]
    return sum(lost, mp.zero), "the smallest Cov²/(Var κ²), one for each eigenvalue of the data"


def entropy_by_denoising(witness: Witness) -> Found:
    """−E ln p of a mixture with diagonal covariances: closed for one part, by quadrature on the line."""
    arguments = witness["arguments"]
    means, covariances = _components(arguments)
    if len(means) == 1:
        return mp.log(mp.det(2 * mp.pi * mp.e * mp.matrix(covariances[0]))) / 2, "½ ln det(2πe C)"
    weights = flat(arguments["weights"])

    def integrand(x: Number) -> Number:
        parts = zip(weights, means, covariances, strict=True)
        density = sum(w * mp.exp(log_normal(x, m[0], mp.mpf(c[0][0]))) for w, m, c in parts)
        return -density * mp.log(density)

    return mp.quad(integrand, mp.linspace(-20, 20, 21)), "−∫ p ln p by quadrature"


# ------------------------------------------------------------------------------------------------ expected bounds


def expected_total(
    setting: Witness, mean: Sequence[Number], covariance: Any, variance: str
) -> Number:
    """The expected bound of the best model on N(mean, covariance), Gaussian decoder."""
    spread = mp.matrix(covariance)
    precisions, dims = list(mp.eigsy(mp.inverse(spread), eigvals_only=True)), spread.rows
    steps = steps_of(setting)

    def error(step: Step) -> Number:
        snr = step.kept / (1 - step.kept)
        return sum(1 / (p + snr) for p in precisions)

    def term(step: Step) -> Number:
        sigma2 = step.reverse(variance)
        alone = divergence(mp.zero, step.variance, mp.zero, sigma2)
        slope = step.mean(1, 0) - step.mean(0, 0)
        return dims * alone + slope**2 * error(step) / (2 * sigma2)

    beta, kept = steps[0].beta, steps[-1].kept
    energy = sum(m**2 for m in mean) + sum(spread[k, k] for k in range(dims))
    prior = dims * divergence(mp.zero, 1 - kept, mp.zero, mp.one) + kept * energy / 2
    decoder = dims * mp.log(2 * mp.pi * beta) / 2 + error(steps[0]) / (2 * beta)
    return prior + sum(term(step) for step in steps[1:]) + decoder


def gaussian_bound(witness: Witness) -> Found:
    """Its total at a witness."""
    arguments = witness["arguments"]
    value = expected_total(
        arguments["setting"],
        flat(arguments["mean"]),
        arguments["covariance"],
        arguments["variance"],
    )
    return value, "the chain's terms with the trace of (C⁻¹ + SNR·I)⁻¹ for the error"


def _gap(setting: Witness) -> Number:
    """The expected bound on N(0, 1) with the posterior variance, above the entropy."""
    total = expected_total(setting, [mp.zero], [[1]], "posterior")
    return total - mp.log(2 * mp.pi * mp.e) / 2


def _even_ramp(T: int) -> dict[str, Any]:
    return {"name": "ramp", "T": T, "log_snr": [6.0 - 12.0 * (k / (T - 1)) for k in range(T)]}


def gap_ratio(witness: Witness) -> Found:
    """The gap of a ramp of 128 steps over that of 256."""
    return _gap(_even_ramp(128)) / _gap(_even_ramp(256)), "both gaps, term by term"


def gap_limit(witness: Witness) -> Found:
    """The limit of the gap for a schedule that refines at constant β near the data."""
    return mp.euler / 2, "γ_Euler/2, the limit of ½ Σ_{t≥2} [1/(t−1) − ln(t/(t−1))]"


def interior_limit(witness: Witness) -> Found:
    """The difference of the limits of two bounds with the same ends."""
    return mp.zero, "both limits are one integral over the SNR"


# ------------------------------------------------------------------------------------------------ chains, units, averages


def chain_end(witness: Witness) -> Found:
    """Where a chain ends whose model always says the same."""
    said = constant(witness["arguments"]["model"])
    return pick(said, witness["index"][1:]), "what the model always says"


def asked_by_bound(witness: Witness) -> Found:
    """The k-th step that a bound asks for."""
    return _visited(witness)[witness["index"][0]], "the setting's own steps, rising"


def asked_by_sampler(witness: Witness) -> Found:
    """The k-th step that a sampler asks for."""
    return _visited(witness)[::-1][witness["index"][0]], "the setting's own steps, falling"


def _visited(witness: Witness) -> list[Number]:
    setting = witness["arguments"]["setting"]
    chosen = setting.get("timesteps") or range(1, len(steps_of(setting)) + 1)
    return [mp.mpf(step) for step in chosen]


def bits_per_dim(witness: Witness) -> Found:
    """Nats in bits per dimension."""
    arguments = witness["arguments"]
    nats = pick(arguments["nats"], witness["index"])
    return nats / mp.log(2) / arguments["dims"], "nats over ln 2 over dims"


def drawn_steps(witness: Witness) -> Found:
    """How many steps and weights a sampler of t draws, and how many of them are no steps."""
    count = witness["arguments"]["count"]
    return mp.mpf((count, count, 0)[witness["index"][0]]), "as many as were asked for, none outside"


def moving_average(witness: Witness) -> Found:
    """The average after a step."""
    arguments = witness["arguments"]
    values, decay = flat(arguments["values"]), mp.mpf(arguments["decay"])
    average = values[0]
    for value in values[1 : witness["index"][0] + 1]:
        average = decay * average + (1 - decay) * value
    return average, "e_n = d e_{n−1} + (1−d) v_n from e_0 = v_0"
