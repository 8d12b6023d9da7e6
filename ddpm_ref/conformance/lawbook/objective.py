"""Laws on objectives: one weighting is one objective, whichever space its squared error is written in."""

from collections.abc import Iterator
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
    probe_steps,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import (
    Truth,
    weight,
)
from ddpm_ref.conformance.setting import Setting

_LOSS_REASON = (
    "A squared difference whose target carries the rounding of its coefficients (1e-12, or 4 ulp in float32): relative to "
    "the weighted mean of (|prediction| + |target|)², times two for the square, and the sum over dims."
)


def _weight_case(setting: Setting, known: Truth, weighting: str, space: str, t: Tensor) -> Case:
    expected = known.column(lambda r: weight(weighting, r, space), t)
    return Case(
        "weight",
        {"setting": setting, "weighting": weighting, "t": t, "parameterization": space},
        expected,
        torch.where(expected > 0, expected, 1.0),
        exact=lambda i: weight(weighting, known.rows[int(t[i[0]])], space),
    )


def _one_objective(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """w_P κ_P² in ratio to the same in the eps (else v) space of the implementation itself."""
    for setting, known in settings_with_truth(implementation):
        steps = torch.tensor(probe_steps(known.T))
        t = steps[:-1] if setting.zero_terminal_snr else steps
        for weighting in implementation.weightings:
            for space in (p for p in implementation.parameterizations if p != "eps"):

                def ratio(
                    candidate: Implementation,
                    inputs: Any = (setting, weighting, t, space),
                    known: Truth = known,
                ) -> Tensor:
                    where, name, at, other = inputs
                    both = []
                    for p in (other, "eps"):
                        factor = known.column(lambda r, p=p: r.error_factor(p) ** 2, at)  # type: ignore[misc]
                        both.append(candidate.weight(where, name, at, p).double() * factor)
                    return both[0] / both[1]

                yield Case(
                    "weight",
                    {"setting": setting, "weighting": weighting, "t": t, "parameterization": space},
                    torch.ones(len(t), dtype=torch.float64),
                    run=ratio,
                    label=f"weight in {space} space over weight in eps space, in the same objective",
                )


def _telescope(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        if known.T < 2:
            continue
        t = known.steps(first=2)
        whole = (known.rows[1].snr - known.rows[-1].snr) / 2

        def total(candidate: Implementation, inputs: Any = (setting, t)) -> Tensor:
            weights = candidate.weight(inputs[0], "elbo", inputs[1], "x0")
            return weights.double().sum().reshape(1)

        yield Case(
            "weight",
            {"setting": setting, "weighting": "elbo", "t": t, "parameterization": "x0"},
            torch.tensor([float(whole)], dtype=torch.float64),
            float(whole),
            run=total,
            exact=lambda index, whole=whole: whole,  # type: ignore[misc]
            label="Σ over t ≥ 2 of the elbo weight in x0 space",
        )


def _terminal_weights(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        t = torch.tensor([known.T])
        if known.rows[-1].alpha_bar > 0:
            continue
        for weighting in implementation.weightings:
            for space in implementation.parameterizations:
                if weight(weighting, known.rows[-1], space) is not None:
                    yield _weight_case(setting, known, weighting, space, t)
                    continue
                arguments = {
                    "setting": setting,
                    "weighting": weighting,
                    "t": t,
                    "parameterization": space,
                }
                nothing = torch.zeros(1, dtype=torch.float64)
                yield Case("weight", arguments, nothing, must_refuse=True)


def _mix(known: Truth, space: str, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    def column(i: int) -> Tensor:
        return known.column(lambda r: r.prediction(space)[i], t, x0.ndim)

    return column(0) * x0 + column(1) * eps


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _same_everywhere(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """One wrong estimate of x0, said in every space, costs the same."""
    for setting, known in settings_with_truth(implementation):
        steps = torch.tensor(probe_steps(known.T))
        t = steps[:-1] if setting.zero_terminal_snr else steps
        shape = (len(t), 3)
        x0, eps, guess = draw(shape, 1), draw(shape, 2), draw(shape, 6)
        a, s = known.column(lambda r: r.a, t, 2), known.column(lambda r: r.s, t, 2)
        implied = eps + a * (x0 - guess) / s
        for weighting in implementation.weightings:
            expected = known.column(lambda r, w=weighting: weight(w, r, "x0"), t) * _mean(  # type: ignore[misc]
                (guess - x0) ** 2
            )
            for space in implementation.parameterizations:
                said = _mix(known, space, guess, implied, t)
                truth_said = _mix(known, space, x0, eps, t)
                factor = known.column(lambda r, w=weighting, p=space: weight(w, r, p), t)  # type: ignore[misc]
                scale = factor * _mean((said.abs() + truth_said.abs()) ** 2) + expected
                arguments = {
                    "setting": setting,
                    "prediction": said,
                    "x0": x0,
                    "eps": eps,
                    "t": t,
                    "parameterization": space,
                    "weighting": weighting,
                }
                yield Case("loss", arguments, expected, scale)


def _mean_over_dims(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        t = torch.tensor([1, known.T])
        x0, eps, said = (draw((2, 3), salt) for salt in (1, 2, 5))

        def ratio(candidate: Implementation, inputs: Any = (setting, said, x0, eps, t)) -> Tensor:
            where, p, a, b, at = inputs
            p2, a2, b2 = (torch.cat([v, v], 1) for v in (p, a, b))
            once = candidate.loss(where, p, a, b, at, "eps", "simple")
            return candidate.loss(where, p2, a2, b2, at, "eps", "simple") / once

        yield Case(
            "loss",
            {"setting": setting, "prediction": said, "x0": x0, "eps": eps, "t": t},
            torch.ones(2, dtype=torch.float64),
            run=ratio,
            label="loss of doubled dims over loss",
        )


LAWS = (
    Law(
        "I7-definition",
        "weightings",
        "Each weighting has the value of its definition, in every space: w_P = w_x0/κ_P², SNR = ᾱ/(1−ᾱ).",
        "At fixed x_t an error e in x0 is κ_P e in space P; one objective is one function of e.",
        "Ho et al. 2020, eq. 14; Salimans & Ho 2022, section 4; Hang et al. 2023; Choi et al. 2022. Seen: three different "
        "min-SNR weights for v in one library; √SNR for SNR; + for · in a weight.",
        {torch.float64: AGREEMENT[torch.float64]},
        AGREEMENT_REASON,
        agreement.value("weight", only=lambda options: options["weighting"] != "elbo"),
    ),
    Law(
        "I5-weight",
        "weight of the bound",
        "The elbo weight is ½(SNR(t−1) − SNR(t)) in x0 space for t ≥ 2, and 1/(2β_1) at t = 1; in eps space "
        "β²/(2β̃(1−β)(1−ᾱ)).",
        "KL of two Gaussians of variance β̃_t whose means differ by c_0 e: c_0²/(2β̃_t) = ½(SNR(t−1) − SNR(t)).",
        "Ho et al. 2020, eq. 12; Kingma et al. 2021, eq. 14. Seen: latent-diffusion's VLB weight for x0 and its circulated "
        "fix, both wrong (T = 1000 linear, t = 2: 2726.3 exact, 0.50 and 1136.7 in use).",
        {torch.float64: AGREEMENT[torch.float64]},
        AGREEMENT_REASON,
        agreement.value("weight", only=lambda options: options["weighting"] == "elbo"),
    ),
    Law(
        "I7-one-objective",
        "one weighting, all spaces",
        "w_P(t) κ_P(t)² is the same number in every space.",
        "The squared errors of the same estimate in two spaces differ by the squared ratio of their κ.",
        "Salimans & Ho 2022, section 4. Seen: the eps weight used for x0.",
        {torch.float64: 1e-11},
        "Relative: a quotient of two weights and two factors κ².",
        _one_objective,
    ),
    Law(
        "I6-telescope",
        "bound weights telescope",
        "Σ_{t≥2} of the elbo weight in x0 space is ½(SNR(1) − SNR(T)).",
        "A sum of differences of neighbours.",
        "Kingma et al. 2021, section 4.",
        {torch.float64: 1e-10},
        "A sum of 1000 positive terms, each good to 1e-12.",
        _telescope,
    ),
    Law(
        "I25-weight",
        "weights at ᾱ = 0",
        "At zero terminal SNR a weight takes its limit where that is finite; where it is infinite, a ValueError or inf, never NaN.",
        "w_eps = w_x0/SNR stays finite exactly for weightings that vanish like SNR.",
        "Lin et al. 2024. Seen: 0/0 at the last step.",
        {torch.float64: 1e-11},
        "Relative where the limit is positive, absolute where it is 0.",
        _terminal_weights,
    ),
    Law(
        "I5-loss",
        "loss",
        "loss = w_P(t) · mean over dims of (prediction − target)², one number per sample.",
        "The definition; B = D shows a (B, B) outer product, a per-sample weight applied to the batch mean, or a sum for a mean.",
        "Ho et al. 2020, eq. 14. Seen: mean(w)·mean(err); a (B, B) outer product.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.value("loss"),
    ),
    Law(
        "I5-loss-gradient",
        "gradient of the loss",
        "∂ loss/∂ prediction = 2 w_P(t)(prediction − target)/D: it reaches the network, with the weight and without anything more.",
        "The derivative of I5; target and weight are constants.",
        "A loss under no_grad, a detached prediction, or a weight that is differentiated trains something else.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.gradient("loss"),
    ),
    Law(
        "I7-same-loss",
        "same estimate, same loss",
        "The same wrong estimate of x0, said in any space, has the same loss under one weighting.",
        "I7 applied to whole predictions instead of weights.",
        "Salimans & Ho 2022, section 4.",
        {torch.float64: 1e-11},
        _LOSS_REASON,
        _same_everywhere,
    ),
    Law(
        "I10-mean",
        "mean over dims",
        "Repeating every dimension leaves the loss as it is.",
        "A mean, not a sum; the factor must not depend on the number of dims.",
        "Seen: a factor ½ in sum mode only.",
        {torch.float64: 1e-12},
        "Equal sums in another order.",
        _mean_over_dims,
    ),
    Law(
        "I21-hybrid",
        "hybrid scale",
        "L_simple + λ T L_t with λ = 0.001: the single term at a uniform t stands for a sum of T.",
        "E over uniform t of T·L_t is L_vlb.",
        "Nichol & Dhariwal 2021, eq. 16. Seen: λ without × T, 1000 × too small.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.value("hybrid_loss"),
    ),
)
