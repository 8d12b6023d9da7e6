"""The native provider: C++17 with SIMD intrinsics and OpenMP behind a plain C ABI, built on first use.

The same source is compiled once for each instruction set (AVX-512, AVX2, any) and the best that the processor has is
chosen when it runs; no option depends on the machine that compiles. `-ffp-contract=off` keeps products and sums apart.
"""

import ctypes
import functools
import platform

import torch
from torch import Tensor

from ddpm_ref.kernels.build import BuildError, Recipe, load
from ddpm_ref.kernels.task import Task, form_task, noise_task, q_sample_task
from ddpm_ref.noise import NoiseStream, Use

_AVX2 = ("-mavx2", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512cd", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_SERIAL = 1 << 15  # numbers below which a second thread costs more than it brings


def recipe() -> Recipe:
    """How the library is built for this kind of processor."""
    variants: dict[str, tuple[str, ...]] = {"baseline": ()}
    if platform.machine() in ("x86_64", "AMD64"):
        variants |= {"avx2": _AVX2, "avx512": _AVX512}
    rows = tuple(
        ("rows.cpp", (f"-DDDPM_ROWS=ddpm_rows_{name}", *options))
        for name, options in variants.items()
    )
    return Recipe(
        name="native",
        compilers=("g++", "clang++", "c++"),
        objects=(*rows, ("native.cpp", ("-fopenmp",))),
        # Scheduling before register allocation interleaves independent chains: 10 % fewer cycles.
        # No errno and no traps lets loops with square roots and selections become SIMD; neither changes a bit.
        options=(
            *("-std=c++17", "-O3", "-fPIC", "-w", "-ffp-contract=off"),
            *("-fno-math-errno", "-fno-trapping-math", "-fschedule-insns"),
        ),
        link=("-fopenmp",),
    )


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The library, or the reason why there is none; a failing build is not repeated in this process."""
    try:
        library = load(recipe())
    except BuildError as error:
        return str(error)
    library.ddpm_variant.restype = ctypes.c_char_p
    library.ddpm_run.argtypes = [ctypes.POINTER(Task), ctypes.c_int]
    library.ddpm_run.restype = None
    return library


def unavailable() -> str | None:
    """Why the provider does not work here, or None."""
    library = _library()
    return library if isinstance(library, str) else None


def variants() -> list[str]:
    """Instruction sets of this processor that the library serves, best first."""
    library = _loaded()
    names: list[str] = []
    while name := library.ddpm_variant(len(names)):
        names.append(name.decode())
    return names


def normal(
    stream: NoiseStream,
    shape: tuple[int, ...],
    *,
    step: int,
    first_index: int = 0,
    dtype: torch.dtype = torch.float32,
    use: Use = Use.NOISE,
    variant: int = 0,
) -> Tensor:
    """`NoiseStream.normal` on the CPU, bit for bit; `variant` counts the instruction sets of `variants()`."""
    eps = torch.empty(shape, dtype=dtype)
    task = noise_task(stream, eps, step, first_index, use, _threads(eps))
    if eps.numel():
        _loaded().ddpm_run(task, variant)
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
    variant: int = 0,
) -> tuple[Tensor, Tensor]:
    """(x_t, eps) for coefficients `[B]` in the compute dtype, new or in `out`; one pass over memory."""
    x0, signal, noise = x0.contiguous(), signal.contiguous(), noise.contiguous()
    outputs = (torch.empty_like(x0), torch.empty_like(x0)) if out is None else out
    task = q_sample_task(
        stream, x0, signal, noise, outputs, step, first_index, threads=_threads(x0)
    )
    if x0.numel():
        _loaded().ddpm_run(task, variant)
    return outputs


def form(x0: Tensor, signal: Tensor, noise: Tensor, eps: Tensor, *, variant: int = 0) -> Tensor:
    """x_t = signal · x0 + noise · eps from noise that is given, in one pass; `signal` and `noise` as for `q_sample`."""
    x0, signal, noise, eps = (x.contiguous() for x in (x0, signal, noise, eps))
    x_t = torch.empty_like(x0)
    if x0.numel():
        _loaded().ddpm_run(form_task(x0, signal, noise, eps, x_t, _threads(x0)), variant)
    return x_t


def _threads(tensor: Tensor) -> int:
    return 1 if tensor.numel() <= _SERIAL else torch.get_num_threads()


def _loaded() -> ctypes.CDLL:
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(
            f"the native provider is unavailable: {library}; use provider='auto' or 'eager'"
        )
    return library
