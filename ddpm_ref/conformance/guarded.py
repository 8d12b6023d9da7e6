"""How a law calls an implementation: with arguments of its own, in the usual state of torch, and with a look at what comes back.

* **Arguments are cloned** for each call, so that an implementation which writes into its inputs cannot corrupt the truth.
* **Default dtype and gradient mode are put back** after each call, so that what one method leaves behind is not charged to another.
* **The result has the type** that the interface states, or the complaint says which one is wanted and in which method.

The laws on manners look for changed inputs and a changed state on their own, through `Guarded.bare`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from numbers import Real
from typing import Any, get_origin

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation, Posterior

_WORDS = {
    Tensor: "a torch.Tensor",
    Posterior: "a ddpm_ref.conformance.Posterior(mean, variance=…, log_variance=…)",
    Bound: "a ddpm_ref.conformance.Bound(total=…, …)",
    Mapping: "a dict of torch.Tensors",
    tuple: "a pair of torch.Tensors",
    float: "a float",
    str: "a str",
}


def widest(implementation: Implementation) -> torch.dtype:
    """The most exact dtype that it takes: what a law that speaks of float64 alone is asked in."""
    return min(implementation.dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def asked_in(implementation: Implementation, dtype: torch.dtype) -> torch.dtype:
    """The dtype, or the widest that it takes where it does not take this one."""
    return dtype if dtype in implementation.dtypes else widest(implementation)


def offers(implementation: Implementation, method: str) -> bool:
    """The adapter has filled in this method."""
    return getattr(type(implementation), method) is not getattr(Implementation, method)


class InterfaceError(TypeError):
    """A method cannot be called as the interface says, or returns another type; `place` is where it is defined."""

    def __init__(self, message: str, method: Callable[..., Any]) -> None:
        super().__init__(message)
        self.place = _place_of(method)


class Misshapen(Exception):  # noqa: N818 - a finding, not an error
    """A result has another shape than the one that was asked for, where the laws combine it with something else."""


def _place_of(method: Callable[..., Any]) -> str:
    """File and first line of a function, as in a traceback."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}" if code else "no source"


class Guarded:
    """An implementation as the laws call it; attributes are those of `bare`.

    Attributes:
        bare: the implementation itself.
        widest: float arguments come in no wider dtype than this, the widest one that the implementation declares.
    """

    def __init__(self, bare: Implementation) -> None:
        self.bare = bare
        self.widest = widest(bare)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.bare, name)
        return partial(self._call, name) if name in _RETURNS else attribute

    def own(self, value: Any) -> Any:
        """The argument as the implementation gets it: its own memory, in a dtype that it takes."""
        wider = (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and torch.finfo(value.dtype).eps < torch.finfo(self.widest).eps
        )
        return value.to(self.widest) if wider else fresh(value)

    def ask(self, name: str, *arguments: Any) -> Any:
        """The method's answer to these very arguments, not to copies of them."""
        return self._call(name, *arguments, copied=False)

    def _call(self, name: str, *arguments: Any, copied: bool = True) -> Any:
        method = getattr(self.bare, name)
        _check_signature(name, method, arguments)
        with usual_state():
            result = method(*(self.own(value) for value in arguments) if copied else arguments)
        complaint = _complaint(name, result)
        if complaint:
            raise InterfaceError(f"{complaint} (raise NotOffered for what you lack)", method)
        return result


@contextmanager
def usual_state() -> Iterator[None]:
    """Default dtype and gradient mode are afterwards what they were before."""
    dtype, gradient = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradient)


def fresh(value: Any) -> Any:
    """A tensor's clone; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value


def _check_signature(name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    function = getattr(method, "__func__", None)
    if function is None:
        wrong = _unfit(method, len(arguments))
    else:
        wrong = _unfit_function(function, len(arguments) + 1)
    if wrong:
        names = ", ".join(arguments_of(name))
        raise InterfaceError(f"{wrong}; the signature is {name}(self, {names})", method)


@cache
def arguments_of(name: str) -> tuple[str, ...]:
    """The arguments of a method of the interface, in order."""
    return tuple(inspect.signature(getattr(Implementation, name)).parameters)[1:]


def _unfit(function: Callable[..., Any], count: int) -> str:
    """Why a function cannot be called with so many arguments, "" where it can."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C may have none
        return ""
    try:
        signature.bind(*range(count))
    except TypeError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1024)
def _unfit_function(function: Callable[..., Any], count: int) -> str:
    """The same of a method's function, whose code does not change between calls."""
    return _unfit(function, count)


def _complaint(name: str, result: Any) -> str:
    """What is wrong with the type of a result, "" where nothing is."""
    kind = _RETURNS[name]
    if not _is(kind, result):
        return f"{name} returned {type(result).__name__}; {_WORDS[kind]} is expected"
    for part, value in _parts(result):
        if value is not None and not isinstance(value, Tensor):
            return f"{name}(…){part} is a {type(value).__name__}; a torch.Tensor is expected"
    return ""


def _is(kind: type, result: Any) -> bool:
    if kind is float:
        return isinstance(result, Real) or (isinstance(result, Tensor) and result.numel() == 1)
    if kind is tuple:
        return isinstance(result, tuple | list) and len(result) == 2
    return isinstance(result, kind)


def _parts(result: Any) -> list[tuple[str, Any]]:
    if isinstance(result, (Posterior, Bound)):
        return [(f".{name}", value) for name, value in vars(result).items()]
    if isinstance(result, Mapping):
        return [(f"[{name!r}]", value) for name, value in result.items()]
    if isinstance(result, tuple | list):
        return [(f"[{k}]", value) for k, value in enumerate(result)]
    return []


def _returns() -> dict[str, Any]:
    """Method → the type of its result, from the interface's own annotations."""
    found: dict[str, Any] = {}
    for name, method in vars(Implementation).items():
        if inspect.isfunction(method) and name not in ("settings", "index", "_missing"):
            annotation: Any = method.__annotations__["return"]
            found[name] = get_origin(annotation) or annotation
    return found


_RETURNS: dict[str, Any] = _returns()
