"""Right before fast: each contender's result is checked at the shape and in the dtype that are then timed.

Our own providers must give the bits of the definition, `NoiseStream.normal` and then `q_sample`. Everybody else draws other
noise, but hands it over with x_t, and so the relation

    x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε                                                                     (1)

can be checked in float64, and ε for what its first two moments say, and for being new at every call.

Tolerance of (1): peers keep tables in float32, where 1−ᾱ_1 = 1e-4 is off by up to 3e-8, so that √(1−ᾱ_1) is off by 1.5e-6, and
add one rounding of the result. `32 ε` of the dtype covers it: 4e-6 in float32, 0.25 in bf16, where tables in bf16 lose the noise.
"""

import math

import torch
from torch import Tensor

from bench.measure.throughput.contenders import Call, Contender, Pair
from bench.measure.throughput.problem import Problem
from ddpm_ref.process import q_sample

DEFINITION_LIMIT = 1 << 22
"""Elements that are compared with the definition; of larger batches the first, middle and last samples."""
_STEP = 3
_STANDARD_ERRORS = 6.0


class WrongResultError(AssertionError):
    """A contender computed something else: it is not timed."""


def verify(contender: Contender, call: Call, p: Problem) -> str:
    """Check one contender; the answer says in words what was proven.

    Raises:
        WrongResultError: it is wrong; the message says by how much.
    """
    x_t, eps = call(_STEP)
    if contender.in_place:  # the next call writes over it
        x_t, eps = x_t.clone(), eps.clone()
    _require(
        x_t.shape == eps.shape == p.x0.shape and x_t.dtype == eps.dtype == p.x0.dtype,
        f"{contender.name} returned {x_t.dtype} {list(x_t.shape)}, {eps.dtype} {list(eps.shape)}",
    )
    if contender.provider:
        return _same_bits(contender.name, (x_t, eps), p)
    worst = _affine(contender.name, x_t, eps, p)
    if eps is p.noise:
        return f"x_t within {worst:.1e} of √ᾱ x₀ + √(1−ᾱ) ε"
    _normal(contender.name, eps, call(_STEP)[1])
    return f"x_t within {worst:.1e} of √ᾱ x₀ + √(1−ᾱ) ε; ε new, mean 0, variance 1"


def _same_bits(name: str, pair: Pair, p: Problem) -> str:
    samples = p.x0.shape[0]
    blocks = _blocks(samples, p.elements)
    for low, high in blocks:
        part = slice(low, high)
        eps = p.stream.normal(
            tuple(p.x0[part].shape),
            step=_STEP,
            first_index=low,
            device=p.device,
            dtype=p.x0.dtype,
        )
        x_t = q_sample(p.x0[part], p.t[part], p.schedule, eps)
        for what, got, truth in (("x_t", pair[0][part], x_t), ("ε", pair[1][part], eps)):
            wrong = int((_bits(got) != _bits(truth)).sum())
            _require(wrong == 0, f"{name}: {what} differs from the definition in {wrong} elements")
    compared = sum(high - low for low, high in blocks)
    part_of = "all" if compared == samples else f"{compared} of {samples}"
    return f"x_t and ε equal the definition bit for bit, {part_of} samples"


def _blocks(samples: int, elements: int) -> list[tuple[int, int]]:
    """Ranges of samples to compare: all, or the first, middle and last."""
    if elements <= DEFINITION_LIMIT:
        return [(0, samples)]
    width = max(1, DEFINITION_LIMIT * samples // (12 * elements))
    middle = (samples - width) // 2
    return [(0, width), (middle, middle + width), (samples - width, samples)]


def _bits(x: Tensor) -> Tensor:
    """The words behind floating-point numbers, so that −0 ≠ 0 and NaN = NaN."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.contiguous().view(words[x.element_size()])


def _affine(name: str, x_t: Tensor, eps: Tensor, p: Problem) -> float:
    view = (-1, *[1] * (p.x0.ndim - 1))
    errors = []
    tolerance = 32 * torch.finfo(p.x0.dtype).eps
    for low in range(0, p.x0.shape[0], _chunk(p)):
        part = slice(low, low + _chunk(p))
        t = p.t[part].cpu()
        signal = p.schedule.sqrt_alpha_bar[t].view(view).to(p.device)
        added = p.schedule.sqrt_one_minus_alpha_bar[t].view(view).to(p.device)
        truth = signal * p.x0[part].double() + added * eps[part].double()
        scale = truth.abs().clamp(min=1)
        errors.append(((x_t[part].double() - truth).abs() / scale).max())
    worst = float(torch.stack(errors).max())  # a NaN stays a NaN, and fails
    _require(worst <= tolerance, f"{name}: x_t is off by {worst:.1e}, allowed {tolerance:.1e}")
    return worst


def _chunk(p: Problem) -> int:
    """Samples at a time, so that float64 copies stay small beside a batch of 400 MB."""
    return max(1, DEFINITION_LIMIT * p.x0.shape[0] // p.elements)


def _normal(name: str, eps: Tensor, again: Tensor) -> None:
    n = eps.numel()
    mean, variance = float(eps.double().mean()), float(eps.double().var(correction=0))
    _require(abs(mean) <= _STANDARD_ERRORS / math.sqrt(n), f"{name}: ε has mean {mean:.2e}")
    # Var of the sample variance of n normals is 2/n; + 2 ε for rounding to a short dtype
    allowed = _STANDARD_ERRORS * math.sqrt(2 / n) + 2 * torch.finfo(eps.dtype).eps
    _require(abs(variance - 1) <= allowed, f"{name}: ε has variance {variance:.4f}")
    _require(not torch.equal(eps, again), f"{name}: ε is the same at every call")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise WrongResultError(f"{message}: not timed")
