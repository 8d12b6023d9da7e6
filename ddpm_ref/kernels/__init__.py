r"""Noise and x_t in one pass: `fused_q_sample` and its providers; `q_sample` where the noise is there already.

In a training step the noise is drawn and x_t formed before the network sees anything:

    eps ~ N(0, I) from the stream,      x_t = √ᾱ_t x0 + √(1−ᾱ_t) eps.                                               (1)

On a CPU the noise is the cost, on a GPU the memory traffic. A fused kernel keeps each number in a register from the
random bits to the two stores: it reads x0 and writes x_t and eps, 12 bytes an element in float32, where separate operations
read and write every intermediate.

| provider   | noise                          | eq. (1)                   | bytes an element (float32)                       |
|------------|--------------------------------|---------------------------|--------------------------------------------------|
| `eager`    | `NoiseStream.normal`           | `q_sample`                | the definition; int64 words, hundreds            |
| `compiled` | the fastest kernel that works  | torch.compile             | 4 (eps) + 12                                     |
| `native`   | C++, SIMD, OpenMP              | fused                     | 12 (20 where a store first reads its cache line) |
| `cuda`     | CUDA, from the same header     | fused                     | 12                                               |

All give the same bits, `eps` and `x_t`, so a run on a GPU can be replayed on a CPU. `auto` takes `native` on the CPU and
`cuda` on a CUDA device where they work, else `eager`. Libraries are compiled on first use and kept (`ddpm_ref.kernels.build`); a
missing compiler is a reason in `q_sample_providers()`, not an error.

**Instructions.** `native`, float32, all included: 11.6 an element with AVX2 (8 lanes; counted by callgrind, `ddpm-bench noise-test
--instructions`), 4.2 with AVX-512 (16 lanes; counted in the disassembled loop), 71 with neither (one lane). Of AVX2's, the ten
rounds take 4.4, the transform and eq. (1) with its load and stores 4.5, and register moves 2.7: two independent sets of lanes are
interleaved, because one alone waits for its own results, and sixteen registers do not hold both. Without a contraction to fused
multiply-add, which would change the bits, a number costs about 7 % more. float64 goes through SIMD that the compiler makes and
costs six times as much, or more.

**Memory.** A fresh output costs a page fault every 4 KiB, more time than the noise: `native` asks for 2 MiB pages (a hint) from 4 MiB on,
and `out=` writes into memory that is there already, as a training loop has it. Stores past the cache were tried and are slower.
"""

import torch
from torch import Tensor

from ddpm_ref.kernels.providers import PROVIDERS, checked_provider, fast_normal, formed, unavailable
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import (
    check_batched,
    check_floating,
    check_same_shape,
    check_steps,
    check_whole,
)

__all__ = ["fast_normal", "fused_q_sample", "q_sample", "q_sample_providers"]


def fused_q_sample(
    x0: Tensor,
    t: Tensor,
    schedule: Schedule,
    stream: NoiseStream,
    *,
    step: int,
    first_index: int = 0,
    provider: str = "auto",
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the noise and form x_t, eq. (1): what `stream.normal` and `q_sample` give, bit for bit.

    Args:
        x0: data `[B, *dims]`, float32, float64, bf16 or fp16, on any device; need not be contiguous.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        stream: where the noise comes from.
        step: which noise of the stream, 0 … 2³²−1: the training step.
        first_index: global index of row 0: a batch may be split.
        provider: `auto`, or a name of `q_sample_providers()`.
        out: (x_t, eps) to write into: contiguous, in x0's shape, dtype and device, sharing memory with nothing here. None = new ones.

    Returns:
        (x_t, eps), both in x0's shape, dtype and device. x_t is differentiable in x0, except with `out`.

    Raises:
        ValueError: t, step or index out of range; a provider that is unknown, unavailable, or not for x0's device; an
            `out` of another shape or device, not contiguous, or overlapping; an x0 that wants a gradient, with `out`.
        TypeError: integer images, a floating-point t, a schedule that is not a `Schedule`, or an `out` of another dtype.
    """
    check_floating(x0=x0)
    check_batched("x0", x0)
    if not isinstance(stream, NoiseStream):
        raise TypeError(
            f"stream = {stream!r} is a {type(stream).__name__}; pass ddpm_ref.NoiseStream(seed)"
        )
    if not torch.compiler.is_compiling():  # where they are symbols
        step, first_index = check_whole("step", step), check_whole("first_index", first_index)
    check_schedule(schedule)
    check_steps(t, schedule.T, x0.shape[0])
    if t.device != x0.device:
        raise ValueError(f"t is on {t.device} but x0 is on {x0.device}: pass t.to(x0.device)")
    chosen = checked_provider(provider, x0.device.type)
    if out is not None:
        _check_out(x0, out)
    return chosen.run(x0, t, schedule, stream, step=step, first_index=first_index, out=out)


def q_sample(x0: Tensor, t: Tensor, schedule: Schedule, noise: Tensor) -> Tensor:
    """x_t = √ᾱ_t x0 + √(1−ᾱ_t) noise, Ho et al. 2020 eq. 4: the bits of `ddpm_ref.process.q_sample` in one pass over memory.

    The `native` kernel does it where it works, x0 and noise are contiguous on the CPU and no gradient is asked for; else the definition.

    Args:
        x0: data `[B, *dims]`, floating point.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        noise: ε, in x0's shape and device.

    Returns:
        x_t, in x0's shape, dtype and device.

    Raises:
        ValueError: shapes or devices differ, or t outside 1 … T.
        TypeError: integer images, a floating-point t, or a schedule that is not a `Schedule`.
    """
    check_floating(x0=x0, noise=noise)
    check_same_shape(x0=x0, noise=noise)
    check_batched("x0", x0)
    check_schedule(schedule)
    check_steps(t, schedule.T, x0.shape[0])
    return formed(x0, t, schedule, noise)


def _check_out(x0: Tensor, out: tuple[Tensor, Tensor]) -> None:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError(f"out is a {type(out).__name__}; pass the pair of tensors (x_t, eps)")
    x_t, eps = out
    check_floating(x_t=x_t, eps=eps)
    check_same_shape(x0=x0, x_t=x_t, eps=eps)
    for name, place in (("x_t", x_t), ("eps", eps)):
        if place.dtype != x0.dtype:
            raise TypeError(
                f"out: {name} has dtype {place.dtype} but x0 has {x0.dtype}: make it with torch.empty_like(x0)"
            )
        if not place.is_contiguous():
            raise ValueError(
                f"out: {name} is not contiguous (strides {place.stride()}): make it with "
                "torch.empty(x0.shape, dtype=x0.dtype, device=x0.device)"
            )
    if torch.is_grad_enabled() and any(x.requires_grad for x in (x0, x_t, eps)):
        raise ValueError(
            "out: results that are written in place have no gradient: leave out=… away, or work under torch.no_grad()"
        )
    if not torch.compiler.is_compiling():
        _check_apart(x0=x0, x_t=x_t, eps=eps)


def _check_apart(**tensors: Tensor) -> None:
    """No two of them share memory; strided tensors count from their first to their last element."""
    spans = {name: _span(tensor) for name, tensor in tensors.items() if tensor.numel()}
    for first, (begin, end) in spans.items():
        for second, (other_begin, other_end) in spans.items():
            if first < second and begin < other_end and other_begin < end:
                raise ValueError(
                    f"out: {first} and {second} share memory: pass tensors of their own, such as torch.empty_like(x0)"
                )


def _span(tensor: Tensor) -> tuple[int, int]:
    """Addresses from the first to past the last element."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size()


def q_sample_providers() -> dict[str, str | None]:
    """Every provider by name, with None where it works here or the reason why it does not (builds what is missing)."""
    return {name: unavailable(name) for name in PROVIDERS}
