"""Checks at the public door: every message names the value, the rule and the usual fix.

Nothing here runs inside a loop over pixels, and nothing forces an accelerator to synchronize: step indices are
inspected only where they already live on the CPU.
"""

import difflib
import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import SupportsIndex

import torch
from torch import Tensor

_INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_FLOATING_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_MOST_STEPS = 10_000_000  # a schedule of so many steps has tables of 80 MB each


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that a registry lacks, with the nearest names that it has."""
    names = sorted(known)
    near = difflib.get_close_matches(shown(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "choose one of them."
    return ValueError(f"unknown {kind} {shown(name)}; known: {', '.join(names)}; {hint}")


def check_name(kind: str, name: object, known: Iterable[str]) -> None:
    """`name` is one of the strings in a registry."""
    if not isinstance(name, str):
        raise TypeError(
            f"{kind} = {name!r} is a {type(name).__name__}; pass one name as a str: {', '.join(sorted(known))}"
        )
    if name not in known:
        raise unknown_name(kind, name, known)


def shown(value: object) -> str:
    """`value` for a message: an integer of hundreds of digits by its size, since Python may refuse to print it."""
    if type(value) is int and value.bit_length() > 128:
        return f"{'-' * (value < 0)}2**{value.bit_length() - 1} or more"
    return repr(value)


def check_whole(name: str, value: object, usual: int = 1) -> int:
    """`value` as an int; True and 2.0 are none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(
            f"{name} = {value!r} is a {type(value).__name__}; it must be a whole number: "
            f"pass an int, {name}={usual} for instance"
        )
    return operator.index(value)


def check_count(name: str, value: object, least: int = 1, most: int = (1 << 63) - 1) -> int:
    """`value` as an int from `least` to `most`; True and 2.0 are none."""
    count = check_whole(name, value, usual=max(least, 1))
    if count < least:
        raise ValueError(f"{name} = {shown(count)}; it must be at least {least}")
    if count > most:
        raise ValueError(f"{name} = {shown(count)}; it must be at most {most}")
    return count


def check_number(name: str, value: object, usual: float) -> float:
    """`value`, a real number, as a float."""
    if not isinstance(value, Real):
        raise TypeError(
            f"{name} = {value!r} is a {type(value).__name__}; pass a number, {name}={usual} for instance"
        )
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(
            f"{name} = {shown(value)} is beyond the range of a float: the usual value is {usual}"
        ) from error


def check_step_count(T: int) -> None:
    """T is an integer from 1 to 10,000,000."""
    if isinstance(T, bool) or not isinstance(T, int):
        raise TypeError(f"T = {T!r} is a {type(T).__name__}; T counts steps: pass an int")
    if T < 1:
        raise ValueError(f"T = {shown(T)}; a diffusion has at least one step: pass T >= 1")
    if T > _MOST_STEPS:
        raise ValueError(
            f"T = {shown(T)}; the tables of a schedule hold T + 1 numbers: pass T <= {_MOST_STEPS:,}"
        )


def check_indices(name: str, t: Tensor, batch: int | None = None) -> None:
    """`t` is an integer tensor `[batch]`; its values are not read."""
    if not isinstance(t, Tensor):
        raise TypeError(
            f"{name} is a {type(t).__name__}; pass a tensor: torch.full((batch,), {name})"
        )
    if t.dtype not in _INTEGER_DTYPES:
        raise TypeError(
            f"{name} has dtype {t.dtype}; step indices are integers: pass {name}.long()"
        )
    if t.ndim != 1 or (batch is not None and t.shape[0] != batch):
        expected = "[B]" if batch is None else f"[{batch}]"
        raise ValueError(
            f"{name} has shape {list(t.shape)}, expected {expected}: one step index per sample; "
            f"for one step for all pass torch.full((batch,), {name})"
        )


def check_steps(t: Tensor, T: int, batch: int | None = None) -> None:
    """t is an integer tensor `[batch]` with values in 1 … T (values are read on the CPU only)."""
    check_indices("t", t, batch)
    if t.device.type != "cpu" or t.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = int(t.min()), int(t.max())
    if low < 1 or high > T:
        worst = low if low < 1 else high
        raise ValueError(
            f"t = {worst} lies outside 1 … {T}: steps count from 1 as in Ho et al. 2020; "
            "code that counts from 0 passes t + 1"
        )


def check_same_shape(**tensors: Tensor) -> None:
    """All tensors agree in shape, `[B, *dims]`, and device."""
    (first, reference), *rest = tensors.items()
    check_batched(first, reference)
    for name, tensor in rest:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)} but {first} has {list(reference.shape)}: "
                "they must be equal; nothing is broadcast here, so expand explicitly"
            )
        if tensor.device != reference.device:
            raise ValueError(
                f"{name} is on {tensor.device} but {first} is on {reference.device}: "
                f"move it with {name}.to({first}.device)"
            )


def check_batched(name: str, tensor: Tensor) -> None:
    """`tensor` has a batch dimension."""
    if tensor.ndim == 0:
        raise ValueError(
            f"{name} has shape [], expected [B, *dims]: pass {name}[None] for a single number"
        )


def check_broadcastable(**tensors: Tensor) -> None:
    """All tensors are on one device and their shapes broadcast together."""
    (first, reference), *rest = tensors.items()
    for name, tensor in rest:
        if tensor.device != reference.device:
            raise ValueError(
                f"{name} is on {tensor.device} but {first} is on {reference.device}: "
                f"move it with {name}.to({first}.device)"
            )
    try:
        torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values()))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(
            f"shapes {shapes} do not broadcast: sizes must agree or be 1; reshape them first"
        ) from error


def check_floating(**tensors: Tensor) -> None:
    """All tensors hold real floating-point numbers: images live in [−1, 1], not in 0 … 255."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; pass a torch.Tensor")
        if not tensor.is_floating_point():
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; floating-point values on [-1, 1] are expected: "
                f"for 8-bit images pass {name}.float() / 127.5 - 1"
            )
        if tensor.dtype not in _FLOATING_DTYPES or tensor.layout != torch.strided:
            raise TypeError(
                f"{name} has dtype {tensor.dtype} and layout {tensor.layout}; dense float16, bfloat16, float32 or float64 "
                f"is expected: pass {name}.to_dense().float()"
            )


def check_shape(shape: object) -> tuple[int, ...]:
    """`shape` as ints `[B, *dims]`, all ≥ 0, of a tensor that an int64 can count."""
    if isinstance(shape, str | bytes) or not isinstance(shape, Iterable):
        raise TypeError(
            f"shape = {shape!r} is a {type(shape).__name__}; pass [B, *dims]: ({shape!r},) for one dimension"
        )
    sizes = tuple(check_whole(f"shape[{k}]", size) for k, size in enumerate(shape))
    for k, size in enumerate(sizes):
        if size < 0:
            raise ValueError(
                f"shape[{k}] = {shown(size)} is a negative size: the rule is [B, *dims], all >= 0"
            )
    if math.prod(max(size, 1) for size in sizes) >= 1 << 60:
        raise ValueError(
            f"shape = [{', '.join(map(shown, sizes))}] has 2**60 numbers or more: no memory holds them; pass fewer"
        )
    return sizes


def check_has_values(name: str, tensor: Tensor) -> None:
    """`tensor` is not on the meta device, where tensors have shapes only."""
    if tensor.is_meta:
        raise ValueError(
            f"{name} is on the meta device, which keeps shapes and no values: "
            f"pass data, for instance torch.zeros({list(tensor.shape)})"
        )


def check_finite(**tensors: Tensor) -> None:
    """No tensor holds a NaN or an infinity (this reads the values: for loaders and exact quantities)."""
    for name, tensor in tensors.items():
        check_has_values(name, tensor)
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"{name}{list(index)} = {tensor[index].item()}: every value must be finite; "
                "find where it came from with torch.isfinite before passing it on"
            )


def check_device(device: "torch.device | str") -> torch.device:
    """A device on which a tensor can be made here.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
        TypeError: neither a `torch.device` nor a name.
    """
    if not isinstance(device, torch.device | str):
        raise TypeError(f"device = {device!r} is a {type(device).__name__}; pass 'cpu' or 'cuda'")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).partition("\n")[0].partition(" Exception raised")[0]
        raise ValueError(
            f"device = {str(device)!r} cannot be used here ({cause}): pass 'cpu', or 'cuda' on a machine with a GPU"
        ) from error
    return place


def check_representable(coefficient: Tensor, dtype: torch.dtype, what: str, t: Tensor) -> None:
    """float64 coefficients `[B]` at the steps t stay finite when rounded to `dtype` (read on the CPU only)."""
    if coefficient.device.type != "cpu" or torch.compiler.is_compiling():
        return
    lost = ~torch.isfinite(coefficient.to(dtype))
    if bool(lost.any()):
        index = int(lost.nonzero()[0])
        raise ValueError(
            f"{what} is {coefficient[index].item():.3g} at t = {int(t[index])}, which is not finite in {dtype}: "
            "compute in float64, or take a schedule whose log-SNR stays within [-80, 80]"
        )
