"""`ddpm_ref::fused_q_sample` and `ddpm_ref::normal`: the kernels as torch operators.

An operator has shapes without data (a fake kernel), so that torch.compile traces through it and keeps it whole, and a
derivative: x_t is linear in x0 with the coefficient √ᾱ, and the noise depends on nothing.
"""

from typing import Any

import torch
from torch import Tensor

from ddpm_ref.kernels import cuda, native
from ddpm_ref.noise import NoiseStream, Use

Pair = tuple[Tensor, Tensor]


@torch.library.custom_op("ddpm_ref::fused_q_sample", mutates_args=(), device_types="cpu")
def fused(
    x0: Tensor, signal: Tensor, noise: Tensor, seed: int, step: int, first_index: int
) -> Pair:
    """(x_t, eps): x_t = signal · x0 + noise · eps, both contiguous in x0's shape and dtype.

    Args:
        x0: data `[B, *dims]`.
        signal: √ᾱ_t `[B]`, in the compute dtype.
        noise: √(1−ᾱ_t) `[B]`, in the compute dtype.
        seed: of the stream.
        step: of the stream.
        first_index: global index of row 0.
    """
    return native.q_sample(x0, signal, noise, NoiseStream(seed), step=step, first_index=first_index)


@fused.register_kernel("cuda")
def _fused_cuda(
    x0: Tensor, signal: Tensor, noise: Tensor, seed: int, step: int, first_index: int
) -> Pair:
    return cuda.q_sample(x0, signal, noise, NoiseStream(seed), step=step, first_index=first_index)


@fused.register_fake
def _fused_shapes(
    x0: Tensor, signal: Tensor, noise: Tensor, seed: int, step: int, first_index: int
) -> Pair:
    return x0.new_empty(x0.shape), x0.new_empty(x0.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Pair) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.mark_non_differentiable(output[1])


def _derivative(ctx: Any, x_t: Tensor, eps: Tensor) -> tuple[Tensor | None, ...]:
    (signal,) = ctx.saved_tensors
    scale = signal.view(-1, *(1,) * (x_t.ndim - 1))
    return (scale * x_t.to(signal.dtype)).to(x_t.dtype), None, None, None, None, None


fused.register_autograd(_derivative, setup_context=_keep)


@torch.library.custom_op(
    "ddpm_ref::fused_q_sample_out", mutates_args=("x_t", "eps"), device_types="cpu"
)
def fused_out(
    x0: Tensor,
    signal: Tensor,
    noise: Tensor,
    x_t: Tensor,
    eps: Tensor,
    seed: int,
    step: int,
    first_index: int,
) -> None:
    """`fused` into memory that is there already; no derivative."""
    native.q_sample(
        x0, signal, noise, NoiseStream(seed), step=step, first_index=first_index, out=(x_t, eps)
    )


@fused_out.register_kernel("cuda")
def _fused_out_cuda(
    x0: Tensor,
    signal: Tensor,
    noise: Tensor,
    x_t: Tensor,
    eps: Tensor,
    seed: int,
    step: int,
    first_index: int,
) -> None:
    cuda.q_sample(
        x0, signal, noise, NoiseStream(seed), step=step, first_index=first_index, out=(x_t, eps)
    )


@fused_out.register_fake
def _fused_out_shapes(
    x0: Tensor,
    signal: Tensor,
    noise: Tensor,
    x_t: Tensor,
    eps: Tensor,
    seed: int,
    step: int,
    first_index: int,
) -> None:
    """Nothing is returned."""


@torch.library.custom_op("ddpm_ref::normal", mutates_args=(), device_types="cpu")
def normal(
    like: Tensor, shape: list[int], seed: int, step: int, first_index: int, use: int
) -> Tensor:
    """Standard normal noise of a shape, in the dtype and on the device of `like` (whose values are not read)."""
    return native.normal(
        NoiseStream(seed),
        tuple(shape),
        step=step,
        first_index=first_index,
        dtype=like.dtype,
        use=Use(use),
    )


@normal.register_kernel("cuda")
def _normal_cuda(
    like: Tensor, shape: list[int], seed: int, step: int, first_index: int, use: int
) -> Tensor:
    return cuda.normal(
        NoiseStream(seed),
        tuple(shape),
        device=like.device,
        step=step,
        first_index=first_index,
        dtype=like.dtype,
        use=Use(use),
    )


@normal.register_fake
def _normal_shape(
    like: Tensor, shape: list[int], seed: int, step: int, first_index: int, use: int
) -> Tensor:
    return like.new_empty(shape)
