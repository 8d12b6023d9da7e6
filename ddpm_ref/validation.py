"""Checks at the public door: every message names the value, the rule and the usual fix.

Nothing here runs inside a loop over pixels, and nothing forces an accelerator to synchronize: step indices are
inspected only where they already live on the CPU.
"""

import difflib
import operator
from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Tensor

_INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that a registry lacks, with the nearest names that it has."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "choose one of them."
    return ValueError(f"unknown {kind} {name!r}; known: {', '.join(names)}; {hint}")


def check_name(kind: str, name: object, known: Iterable[str]) -> None:
    """`name` is one of the strings in a registry."""
    if not isinstance(name, str):
        raise TypeError(
            f"{kind} = {name!r} is a {type(name).__name__}; pass one name as a str: {', '.join(sorted(known))}"
        )
    if name not in known:
        raise unknown_name(kind, name, known)


def check_count(name: str, value: object, least: int = 1) -> int:
    """`value` as an int, which is at least `least`; True and 2.0 are none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(
            f"{name} = {value!r} is a {type(value).__name__}; it must be a whole number: "
            f"pass an int, {name}={max(least, 1)} for instance"
        )
    count = operator.index(value)
    if count < least:
        raise ValueError(f"{name} = {count}; it must be at least {least}")
    return count


def check_number(name: str, value: object, usual: float) -> None:
    """`value` is a real number."""
    if not isinstance(value, int | float):
        raise TypeError(
            f"{name} = {value!r} is a {type(value).__name__}; pass a number, {name}={usual} for instance"
        )


def check_step_count(T: int) -> None:
    """T is an integer ≥ 1."""
    if isinstance(T, bool) or not isinstance(T, int):
        raise TypeError(f"T = {T!r} is a {type(T).__name__}; T counts steps: pass an int")
    if T < 1:
        raise ValueError(f"T = {T}; a diffusion has at least one step: pass T >= 1")


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
    """All tensors agree in shape and device."""
    (first, reference), *rest = tensors.items()
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


def check_finite(**tensors: Tensor) -> None:
    """No tensor holds a NaN or an infinity (this reads the values: for loaders and exact quantities)."""
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"{name}{list(index)} = {tensor[index].item()}: every value must be finite; "
                "find where it came from with torch.isfinite before passing it on"
            )
