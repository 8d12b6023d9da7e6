"""One declaration per method: operands, options, the exact answer, and where there is one. Everything that is asked follows from it.

An answer is a formula in the numbers of one step (`Row`) and one element of each operand; it is evaluated with bounds for whole batches and in
50 digits for a witness. What is linear in its operands needs no derivative: the answer to a cotangent in one operand's place, and 0 in the
others', is the gradient.

A weighting, a parameterization or a reverse variance enters by its registry: nothing here has a list of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from ddpm_ref.conformance.agreement.bounded import Bounded, either, exp, log, sqrt
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.truth import (
    MP,
    OTHER_WEIGHTS_IN_X0,
    PARAMETERIZATIONS,
    VARIANCES,
    WEIGHTINGS,
    Number,
    Row,
    reverse_variance,
    weight_in_x0,
)

Numbers = Mapping[str, Number]
Options = Mapping[str, Any]
Parts = Mapping[str, Number]

_SPACES = ("parameterization", "source", "to")
"""Arguments that name a parameterization."""

SAMPLERS = (("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0))
"""(sampler, η)."""


def _one_way() -> Iterator[Options]:
    yield {}


def _anywhere(row: Row, options: Options) -> bool:
    return True


@dataclass(frozen=True)
class Method:
    """A method of `Implementation` with its exact answer.

    Attributes:
        name: of the method.
        operands: its float arguments of the shape of a sample → the range of their values, see `domains`.
        answer: the parts of the result by name, "" for a result that is one tensor; "0" and "1" for a pair.
        options: the choices that it has, each a mapping of arguments.
        reduce: what is done over the dims of a sample: nothing, `sum` or `mean`.
        slopes: derivatives of `answer`'s only part by operand, before the reduction; None where it is linear.
        defined: there is a finite answer at this step, which can only be missing where ᾱ = 0.
        first: the first step that is asked about.
        steps: it has an argument t; else it speaks of the whole schedule, or of none.
        setting: it has an argument setting.
        vector: operands are `[B]`, as its results are.
        kept: results have the dtype of the operands.
        derived: the part of the answer that gradients are asked of.
        flows: operands through which a gradient has to flow; through the others it may, and is then right.
    """

    name: str
    operands: Mapping[str, str]
    answer: Callable[[Row, Numbers, Options], Parts]
    options: Callable[[], Iterator[Options]] = _one_way
    reduce: str = ""
    slopes: Callable[[Row, Numbers, Options], Numbers] | None = None
    defined: Callable[[Row, Options], bool] = _anywhere
    first: int = 1
    steps: bool = True
    setting: bool = True
    vector: bool = False
    kept: bool = False
    derived: str = ""
    flows: tuple[str, ...] = ()

    def gradient(self, row: Row, x: Numbers, options: Options, operand: str) -> Number:
        """The derivative of the (unreduced) answer by one operand, times the cotangent `x["cotangent"]`."""
        if self.slopes is not None:
            return self.slopes(row, x, options)[operand] * x["cotangent"]
        alone = {name: x["cotangent"] if name == operand else 0 * v for name, v in x.items()}
        return self.answer(row, alone, options)[self.derived]

    def offered(self, implementation: Implementation) -> Iterator[Options]:
        """The options that the implementation declares to have."""
        for options in self.options():
            spaces = {options[k] for k in _SPACES if k in options}
            known = spaces <= set(implementation.parameterizations)
            if known and _weighted(implementation, options.get("weighting")):
                yield options


def _weighted(implementation: Implementation, weighting: str | None) -> bool:
    if weighting in OTHER_WEIGHTS_IN_X0:
        return implementation.other_parameters
    return weighting is None or weighting in implementation.weightings


METHODS: dict[str, Method] = {}


def _declare(method: Method) -> None:
    METHODS[method.name] = method


def _named(**choices: tuple[Any, ...]) -> Callable[[], Iterator[Options]]:
    """Every combination of the values of some arguments."""

    def combined() -> Iterator[Options]:
        for values in product(*choices.values()):
            yield dict(zip(choices, values, strict=True))

    return combined


def _determined(to: str) -> Callable[[Row, Options], bool]:
    return lambda row, options: row.determines(options["parameterization"], to)


# ---------------------------------------------------------------- forward process


_declare(
    Method(
        "q_sample",
        {"x0": "wide", "noise": "wide"},
        lambda r, x, o: {"": r.a * x["x0"] + r.s * x["noise"]},
        kept=True,
    )
)


def _posterior(r: Row, x: Numbers, o: Options) -> Parts:
    return {
        "mean": r.clean_part * x["x0"] + r.noisy_part * x["x_t"],
        "variance": r.posterior_variance + 0 * x["x0"],
        "log_variance": log(r.posterior_variance) + 0 * x["x0"],
    }


_declare(Method("posterior", {"x0": "wide", "x_t": "wide"}, _posterior, kept=True, derived="mean"))


def _reverse(r: Row, x: Numbers, o: Options) -> Parts:
    value = reverse_variance(o["variance"], r)
    return {"0": value, "1": log(value)}


_declare(Method("reverse_variance", {}, _reverse, _named(variance=VARIANCES), first=2, vector=True))


def _learned(r: Row, x: Numbers, o: Options) -> Parts:
    said = x["said"]
    if o["meaning"] == "range":
        said = said * log(r.beta) + (1 - said) * log(r.posterior_variance)
    variance = exp(said)
    return {"0": variance, "1": log(variance)}  # a code may keep either of the two


def _learned_slopes(r: Row, x: Numbers, o: Options) -> Numbers:
    span = log(r.beta) - log(r.posterior_variance)
    return {"said": span + 0 * x["said"] if o["meaning"] == "range" else 1 + 0 * x["said"]}


_declare(
    Method(
        "learned_variance",
        {"said": "output"},
        _learned,
        _named(meaning=("range", "log")),
        slopes=_learned_slopes,
        derived="1",
        first=2,
        flows=("said",),
    )
)

# ---------------------------------------------------------------- parameterizations


def _target(r: Row, x: Numbers, space: str) -> Number:
    p, q = r.prediction(space)
    return p * x["x0"] + q * x["eps"]


_declare(
    Method(
        "target",
        {"x0": "wide", "eps": "wide"},
        lambda r, x, o: {"": _target(r, x, o["parameterization"])},
        _named(parameterization=PARAMETERIZATIONS),
        kept=True,
    )
)


def _converted(r: Row, x: Numbers, source: str, to: str) -> Number:
    on_prediction, on_noisy = r.factors(source, to)
    return on_prediction * x["prediction"] + on_noisy * x["x_t"]


_EVERY_PAIR = _named(source=PARAMETERIZATIONS, to=PARAMETERIZATIONS)

_declare(
    Method(
        "convert",
        {"prediction": "wide", "x_t": "wide"},
        lambda r, x, o: {"": _converted(r, x, o["source"], o["to"])},
        lambda: (o for o in _EVERY_PAIR() if o["source"] != o["to"]),
        defined=lambda r, o: r.determines(o["source"], o["to"]),
        kept=True,
        flows=("prediction",),
    )
)

# ---------------------------------------------------------------- objectives


def _weight(r: Row, o: Options) -> Number:
    weighting, space = o["weighting"], o["parameterization"]
    return r.once(
        ("weight", weighting, space),
        lambda: weight_in_x0(weighting, r) / r.error_factor(space) ** 2,
    )


def _finite_weight(r: Row, o: Options) -> bool:
    return o["parameterization"] not in ("eps", "score") or bool(r.alpha_bar > 0)


_WEIGHTED = _named(
    parameterization=PARAMETERIZATIONS, weighting=(*WEIGHTINGS, *OTHER_WEIGHTS_IN_X0)
)

_declare(
    Method(
        "weight",
        {},
        lambda r, x, o: {"": _weight(r, o)},
        _WEIGHTED,
        defined=_finite_weight,
        vector=True,
    )
)


def _error(r: Row, x: Numbers, o: Options) -> Number:
    return x["prediction"] - _target(r, x, o["parameterization"])


def _loss_slopes(r: Row, x: Numbers, o: Options) -> Numbers:
    p, q = r.prediction(o["parameterization"])
    slope = 2 * _weight(r, o) * _error(r, x, o)
    return {"prediction": slope, "x0": -p * slope, "eps": -q * slope}


_declare(
    Method(
        "loss",
        {"prediction": "wide", "x0": "wide", "eps": "wide"},
        lambda r, x, o: {"": _weight(r, o) * _error(r, x, o) ** 2},
        _WEIGHTED,
        "mean",
        slopes=_loss_slopes,
        defined=_finite_weight,
        flows=("prediction",),
    )
)
_declare(
    Method(
        "hybrid_loss",
        {"simple": "positive", "bound_term": "positive"},
        lambda r, x, o: {"": x["simple"] + r.step * x["bound_term"] / 1000},
        steps=False,
        vector=True,
        flows=("simple", "bound_term"),
    )
)

# ---------------------------------------------------------------- bound and densities


def _kl(r: Row, x: Numbers, o: Options) -> Parts:
    gap, distance = x["log_var1"] - x["log_var2"], x["mean1"] - x["mean2"]
    found = (exp(gap) - gap - 1 + distance**2 * exp(-x["log_var2"])) / 2
    if isinstance(
        found, Bounded
    ):  # the same without cancellation; the bound stays that of the plain formula
        d = gap.value
        series = d**2 / 2 * (1 + d / 3 * (1 + d / 4 * (1 + d / 5 * (1 + d / 6 * (1 + d / 7)))))
        spread = torch.where(d.abs() < 0.01, series, torch.expm1(d) - d)
        found = Bounded(
            (spread + distance.value**2 * (-x["log_var2"].value).exp()) / 2, found.bound
        )
    return {"": found}


def _kl_slopes(r: Row, x: Numbers, o: Options) -> Numbers:
    distance, precision = x["mean1"] - x["mean2"], exp(-x["log_var2"])
    ratio = exp(x["log_var1"] - x["log_var2"])
    return {
        "mean1": distance * precision,
        "mean2": -distance * precision,
        "log_var1": (ratio - 1) / 2,
        "log_var2": (1 - ratio - distance**2 * precision) / 2,
    }


_declare(
    Method(
        "gaussian_kl",
        {"mean1": "normal", "log_var1": "logarithm", "mean2": "normal", "log_var2": "logarithm"},
        _kl,
        slopes=_kl_slopes,
        steps=False,
        setting=False,
        flows=("mean1", "log_var1", "mean2", "log_var2"),
    )
)


def _term(r: Row, x: Numbers, o: Options) -> Number:
    """½[ln σ²/β̃ + β̃/σ² − 1] + (μ̃ − μ)²/2σ² of one element."""
    sigma = reverse_variance(o["variance"], r)
    return (log(sigma / r.posterior_variance) + r.posterior_variance / sigma - 1) / 2 + _gap(
        r, x, o
    ) ** 2 / (2 * sigma)


def _gap(r: Row, x: Numbers, o: Options) -> Number:
    wanted = r.clean_part * x["x0"] + r.noisy_part * x["x_t"]
    return _converted(r, x, o["parameterization"], "mean") - wanted


def _term_slopes(r: Row, x: Numbers, o: Options) -> Numbers:
    sigma = reverse_variance(o["variance"], r)
    on_prediction, on_noisy = r.factors(o["parameterization"], "mean")
    pull = _gap(r, x, o) / sigma
    return {
        "prediction": on_prediction * pull,
        "x0": -r.clean_part * pull,
        "x_t": (on_noisy - r.noisy_part) * pull,
    }


_declare(
    Method(
        "bound_term",
        {"prediction": "normal", "x0": "normal", "x_t": "normal"},
        lambda r, x, o: {"": _term(r, x, o)},
        _named(parameterization=PARAMETERIZATIONS, variance=VARIANCES),
        "sum",
        slopes=_term_slopes,
        defined=_determined("mean"),
        first=2,
        flows=("prediction",),
    )
)
_declare(
    Method(
        "bits_per_dim",
        {"nats": "wide"},
        lambda r, x, o: {"": x["nats"] / (o["dims"] * _ln2(x["nats"]))},
        _named(dims=(1, 3, 3072)),
        steps=False,
        setting=False,
        vector=True,
    )
)


def _ln2(like: Number) -> Number:
    return 0.6931471805599453 if isinstance(like, Bounded) else MP.log(2)


# ---------------------------------------------------------------- sampling


def step_coefficients(r: Row, sampler: str, eta: float) -> tuple[Number, Number, Number]:
    """Factors of (x̂_0, ε̂, noise) of one reverse step; x_t = a x̂_0 + s ε̂. At t = 1 the result is x̂_0.

    Song et al. 2021, eq. 12, with σ² = η²β̃: √ᾱ_{t−1} x̂_0 + √(1−ᾱ_{t−1}−σ²) ε̂ + σ noise, where
    1−ᾱ_{t−1}−η²β̃ = (1−ᾱ_{t−1})[(1−η²)β + (1−β)(1−ᾱ_{t−1})]/(1−ᾱ_t). Ancestral sampling is η = 1.
    """
    share = 1 if sampler == "ddpm" else eta**2
    left = r.previous_rest * ((1 - share) * r.beta + (1 - r.beta) * r.previous_rest) / r.rest
    if isinstance(
        left, Bounded
    ):  # the value without cancellation, the bound of the plain difference
        left = Bounded(left.value, (r.previous_rest - share * r.posterior_variance).bound)
    return sqrt(r.previous_alpha_bar), sqrt(left), _deviation(share * r.posterior_variance)


def _deviation(variance: Number) -> Number:
    """σ, which as many compute as exp(½ ln σ²) as take the root: the bound is that of the first."""
    root = sqrt(variance)
    if not isinstance(root, Bounded):
        return root
    by_logarithm = exp(log(variance) / 2).bound
    return Bounded(root.value, torch.where(root.value > 0, by_logarithm, 0.0))


def _step(r: Row, x: Numbers, o: Options) -> Parts:
    sampler, eta = o["sampler"], o["eta"]
    clean, direction, deviation = r.once(
        ("step", sampler, eta), lambda: step_coefficients(r, sampler, eta)
    )
    x0 = _converted(r, x, o["parameterization"], "x0")
    eps = _converted(r, x, o["parameterization"], "eps")
    result = clean * x0 + direction * eps + deviation * x["noise"]
    if isinstance(result, Bounded):
        # Code that keeps ε̂ alone, x_t − σ ε̂ in σ-space, rounds at the size of x_t even where it was told x̂_0.
        recovered = (x["x_t"] - sqrt(r.rest) * eps) / sqrt(r.alpha_bar)
        by_eps = clean * recovered + direction * eps + deviation * x["noise"]
        bound = torch.where(by_eps.bound.isfinite(), by_eps.bound, 0.0)
        result = Bounded(result.value, torch.maximum(result.bound, bound))
    return {"": result}


def _step_options() -> Iterator[Options]:
    for space, (sampler, eta) in product(PARAMETERIZATIONS, SAMPLERS):
        yield {"parameterization": space, "sampler": sampler, "eta": eta}


_declare(
    Method(
        "sampler_step",
        {"prediction": "wide", "x_t": "wide", "noise": "wide"},
        _step,
        _step_options,
        defined=_determined("x0"),
        kept=True,
    )
)


def _ancestral_deviation(r: Row, name: str) -> Number:
    """√β_t or √β̃_t; 0 at t = 1."""
    variance = reverse_variance(name, r)
    return either(r.first, lambda: 0 * variance, lambda: _deviation(variance))


def _ancestral(r: Row, x: Numbers, o: Options) -> Parts:
    clean, direction, _ = r.once(("step", "ddpm", 0.0), lambda: step_coefficients(r, "ddpm", 0.0))
    deviation = r.once(("deviation", o["variance"]), lambda: _ancestral_deviation(r, o["variance"]))
    x0 = _converted(r, x, o["parameterization"], "x0")
    eps = _converted(r, x, o["parameterization"], "eps")
    return {"": clean * x0 + direction * eps + deviation * x["noise"]}


_declare(
    Method(
        "ancestral_step",
        {"prediction": "wide", "x_t": "wide", "noise": "wide"},
        _ancestral,
        _named(parameterization=PARAMETERIZATIONS, variance=VARIANCES),
        defined=_determined("x0"),
        kept=True,
    )
)


# ---------------------------------------------------------------- the prior term


def _prior(r: Row, x: Numbers, o: Options) -> Parts:
    """½[ᾱ x² − (ᾱ + ln(1−ᾱ))] of one element at t = T."""
    return {"": (r.alpha_bar * x["x0"] ** 2 - (r.alpha_bar + log(r.rest))) / 2}


_declare(
    Method(
        "prior_kl",
        {"x0": "wide"},
        _prior,
        reduce="sum",
        slopes=lambda r, x, o: {"x0": r.alpha_bar * x["x0"]},
        steps=False,
    )
)
