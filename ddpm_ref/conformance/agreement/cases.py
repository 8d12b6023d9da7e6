"""From a declaration to cases: values and gradients at every step, in every option, shape and range, with the rounding that they allow.

Sixteen times the bound of `bounded` is *rounding*. What tables allow beyond it when they are formed plainly, their errors adding up over all T steps
instead of like a random walk, is `leeway`: a failure within it is one of precision.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.bounded import Bounded, given
from ddpm_ref.conformance.agreement.inputs import (
    MANY,
    arranged,
    batches,
    operands_of,
    spread,
)
from ddpm_ref.conformance.agreement.methods import METHODS, Method, Options
from ddpm_ref.conformance.guarded import Misshapen, asked_in, offers, widest
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.law import (
    Case,
    Check,
    Sampled,
    draw,
    settings_asked,
    settings_of,
)
from ddpm_ref.conformance.lawbook.truth import MP, Number, Truth
from ddpm_ref.conformance.setting import Setting

_ROUNDINGS = 16.0
"""How many times the bound of eq. (1) is rounding: right code stays below a quarter of it."""

_FEW = 36
"""Options of a method that are asked of every setting in the usual profile."""
_PARTS: dict[str, Callable[[Any], Tensor | None]] = {
    "": lambda result: result if isinstance(result, Tensor) else None,
    "0": lambda pair: pair[0],
    "1": lambda pair: pair[1],
}

_Chosen = Callable[[Options], bool]


@dataclass(frozen=True)
class Question:
    """What a method is asked about."""

    setting: Setting | None
    known: Truth | None
    options: Options
    shape: tuple[int, ...]
    t: Tensor


_Answered = Callable[[Implementation, torch.dtype, Question], Iterator[Case]]


def value(name: str, part: str = "", only: _Chosen = lambda options: True) -> Sampled:
    """A check that a method (one part of its result, some of its options) agrees with the exact answer."""
    return both(name, only, (part,))


def both(
    name: str, only: _Chosen = lambda options: True, parts: tuple[str, ...] = ("0", "1")
) -> Sampled:
    """The same for both of a pair."""
    method = METHODS[name]

    def cases(
        implementation: Implementation, dtype: torch.dtype, asked: Question
    ) -> Iterator[Case]:
        for part in parts:
            yield _value_case(implementation, method, asked, dtype, part)

    return _sampled(partial(_of_values, method, only), cases)


def gradient(*names: str) -> Sampled:
    """A check that gradients through methods are those of the exact answer."""
    checks = {name: _gradient(METHODS[name]) for name in names}

    def part(usual: bool) -> Check:
        def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
            offered = [name for name in names if offers(implementation, name)]
            for name in offered or names[:1]:  # one question has the answer "not offered"
                each = checks[name].usual if usual else checks[name].rest
                yield from each(implementation, dtype)

        return check

    return Sampled(part(True), part(False))


def _gradient(method: Method) -> Sampled:
    def cases(
        implementation: Implementation, dtype: torch.dtype, asked: Question
    ) -> Iterator[Case]:
        for operand in method.operands:
            yield _gradient_case(implementation, method, asked, dtype, operand)

    return _sampled(partial(_of_gradients, method), cases)


def _sampled(
    questions: Callable[[bool, Implementation, torch.dtype], Iterator[Question]], cases: _Answered
) -> Sampled:
    def part(usual: bool) -> Check:
        def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
            for asked in questions(usual, implementation, dtype):
                yield from cases(implementation, dtype, asked)

        return check

    return Sampled(part(True), part(False))


def _highest(implementation: Implementation, dtype: torch.dtype) -> bool:
    return asked_in(implementation, dtype) == widest(implementation)


def _settings(
    method: Method, implementation: Implementation, *, other: bool
) -> Iterator[tuple[Setting | None, Truth | None, bool, bool]]:
    """Settings, whether it is the first with more than two steps, and whether it is one of `settings()`."""
    if not method.setting:
        yield None, None, True, True
        return
    own, first = list(settings_of(implementation)), True
    for setting, known in settings_asked(implementation, other=other):
        principal = first and known.T > 2
        first = first and not principal
        yield setting, known, principal, setting in own


def _of_values(
    method: Method, only: _Chosen, usual: bool, implementation: Implementation, dtype: torch.dtype
) -> Iterator[Question]:
    """Each option at every step of each setting, own and other; in the widest dtype every shape with each option and with each own setting.

    The usual profile leaves out the products: shapes times options times settings, other settings in lower dtypes, and where a method has many
    options two thirds of them in each of the other settings.
    """
    highest = _highest(implementation, dtype)
    chosen = list(filter(only, method.offered(implementation)))
    settings = _settings(method, implementation, other=highest or not usual)
    few = implementation.one_step_a_call
    for turn, (setting, known, principal, own) in enumerate(settings):
        for number, options in enumerate(chosen):
            every_shape = known is None or (highest and own and (principal or number == 0))
            due = len(chosen) <= _FEW or (turn + number) % 3 == 0
            for place, (shape, t) in enumerate(batches(method, known, options)):
                sampled = every_shape or (place == 0 and (own or (highest and due)))
                part = few and place == 0 and len(t) > MANY and method.steps
                if sampled and usual and part:
                    t = spread(t)
                    shape = (len(t), *shape[1:])
                if sampled == usual or (part and not usual):
                    yield Question(setting, known, options, shape, t)
                elif usual:
                    break


def _of_gradients(
    method: Method, usual: bool, implementation: Implementation, dtype: torch.dtype
) -> Iterator[Question]:
    """B = D and an image, which between them have the steps where things go wrong: both with each option and each setting.

    The usual profile asks both of one setting; of each of the others one, with every third option, and in lower dtypes with one option.
    """
    chosen = ((5,),) if method.vector else ((5, 5), (3, 2, 7, 5))
    highest = _highest(implementation, dtype)
    settings = _settings(method, implementation, other=False)
    for place, (setting, known, principal, _) in enumerate(settings):
        for number, options in enumerate(method.offered(implementation)):
            if usual and not (principal or highest or number == 0):
                break
            found = [(s, t) for s, t in batches(method, known, options) if s in chosen]
            for k, (shape, t) in enumerate(found):
                third = (place + number) % 3 == 0 if highest else number == 0
                turn = third and (place + number // 3 + k) % len(found) == 0
                if (principal or turn) == usual:
                    yield Question(setting, known, options, shape, t)


def _value_case(
    implementation: Implementation, method: Method, asked: Question, dtype: torch.dtype, part: str
) -> Case:
    """One call and its answer."""
    known, options, shape, t = asked.known, asked.options, asked.shape, asked.t
    dtype = asked_in(implementation, dtype)
    operands = operands_of(method, shape, dtype)
    found = _answer(method, known, options, shape, t, operands, part)
    whole = (
        method.name
        if part == ""
        else f"{method.name}(…){f'[{part}]' if part in '01' else f'.{part}'}"
    )
    return _case(
        implementation,
        method,
        arranged(method.name, asked.setting, t, operands, options),
        found,
        dtype,
        known,
        select=_selector(part),
        exact=partial(_exact, method, known, options, t, operands, part),
        label=whole if part else "",
    )


def _selector(part: str) -> Callable[[Any], Tensor | None]:
    return _PARTS.get(part) or partial(_field, part)


def _field(name: str, result: Any) -> Tensor | None:
    value: Tensor | None = getattr(result, name)
    return None if value is None else filled(value, result, name)


def filled(value: Tensor, result: Any, name: str) -> Tensor:
    """A part of a posterior in the shape of its mean.

    Raises:
        Misshapen: it does not broadcast to it.
    """
    try:
        return value.expand_as(result.mean)
    except RuntimeError:
        shapes = (
            f"{list(value.shape)}, which does not broadcast to the mean's {list(result.mean.shape)}"
        )
        raise Misshapen(f"posterior(…).{name} has shape {shapes}") from None


def _row(known: Truth | None, t: Tensor, ndim: int) -> Any:
    return None if known is None else known.columns(t, ndim)


def _answer(
    method: Method,
    known: Truth | None,
    options: Options,
    shape: tuple[int, ...],
    t: Tensor,
    operands: Mapping[str, Tensor],
    part: str,
) -> Bounded:
    numbers = {name: given(x) for name, x in operands.items()}
    found = method.answer(_row(known, t, len(shape)), numbers, options)[part]
    return _reduced(method, found, shape)


def _reduced(method: Method, found: Bounded, shape: tuple[int, ...]) -> Bounded:
    dims = torch.Size(shape[1:]).numel()
    if method.reduce == "":
        return Bounded(found.value.expand(shape), found.bound.expand(2, *shape))
    wide = Bounded(found.value.expand(shape), found.bound.expand(2, *shape)).total()
    return wide / dims if method.reduce == "mean" else wide


def _exact(
    method: Method,
    known: Truth | None,
    options: Options,
    t: Tensor,
    operands: Mapping[str, Tensor],
    part: str,
    index: tuple[int, ...],
) -> Number:
    """The answer at one element in 50 digits."""
    row: Any = None if known is None else known.rows[int(t[index[0]])]

    def at(place: Any) -> Number:
        numbers = {name: MP.mpf(float(x[place])) for name, x in operands.items()}
        return method.answer(row, numbers, options)[part]

    if method.reduce == "":
        return at(index)
    shape = next(iter(operands.values())).shape
    places = [(index[0], *rest.tolist()) for rest in torch.ones(shape[1:]).nonzero()]
    return sum(at(place) for place in places) / (len(places) if method.reduce == "mean" else 1)


def _case(
    implementation: Implementation,
    method: Method,
    arguments: Mapping[str, Any],
    found: Bounded,
    dtype: torch.dtype,
    known: Truth | None,
    **words: Any,
) -> Case:
    rounding, leeway = allowed(implementation, found, dtype, 1 if known is None else known.T)
    size = torch.where(found.value.abs() > 0, found.value.abs(), found.bound[0])
    return Case(
        method.name,
        arguments,
        found.value,
        size.clamp(min=torch.finfo(torch.float64).tiny),
        separable=True,
        elementwise=method.reduce == "" and not method.vector,
        allowance=rounding,
        leeway=leeway,
        **words,
    )


def allowed(
    implementation: Implementation, found: Bounded, dtype: torch.dtype, T: int
) -> tuple[Tensor, Tensor]:
    """(rounding, leeway) of the module's docstring, in the unit of the result; infinite where the dtype cannot hold it."""
    compute, limits = _arithmetic(implementation, dtype), torch.finfo(dtype)
    unit, table = (torch.finfo(kind).eps / 2 for kind in (compute, implementation.table_dtype))
    arithmetic, tables = found.bound
    rounding = _ROUNDINGS * (unit * arithmetic + table * tables)
    # One rounding of the result, down to the smallest number that the dtype has.
    rounding = rounding + limits.eps * (found.value.abs() + limits.smallest_normal)
    leeway = rounding + _ROUNDINGS * 2 * T**0.5 * table * tables
    beyond = (found.value.abs() > limits.max / 4) | (arithmetic > limits.max) | arithmetic.isnan()
    return (
        torch.where(beyond, torch.inf, rounding),
        torch.where(beyond, torch.inf, leeway),
    )


def _arithmetic(implementation: Implementation, dtype: torch.dtype) -> torch.dtype:
    """What the code computes in where samples have this dtype."""
    least = implementation.compute_dtype
    return dtype if least is None or torch.finfo(dtype).eps <= torch.finfo(least).eps else least


def _gradient_case(
    implementation: Implementation,
    method: Method,
    asked: Question,
    dtype: torch.dtype,
    operand: str,
) -> Case:
    """The gradient of Σ cotangent · result by one operand."""
    known, options, shape, t = asked.known, asked.options, asked.shape, asked.t
    dtype = asked_in(implementation, dtype)
    operands = operands_of(method, shape, dtype)
    scattered = draw(shape[:1] if method.reduce else shape, 9).to(dtype)
    cotangent = scattered.reshape(-1, *[1] * (len(shape) - 1)) if method.reduce else scattered
    numbers = {name: given(x) for name, x in {**operands, "cotangent": cotangent}.items()}
    found = method.gradient(_row(known, t, len(shape)), numbers, options, operand)
    found = Bounded(found.value.expand(shape), found.bound.expand(2, *shape))
    dims = torch.Size(shape[1:]).numel() if method.reduce == "mean" else 1
    must = operand in implementation.differentiable.get(method.name, method.flows)
    called = arranged(method.name, asked.setting, t, operands, options)
    arguments = {**called, "cotangent": scattered}
    return _case(
        implementation,
        method,
        arguments,
        found / dims,
        dtype,
        known,
        run=partial(_backward, method.name, arguments, operand, must),
        exact=partial(_exact_gradient, method, known, options, t, operands, scattered, operand),
        label=f"gradient of {method.name} in {operand}",
    )


def _exact_gradient(
    method: Method,
    known: Truth | None,
    options: Options,
    t: Tensor,
    operands: Mapping[str, Tensor],
    cotangent: Tensor,
    operand: str,
    index: tuple[int, ...],
) -> Number:
    """The gradient at one element in 50 digits."""
    row: Any = None if known is None else known.rows[int(t[index[0]])]
    here = {name: MP.mpf(float(x[index])) for name, x in operands.items()}
    here["cotangent"] = MP.mpf(float(cotangent[index[: cotangent.ndim]]))
    slope = method.gradient(row, here, options, operand)
    dims = operands[operand][0].numel() if method.reduce == "mean" else 1
    return slope / dims


def _backward(
    name: str, arguments: Mapping[str, Any], operand: str, must: bool, candidate: Any
) -> Tensor:
    """The gradient, 0 where the result was cut off from an operand that it has to flow through."""
    cotangent = arguments["cotangent"]
    leaf = candidate.own(arguments[operand]).requires_grad_()
    asked = {name: v for name, v in arguments.items() if name != "cotangent"}
    own = {name: leaf if name == operand else candidate.own(v) for name, v in asked.items()}
    with torch.enable_grad():
        result = _selector(METHODS[name].derived)(candidate.ask(name, *own.values()))
    if result is not None and result.shape != cotangent.shape:
        shapes = f"{list(result.shape)}, expected {list(cotangent.shape)}"
        raise Misshapen(f"{name}, whose gradient in {operand} is asked for, has shape {shapes}")
    found = None
    if result is not None and result.requires_grad:
        total = (result * cotangent.to(result.dtype)).sum()
        (found,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if found is None and not must:
        raise NotOffered(f"{candidate.name} offers no gradient of {name} in {operand}")
    return torch.zeros_like(leaf) if found is None else found
