"""A finding in words: what was asked, what came back, where, and a few lines of Python that show it."""

import copy
import traceback
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ddpm_ref.conformance.guarded import InterfaceError
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import Case, Law
from ddpm_ref.conformance.lawbook.truth import digits
from ddpm_ref.conformance.limit import PASSING
from ddpm_ref.conformance.setting import Setting

_LONGEST, _WIDTH = 600, 100


def name_of(case: Case) -> str:
    """The quantity in question."""
    return case.label or case.method


def of(case: Case, index: tuple[int, ...]) -> str:
    """The words among the arguments, the step of the failing sample, and what its gradient is multiplied with."""
    parts = [str(v) for v in case.arguments.values() if isinstance(v, Setting)]
    parts += [repr(v) for v in case.arguments.values() if isinstance(v, str)]
    t = case.arguments.get("t")
    if isinstance(t, Tensor) and t.ndim == 1 and index and index[0] < len(t):
        parts.append(f"t={int(t[index[0]])}")
    cotangent = case.arguments.get("cotangent")
    if isinstance(cotangent, Tensor) and index:
        parts.append(f"cotangent {cotangent[index[: cotangent.ndim]].item():.6g}")
    return f" ({', '.join(parts)})" if parts else ""


def raised(case: Case, failure: BaseException) -> str:
    """The exception in one line, with what was asked."""
    return f"{name_of(case)}{of(case, ())} raised {described(failure)}{_shapes(case)}"


def _shapes(case: Case) -> str:
    """The shapes of the tensors that it was called with, which is what code for images alone stumbles over."""
    parts = [f"{k} {list(v.shape)}" for k, v in case.arguments.items() if isinstance(v, Tensor)]
    return f" with {', '.join(parts)}" if parts else ""


def described(failure: BaseException) -> str:
    """Type, text and line of an exception, on one line."""
    if isinstance(failure, InterfaceError):
        return f"TypeError: {_text(failure)} ({failure.place})"
    frame = traceback.extract_tb(failure.__traceback__)[-1]
    place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    said = f"{type(failure).__name__}: {_text(failure)}"
    # A stub raises this, whose author means NotOffered.
    if isinstance(failure, NotImplementedError):
        said += "; raise NotOffered for what you lack"
    return f"{said} ({place})"


def _text(failure: BaseException) -> str:
    try:
        said = " ".join(str(failure).split())
    except PASSING:
        raise
    except (
        BaseException
    ) as worse:  # theirs: even the message of an exception may be code that fails
        return f"its message cannot be read, {type(worse).__name__}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} … ({len(said):,} characters)"


def witness(
    case: Case, index: tuple[int, ...], measured: float, message: str, *, comparable: bool
) -> dict[str, Any]:
    """In JSON types; `expected` and 50 digits of it where one element is in question."""
    right = case.expected[index] if comparable and len(index) == case.expected.ndim else None
    exact = case.exact(index) if case.exact is not None and right is not None else None
    return {
        "method": name_of(case),
        "function": case.method,
        "arguments": {name: _plain(value) for name, value in case.arguments.items()},
        "index": list(index),
        "measured": measured,
        "expected": None if right is None else float(right),
        "exact": None if exact is None else digits(exact),
        "message": message,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Setting):
        return {
            name: content for name, content in vars(value).items() if content not in (None, False)
        }
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


def snippet(law: Law, implementation: Implementation, case: Case, message: str) -> str:
    """Few lines that show the failing element, or that rerun the law where a call cannot be written down briefly."""
    kind = type(implementation)
    head = [f"from {kind.__module__} import {kind.__qualname__}"]
    writable = all(not callable(v) for v in case.arguments.values())
    again = "\n".join(
        [
            *head,
            "from ddpm_ref.conformance import law_test",
            f"law_test({law.id!r})({kind.__qualname__}())",
        ]
    )
    if case.run is not None or not writable:
        return again
    words = [_source(v, implementation) for v in case.arguments.values()]
    if sum(map(len, words)) > _LONGEST:
        return again
    if any(word.startswith("Setting(") for word in words):
        head.append("from ddpm_ref.conformance import Setting")
    called = f"result = {kind.__qualname__}().{case.method}"
    return "\n".join(["import torch", *head, _call(called, words), f"print(result)  # {message}"])


def _call(called: str, words: Sequence[str]) -> str:
    """On one line; where that is long, an argument a line."""
    line = f"{called}({', '.join(words)})"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{called}(", *(f"    {word}," for word in words), ")"])


def _source(value: Any, implementation: Implementation) -> str:
    if isinstance(value, Tensor):
        return f"torch.tensor({value.tolist()!r}, dtype={value.dtype})"
    if isinstance(value, Setting):
        return _setting(value, implementation)
    return repr(copy.copy(value))


def _setting(setting: Setting, implementation: Implementation) -> str:
    """A schedule by its name; one with many numbers of its own by its place among those of the adapter."""
    default = Setting(setting.name, setting.T)
    extra = {k: v for k, v in vars(setting).items() if getattr(default, k) != v}
    words = "".join(f", {name}={content!r}" for name, content in extra.items())
    written = f"Setting({setting.name!r}, {setting.T}{words})"
    if len(written) <= _WIDTH:
        return written
    try:
        place = list(implementation.settings()).index(setting)
    except (
        Exception,
        SystemExit,
    ):  # theirs; or a schedule that the law chose, which it does not have
        return written
    return f"{type(implementation).__qualname__}().settings()[{place}]"
