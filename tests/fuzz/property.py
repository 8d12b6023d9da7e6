"""What must hold of any call whatsoever.

1. It returns, or raises a ValueError or a TypeError *of ours*: the innermost frame lies in `ddpm_ref`, and the message says something.
2. No tensor that was passed in has changed, not a bit.
3. Tensors that come back have no NaN unless one, or an infinity, went in (functions of which the documentation says so).
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ddpm_ref

_OURS = str(Path(ddpm_ref.__file__).parent)


class BrokenProperty(AssertionError):  # noqa: N818 - what hypothesis shows
    """The call, and what it did that it must not do."""


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        function: what is called.
        given: its arguments by name.
        nan_from_finite: finite arguments may give a NaN (said in the function's documentation).
    """

    function: Callable[..., Any]
    given: Mapping[str, Any]
    nan_from_finite: bool = False


def outcome(call: Call) -> Any:
    """What the call returns, or the error of ours that it raises.

    Raises:
        BrokenProperty: something else happened.
    """
    before = {name: _bits(value) for name, value in call.given.items() if isinstance(value, Tensor)}
    finite = all(_all_finite(value) for value in call.given.values())
    try:
        result = call.function(**call.given)
    except (ValueError, TypeError) as error:
        _check_error(error, call)
        result = error
    except Exception as error:
        if not _memory(error):
            raise BrokenProperty(
                f"{_shown(call)} raised {type(error).__name__}: {error}"
            ) from error
        result = error
    for name, bits in before.items():
        if _bits(call.given[name]) != bits:
            raise BrokenProperty(f"{_shown(call)} changed its argument {name}")
    if finite and not call.nan_from_finite and not isinstance(result, Exception):
        for tensor in _tensors(result):
            if not tensor.is_meta and bool(torch.isnan(tensor.detach()).any()):
                raise BrokenProperty(f"{_shown(call)} made a NaN of finite numbers")
    return result


def _check_error(error: Exception, call: Call) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    if not place.startswith(_OURS):
        raise BrokenProperty(
            f"{_shown(call)} raised somebody else's {type(error).__name__} ({place}): {error}"
        ) from error
    if len(str(error)) < 12:
        raise BrokenProperty(f"{_shown(call)} raised an error without words: {error!r}") from error


def _memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _bits(tensor: Tensor) -> object:
    if tensor.is_meta:
        return tuple(tensor.shape), tensor.dtype
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    copy = torch.empty(dense.numel(), dtype=tensor.dtype)
    copy.copy_(dense.reshape(-1))
    return tuple(tensor.shape), tensor.dtype, copy.view(torch.uint8).numpy().tobytes()


def _all_finite(value: object) -> bool:
    if isinstance(value, Tensor):
        real = value.is_floating_point() and value.dtype.itemsize > 1 and not value.is_meta
        return not real or bool(torch.isfinite(value.detach().to_dense()).all())
    return True


def _tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, tuple | list):
        for item in result:
            yield from _tensors(item)
    elif hasattr(result, "__dataclass_fields__"):
        for name in result.__dataclass_fields__:
            yield from _tensors(getattr(result, name))


def _shown(call: Call) -> str:
    function = getattr(call.function, "__qualname__", repr(call.function))
    return (
        f"{function}({', '.join(f'{name}={_brief(value)}' for name, value in call.given.items())})"
    )


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        return f"<{list(value.shape)} {str(value.dtype).removeprefix('torch.')} {value.device}>"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"<int of {value.bit_length()} bits>"
    return repr(value)[:60]
