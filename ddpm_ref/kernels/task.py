"""The work order that crosses the C ABI: `DdpmTask` of source/rows.h, filled from tensors."""

import ctypes

import torch
from torch import Tensor

from ddpm_ref.noise import NoiseStream, Use, check_address

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""Element types by number, as in rows.h."""


class Task(ctypes.Structure):
    """`DdpmTask`, field by field."""

    _fields_ = (
        ("x0", ctypes.c_void_p),
        ("signal", ctypes.c_void_p),
        ("noise", ctypes.c_void_p),
        ("x_t", ctypes.c_void_p),
        ("eps", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("first_index", ctypes.c_uint64),
        ("step", ctypes.c_uint32),
        ("use", ctypes.c_uint32),
        ("type", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("given", ctypes.c_int32),
    )


def noise_task(
    stream: NoiseStream, eps: Tensor, step: int, first_index: int, use: Use, threads: int
) -> Task:
    """The task that fills the contiguous tensor `eps` `[B, *dims]` with noise.

    Raises:
        ValueError: an address outside the stream.
        TypeError: a dtype that no kernel serves.
    """
    if eps.dtype not in TYPES:
        raise TypeError(
            f"dtype {eps.dtype} has no noise; choose one of {', '.join(map(str, TYPES))}"
        )
    per_block = 2 if eps.dtype == torch.float64 else 4
    batch, size = check_address(eps.shape, per_block, use, step, first_index)
    return Task(
        eps=eps.data_ptr(),
        batch=batch,
        size=size,
        seed=stream.seed,
        first_index=first_index,
        step=step,
        use=use,
        type=TYPES[eps.dtype],
        threads=threads,
    )


def q_sample_task(
    stream: NoiseStream,
    x0: Tensor,
    signal: Tensor,
    noise: Tensor,
    outputs: tuple[Tensor, Tensor],
    step: int,
    first_index: int,
    threads: int,
) -> Task:
    """The task that writes `outputs` = (x_t, eps) from contiguous `x0` and the coefficients `[B]`."""
    x_t, eps = outputs
    task = noise_task(stream, eps, step, first_index, Use.NOISE, threads)
    task.x0, task.x_t = x0.data_ptr(), x_t.data_ptr()
    task.signal, task.noise = signal.data_ptr(), noise.data_ptr()
    return task


def form_task(
    x0: Tensor, signal: Tensor, noise: Tensor, eps: Tensor, x_t: Tensor, threads: int
) -> Task:
    """The task that writes `x_t` from contiguous `x0`, the noise `eps` and the coefficients `[B]`."""
    batch = x0.shape[0]
    return Task(
        x0=x0.data_ptr(),
        signal=signal.data_ptr(),
        noise=noise.data_ptr(),
        x_t=x_t.data_ptr(),
        eps=eps.data_ptr(),
        batch=batch,
        size=x0.numel() // max(batch, 1),
        type=TYPES[x0.dtype],
        threads=threads,
        given=1,
    )
