"""Putting one implementation under one law: run the cases, measure, and say what failed, where, and how to see it.

A case ends in one of five ways: the result agrees; it differs; the method is not offered; it raises; or the result is not
comparable (wrong shape, NaN). Whatever happens, the next case runs. The outcome reports the largest error over all cases,
and as witness the *smallest* failing input: fewest numbers, then smallest T, then the element with the largest error.

Every call goes through `ddpm_ref.conformance.guarded`: what an implementation does to its inputs or to the state of torch cannot
corrupt the truth.
"""

import copy
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.guarded import Guarded, InterfaceError, widest
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.law import Case, Law, sample
from ddpm_ref.conformance.lawbook.truth import digits
from ddpm_ref.conformance.setting import Setting

DTYPE_NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


ROUNDING_FACTOR = 16.0
"""How many eps of the condition are rounding: right code stays below a quarter of it."""

ADAPTER = "adapter"
MISTAKES = (InterfaceError, NotImplementedError, NameError, ImportError)
"""What only the adapter itself can be the reason of."""

_BLUNT = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a law says about an implementation at one dtype.

    Attributes:
        law: id of the law.
        implementation: name of the adapter.
        dtype: dtype of the inputs.
        status: `pass`, `fail`, `not-offered`, or `error` (it raised).
        error: largest error over all cases in units of the law's scale; inf for NaN, a wrong shape or an exception.
        tolerance: the largest error allowed.
        cases: number of questions answered.
        message: one line that says what went wrong where, or why nothing was offered.
        witness: the smallest failing input: method, arguments, element, measured, expected, 50 digits where known.
        snippet: Python that shows it.
        classification: `bug`, `precision` or `convention` where the law fails, see `ddpm_ref.conformance.runner`; `adapter` where
            the adapter does not keep to the interface, so that nothing was learned about the code behind it.
        convention: the declared words where the failure is a convention.
    """

    law: str
    implementation: str
    dtype: str
    status: str
    error: float
    tolerance: float
    cases: int
    message: str = ""
    witness: Mapping[str, Any] | None = None
    snippet: str = ""
    classification: str | None = None
    convention: str | None = None

    @property
    def failed(self) -> bool:
        """The law is violated."""
        return self.status in ("fail", "error")


@dataclass(frozen=True)
class Finding:
    """One case that went wrong."""

    case: Case
    error: float
    message: str
    index: tuple[int, ...] = ()
    measured: float = math.nan
    raised: bool = False
    mistake: bool = False


@dataclass(frozen=True)
class Rounding:
    """What an error may be: `arithmetic` × the case's scale + `table` × its table condition."""

    arithmetic: float
    table: float


def judge(
    law: Law, implementation: Implementation, dtype: torch.dtype, *, stop_early: bool = False
) -> Outcome:
    """The outcome of one law at one dtype; never raises on account of the implementation.

    Args:
        law: the law.
        implementation: the adapter.
        dtype: of the inputs.
        stop_early: the first failing case is enough (then the witness is not the smallest).
    """
    asked = dtype if dtype in implementation.dtypes else widest(implementation)
    tolerance = _tolerance(law, dtype, asked)
    blank = Outcome(
        law.id, implementation.name, DTYPE_NAMES[asked], "not-offered", 0.0, tolerance, 0
    )
    if tolerance > _BLUNT and law.measures == "rounding":
        message = f"a statement that {DTYPE_NAMES[asked]} can decide; declared are {_listed(implementation.dtypes)}"
        return replace(blank, message=message)
    rounding = Rounding(tolerance, ROUNDING_FACTOR * torch.finfo(implementation.table_dtype).eps)
    worst, answered, findings, missing = 0.0, 0, [], ""
    candidate = Guarded(implementation)
    for case in _cases(law, implementation, dtype):
        if isinstance(case, NotOffered):
            missing = missing or str(case)
            break
        if isinstance(case, BaseException):
            message = f"no case can be made: {described(case)}; look at settings()"
            return replace(
                blank,
                status="error",
                error=math.inf,
                message=message,
                classification=ADAPTER,
            )
        try:
            error, finding = _narrowed(case, candidate, rounding)
        except NotOffered as reason:
            missing = missing or str(reason)
            if not law.mixed and not _overrides(implementation, case.method):
                break
            continue
        answered += 1
        worst = max(worst, error)
        if finding is not None:
            findings.append(finding)
            if stop_early:
                break
    if not answered:
        return replace(blank, message=missing or "a schedule in settings() that it speaks about")
    if not findings:
        return replace(blank, status="pass", error=worst, cases=answered)
    smallest = min(findings, key=_reading_effort)
    return replace(
        blank,
        status="error" if smallest.raised else "fail",
        error=worst,
        cases=answered,
        message=f"{len(findings)} of {answered} cases fail; {smallest.message}",
        witness=_witness(smallest),
        snippet=_snippet(law, implementation, smallest),
        classification=ADAPTER if smallest.mistake else None,
    )


def _tolerance(law: Law, dtype: torch.dtype, asked: torch.dtype) -> float:
    """The law's figure; where its dtype is not one that the implementation takes, in proportion to what it was asked in."""
    figure = law.tolerances[dtype]
    if asked == dtype or law.measures != "rounding":
        return figure
    return figure * torch.finfo(asked).eps / torch.finfo(dtype).eps


def _listed(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(DTYPE_NAMES.get(dtype, str(dtype)) for dtype in dtypes)


def _cases(
    law: Law, implementation: Implementation, dtype: torch.dtype
) -> Iterator[Case | BaseException]:
    """The law's cases; last what `settings` of the code under test raised, without which nothing more can be asked."""
    try:
        yield from law.check(implementation, dtype)
    except (Exception, SystemExit) as failure:  # a result of the law
        yield failure


def _overrides(implementation: Implementation, method: str) -> bool:
    """The adapter has filled in this method."""
    return getattr(type(implementation), method) is not getattr(Implementation, method)


def _reading_effort(finding: Finding) -> tuple[bool, int, int]:
    setting = finding.case.arguments.get("setting")
    return finding.raised, finding.case.size, setting.T if isinstance(setting, Setting) else 0


def _narrowed(case: Case, candidate: Guarded, tolerance: Rounding) -> tuple[float, Finding | None]:
    """The case's error; the finding is that of the one failing sample, if it fails without its batch."""
    error, finding = _ask(case, candidate, tolerance)
    if finding is None or not finding.index or not case.separable:
        return error, finding
    try:
        return error, _ask(sample(case, finding.index[0]), candidate, tolerance)[1] or finding
    except NotOffered:  # of single samples; of the batch it was
        return error, finding


def _ask(case: Case, candidate: Guarded, tolerance: Rounding) -> tuple[float, Finding | None]:
    try:
        result = _result(case, candidate)
    except NotOffered:
        raise
    except ValueError as refusal:
        if case.may_refuse or case.must_refuse:
            return 0.0, None
        return math.inf, Finding(case, math.inf, _raised(case, refusal), raised=True)
    except (Exception, SystemExit) as failure:  # whatever the code under test does is a result
        mistake = isinstance(failure, MISTAKES)
        return math.inf, Finding(
            case, math.inf, _raised(case, failure), raised=True, mistake=mistake
        )
    if case.must_refuse:
        return _refused(case, result)
    if result.shape != case.expected.shape:
        message = (
            f"{_name(case)} has shape {list(result.shape)}, expected {list(case.expected.shape)}"
        )
        return math.inf, Finding(case, math.inf, message)
    return _compare(case, result, tolerance)


def _result(case: Case, candidate: Guarded) -> Tensor:
    if case.run is not None:
        return _readable(case, case.run(candidate))
    returned = getattr(candidate, case.method)(*case.arguments.values())
    selected = case.select(returned)
    if selected is None:
        raise NotOffered(f"{candidate.name} offers no {_name(case)}")
    return _readable(case, selected)


def _readable(case: Case, result: Tensor) -> Tensor:
    """The result, which has to hold real numbers: an imaginary part would vanish in the comparison."""
    if result.is_complex():
        raise TypeError(f"{_name(case)} has dtype {result.dtype}; real numbers are expected")
    if result.is_meta or result.layout != torch.strided:
        raise TypeError(
            f"{_name(case)} is a tensor on {result.device} of layout {result.layout}; a dense one with data is expected"
        )
    return result.detach()


def _refused(case: Case, result: Tensor) -> tuple[float, Finding | None]:
    if result.numel() and bool(torch.isinf(result).all()):
        return 0.0, None
    value = result.flatten()[0].item() if result.numel() else math.nan
    message = f"{_name(case)} = {value!r} where no finite value exists: a ValueError is right"
    return math.inf, Finding(case, math.inf, message, measured=value)


def _compare(case: Case, result: Tensor, tolerance: Rounding) -> tuple[float, Finding | None]:
    measured = result.to(device="cpu", dtype=torch.float64)
    same = measured == case.expected  # equal infinities agree
    if not same.numel():
        return 0.0, None
    gap = (measured - case.expected).abs()
    allowed = tolerance.arithmetic * torch.as_tensor(case.scale) + tolerance.table * case.table
    error = _or_infinite(torch.where(same, 0.0, gap / case.scale))
    excess = _or_infinite(torch.where(same, 0.0, gap / allowed))
    worst, position = excess.flatten().max(0)
    if worst <= 1:
        return float(error.max()), None
    index = tuple(int(k) for k in torch.unravel_index(position, error.shape))
    got, right, off = float(measured[index]), float(case.expected[index]), float(error[index])
    where = f" at {list(index)}" if index else ""
    limit = allowed / case.scale
    message = (
        f"{_name(case)}{_of(case, index)}{where} = {got!r}, expected {right!r} "
        f"(error {off:.3g}, tolerance {float(limit.expand(error.shape)[index]):.3g})"
    )
    return off, Finding(case, off, message, index, got)


def _or_infinite(error: Tensor) -> Tensor:
    return torch.where(torch.isnan(error), math.inf, error)


def _name(case: Case) -> str:
    return case.label or case.method


def _of(case: Case, index: tuple[int, ...]) -> str:
    """The words among the arguments, and the step of the failing sample."""
    parts = [str(v) for v in case.arguments.values() if isinstance(v, Setting)]
    parts += [repr(v) for v in case.arguments.values() if isinstance(v, str)]
    t = case.arguments.get("t")
    if isinstance(t, Tensor) and t.ndim == 1 and index and index[0] < len(t):
        parts.append(f"t={int(t[index[0]])}")
    return f" ({', '.join(parts)})" if parts else ""


def _raised(case: Case, failure: BaseException) -> str:
    return f"{_name(case)}{_of(case, ())} raised {described(failure)}"


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
        return " ".join(str(failure).split())
    except Exception as worse:  # theirs: even the message of an exception may be code that fails
        return f"its message cannot be read, {type(worse).__name__}"


def _witness(finding: Finding) -> dict[str, Any]:
    case, index = finding.case, finding.index
    comparable = finding.case.expected.numel() > 0 and not finding.raised and not case.must_refuse
    right = case.expected[index] if comparable and len(index) == case.expected.ndim else None
    exact = case.exact(index) if case.exact is not None and right is not None else None
    return {
        "method": _name(case),
        "arguments": {name: _plain(value) for name, value in case.arguments.items()},
        "index": list(index),
        "measured": finding.measured,
        "expected": None if right is None else float(right),
        "exact": None if exact is None else digits(exact),
        "message": finding.message,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Setting):
        return {
            name: content for name, content in vars(value).items() if content not in (None, False)
        }
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


def _snippet(law: Law, implementation: Implementation, finding: Finding) -> str:
    """Few lines that show the failing element, or that rerun the law where a call cannot be written down."""
    kind = type(implementation)
    head = [f"from {kind.__module__} import {kind.__qualname__}"]
    case = finding.case
    writable = all(not callable(v) for v in case.arguments.values())
    if case.run is not None or not writable:
        lines = [
            *head,
            "from ddpm_ref.conformance import law_test",
            f"law_test({law.id!r})({kind.__qualname__}())",
        ]
        return "\n".join(lines)
    if any(isinstance(v, Setting) for v in case.arguments.values()):
        head.append("from ddpm_ref.conformance import Setting")
    arguments = ", ".join(_source(v) for v in case.arguments.values())
    return "\n".join(
        [
            "import torch",
            *head,
            f"result = {kind.__qualname__}().{case.method}({arguments})",
            f"print(result)  # {finding.message}",
        ]
    )


def _source(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"torch.tensor({value.tolist()!r}, dtype={value.dtype})"
    if isinstance(value, Setting):
        default = Setting(value.name, value.T)
        extra = {k: v for k, v in vars(value).items() if getattr(default, k) != v}
        words = "".join(f", {name}={content!r}" for name, content in extra.items())
        return f"Setting({value.name!r}, {value.T}{words})"
    return repr(copy.copy(value))
