"""The ways to compute noise and x_t, one row each; all give the bits of `NoiseStream.normal` and `q_sample`."""

import functools
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ddpm_ref.kernels import cuda, native, operator
from ddpm_ref.kernels.task import TYPES
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.process import q_sample
from ddpm_ref.schedule import Schedule, compute_dtype, expand
from ddpm_ref.validation import check_name

Pair = tuple[Tensor, Tensor]


class FusedQSample(Protocol):
    """A provider's function: checked arguments in, (x_t, eps) out."""

    def __call__(
        self,
        x0: Tensor,
        t: Tensor,
        schedule: Schedule,
        stream: NoiseStream,
        *,
        step: int,
        first_index: int,
        out: Pair | None,
    ) -> Pair:
        """See `ddpm_ref.kernels.fused_q_sample`."""


@dataclass(frozen=True)
class Provider:
    """One way to compute (x_t, eps).

    Attributes:
        run: the function.
        unavailable: why it does not work here, or None; may build a library.
        devices: types of device that it serves; empty for all.
    """

    run: FusedQSample
    unavailable: Callable[[], str | None]
    devices: tuple[str, ...] = ()


def fast_normal(
    stream: NoiseStream,
    shape: tuple[int, ...] | torch.Size,
    *,
    step: int,
    first_index: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    use: Use = Use.NOISE,
) -> Tensor:
    """`stream.normal(…)` with the same bits, by the fastest kernel that works on the device.

    Args:
        stream: where the noise comes from.
        shape: `[B, *dims]`.
        step: 0 … 2³²−1.
        first_index: global index of row 0.
        device: where the result lives.
        dtype: float32, float64, bf16 or fp16.
        use: the counter range.
    """
    device = torch.device(device)
    if fastest(device.type) == "eager":
        return stream.normal(
            shape, step=step, first_index=first_index, device=device, dtype=dtype, use=use
        )
    like = torch.empty(0, device=device, dtype=dtype)
    eps: Tensor = operator.normal(like, list(shape), stream.seed, step, first_index, int(use))
    return eps


def fastest(device: str) -> str:
    """Name of the provider that `auto` takes on a type of device."""
    name = {"cpu": "native", "cuda": "cuda"}.get(device, "eager")
    return "eager" if unavailable(name) else name


def unavailable(name: str) -> str | None:
    """Why a provider does not work here, or None; a constant for torch.compile."""
    return PROVIDERS[name].unavailable()


# What torch.compiler.assume_constant_result does, without its import of the whole compiler (seconds).
unavailable.__dict__["_dynamo_marked_constant"] = True


def checked_provider(name: str, device: str) -> Provider:
    """The provider of a name (`auto` included) for a type of device.

    Raises:
        ValueError: unknown, unavailable here, or not for this device.
        TypeError: not a name.
    """
    if name == "auto":
        name = fastest(device)
    check_name("provider", name, [*PROVIDERS, "auto"])
    provider = PROVIDERS[name]
    if provider.devices and device not in provider.devices:
        raise ValueError(
            f"provider {name!r} serves {' and '.join(provider.devices)}, but x0 is on {device}: "
            "provider='auto' takes the one for the device"
        )
    reason = unavailable(name)
    if reason is not None:
        raise ValueError(
            f"provider {name!r} is unavailable: {reason}; provider='auto' takes one that works"
        )
    return provider


def coefficients(t: Tensor, schedule: Schedule, dtype: torch.dtype) -> Pair:
    """(√ᾱ_t, √(1−ᾱ_t)) `[B]`, rounded once to the compute dtype of `dtype`."""
    rounded = compute_dtype(dtype)
    signal = schedule.lookup("sqrt_alpha_bar", t).to(rounded)
    return signal, schedule.lookup("sqrt_one_minus_alpha_bar", t).to(rounded)


def _eager(
    x0: Tensor,
    t: Tensor,
    schedule: Schedule,
    stream: NoiseStream,
    *,
    step: int,
    first_index: int,
    out: Pair | None,
) -> Pair:
    """The definition."""
    eps = stream.normal(
        x0.shape, step=step, first_index=first_index, device=x0.device, dtype=x0.dtype
    )
    return _delivered((q_sample(x0, t, schedule, eps), eps), out)


def _delivered(pair: Pair, out: Pair | None) -> Pair:
    """The pair, or `out` holding it."""
    if out is None:
        return pair
    for place, value in zip(out, pair, strict=True):
        place.copy_(value)
    return out


def _compiled(
    x0: Tensor,
    t: Tensor,
    schedule: Schedule,
    stream: NoiseStream,
    *,
    step: int,
    first_index: int,
    out: Pair | None,
) -> Pair:
    """The fastest noise there is, then torch.compile of the affine map."""
    eps = fast_normal(
        stream, x0.shape, step=step, first_index=first_index, device=x0.device, dtype=x0.dtype
    )
    if x0.device.type != "cpu" and x0.dtype == torch.float64:
        return _delivered((q_sample(x0, t, schedule, eps), eps), out)
    signal, noise = coefficients(t, schedule, x0.dtype)
    return _delivered((_compiled_affine()(x0, signal, noise, eps), eps), out)


def _kernel(
    x0: Tensor,
    t: Tensor,
    schedule: Schedule,
    stream: NoiseStream,
    *,
    step: int,
    first_index: int,
    out: Pair | None,
) -> Pair:
    """One pass over memory; the operator picks the device, and is passed by where nothing needs it (half the overhead)."""
    signal, noise = coefficients(t, schedule, x0.dtype)
    if torch.compiler.is_compiling() or x0.requires_grad or type(x0) is not Tensor:
        if out is not None:
            operator.fused_out(x0, signal, noise, *out, stream.seed, step, first_index)
            return out
        x_t, eps = operator.fused(x0, signal, noise, stream.seed, step, first_index)
        return x_t, eps
    direct = cuda.q_sample if x0.is_cuda else native.q_sample
    return direct(x0, signal, noise, stream, step=step, first_index=first_index, out=out)


def formed(x0: Tensor, t: Tensor, schedule: Schedule, eps: Tensor) -> Tensor:
    """`q_sample` of checked arguments: the kernel where it works and nothing else is asked of the tensors, else the definition."""
    if t.device != x0.device or not _plain(x0, eps) or unavailable("native"):
        return q_sample(x0, t, schedule, eps)
    return native.form(x0, *coefficients(t, schedule, x0.dtype), eps)


def _plain(x0: Tensor, eps: Tensor) -> bool:
    """Whether both are contiguous memory of one kernel's dtype on the CPU, and no derivative, trace or transform is watching."""
    if torch.compiler.is_compiling() or x0.dtype != eps.dtype or x0.dtype not in TYPES:
        return False
    if torch.is_grad_enabled() and (x0.requires_grad or eps.requires_grad):
        return False
    if torch.autograd.forward_ad._current_level >= 0:
        return False
    return all(
        x.device.type == "cpu"
        and x.is_contiguous()
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        for x in (x0, eps)
    )


@functools.cache
def _compiled_affine() -> Callable[..., Tensor]:
    return torch.compile(_affine, dynamic=False)


def _affine(x0: Tensor, signal: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
    """signal · x0 + noise · eps with each product rounded on its own."""
    dtype = signal.dtype
    wide = torch.float64 if x0.device.type != "cpu" else dtype
    # A GPU compiler contracts a float32 product and sum to one operation. A float64 product of float32 numbers is exact,
    # and rounding it gives the float32 product.
    products = [
        (expand(factor, x0).to(wide) * value.to(dtype).to(wide)).to(dtype)
        for factor, value in ((signal, x0), (noise, eps))
    ]
    return (products[0] + products[1]).to(x0.dtype)


def _always() -> None:
    return None


def _no_compiler() -> str | None:
    """Why torch.compile does not work here, as far as one can tell without waiting for it to compile something."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "torch.compile needs a C++ compiler: none of g++, clang++, c++ is on PATH"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "torch.compile needs Python.h: install Python's development headers"
    return None


PROVIDERS: dict[str, Provider] = {
    "eager": Provider(_eager, _always),
    "compiled": Provider(_compiled, _no_compiler),
    "native": Provider(_kernel, native.unavailable, ("cpu",)),
    "cuda": Provider(_kernel, cuda.unavailable, ("cuda",)),
}
"""All providers by name."""
