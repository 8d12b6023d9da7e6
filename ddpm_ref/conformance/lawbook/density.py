"""Laws on densities: KL divergence, the discretized decoder, and the exact models' log-densities."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import AGREEMENT_REASON, DENSITY, Case, Law, draw
from ddpm_ref.conformance.lawbook.truth import MP, Number, bin_log_mass, gaussian_kl

_LEVELS = (2, 17, 256)


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _kl_case(quadruples: list[tuple[float, float, float, float]], floor: float) -> Case:
    columns = [_column([q[i] for q in quadruples]) for i in range(4)]

    def exact(index: tuple[int, ...]) -> Number:
        mean1, log_var1, mean2, log_var2 = (MP.mpf(v) for v in quadruples[index[0]])
        return gaussian_kl(mean1, MP.exp(log_var1), mean2, MP.exp(log_var2))

    expected = _column([float(exact((i,))) for i in range(len(quadruples))])
    names = ("mean1", "log_var1", "mean2", "log_var2")
    return Case(
        "gaussian_kl",
        dict(zip(names, columns, strict=True)),
        expected,
        expected.clamp(min=floor),
        exact=exact,
    )


def _kl_near(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for gap in (0.0, 1e-12, 1e-9, 1e-7, 1e-5):
        for log_var in (-9.0, 0.0):
            quadruple = (0.5, log_var + gap, 0.5, log_var)
            inputs = [_column([v]) for v in quadruple]

            def negative(candidate: Implementation, inputs: Any = inputs) -> Tensor:
                return candidate.gaussian_kl(*inputs).clamp(max=0.0)

            zero = torch.zeros(1, dtype=torch.float64)
            names = ("mean1", "log_var1", "mean2", "log_var2")
            arguments = dict(zip(names, inputs, strict=True))
            yield Case("gaussian_kl", arguments, zero, run=negative, label="gaussian_kl below 0")
            yield _kl_case([quadruple], 1e-3)


def _lattice(levels: int) -> list[float]:
    chosen = sorted({0, 1, levels // 3, levels // 2, levels - 2, levels - 1})
    return [2.0 * k / (levels - 1) - 1 for k in chosen]


def _decoder_case(points: list[tuple[float, float, float]], levels: int, floor: float) -> Case:
    x, mean, log_scale = (_column([p[i] for p in points]) for i in range(3))

    def exact(index: tuple[int, ...]) -> Number:
        value, centre, log_sigma = points[index[0]]
        return bin_log_mass(MP.mpf(value), MP.mpf(centre), MP.exp(MP.mpf(log_sigma)), levels)

    expected = _column([float(exact((i,))) for i in range(len(points))])
    return Case(
        "discretized_log_likelihood",
        {"x": x, "mean": mean, "log_scale": log_scale, "levels": levels},
        expected,
        expected.abs().clamp(min=floor),
        exact=exact,
    )


def _decoder(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for levels in _LEVELS:
        points = list(itertools.product(_lattice(levels), (-0.875, 0.0, 0.34), (-3.0, -1.0, 0.5)))
        near = [p for p in points if abs(p[0] - p[1]) < 5 * math.exp(p[2]) + 1 / (levels - 1)]
        for part in (*([p] for p in near[::5]), near):
            yield _decoder_case(part, levels, 1.0)


def _tails(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for levels in _LEVELS:
        for sigmas, log_scale in itertools.product((5.0, 8.0, 12.0, 40.0), (-4.0, -2.5)):
            for x in (-1.0, _lattice(levels)[len(_lattice(levels)) // 2], 1.0):
                sign = -1.0 if x > 0 else 1.0
                yield _decoder_case(
                    [(x, x + sign * sigmas * math.exp(log_scale), log_scale)], levels, 1.0
                )


def _sum_to_one(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for levels in _LEVELS:
        x = torch.arange(levels, dtype=torch.float64) * (2.0 / (levels - 1)) - 1
        for mean, log_scale in itertools.product((-1.5, 0.0, 0.34, 1.0), (-4.6, -2.0, 0.5)):
            arguments = {
                "x": x,
                "mean": torch.full_like(x, mean),
                "log_scale": torch.full_like(x, log_scale),
                "levels": levels,
            }

            def mass(candidate: Implementation, inputs: Any = arguments) -> Tensor:
                logs: Tensor = candidate.discretized_log_likelihood(*inputs.values())
                return logs.double().exp().sum().reshape(1)

            yield Case(
                "discretized_log_likelihood",
                arguments,
                torch.ones(1, dtype=torch.float64),
                run=mass,
                label="Σ over levels of exp(discretized_log_likelihood)",
            )


def _symmetric(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for levels in _LEVELS:
        x = _column(_lattice(levels))
        for log_scale in (-4.6, -1.0):
            mean, scale = torch.full_like(x, 0.34), torch.full_like(x, log_scale)

            def difference(
                candidate: Implementation, inputs: Any = (x, mean, scale, levels)
            ) -> Tensor:
                points, centre, width, n = inputs
                once = candidate.discretized_log_likelihood(points, centre, width, n)
                mirrored = candidate.discretized_log_likelihood(-points, -centre, width, n)
                return (once - mirrored) / once.abs().clamp(min=1.0)

            yield Case(
                "discretized_log_likelihood",
                {"x": x, "mean": mean, "log_scale": scale, "levels": levels},
                torch.zeros(len(x), dtype=torch.float64),
                run=difference,
                label="log-likelihood minus that of the mirror image",
            )


def _slope(x: float, mean: float, log_scale: float, levels: int) -> Number:
    """∂/∂mean of the bin's log-mass, from [φ(low) − φ(high)]/(σ P)."""
    sigma, half = MP.exp(MP.mpf(log_scale)), MP.one / (levels - 1)
    log_mass = bin_log_mass(MP.mpf(x), MP.mpf(mean), sigma, levels)

    def density(edge: Number) -> Number:
        return MP.exp(-(((edge - mean) / sigma) ** 2) / 2) / MP.sqrt(2 * MP.pi)

    low = MP.zero if x <= -1 else density(MP.mpf(x) - half)
    high = MP.zero if x >= 1 else density(MP.mpf(x) + half)
    return (low - high) / (sigma * MP.exp(log_mass))


def _gradient(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for levels, sigmas in itertools.product((17, 256), (1.0, 6.0, 12.0, 30.0)):
        for x in (-1.0, _lattice(levels)[3], 1.0):
            log_scale = -3.0
            mean = x + (-1.0 if x > 0 else 1.0) * sigmas * math.exp(log_scale)
            slope = float(_slope(x, mean, log_scale, levels))
            inputs = (_column([x]), _column([mean]), _column([log_scale]), levels)

            def gradient(candidate: Implementation, inputs: Any = inputs) -> Tensor:
                centre = inputs[1].clone().requires_grad_(True)
                value = candidate.discretized_log_likelihood(inputs[0], centre, *inputs[2:])
                slope: Tensor = torch.autograd.grad(value.sum(), centre)[0]
                return slope

            yield Case(
                "discretized_log_likelihood",
                dict(zip(("x", "mean", "log_scale", "levels"), inputs, strict=True)),
                _column([slope]),
                abs(slope),
                run=gradient,
                label="gradient of discretized_log_likelihood in the mean",
            )


# ---------------------------------------------------------------- exact models


def spread_matrix(dims: int, salt: int) -> Tensor:
    """A full covariance with eigenvalues above 0.1, the same at each call."""
    root = draw((dims, dims), salt)
    result: Tensor = root @ root.T / dims + 0.1 * torch.eye(dims, dtype=torch.float64)
    return result


def log_density(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """ln N(x; mean, covariance) of rows `[B, D]`, nats `[B]`."""
    gap = x - mean
    whitened = (gap * torch.linalg.solve(covariance, gap.T).T).sum(1)
    volume = len(mean) * math.log(2 * math.pi) + float(torch.logdet(covariance))
    result: Tensor = -0.5 * (volume + whitened)
    return result


def _gaussian_density(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for batch, dims in ((1, 1), (2, 3), (5, 5)):
        mean, covariance, x0 = draw((dims,), 9), spread_matrix(dims, 10), draw((batch, dims), 1)
        expected = log_density(x0, mean, covariance)
        arguments = {"mean": mean, "covariance": covariance, "x0": x0}
        yield Case("gaussian_log_prob", arguments, expected, expected.abs().clamp(min=1.0))


def _mixture_density(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for batch, dims, parts in ((1, 1, 2), (2, 3, 3), (5, 5, 2)):
        weights = torch.arange(1, parts + 1, dtype=torch.float64) / (parts * (parts + 1) / 2)
        means, x0 = 2 * draw((parts, dims), 11), draw((batch, dims), 1)
        covariances = torch.stack([spread_matrix(dims, 12 + k) for k in range(parts)])
        logs = [weights[k].log() + log_density(x0, means[k], covariances[k]) for k in range(parts)]
        expected = torch.logsumexp(torch.stack(logs), 0)
        arguments = {"weights": weights, "means": means, "covariances": covariances, "x0": x0}
        yield Case("mixture_log_prob", arguments, expected, expected.abs().clamp(min=1.0))


def _gaussian_entropy(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for dims in (1, 3):
        covariance = spread_matrix(dims, 10)
        expected = 0.5 * (dims * math.log(2 * math.pi * math.e) + torch.logdet(covariance))

        def entropy(candidate: Implementation, covariance: Tensor = covariance) -> Tensor:
            return torch.tensor(
                [float(candidate.gaussian_entropy(covariance))], dtype=torch.float64
            )

        yield Case("gaussian_entropy", {"covariance": covariance}, expected.reshape(1), run=entropy)


_SOLVE = {torch.float64: 1e-10}
_SOLVE_REASON = (
    "Relative to max(1, |value|); one factorization of a covariance with condition below 1e3."
)

LAWS = (
    Law(
        "I9-kl",
        "KL of Gaussians",
        "KL = ½[ln σ2²/σ1² + (σ1² + (m1−m2)²)/σ2² − 1], elementwise, nats, first from second.",
        "The integral of N1 (ln N1 − ln N2).",
        "Any textbook; Ho et al. 2020, eq. 5.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.value("gaussian_kl"),
    ),
    Law(
        "I9-nonnegative",
        "KL ≥ 0",
        "KL is never negative, 0 for equal Gaussians, and right in absolute terms when they nearly agree.",
        "Gibbs' inequality; expm1(d) − d cancels to d²/2.",
        "Seen: a prior term that is 0 or negative in float32.",
        {torch.float64: 1e-12},
        "Absolute, with 1e-15 of slack for rounding (in units of 1e-3 nats).",
        _kl_near,
    ),
    Law(
        "I8-value",
        "discretized decoder",
        "ln P(bin) = ln[Φ((c+h−m)/σ) − Φ((c−h−m)/σ)], h = 1/(levels−1), outer bins open, with the exact normal CDF.",
        "The mass of N(m, σ²) on the bin around the level c.",
        "Ho et al. 2020, eq. 13. Seen: a tanh approximation of Φ; a log-variance for a log-scale.",
        {torch.float64: 1e-9},
        "Relative to max(1, |value|): differences of Φ near a narrow bin lose up to 1e-7/1e-16.",
        _decoder,
    ),
    Law(
        "I8-tails",
        "decoder in the tails",
        "The same out to 40σ, finite.",
        "ln Φ is accurate where Φ underflows.",
        "Seen: +2.6 bits at 5σ from the tanh approximation; a probability floor of 1e-12.",
        {torch.float64: 1e-9},
        "Relative to max(1, |value|).",
        _tails,
    ),
    Law(
        "I8-sum",
        "decoder sums to 1",
        "Σ over all levels of P = 1.",
        "The bins tile the line because the outer ones are open.",
        "Ho et al. 2020, eq. 13.",
        {torch.float64: 1e-10},
        "A sum of 256 probabilities.",
        _sum_to_one,
    ),
    Law(
        "I8-symmetric",
        "decoder is symmetric",
        "ln P(x | m) = ln P(−x | −m).",
        "The normal density and the lattice are symmetric.",
        "Seen: open only at one end.",
        {torch.float64: 1e-9},
        "Relative to max(1, |value|).",
        _symmetric,
    ),
    Law(
        "I8-gradient",
        "decoder's gradient",
        "∂ ln P/∂m = [φ(low) − φ(high)]/(σ P), also 30σ out, where it is what pulls the mean back.",
        "Differentiation under the integral.",
        "Seen: a probability floor with zero gradient in the tail.",
        {torch.float64: 1e-3},
        "Relative, as the notation table promises.",
        _gradient,
    ),
    Law(
        "I30-gaussian",
        "Gaussian log-density",
        "ln N(x; m, C) in nats, `[B]`.",
        "−½[D ln 2π + ln det C + (x−m)ᵀC⁻¹(x−m)].",
        "Any textbook.",
        _SOLVE,
        _SOLVE_REASON,
        _gaussian_density,
    ),
    Law(
        "I30-mixture",
        "mixture log-density",
        "ln Σ_k w_k N(x; m_k, C_k) in nats, `[B]`.",
        "Log-sum-exp of the parts.",
        "Any textbook.",
        _SOLVE,
        _SOLVE_REASON,
        _mixture_density,
    ),
    Law(
        "I12-entropy-value",
        "Gaussian entropy",
        "½[D ln 2πe + ln det C] nats.",
        "The expectation of −ln N.",
        "Any textbook.",
        _SOLVE,
        _SOLVE_REASON,
        _gaussian_entropy,
    ),
)
