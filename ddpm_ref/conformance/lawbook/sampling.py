"""Laws on sampling: a reverse step is the posterior with the model's x_0, and chains end at what the model says."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.agreement.methods import SAMPLERS, step_coefficients
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.bound import ConstantModel
from ddpm_ref.conformance.lawbook.chance import normality, standard_scores
from ddpm_ref.conformance.lawbook.law import (
    AGREEMENT,
    AGREEMENT_REASON,
    SIGMAS,
    Case,
    Law,
    draw,
    linear_case,
    seeded,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import MP, Number, Row, Truth, at_steps
from ddpm_ref.conformance.setting import Setting

_SPACES = ("eps", "x0", "v", "flow")


def _last(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """The last step returns the model's x0, whatever the noise argument."""
    for setting, known in settings_with_truth(implementation):
        x_t, noise = draw((2, 3), 4).to(dtype), draw((2, 3), 2).to(dtype)
        said, t = draw((2, 3), 5).to(dtype), torch.tensor([1, 1])
        for sampler, eta in SAMPLERS:
            arguments = {
                "setting": setting,
                "prediction": said,
                "x_t": x_t,
                "t": t,
                "noise": noise,
                "parameterization": "x0",
                "sampler": sampler,
                "eta": eta,
            }
            yield linear_case("sampler_step", arguments, known, t, {"prediction": lambda r: MP.one})


def _chains(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        for sampler in ("ddpm", "ddim"):
            for space in _SPACES:
                last = known.rows[-1]
                if space not in implementation.parameterizations or not (
                    last.determines(space, "x0")
                ):
                    continue
                expected = torch.full((2, 3), 1.75, dtype=torch.float64)
                yield Case(
                    "sample",
                    {
                        "setting": setting,
                        "model": ConstantModel(known, space, 1.75),
                        "shape": (2, 3),
                        "parameterization": space,
                        "sampler": sampler,
                    },
                    expected,
                )


_MEAN, _VARIANCE = 0.75, 0.25
_CHAINS = (512, 16)
_LONG = (16384, 16)


@dataclass(frozen=True)
class GaussianModel:
    """E[x_0 | x_t] for x_0 ~ N(m, c) in every dim: (1 − g a) m + g x_t with g = a c/(a² c + s²)."""

    known: Truth

    def __str__(self) -> str:
        """In a witness."""
        return f"E[x0 | x_t] of N({_MEAN}, {_VARIANCE})"

    @cached_property
    def _tables(self) -> Tensor:
        """((1 − g a) m, g) by original step."""
        return self.known.by_original(
            lambda row: (1 - _denoising_gain(row) * row.a) * _MEAN, _denoising_gain
        )

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂_0 for noisy data at original steps t `[B]`."""
        constant, gain = at_steps(self._tables, t).reshape(2, -1, *[1] * (x_t.ndim - 1))
        said: Tensor = (constant + gain * x_t.double()).to(x_t.dtype)
        return said


def _denoising_gain(row: Row) -> Number:
    """g = a c/(a² c + s²)."""
    return row.a * _VARIANCE / (row.alpha_bar * _VARIANCE + row.rest)


def _on_clean_and_noisy(row: Row, sampler: str) -> tuple[Number, Number, Number]:
    """Factors of (x̂_0, x_t, noise) of one step: ε̂ = (x_t − a x̂_0)/s put in; η = 0 for `ddim`."""
    clean, direction, deviation = step_coefficients(row, sampler, 0.0)
    return clean - direction * row.a / row.s, direction / row.s, deviation


def chain_moments(known: Truth, sampler: str) -> tuple[float, float]:
    """Mean and variance of the chain's end, by the recursion of one linear Gaussian step after another from N(0, 1)."""
    mean, variance = MP.zero, MP.one
    for row in reversed(known.rows[1:]):
        clean, noisy, deviation = _on_clean_and_noisy(row, sampler)
        gain = _denoising_gain(row)
        factor = clean * gain + noisy
        mean = factor * mean + clean * (1 - gain * row.a) * _MEAN
        variance = factor**2 * variance + deviation**2
    return float(mean), float(variance)


def _ends(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Standardized mean, second moment, and correlation of neighbours, over chains that differ in their noise only."""
    for setting, known in _short(implementation):
        for sampler in ("ddpm", "ddim"):
            mean, variance = chain_moments(known, sampler)

            def scores(
                candidate: Implementation,
                inputs: Any = (setting, known, sampler),
                moments: tuple[float, float] = (mean, variance),
            ) -> Tensor:
                where, truth, name = inputs
                with seeded():
                    ends = candidate.sample(where, GaussianModel(truth), _CHAINS, "x0", name)
                z = (ends.double() - moments[0]) / math.sqrt(moments[1])
                return standard_scores(
                    z.flatten(), [z.roll(1, 1).flatten(), z.roll(1, 0).flatten()]
                )

            yield Case(
                "sample",
                {
                    "setting": setting,
                    "model": GaussianModel(known),
                    "shape": _CHAINS,
                    "parameterization": "x0",
                    "sampler": sampler,
                },
                torch.zeros(6, dtype=torch.float64),
                run=scores,
                label="ends of chains: standardized moments 1–4, correlations across dims and samples",
            )


@dataclass(eq=False)
class Heard:
    """A model that keeps what it is handed and what it says."""

    model: GaussianModel
    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __str__(self) -> str:
        """In a witness."""
        return str(self.model)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The model's answer."""
        said = self.model(x_t, t)
        self.calls.append((x_t.double(), said.double()))
        return said


def _walked(
    candidate: Implementation, setting: Setting, known: Truth, sampler: str
) -> list[tuple[Tensor, Tensor]]:
    heard = Heard(GaussianModel(known))
    with seeded():
        candidate.sample(setting, heard, _LONG if known.T <= 50 else _CHAINS, "x0", sampler)
    return heard.calls


def _starts(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        for sampler in ("ddpm", "ddim"):

            def scores(
                candidate: Implementation, inputs: Any = (setting, known, sampler)
            ) -> Tensor:
                calls = _walked(candidate, inputs[0], inputs[1], inputs[2])
                return normality([calls[0][0]]) if calls else torch.full((20,), torch.inf)

            yield Case(
                "sample",
                {"setting": setting, "parameterization": "x0", "sampler": sampler},
                torch.zeros(20, dtype=torch.float64),
                run=scores,
                label="first x_t that the model is handed: moments, tails, χ², means and correlations of samples and positions",
            )


def _noises(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """z of each ancestral step, from x_{t−1} = c_0 x̂_0 + c_t x_t + √β̃ z."""
    for setting, known in _short(implementation):
        if known.T < 3:
            continue

        def scores(candidate: Implementation, inputs: Any = (setting, known)) -> Tensor:
            calls = _walked(candidate, inputs[0], inputs[1], "ddpm")
            if len(calls) != inputs[1].T:
                raise NotOffered(f"{candidate.name} calls the model {len(calls)} times")
            blocks = []
            for row, (x_t, said), (after, _) in zip(
                inputs[1].rows[:1:-1], calls, calls[1:], strict=False
            ):
                clean, noisy, deviation = (float(v) for v in _on_clean_and_noisy(row, "ddpm"))
                blocks.append((after - clean * said - noisy * x_t) / deviation)
            return normality(blocks)

        yield Case(
            "sample",
            {"setting": setting, "parameterization": "x0", "sampler": "ddpm"},
            torch.zeros(20, dtype=torch.float64),
            run=scores,
            label="noise of the steps, from what the model is handed: moments, tails, χ², means and correlations of samples, positions and steps",
        )


def _short(implementation: Implementation) -> list[tuple[Setting, Truth]]:
    return sorted(settings_with_truth(implementation), key=lambda pair: pair[1].T)[:4]


def _visited(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in _short(implementation):
        originals = [row.original for row in known.rows[1:]][::-1]
        for sampler in ("ddpm", "ddim"):

            def steps(
                candidate: Implementation, inputs: Any = (setting, sampler), known: Truth = known
            ) -> Tensor:
                model = ConstantModel(known, "x0", 0.25)
                candidate.sample(inputs[0], model, (1, 3), "x0", inputs[1])
                return torch.tensor(model.asked)

            yield Case(
                "sample",
                {"setting": setting, "sampler": sampler},
                torch.tensor(originals, dtype=torch.float64),
                run=steps,
                label="steps at which the sampler asks the model",
            )


_TOLERANCES = {torch.float64: 4e-12, torch.float32: 16 * 2.0**-23}
_REASON = "Relative to the sum of the absolute products: a conversion to x0 and a combination, each of a few roundings."

LAWS = (
    Law(
        "I16-ancestral",
        "ancestral step",
        "x_{t−1} = c_0 x̂0 + c_t x_t + √β̃ z with the previous step of the list; with the true x0 it samples the posterior.",
        "The reverse Gaussian with μ̃(x_t, x̂0) and β̃ of the visited steps.",
        "Ho et al. 2020, algorithm 2. Seen: β of the full schedule under respacing; the previous step from the stride.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("sampler_step", only=lambda options: options["sampler"] == "ddpm"),
    ),
    Law(
        "I16-ddim",
        "DDIM step",
        "x' = √ᾱ' x̂0 + √(1−ᾱ'−σ²) ε̂ + σ z, σ = η√β̃; η = 1 has the ancestral variance, η = 0 is deterministic.",
        "Any such σ keeps the marginals q(x_t | x0).",
        "Song et al. 2021, eqs. 12, 16. Seen: variance ∝ η instead of η²; x0 used as ε.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("sampler_step", only=lambda options: options["sampler"] == "ddim"),
    ),
    Law(
        "I16-variance",
        "ancestral step, both variances",
        "x_{t−1} = c_0 x̂0 + c_t x_t + σ_t z with σ_t² = β̃_t (`posterior`) or β_t (`beta`) of the visited steps; no noise at t = 1.",
        "The two extreme choices of the reverse variance have the same mean.",
        "Ho et al. 2020, section 3.2. Seen: one variance returned for the other's name.",
        AGREEMENT,
        AGREEMENT_REASON,
        agreement.value("ancestral_step"),
    ),
    Law(
        "I16-last",
        "last step",
        "The step to 0 returns x̂0 and adds no noise.",
        "β̃_1 = 0 and c_0 = 1, c_t = 0 at t = 1.",
        "Ho et al. 2020, algorithm 2, line 3.",
        _TOLERANCES,
        _REASON,
        _last,
    ),
    Law(
        "I16-chain",
        "chain of a constant model",
        "If the model always says x0 = g, every chain ends at g; also for |g| > 1 where nothing is clipped.",
        "The last step returns x̂0.",
        "Ho et al. 2020, algorithm 2.",
        {torch.float64: 1e-3},
        "Absolute; chains run in float32, and x̂0 from ε is amplified by at most 1/√ᾱ_1 at the end.",
        _chains,
    ),
    Law(
        "I16-visited",
        "steps of the chain",
        "The sampler asks the model once per visited step, from the last to the first, by the index of the trained model.",
        "A respaced chain uses the trained network at the chosen steps.",
        "Nichol & Dhariwal 2021, section 4. Seen: previous step from the stride instead of the list.",
        {torch.float64: 0.0},
        "A list of integers.",
        _visited,
    ),
    Law(
        "I16-start",
        "start of the chain",
        "The model's first call is handed x_T ~ N(0, I), independent across dims and samples.",
        "q(x_T) is N(0, I) up to ᾱ_T. A long ancestral chain forgets where it began, so that its end does not show it; a short one, "
        "or another sampler, does not.",
        "Ho et al. 2020, algorithm 2, line 1. Seen: torch.randn in training and torch.rand at inference.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {math.prod(_CHAINS):,} numbers or more.",
        _starts,
        measures="chance",
    ),
    Law(
        "I16-noise",
        "noise of the steps",
        "The noise that an ancestral chain adds is √β̃ z with z ~ N(0, 1), new at each step, in each sample and position.",
        "x_{t−1} − c_0 x̂0 − c_t x_t is √β̃ z; both ends of each step are what the model is handed.",
        "Ho et al. 2020, algorithm 2. Noise of another variance; one draw for all steps, samples or channels.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {math.prod(_LONG):,} numbers a step: half a percent of the variance over a dozen steps.",
        _noises,
        measures="chance",
    ),
    Law(
        "I16-ends",
        "distribution of the chain's end",
        "With the optimal denoiser of N(m, c) the chain's end is Gaussian, with mean and variance by recursion over the steps from N(0, 1).",
        "Every step is x̂0, x_t and noise with known coefficients, and x̂0 is linear in x_t.",
        "A start that is not N(0, I), a step without its noise or with more of it, one sampler run for the other.",
        {torch.float64: SIGMAS},
        f"{SIGMAS} standard errors of {math.prod(_CHAINS)} numbers.",
        _ends,
        measures="chance",
    ),
)
