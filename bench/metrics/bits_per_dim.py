"""Bits per dimension of one model on one data set, with everything that must be said beside the number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bench.terminal.progress import progress
from ddpm_ref.elbo import elbo
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.estimator.surrogate import unit_of
from ddpm_ref.reverse import Model, Protocol, Variance
from ddpm_ref.schedule import Schedule
from ddpm_ref.terms import ElboTerms

_FULL = "over the images: how much another sample of images of this size would differ"
_BUDGETED = "of the estimate: how far the full sum over this very set of images may be"


@dataclass(frozen=True)
class Term:
    """A mean in nats per example with its standard error (0 = exact, None = unknown, since one example has no spread)."""

    nats: float
    stderr: float | None


@dataclass(frozen=True)
class Reading:
    """How a model was read: what stands beside the protocol, since it moves the number.

    Attributes:
        first_step: what the model calls our t = 1.
        decoder_variance: σ_1²: `beta` (β_1), or `posterior` (β̃_2, as in Ho et al.'s and OpenAI's code).
        variance: the name of the reverse variance, also where it reaches `elbo` as a table.
        said: what was read from the model's own configuration.
    """

    first_step: int = 1
    decoder_variance: str = "beta"
    variance: str | None = None
    said: tuple[str, ...] = ()

    def variance_of(self, protocol: Protocol) -> str:
        """The reverse variance by its name."""
        return (
            self.variance if protocol.variance == "table" and self.variance else protocol.variance
        )

    def decoder_variance_of(self, protocol: Protocol) -> str:
        """σ_1² by its name; a model that returns its variance brings this one too."""
        return "learned" if protocol.variance == "learned" else self.decoder_variance

    def describe(self, protocol: Protocol) -> str:
        """The protocol as one English sentence, with σ_1² and the first step."""
        named = replace(protocol, variance=self.variance_of(protocol))
        sigma = {"beta": "beta_1", "posterior": "posterior variance at t = 2", "learned": "learned"}
        first = sigma[self.decoder_variance_of(protocol)]
        return f"{named.describe()}; decoder variance sigma_1^2: {first}; first step: {self.first_step}"


@dataclass(frozen=True)
class Likelihood:
    """The bound of a data set, term by term.

    Attributes:
        terms: `prior`, `diffusion`, `reconstruction`, `total`.
        curve: mean of the term of step t = 1 … T, nats.
        dims: D.
        examples: how many images the mean is over.
        evaluations: network outputs spent.
        error_meaning: what the standard errors mean, in words.
        degrees_of_freedom: of the total's standard error, for Student's t.
        smooth_curve: the curve is the estimator's fit, not a mean at each t.
        protocol: how a term was evaluated.
        reading: how the model was read.
    """

    terms: dict[str, Term]
    curve: list[float]
    dims: int
    examples: int
    evaluations: int
    error_meaning: str
    degrees_of_freedom: float
    smooth_curve: bool
    protocol: Protocol
    reading: Reading

    def bits(self, nats: float) -> float:
        """Nats per example → bits per dimension."""
        return nats / (self.dims * math.log(2))

    def error_in_bits(self, term: Term) -> float | None:
        """A term's standard error in bits per dimension, None = unknown."""
        return None if term.stderr is None else self.bits(term.stderr)

    def as_json(self) -> dict[str, Any]:
        """Strict JSON: every number with its unit in its name."""
        return {
            "bits_per_dim": self.bits(self.terms["total"].nats),
            "bits_per_dim_stderr": self.error_in_bits(self.terms["total"]),
            "stderr_meaning": self.error_meaning,
            "stderr_degrees_of_freedom": self.degrees_of_freedom,
            "terms_nats": {
                name: {"mean": term.nats, "stderr": term.stderr}
                for name, term in self.terms.items()
            },
            "curve_nats": self.curve,
            "curve_is_smoothed": self.smooth_curve,
            "dims": self.dims,
            "examples": self.examples,
            "evaluations": self.evaluations,
            "protocol": {
                "T": self.protocol.T,
                "parameterization": self.protocol.parameterization,
                "variance": self.reading.variance_of(self.protocol),
                "decoder_variance": self.reading.decoder_variance_of(self.protocol),
                "first_step": self.reading.first_step,
                "decoder": self.protocol.decoder,
                "levels": self.protocol.levels,
                "clip": self.protocol.clip,
                "draws": self.protocol.draws,
                "seed": self.protocol.seed,
                "text": self.reading.describe(self.protocol),
            },
            "read": list(self.reading.said),
        }


@dataclass(frozen=True, eq=False)
class Question:
    """Which model, on which data, under which protocol: the keywords of `elbo`; `source` is the data set in a record's words."""

    model: Model
    data: Tensor
    source: Mapping[str, Any]
    schedule: Schedule
    parameterization: str
    variance: Variance
    decoder: str
    levels: int | None
    clip: float | None
    seed: int
    draws: int
    batch_size: int
    reading: Reading = field(default_factory=Reading)


def by_budget(question: Question, evaluations: int) -> Likelihood:
    """`estimate_elbo` with a budget of network evaluations."""
    found = estimate_elbo(
        question.model,
        question.data,
        question.schedule,
        evaluations=evaluations,
        parameterization=question.parameterization,
        variance=question.variance,
        decoder=question.decoder,
        levels=question.levels,
        seed=question.seed,
        clip=question.clip,
        batch_size=question.batch_size,
    )
    unit = found.dims * math.log(2)
    return Likelihood(
        terms={
            "prior": Term(found.prior, 0.0),
            "diffusion": Term(*found.diffusion),
            "reconstruction": Term(*found.reconstruction),
            "total": Term(found.bits_per_dim * unit, found.stderr * unit),
        },
        curve=found.curve.tolist(),
        dims=found.dims,
        examples=found.data_size,
        evaluations=found.evaluations,
        error_meaning=_BUDGETED,
        degrees_of_freedom=found.degrees_of_freedom,
        smooth_curve=True,
        protocol=found.protocol,
        reading=question.reading,
    )


def by_full_sum(question: Question) -> Likelihood:
    """`elbo` over all images and all t, a block of images at a time."""
    size = len(question.data)
    block = max(1, min(size, 64))
    starts = range(0, size, block)
    parts = [
        elbo(
            question.model,
            question.data[start : start + block],
            question.schedule,
            parameterization=question.parameterization,
            variance=question.variance,
            decoder=question.decoder,
            levels=question.levels,
            seed=question.seed,
            draws=question.draws,
            clip=question.clip,
            batch_size=question.batch_size,
            first_index=start,
        )
        for start in progress(starts, total=len(starts), label="full sum over t")
    ]
    return _summed(parts, size * question.schedule.T * question.draws, question.reading)


def _summed(parts: list[ElboTerms], evaluations: int, reading: Reading) -> Likelihood:
    prior = torch.cat([part.prior for part in parts])
    diffusion = torch.cat([part.diffusion for part in parts])
    reconstruction = torch.cat([part.reconstruction for part in parts])
    protocol = parts[0].protocol
    if protocol is None:
        raise ValueError("these terms carry no protocol: they were not evaluated by `elbo`")
    return Likelihood(
        terms={
            "prior": _mean(prior),
            "diffusion": _mean(diffusion.sum(dim=1)),
            "reconstruction": _mean(reconstruction),
            "total": _mean(prior + diffusion.sum(dim=1) + reconstruction),
        },
        curve=[reconstruction.mean().item(), *diffusion.mean(dim=0).tolist()],
        dims=parts[0].dims,
        examples=len(prior),
        evaluations=evaluations,
        error_meaning=_FULL,
        degrees_of_freedom=len(prior) - 1,
        smooth_curve=False,
        protocol=protocol,
        reading=reading,
    )


def _mean(values: Tensor) -> Term:
    unit = unit_of(values)
    spread = unit * (values / unit).std().item() if len(values) > 1 else None
    return Term(values.mean().item(), None if spread is None else spread / math.sqrt(len(values)))
