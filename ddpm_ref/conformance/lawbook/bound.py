r"""Laws on the variational bound: every term has a closed form for the right model.

A model that always says x_0 = g, in whatever space, makes each term of the bound deterministic: the noise cancels. With
σ² the reverse variance, D dims and E = ‖x_0 − g‖²,

    L_t = D·½(β̃/σ² − 1 − ln β̃/σ²) + c_0² E/(2σ²),   L_0 = D·½ ln 2πβ_1 + E/(2β_1),                     (1)
    L_T = ½[ᾱ_T ‖x_0‖² − D(ᾱ_T + ln(1−ᾱ_T))].                                                          (2)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import (
    AGREEMENT_REASON,
    DENSITY,
    Case,
    Law,
    draw,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import (
    MP,
    Number,
    Row,
    Truth,
    at_steps,
    bin_log_mass,
    gaussian_kl,
    reverse_variance,
)
from ddpm_ref.conformance.setting import Setting

VARIANCES = ("posterior", "beta")


@dataclass(frozen=True, eq=False)
class ConstantModel:
    """A model that always estimates x0 = guess (a number, or one per dim), said in one parameterization.

    It remembers the steps that it was asked for.
    """

    known: Truth
    parameterization: str
    guess: float | Tensor
    asked: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        """In a witness: what the model says, as JSON after the equals sign."""
        guess = self.guess.tolist() if isinstance(self.guess, Tensor) else self.guess
        return f"always x0 = {guess}"

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction for noisy data `[B, *dims]` at original steps t `[B]`."""
        self.asked.extend(t.tolist())
        on_guess, on_noisy = at_steps(self._factors, t).reshape(2, -1, *[1] * (x_t.ndim - 1))
        said: Tensor = (on_guess * self.guess + on_noisy * x_t.double()).to(x_t.dtype)
        return said

    @cached_property
    def _factors(self) -> Tensor:
        """Factors of (x0, x_t) in what it says, by original step, `[2, …]`."""

        def factor(place: int) -> Callable[[Row], Number]:
            return lambda row: (row.conversion("x0", self.parameterization) or (0, 0))[place]

        return self.known.by_original(factor(0), factor(1))


def _short(implementation: Implementation) -> list[tuple[Setting, Truth]]:
    """The three settings with the fewest steps: a bound costs T evaluations."""
    return sorted(settings_with_truth(implementation), key=lambda pair: pair[1].T)[:3]


def _spaces(implementation: Implementation, known: Truth) -> list[str]:
    """Those in which a model can say x0 at every step."""
    last = known.rows[-1]
    return [s for s in implementation.parameterizations if s == "x0" or last.determines(s, "x0")]


def _variance_only(variance: str, row: Row) -> Number:
    return gaussian_kl(MP.zero, row.posterior_variance, MP.zero, reverse_variance(variance, row))


def step_term(variance: str, row: Row, dims: int, squared_error: Number) -> Number:
    """L_t of eq. (1), t ≥ 2."""
    sigma = reverse_variance(variance, row)
    return dims * _variance_only(variance, row) + row.clean_part**2 * squared_error / (2 * sigma)


def prior_term(row: Row, dims: int, energy: Number) -> Number:
    """L_T, eq. (2)."""
    return (row.alpha_bar * energy - dims * (row.alpha_bar + MP.log(row.rest))) / 2


def decoder_term(row: Row, dims: int, squared_error: Number) -> Number:
    """L_0 of eq. (1)."""
    return dims * MP.log(2 * MP.pi * row.beta) / 2 + squared_error / (2 * row.beta)


def _floats(values: Sequence[Any]) -> Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def _squares(x0: Tensor, guess: float | Tensor) -> list[Number]:
    """‖x0 − guess‖² per sample, exactly."""
    wanted = torch.as_tensor(guess, dtype=torch.float64).expand_as(x0[0]).flatten().tolist()
    return [
        sum((MP.mpf(v) - g) ** 2 for v, g in zip(row, wanted, strict=True))
        for row in x0.flatten(1).tolist()
    ]


def _bound_cases(
    implementation: Implementation,
    field_name: str,
    expected: Any,
    *,
    guess: float | Tensor,
    x0: Tensor,
) -> Iterator[Case]:
    """`bound` with a constant model, one case per (setting, space, variance)."""
    for setting, known in _short(implementation):
        for space in _spaces(implementation, known):
            for variance in VARIANCES:
                value = expected(known, variance)
                yield Case(
                    "bound",
                    {
                        "setting": setting,
                        "model": ConstantModel(known, space, guess),
                        "x0": x0,
                        "parameterization": space,
                        "variance": variance,
                        "decoder": "gaussian",
                        "levels": None,
                    },
                    value,
                    value.abs().clamp(min=1.0),
                    select=lambda bound: getattr(bound, field_name),
                    label=f"bound(…).{field_name}",
                )


def _diffusion_table(known: Truth, variance: str, x0: Tensor, guess: float | Tensor) -> Tensor:
    dims, errors = x0[0].numel(), _squares(x0, guess)
    rows = [_floats([step_term(variance, row, dims, e) for row in known.rows[2:]]) for e in errors]
    return torch.stack(rows)


def _diffusion(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for shape in ((1, 1), (3, 3), (2, 1, 3, 5)):
        x0 = draw(shape, 1)

        def expected(known: Truth, variance: str, x0: Tensor = x0) -> Tensor:
            return _diffusion_table(known, variance, x0, 0.25)

        yield from _bound_cases(implementation, "diffusion", expected, guess=0.25, x0=x0)


def _perfect(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """One image with values beyond ±1 and no symmetry, three times."""
    image = torch.tensor([[[0.5, -1.75], [1.5, 0.25], [-0.5, 1.0]]], dtype=torch.float64)
    x0 = image.expand(3, 1, 3, 2).clone()
    yield from _bound_cases(
        implementation,
        "diffusion",
        lambda known, variance: _diffusion_table(known, variance, x0, image),
        guess=image,
        x0=x0,
    )


def _reconstruction(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for shape in ((1, 1), (3, 3), (2, 1, 3, 5)):
        x0 = draw(shape, 1)

        def expected(known: Truth, variance: str, x0: Tensor = x0) -> Tensor:
            return _floats(
                [decoder_term(known.rows[1], x0[0].numel(), e) for e in _squares(x0, 0.25)]
            )

        yield from _bound_cases(implementation, "reconstruction", expected, guess=0.25, x0=x0)


def _discretized(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        for levels in (17, 256):
            index = torch.tensor([[0, levels - 1, levels // 2], [1, levels // 3, levels - 2]])
            x0 = index.double() * (2.0 / (levels - 1)) - 1
            scale = MP.sqrt(known.rows[1].beta)
            value = _floats(
                [
                    -sum(bin_log_mass(v, MP.mpf("0.875"), scale, levels) for v in row)
                    for row in x0.tolist()
                ]
            )
            yield Case(
                "bound",
                {
                    "setting": setting,
                    "model": ConstantModel(known, "x0", 0.875),
                    "x0": x0,
                    "parameterization": "x0",
                    "variance": "posterior",
                    "decoder": "discretized",
                    "levels": levels,
                },
                value,
                value.abs().clamp(min=1.0),
                select=lambda bound: bound.reconstruction,
                label="bound(…).reconstruction",
            )


def _prior_cases(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for shape in ((1, 1), (3, 3), (2, 1, 3, 5)):
            x0 = draw(shape, 1).to(dtype)
            dims, energies = x0[0].numel(), _squares(x0.double(), 0.0)
            expected = _floats([prior_term(known.rows[-1], dims, e) for e in energies])
            yield Case(
                "prior_kl",
                {"setting": setting, "x0": x0},
                expected,
                torch.where(expected > 0, expected, 1.0),
                exact=lambda i, e=energies, d=dims, r=known.rows[-1]: prior_term(r, d, e[i[0]]),  # type: ignore[misc]
            )


def _total(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        for shape in ((1, 1), (3, 3), (2, 1, 3, 5)):
            x0 = draw(shape, 1)
            dims, errors = x0[0].numel(), _squares(x0, 0.25)
            energies = _squares(x0, 0.0)
            nats = _floats(
                [
                    prior_term(known.rows[-1], dims, energy)
                    + sum(step_term("posterior", row, dims, e) for row in known.rows[2:])
                    + decoder_term(known.rows[1], dims, e)
                    for e, energy in zip(errors, energies, strict=True)
                ]
            )
            for name, unit in (("total", 1.0), ("bits_per_dim", dims * math.log(2))):
                yield Case(
                    "bound",
                    {
                        "setting": setting,
                        "model": ConstantModel(known, "x0", 0.25),
                        "x0": x0,
                        "parameterization": "x0",
                        "variance": "posterior",
                        "decoder": "gaussian",
                        "levels": None,
                    },
                    nats / unit,
                    nats.abs().clamp(min=1.0) / unit,
                    select=lambda bound, n=name: getattr(bound, n),  # type: ignore[misc]
                    label=f"bound(…).{name}",
                )


def _asked(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        originals = [row.original for row in known.rows[1:]]

        def steps(
            candidate: Implementation, setting: Setting = setting, known: Truth = known
        ) -> Tensor:
            model = ConstantModel(known, "x0", 0.25)
            candidate.bound(setting, model, draw((2, 3), 1), "x0", "posterior", "gaussian", None)
            return torch.tensor(sorted(set(model.asked)))

        yield Case(
            "bound",
            {"setting": setting},
            torch.tensor(originals, dtype=torch.float64),
            run=steps,
            label="steps at which the bound asks the model",
        )


_DETERMINISTIC = "Relative to max(1, |value|): the noise cancels, and what remains is the rounding of the conversion, amplified by 1/ᾱ_T."

LAWS = (
    Law(
        "I5-bound",
        "terms of the bound",
        "For a model that always says x0 = g, L_t = D·½(β̃/σ² − 1 − ln β̃/σ²) + c_0²‖x0−g‖²/(2σ²), whatever it predicts.",
        "The posterior and the model share x_t, so only the error of x0 is left; D dims are summed.",
        "Ho et al. 2020, eqs. 5, 8. Seen: bits where nats are meant, mean for sum, t off by one.",
        {torch.float64: 1e-8},
        _DETERMINISTIC,
        _diffusion,
    ),
    Law(
        "I5-term",
        "single term of the bound",
        "L_t(prediction) = D·½(β̃/σ² − 1 − ln β̃/σ²) + ½(SNR(t−1) − SNR(t))·(β̃/σ²)·‖x0 − x̂0‖², in every space.",
        "Weight times squared error: objective and bound check each other.",
        "Ho et al. 2020, eq. 12.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.value("bound_term"),
    ),
    Law(
        "I4-perfect",
        "perfect prediction",
        "If the model knows x0, every L_t is the variance-only KL: 0 for β̃, D·½(β̃/β − 1 − ln β̃/β) for β; also for |x0| > 1.",
        "Equal means leave the mismatch of the variances.",
        "Ho et al. 2020, eq. 5. Seen: bound evaluated with x0 clipping, trained without; a likelihood of randomly flipped images.",
        {torch.float64: 1e-8},
        _DETERMINISTIC,
        _perfect,
    ),
    Law(
        "I12-decoder",
        "Gaussian decoder",
        "L_0 = D·½ ln 2πβ_1 + ‖x0 − g‖²/(2β_1).",
        "The density of N(g, β_1 I) at x0, with its normalization.",
        "Ho et al. 2020, section 3.3. Seen: a missing ½ ln 2π, 0.92 nats per dim.",
        {torch.float64: 1e-8},
        _DETERMINISTIC,
        _reconstruction,
    ),
    Law(
        "I8-decoder",
        "discretized decoder in the bound",
        "L_0 = −Σ ln P(bin of x0 | N(g, β_1)): mean g, scale √β_1, the data set's levels.",
        "The decoder is the last reverse step, integrated over the bin.",
        "Ho et al. 2020, eq. 13. Seen: another lattice; a log-variance passed as log-scale.",
        {torch.float64: 1e-8},
        _DETERMINISTIC,
        _discretized,
    ),
    Law(
        "I9-prior",
        "prior term",
        "KL(q(x_T|x0) ‖ N(0, I)) = ½[ᾱ_T‖x0‖² − D(ᾱ_T + ln(1−ᾱ_T))] ≥ 0, down to 1e-10 nats.",
        "KL of N(√ᾱ x0, 1−ᾱ) from N(0, 1); the logarithm cancels ᾱ to second order.",
        "Ho et al. 2020, eq. 5. Seen: 0 instead of 4e-10, or negative, in float32.",
        {torch.float64: 1e-6, torch.float32: 1e-3},
        "Relative. 1e-6 leaves room for a plain float64 formula (1e-16 absolute at 1e-10); float32 data determine x0² to 1e-7.",
        _prior_cases,
    ),
    Law(
        "I10-total",
        "sum and units",
        "total = L_T + ΣL_t + L_0 in nats; bits/dim = total/(D ln 2); nothing else is added.",
        "The chain rule of the bound; one conversion at the edge.",
        "Seen: a 7-bit offset on data that are not dequantized bytes; a mean for a sum.",
        {torch.float64: 1e-8},
        _DETERMINISTIC,
        _total,
    ),
    Law(
        "I10-bits",
        "nats to bits",
        "bits per dim = nats/(dims · ln 2).",
        "log2 = ln/ln 2.",
        "Theis et al. 2016.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.value("bits_per_dim"),
    ),
    Law(
        "I16-bound-steps",
        "steps of the bound",
        "The bound asks the model at every step of its schedule, by the index of the trained model.",
        "A respaced chain uses the trained network at the chosen steps.",
        "Nichol & Dhariwal 2021, section 4. Seen: previous step from the stride instead of the list.",
        {torch.float64: 0.0},
        "A list of integers.",
        _asked,
    ),
)
