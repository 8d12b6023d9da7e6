"""The CUDA provider: the transform of source/philox_normal.h on the GPU, built on first use with nvcc for the present device.

Each thread computes the blocks of one 16-byte column (four float32, eight 16-bit or two float64 numbers a word), so x0 is
read and x_t and eps are written in 16-byte accesses, each byte once: 12 bytes an element in float32. `-fmad=false` keeps
products and sums apart; division and square root are IEEE.
"""

import ctypes
import functools

import torch
from torch import Tensor

from ddpm_ref.kernels.build import BuildError, Recipe, load
from ddpm_ref.kernels.task import Task, noise_task, q_sample_task
from ddpm_ref.noise import NoiseStream, Use


def recipe(capability: tuple[int, int]) -> Recipe:
    """How the library is built for devices of one compute capability, for instance (9, 0)."""
    architecture = f"sm_{capability[0]}{capability[1]}"
    return Recipe(
        name=f"cuda-{architecture}",
        compilers=("nvcc", "/usr/local/cuda/bin/nvcc"),
        objects=(("q_sample.cu", ()),),
        options=(
            "-std=c++17",
            "-O3",
            f"-arch={architecture}",
            "-fmad=false",
            "-prec-div=true",
            "-prec-sqrt=true",
            "-ftz=false",
            "-w",
            "-Xcompiler=-fPIC",
        ),
        link=(f"-arch={architecture}",),
    )


@functools.cache
def _library(capability: tuple[int, int]) -> ctypes.CDLL | str:
    """The library, or the reason why there is none; a failing build is not repeated in this process."""
    try:
        library = load(recipe(capability))
    except BuildError as error:
        return str(error)
    library.ddpm_run_cuda.argtypes = [ctypes.POINTER(Task), ctypes.c_void_p]
    library.ddpm_run_cuda.restype = ctypes.c_char_p
    return library


def unavailable() -> str | None:
    """Why the provider does not work here, or None."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device"
    library = _library(torch.cuda.get_device_capability())
    return library if isinstance(library, str) else None


def normal(
    stream: NoiseStream,
    shape: tuple[int, ...],
    *,
    device: torch.device | str,
    step: int,
    first_index: int = 0,
    dtype: torch.dtype = torch.float32,
    use: Use = Use.NOISE,
) -> Tensor:
    """`NoiseStream.normal` on a CUDA device, bit for bit."""
    eps = torch.empty(shape, dtype=dtype, device=device)
    _run(noise_task(stream, eps, step, first_index, use, threads=0), eps)
    return eps


def q_sample(
    x0: Tensor,
    signal: Tensor,
    noise: Tensor,
    stream: NoiseStream,
    *,
    step: int,
    first_index: int,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(x_t, eps) for coefficients `[B]` in the compute dtype, new or in `out`; one pass over memory."""
    x0, signal, noise = x0.contiguous(), signal.contiguous(), noise.contiguous()
    outputs = (torch.empty_like(x0), torch.empty_like(x0)) if out is None else out
    _run(q_sample_task(stream, x0, signal, noise, outputs, step, first_index, threads=0), x0)
    return outputs


def _run(task: Task, on: Tensor) -> None:
    """Launch on torch's current stream of the tensor's device."""
    if on.numel() == 0:
        return
    with torch.cuda.device(on.device):
        library = _library(torch.cuda.get_device_capability())
        if isinstance(library, str):
            raise RuntimeError(
                f"the cuda provider is unavailable: {library}; use provider='auto' or 'eager'"
            )
        error = library.ddpm_run_cuda(ctypes.byref(task), torch.cuda.current_stream().cuda_stream)
    if error:
        raise RuntimeError(f"the CUDA kernel did not start: {error.decode()}")
