"""Laws on the forward process: marginal, posterior, precision, batch independence of the noising itself."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.implementation import Implementation, Posterior
from ddpm_ref.conformance.lawbook.chance import as_many_as_are_cheap, normality
from ddpm_ref.conformance.lawbook.law import (
    AGREEMENT,
    AGREEMENT_REASON,
    COEFFICIENT_REASON,
    COEFFICIENT_TOLERANCES,
    SIGMAS,
    Case,
    Law,
    draw,
    linear_case,
    settings_of,
    settings_with_truth,
)
from ddpm_ref.conformance.setting import Setting


def _noise_survives(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        together = torch.arange(1, min(known.T, 17) + 1)
        for t in (*together.split(1), together):
            noise = draw((len(t), len(t)), 3).to(dtype)
            arguments = {"setting": setting, "x0": torch.zeros_like(noise), "t": t, "noise": noise}
            yield linear_case("q_sample", arguments, known, t, {"noise": lambda r: r.s})


def _kept_form(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):
        x0, noise = draw((2, 3), 1).to(dtype), draw((2, 3), 2).to(dtype)
        t = torch.tensor([1, setting.steps])

        def kept(candidate: Implementation, arguments: Any = (setting, x0, t, noise)) -> Tensor:
            result = candidate.q_sample(*arguments)
            return torch.tensor([result.dtype == dtype, result.shape == arguments[1].shape])

        yield Case(
            "q_sample",
            {"setting": setting, "x0": x0, "t": t, "noise": noise},
            torch.ones(2, dtype=torch.float64),
            run=kept,
            label="q_sample keeps (dtype, shape) of x0",
        )


def _log_variance(found: Posterior) -> Tensor | None:
    value = found.log_variance
    return None if value is None else agreement.filled(value, found, "log_variance")


_LARGEST_LOG_VARIANCE = 30.0
"""|ln σ²| of the variances that schedules have: relative rounding of a logarithm is that much of its exponential."""


def _reverse_log_variance(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):
        t = torch.arange(1, setting.steps + 1)
        for variance in ("posterior", "beta"):

            def ratio(
                candidate: Implementation,
                setting: Any = setting,
                name: str = variance,
                t: Tensor = t,
            ) -> Tensor:
                value, log_value = (
                    v.double() for v in candidate.reverse_variance(setting, name, t)
                )
                return torch.where(log_value.exp() == value, 1.0, log_value.exp() / value)

            yield Case(
                "reverse_variance",
                {"setting": setting, "variance": variance, "t": t},
                torch.ones(len(t), dtype=torch.float64),
                run=ratio,
                label="exp(log-variance)/variance",
                table=1 + _LARGEST_LOG_VARIANCE,
            )


def _first_log_variance(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, _ in settings_with_truth(implementation):
        x0, t = draw((1, 1), 1), torch.tensor([1])
        yield Case(
            "posterior",
            {"setting": setting, "x0": x0, "x_t": draw((1, 1), 4), "t": t},
            torch.full((1, 1), -torch.inf, dtype=torch.float64),
            select=_log_variance,
            label="posterior(…).log_variance",
        )


def _noised(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        if setting.zero_terminal_snr:
            continue
        for shape in ((1, 1), (7, 7), (3, 1, 5, 2)):
            t = torch.tensor([known.T, 1, (known.T + 1) // 2] * 3)[: shape[0]]
            x0 = draw(shape, 1)
            signal = known.column(lambda r: r.a, t, len(shape)) * x0
            sigma = known.column(lambda r: r.s, t, len(shape))

            def recomputed(
                candidate: Implementation,
                setting: Setting = setting,
                inputs: tuple[Tensor, ...] = (x0, t, signal, sigma),
            ) -> Tensor:
                x0, t, signal, sigma = inputs
                x_t, eps = candidate.noised(setting, x0, t, 0)
                return signal + sigma * eps.double() - x_t.double()

            yield Case(
                "noised",
                {"setting": setting, "x0": x0, "t": t, "seed": 0},
                torch.zeros(shape, dtype=torch.float64),
                run=recomputed,
                label="√ᾱ x0 + √(1−ᾱ) target − x_t",
            )


def _drawn(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """The noise of neighbouring seeds; which draws of one seed are the same is I18-generator's question."""
    for k, (setting, known) in enumerate(settings_with_truth(implementation)):
        shape = (1000, 512) if k == 0 else (100, 256)
        x0, t = torch.zeros(shape, dtype=torch.float64), torch.full(shape[:1], (known.T + 1) // 2)

        def scores(candidate: Implementation, inputs: Any = (setting, x0, t, k)) -> Tensor:
            where, data, at, number = inputs

            def block(seed: int) -> Tensor:
                return candidate.noised(where, data, at, seed)[1].double()

            return normality(as_many_as_are_cheap(block) if number == 0 else [block(0), block(1)])

        yield Case(
            "noised",
            {"setting": setting, "x0": f"zeros {list(shape)}", "t": (known.T + 1) // 2},
            torch.zeros(20, dtype=torch.float64),
            run=scores,
            label="noise drawn: moments, tails, χ², means and correlations of samples, positions and seeds",
        )


LAWS = (
    Law(
        "I1-marginal",
        "marginal of x_t",
        "q_sample(x0, t, ε) = √ᾱ_t x0 + √(1−ᾱ_t) ε.",
        "t steps of variance-preserving noising compose to one, with ᾱ the product of 1−β.",
        "Ho et al. 2020, eq. 4.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("q_sample"),
    ),
    Law(
        "I15-noise",
        "noise survives",
        "With x0 = 0, x_t/ε = √(1−ᾱ_t) at the first steps, in every dtype.",
        "1−ᾱ_1 = 1e-4 is below the spacing of bf16 and fp16 at 1: coefficients must be rounded after 1−ᾱ is formed, not before.",
        "Seen: no noise at all at the first 2 steps in fp16 and the first 10 in bf16.",
        COEFFICIENT_TOLERANCES,
        "Relative to the noise itself. " + COEFFICIENT_REASON,
        _noise_survives,
    ),
    Law(
        "I29-form",
        "dtype and shape kept",
        "x_t has the dtype and the shape of x0.",
        "A training loop under mixed precision relies on it; a float64 coefficient silently promotes.",
        "torch type promotion; seen: a float64 x_t from a float32 batch.",
        dict.fromkeys(COEFFICIENT_TOLERANCES, 0.0),
        "Yes or no.",
        _kept_form,
        measures="form",
    ),
    Law(
        "I2-mean",
        "posterior mean",
        "μ̃ = √ᾱ_{t−1}β_t/(1−ᾱ_t) x0 + √(1−β_t)(1−ᾱ_{t−1})/(1−ᾱ_t) x_t; x0 itself at t = 1.",
        "The product of N(x_{t−1}; √ᾱ_{t−1} x0, 1−ᾱ_{t−1}) and N(x_t; √(1−β_t) x_{t−1}, β_t): precision-weighted mean.",
        "Ho et al. 2020, eq. 7.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("posterior", "mean"),
    ),
    Law(
        "I2-posterior-variance",
        "posterior variance",
        "The posterior's variance is β̃_t, 0 at t = 1.",
        "The inverse of the sum of the two precisions.",
        "Ho et al. 2020, eq. 7.",
        {torch.float64: AGREEMENT[torch.float64]},
        AGREEMENT_REASON,
        agreement.value("posterior", "variance"),
    ),
    Law(
        "I20-posterior",
        "posterior log-variance",
        "The posterior's log-variance is ln β̃_t for t ≥ 2.",
        "A floor such as 1e-20 or a value copied from another step is another distribution.",
        "Seen: t = 1 floored at 1e-20 in one file and copied from t = 2 in another of the same project.",
        {torch.float64: AGREEMENT[torch.float64]},
        AGREEMENT_REASON,
        agreement.value("posterior", "log_variance"),
    ),
    Law(
        "I20-consistent",
        "exp(log-variance) = variance",
        "For each reverse variance and step, exp(log-variance) equals the variance; for both choices at t = 1 too.",
        "Samplers read one, bounds the other: they must describe the same Gaussian.",
        "Seen: fixed-large variance ≠ exp(log-variance) at the first step; a network's variance used as a log-variance.",
        {torch.float64: 1e-12},
        "One exponential of a number below 50: 1e-14.",
        _reverse_log_variance,
    ),
    Law(
        "I20-first",
        "posterior at t = 1",
        "At t = 1 the posterior is the point x0: its log-variance is −∞, not a floor and not another step's value.",
        "β̃_1 = 0. A floor of 1e-20 inside a KL is 46 nats of nothing.",
        "Ho et al. 2020, eq. 7. Seen: floored at 1e-20 in one file, copied from t = 2 in another of the same project.",
        {torch.float64: 0.0},
        "An infinity is exact.",
        _first_log_variance,
    ),
    Law(
        "I20-reverse",
        "reverse variances",
        "The reverse step's variance for t ≥ 2 is β̃_t (`posterior`) or β_t (`beta`) of the visited steps.",
        "The two extreme choices: exact for data at a point, and for data that are N(0, I).",
        "Ho et al. 2020, section 3.2. Seen: β of the full schedule used under respacing.",
        {torch.float64: AGREEMENT[torch.float64]},
        AGREEMENT_REASON,
        agreement.value("reverse_variance", "0"),
    ),
    Law(
        "I19-recomputable",
        "target belongs to x_t",
        "Where the noising draws its own noise, the ε it reports as target satisfies x_t = √ᾱ x0 + √(1−ᾱ) ε.",
        "The target must be recomputable from (x_t, x0, t).",
        "Seen: noise permuted inside q_sample but not in the target.",
        {torch.float64: 1e-6},
        "Float32 noise added in float64 is exact; 1e-6 allows a library that works in float32.",
        _noised,
    ),
    Law(
        "I19-drawn",
        "noise that is drawn",
        "The ε that the noising draws is standard normal, independent across dims, samples and seeds, and the same for the same seed.",
        "The target of the objective is white noise, one draw for each sample.",
        "One draw for the whole batch; rand for randn; the program's own generator.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of up to 10⁷ numbers.",
        _drawn,
        measures="chance",
    ),
)
