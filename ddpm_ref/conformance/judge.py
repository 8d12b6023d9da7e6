"""Putting one implementation under one law: run the cases, measure, and say what failed, where, how badly, and how to see it.

A case ends in one of five ways: the result agrees; it differs; the method is not offered; it raises; or the result is not
comparable (wrong shape, NaN). Whatever happens, the next case runs.

**Class.** A failure is `precision` where the error lies within the case's leeway, what plain rounding at the declared `table_dtype` explains, and
`severe` where that leaves no correct digit; else it is a `bug`. `adapter` is what only the adapter can be the reason of.

**Witness.** The worst case of the class that is reported, cut to the one sample or element that fails, if it fails alone.

**Root.** Failures that share an exception, or that occur under some of the settings only and under the same ones, have one.

Every call goes through `ddpm_ref.conformance.guarded`: what an implementation does to its inputs or to the state of torch cannot
corrupt the truth.
"""

import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.guarded import Guarded, InterfaceError, Misshapen, asked_in, offers
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.law import Case, Law, sample
from ddpm_ref.conformance.lawbook.truth import truth
from ddpm_ref.conformance.limit import PASSING
from ddpm_ref.conformance.setting import Setting
from ddpm_ref.conformance.witness import described, name_of, of, raised, snippet, witness

DTYPE_NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
_ROUNDING_FACTOR = 16.0
ADAPTER = "adapter"
_MISTAKES = (InterfaceError, ImportError)
"""The adapter's own wherever they are raised: it breaks the interface, or names a library that is not there."""
_MISSING = (NameError, NotImplementedError)
"""A name or a method that is missing: the adapter's own where its file raises it, a defect of the code behind it elsewhere."""
CLASSES = (ADAPTER, "bug", "severe", "precision")
"""Of failures that no convention explains, the worst first."""

_BLUNT = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a law says about an implementation at one dtype.

    Attributes:
        law: id of the law.
        implementation: name of the adapter.
        dtype: dtype of the inputs.
        status: `pass`, `fail`, `not-offered`, or `error` (it raised).
        error: of the element nearest to (or farthest beyond) what is allowed, in units of the law's scale; inf for NaN, a wrong shape or an exception.
        tolerance: what is allowed there.
        cases: number of questions answered.
        message: one line that says what went wrong where, or why nothing was offered.
        witness: the worst failing input: method, arguments, element, measured, expected, 50 digits where known.
        snippet: Python that shows it.
        classification: `bug`, `severe`, `precision`, `convention` or `adapter` where the law fails; see `ddpm_ref.conformance.runner`.
        convention: the declared words where the failure is a convention.
        root: failures with the same root have one cause, "" for none that is known.
        lost: an element that fails has no correct digit.
        places: where it fails: `{method, setting, words, dtype, cases, error, classification}`, one for each setting and choice of words.
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
    root: str = ""
    lost: bool = False
    places: tuple[Mapping[str, Any], ...] = ()

    @property
    def failed(self) -> bool:
        """The law is violated."""
        return self.status in ("fail", "error")


@dataclass(frozen=True)
class Limits:
    """What an error may be where the case does not say it: `figure` × its scale + 16 roundings of its table condition."""

    figure: float
    table: float
    measures: str


@dataclass(frozen=True)
class Answer:
    """One case's result: how far it uses up what is allowed, and what is wrong with it.

    Attributes:
        excess: the largest error over what is allowed there; above 1 it fails.
        error: that error in the case's scale.
        limit: what is allowed there.
        kind: the class of the failure, "" for none.
        message: one line.
        index: the element.
        measured: its value.
        raised: an exception came instead.
        lost: an element that fails has no correct digit.
    """

    case: Case
    excess: float = 0.0
    error: float = 0.0
    limit: float = 0.0
    kind: str = ""
    message: str = ""
    index: tuple[int, ...] = ()
    measured: float = math.nan
    raised: bool = False
    lost: bool = False


@dataclass
class _Found:
    """What has been answered; of right answers, whose cases hold tensors, only the one nearest to what is allowed, in numbers.

    Attributes:
        count: of all answers.
        excess: the largest, with its `error` and `limit`.
        settings: all that were asked about.
        failed: the wrong answers.
    """

    count: int = 0
    excess: float = -1.0
    error: float = 0.0
    limit: float = 0.0
    settings: set[str] = field(default_factory=set)
    failed: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """One more."""
        self.count += 1
        self.settings.add(_setting(answer))
        if answer.excess > self.excess:
            self.excess, self.error, self.limit = answer.excess, answer.error, answer.limit
        if answer.kind:
            self.failed.append(answer)


def judge(
    law: Law,
    implementation: Implementation,
    dtype: torch.dtype,
    *,
    stop_early: bool = False,
    thorough: bool = False,
) -> Outcome:
    """The outcome of one law at one dtype; never raises on account of the implementation.

    Args:
        law: the law.
        implementation: the adapter.
        dtype: of the inputs.
        stop_early: the first failing case is enough (then the witness is not the worst).
        thorough: also ask what the usual profile samples from.
    """
    asked = asked_in(implementation, dtype)
    limits = _limits(law, dtype, asked, implementation)
    blank = Outcome(
        law.id, implementation.name, DTYPE_NAMES[asked], "not-offered", 0.0, limits.figure, 0
    )
    if asked != dtype and limits.figure > _BLUNT and law.measures == "rounding":
        message = f"a statement that {DTYPE_NAMES[asked]} can decide; declared are {_listed(implementation.dtypes)}"
        return replace(blank, message=message)
    found = _Found()
    missing = ""
    candidate = Guarded(implementation)
    for case in _cases(law, implementation, dtype, thorough):
        if isinstance(case, NotOffered):
            missing = missing or str(case)
            break
        if isinstance(case, BaseException):
            return _unasked(blank, case)
        try:
            found.add(_ask(case, candidate, limits))
        except NotOffered as reason:
            missing = missing or str(reason)
            if not law.mixed and not offers(implementation, case.method):
                break
            continue
        if stop_early and found.failed:
            break
    if not found.count:
        return replace(blank, message=missing or "nothing that it speaks about")
    blank = replace(blank, cases=found.count, error=found.error, tolerance=found.limit)
    if not found.failed:
        return replace(blank, status="pass")
    return _failure(blank, law, implementation, candidate, limits, found)


def _unasked(blank: Outcome, failure: BaseException) -> Outcome:
    message = f"no case can be made: {described(failure)}; look at settings()"
    return replace(
        blank,
        status="error",
        error=math.inf,
        message=message,
        classification=ADAPTER,
        root=described(failure),
    )


def _failure(
    blank: Outcome,
    law: Law,
    implementation: Implementation,
    candidate: Guarded,
    limits: Limits,
    found: _Found,
) -> Outcome:
    failed = found.failed
    kind = min((answer.kind for answer in failed), key=CLASSES.index)
    of_kind = [answer for answer in failed if answer.kind == kind]
    most = max((a.excess for a in of_kind if not a.raised), default=math.inf)
    # Among those that are about as bad, the one that is easiest to read.
    worst = min(
        of_kind,
        key=lambda a: (
            a.raised,
            a.excess < most / 10,
            a.case.expected.ndim,
            a.case.expected.numel(),
            -a.excess,
        ),
    )
    shown = _narrowed(worst, candidate, limits)
    comparable = shown.case.expected.numel() > 0 and not shown.raised and not shown.case.must_refuse
    return replace(
        blank,
        status="error" if worst.raised else "fail",
        error=worst.error,
        tolerance=worst.limit,
        message=f"{len(failed)} of {found.count} cases fail; {shown.message}",
        witness=witness(
            shown.case, shown.index, shown.measured, shown.message, comparable=comparable
        ),
        snippet=snippet(law, implementation, shown.case, shown.message),
        classification=kind,
        root=_root(worst, found),
        lost=any(answer.lost for answer in of_kind) or not math.isfinite(worst.error),
        places=_places(failed, blank.dtype),
    )


def _limits(
    law: Law, dtype: torch.dtype, asked: torch.dtype, implementation: Implementation
) -> Limits:
    """The law's figure; where its dtype is not one that the implementation takes, in proportion to what it was asked in."""
    figure = law.tolerances[dtype]
    if asked != dtype and law.measures == "rounding":
        figure *= torch.finfo(asked).eps / torch.finfo(dtype).eps
    table = _ROUNDING_FACTOR * torch.finfo(implementation.table_dtype).eps
    return Limits(figure, table, law.measures)


def _listed(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(DTYPE_NAMES.get(dtype, str(dtype)) for dtype in dtypes)


def _cases(
    law: Law, implementation: Implementation, dtype: torch.dtype, thorough: bool
) -> Iterator[Case | BaseException]:
    """The law's cases; last what `settings` of the code under test raised, without which nothing more can be asked."""
    cases = iter(law.cases(implementation, dtype, thorough=thorough))
    while True:
        try:
            case = next(cases)
        except StopIteration:
            return
        except PASSING:
            raise
        except BaseException as failure:  # a result of the law
            yield failure
            return
        yield case


def _narrowed(answer: Answer, candidate: Guarded, limits: Limits) -> Answer:
    """The one failing element or sample, if it fails in the same way without its company."""
    if not answer.index or not answer.case.separable:
        return answer
    try:
        alone = _ask(sample(answer.case, answer.index), candidate, limits)
    except NotOffered:  # of single samples; of the batch it was
        return answer
    return alone if alone.kind == answer.kind else answer


def _ask(case: Case, candidate: Guarded, limits: Limits) -> Answer:
    try:
        result = _result(case, candidate)
    except (NotOffered, *PASSING):
        raise
    except Misshapen as failure:
        return Answer(case, math.inf, math.inf, 0.0, "bug", str(failure))
    except BaseException as failure:  # whatever the code under test does is a result
        if isinstance(failure, ValueError) and (case.may_refuse or case.must_refuse):
            return Answer(case)
        kind = ADAPTER if _mistaken(failure, candidate.bare) else "bug"
        said = raised(case, failure)
        return Answer(case, math.inf, math.inf, 0.0, kind, said, raised=True)
    if case.must_refuse:
        return _refused(case, result)
    if result.shape != case.expected.shape:
        message = (
            f"{name_of(case)} has shape {list(result.shape)}, expected {list(case.expected.shape)}"
        )
        return Answer(case, math.inf, math.inf, 0.0, "bug", message)
    return _compare(case, result, limits)


def _mistaken(failure: BaseException, implementation: Implementation) -> bool:
    """Whether it is the adapter that is wrong, and not the code behind it."""
    if not isinstance(failure, _MISSING):
        return isinstance(failure, _MISTAKES)
    place = traceback.extract_tb(failure.__traceback__)[-1].filename
    kinds = [kind for kind in type(implementation).__mro__ if kind is not object]
    files = [getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in kinds]
    return files[0] is None or place in files


def _result(case: Case, candidate: Guarded) -> Tensor:
    if case.run is not None:
        return _readable(case, case.run(candidate))
    returned = getattr(candidate, case.method)(*case.arguments.values())
    selected = case.select(returned)
    if selected is None:
        raise NotOffered(f"{candidate.name} offers no {name_of(case)}")
    return _readable(case, selected)


def _readable(case: Case, result: Tensor) -> Tensor:
    """The result, which has to hold real numbers: an imaginary part would vanish in the comparison."""
    if result.is_complex():
        raise TypeError(f"{name_of(case)} has dtype {result.dtype}; real numbers are expected")
    if result.is_meta or result.layout != torch.strided:
        raise TypeError(
            f"{name_of(case)} is a tensor on {result.device} of layout {result.layout}; a dense one with data is expected"
        )
    return result.detach()


def _refused(case: Case, result: Tensor) -> Answer:
    if result.numel() and bool(torch.isinf(result).all()):
        return Answer(case)
    value = result.flatten()[0].item() if result.numel() else math.nan
    message = f"{name_of(case)} = {value!r} where no finite value exists: a ValueError is right"
    return Answer(case, math.inf, math.inf, 0.0, "bug", message, measured=value)


def _compare(case: Case, result: Tensor, limits: Limits) -> Answer:
    measured = result.to(device="cpu", dtype=torch.float64)
    if not measured.numel():
        return Answer(case)
    allowance = _allowance(case, limits)
    gap = torch.where(measured == case.expected, 0.0, (measured - case.expected).abs())
    excess = _or_infinite(torch.where(gap == 0, 0.0, gap / allowance))
    excess = torch.where(allowance.isinf(), 0.0, excess)
    worst, position = excess.flatten().max(0)
    index = _place(int(position), excess.shape)
    scale = torch.as_tensor(case.scale).expand(excess.shape)[index]
    limit = float(allowance.expand(excess.shape)[index] / scale)
    off = float(_or_infinite(gap / scale)[index])
    if worst <= 1:
        return Answer(case, float(worst), off, limit)
    got, right = float(measured[index]), float(case.expected[index])
    where = f" at {list(index)}" if index else ""
    message = (
        f"{name_of(case)}{of(case, index)}{where} = {got!r}, expected {right!r} "
        f"(error {off:.3g}, tolerance {limit:.3g})"
    )
    # A truth that is smaller than the error allowed, 0 but for its own rounding, has no digits to lose.
    size = case.expected.abs()
    lost = bool(((gap >= size) & (size > allowance) & (excess > 1)).any())
    kind = "bug"
    if limits.measures == "rounding" and _explained(case, gap, excess, allowance, limits):
        kind = "severe" if lost else "precision"
    return Answer(case, float(worst), off, limit, kind, message, index, got, lost=lost)


def _place(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of an element by its place in memory."""
    index: list[int] = []
    for size in reversed(shape):
        position, place = divmod(position, size)
        index.insert(0, place)
    return tuple(index)


def _allowance(case: Case, limits: Limits) -> Tensor:
    if case.allowance is not None:
        return case.allowance
    return limits.figure * torch.as_tensor(case.scale) + limits.table * torch.as_tensor(case.table)


def _explained(case: Case, gap: Tensor, excess: Tensor, allowance: Tensor, limits: Limits) -> bool:
    """Every failing element lies within the leeway."""
    leeway = _leeway(case, allowance, limits).expand(gap.shape)
    return bool((gap <= leeway)[excess > 1].all())


def _leeway(case: Case, allowance: Tensor, limits: Limits) -> Tensor:
    """Where the case does not say it: the roundings of the most fragile table of its setting, added up over all steps."""
    if case.leeway is not None:
        return case.leeway
    setting = case.arguments.get("setting")
    try:
        known = truth(setting) if isinstance(setting, Setting) else None
    except NotOffered:
        known = None
    if known is None:
        return allowance
    return allowance + limits.table * known.fragility * torch.as_tensor(case.scale)


def _or_infinite(error: Tensor) -> Tensor:
    return torch.where(torch.isnan(error), math.inf, error)


def _words(case: Case) -> str:
    """The choices among the arguments: `eps → x0`, `elbo, v`."""
    parts = [v for v in case.arguments.values() if isinstance(v, str)]
    if "source" in case.arguments:
        return " → ".join(parts)
    return ", ".join(parts)


def _places(failed: Sequence[Answer], dtype: str) -> tuple[Mapping[str, Any], ...]:
    grouped: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in failed:
        key = (name_of(answer.case), _setting(answer), _words(answer.case))
        grouped.setdefault(key, []).append(answer)
    return tuple(
        {
            "method": method,
            "setting": setting,
            "words": words,
            "dtype": dtype,
            "shapes": sorted({str(list(a.case.expected.shape)) for a in those}),
            "cases": len(those),
            "error": max(a.error for a in those),
            "classification": min((a.kind for a in those), key=CLASSES.index),
        }
        for (method, setting, words), those in grouped.items()
    )


def _root(worst: Answer, found: _Found) -> str:
    """The exception; else the settings, where it is only some of those asked about that fail."""
    if worst.raised:
        return worst.message.partition(" raised ")[2]
    some = {_setting(answer) for answer in found.failed}
    return "settings " + ", ".join(sorted(some)) if some < found.settings else ""


def _setting(answer: Answer) -> str:
    return str(answer.case.arguments.get("setting", ""))
