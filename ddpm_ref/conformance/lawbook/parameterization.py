"""Laws on what the network says: five spaces, their targets, and every conversion between two of them."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import (
    AGREEMENT,
    AGREEMENT_REASON,
    DENSITY,
    Case,
    Law,
    draw,
    linear_case,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting


def _pairs(implementation: Implementation) -> list[tuple[str, str]]:
    spaces = implementation.parameterizations
    return list(product(spaces, spaces))


def _defined(known: Truth, t: Tensor, source: str, to: str) -> bool:
    return all(known.rows[int(k)].conversion(source, to) is not None for k in t)


def _conversion(
    setting: Setting,
    known: Truth,
    pair: tuple[str, str],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    t: Tensor,
) -> Case:
    """A true prediction in the source space, and what it is in the other; the truth is that of the rounded inputs."""
    source, to = pair
    x0, eps = draw(shape, 1), draw(shape, 2)

    def mixed(p: Any, q: Any) -> Tensor:
        return known.column(p, t, len(shape)) * x0 + known.column(q, t, len(shape)) * eps

    prediction = mixed(lambda r: r.prediction(source)[0], lambda r: r.prediction(source)[1])
    arguments = {
        "setting": setting,
        "prediction": prediction.to(dtype),
        "x_t": mixed(lambda r: r.a, lambda r: r.s).to(dtype),
        "t": t,
        "source": source,
        "to": to,
    }
    terms = {
        "prediction": lambda r: r.factors(source, to)[0],
        "x_t": lambda r: r.factors(source, to)[1],
    }
    return linear_case("convert", arguments, known, t, terms)


def _sizes(known: Truth, t: Tensor, source: str, to: str) -> tuple[Tensor, Tensor]:
    """Absolute factors of (prediction, x_t), `[B, 1]` each."""
    factors = [known.rows[int(k)].conversion(source, to) or (0, 0) for k in t]
    pairs = torch.tensor([[abs(float(p)), abs(float(q))] for p, q in factors], dtype=torch.float64)
    return pairs[:, :1], pairs[:, 1:]


def _round_trips(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        shape, t = (3, 2), torch.tensor([1, (known.T + 1) // 2, known.T])
        for source, to in _pairs(implementation):
            if source == to or not (
                _defined(known, t, source, to) and _defined(known, t, to, source)
            ):
                continue
            forth = _conversion(setting, known, (source, to), dtype, shape, t)
            prediction, x_t = forth.arguments["prediction"], forth.arguments["x_t"]
            on_other, on_x_t = _sizes(known, t, to, source)
            scale = on_other * torch.as_tensor(forth.scale) + on_x_t * x_t.abs()

            def there_and_back(
                candidate: Implementation, inputs: Any = (setting, prediction, x_t, t, source, to)
            ) -> Tensor:
                where, value, noisy, steps, first, second = inputs
                other = candidate.convert(where, value, noisy, steps, first, second)
                return candidate.convert(where, other, noisy, steps, second, first)

            yield Case(
                "convert",
                forth.arguments,
                prediction,
                scale,
                run=there_and_back,
                label="convert and back",
                table=scale,
            )


def _undefined(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        t = torch.tensor([known.T])
        for source, to in _pairs(implementation):
            if _defined(known, t, source, to):
                continue
            value = draw((1, 1), 2).to(dtype)
            yield Case(
                "convert",
                {
                    "setting": setting,
                    "prediction": value,
                    "x_t": value,
                    "t": t,
                    "source": source,
                    "to": to,
                },
                torch.zeros(1, 1, dtype=torch.float64),
                must_refuse=True,
            )


LAWS = (
    Law(
        "I3-target",
        "training targets",
        "target(P, x0, ε) = p x0 + q ε with P's row (p, q): eps (0,1), x0 (1,0), v (−s, a), score (0, −1/s), mean μ̃, flow (1, −1).",
        "Each name is a definition; μ̃ = c_0 x0 + c_t x_t with x_t = a x0 + s ε.",
        "Ho et al. 2020, eqs. 7, 12; Salimans & Ho 2022, appendix D; Song et al. 2021; Lipman et al. 2023.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("target"),
    ),
    Law(
        "I3-conversion",
        "conversions",
        "A prediction that is true in one space converts to the truth in every other, at every step.",
        "x_t and a prediction are two linear equations in (x0, ε); Cramer's rule gives every conversion.",
        "The determinant a q − s p; seen: x0 used as ε in DDIM.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("convert"),
    ),
    Law(
        "I3-round-trip",
        "conversion there and back",
        "Converting to another space and back returns the prediction.",
        "The two conversions are inverse linear maps at fixed x_t.",
        "Linear algebra.",
        {torch.float64: 4e-12},
        "Two conversions of 1e-12 each, amplified as the scale accounts for, and their tables.",
        _round_trips,
    ),
    Law(
        "I25-conversion",
        "undefined at ᾱ = 0",
        "Where ᾱ_T = 0, eps and score do not determine x0, v or μ̃: a ValueError (or an infinity), never a finite number or NaN.",
        "x_T = ε carries nothing of x0: the determinant is 0.",
        "Lin et al. 2024, section 3.3. Seen: division by 0 under zero terminal SNR, silently.",
        {torch.float64: 0.0},
        "Yes or no.",
        _undefined,
    ),
    Law(
        "I31-gradient",
        "gradients",
        "Every gradient that flows through a method is that of its definition: at a cotangent u of a linear map it is the map's coefficient times u.",
        "Chain rule; what is linear is its own derivative.",
        "Detached or doubled terms, coefficients that take part in the graph, work under no_grad where a loss is made of the result.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.gradient(
            "q_sample",
            "posterior",
            "target",
            "convert",
            "hybrid_loss",
            "gaussian_kl",
            "bound_term",
            "prior_kl",
            "learned_variance",
            "sampler_step",
            "ancestral_step",
        ),
        mixed=True,
    ),
)
