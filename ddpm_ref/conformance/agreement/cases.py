"""From a declaration to cases: values and gradients at every step, in every option, shape and range, with the rounding that they allow.

Sixteen times the bound of `bounded` is *rounding*. What tables allow beyond it when they are formed plainly, their errors adding up over all T steps
instead of like a random walk, is `leeway`: a failure within it is one of precision.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.bounded import Bounded, given
from ddpm_ref.conformance.agreement.methods import METHODS, Method, Options
from ddpm_ref.conformance.guarded import widest
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.law import (
    Case,
    Check,
    draw,
    probe_steps,
    settings_asked,
    settings_of,
)
from ddpm_ref.conformance.lawbook.truth import MP, Number, Truth
from ddpm_ref.conformance.setting import Setting

ROUNDINGS = 16.0
"""How many times the bound of eq. (1) is rounding: right code stays below a quarter of it."""

_SHAPES = ((2, 3), (5, 5), (3, 2, 7, 5))
_PARTS: dict[str, Callable[[Any], Tensor | None]] = {
    "": lambda result: result if isinstance(result, Tensor) else None,
    "0": lambda pair: pair[0],
    "1": lambda pair: pair[1],
}

Chosen = Callable[[Options], bool]


def value(name: str, part: str = "", only: Chosen = lambda options: True) -> Check:
    """A check that a method (one part of its result, some of its options) agrees with the exact answer."""
    method = METHODS[name]

    def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        for setting, known, whole in _asked(method, implementation, dtype):
            for options in filter(only, method.offered(implementation)):
                for shape, t in batches(method, known, options, whole=whole):
                    yield value_case(
                        implementation, method, setting, known, options, shape, t, dtype, part
                    )

    return check


def both(name: str, only: Chosen = lambda options: True) -> Check:
    """The same for both of a pair."""
    first, second = value(name, "0", only), value(name, "1", only)

    def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        yield from first(implementation, dtype)
        yield from second(implementation, dtype)

    return check


def gradient(*names: str) -> Check:
    """A check that gradients through methods are those of the exact answer."""

    def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        for method in map(METHODS.__getitem__, names):
            own = settings_asked(implementation, other=False) if method.setting else [(None, None)]
            for setting, known in own:
                for options in method.offered(implementation):
                    for shape, t in gradient_batches(method, known, options):
                        for name in method.operands:
                            yield gradient_case(
                                implementation,
                                method,
                                setting,
                                known,
                                options,
                                shape,
                                t,
                                dtype,
                                name,
                            )

    return check


def _asked(
    method: Method, implementation: Implementation, dtype: torch.dtype
) -> Iterator[tuple[Setting | None, Truth | None, bool]]:
    """Settings, and whether all shapes are asked of them: of other lengths only every step at once, in the widest dtype."""
    if not method.setting:
        yield None, None, True
        return
    highest = dtype == widest(implementation) or dtype not in implementation.dtypes
    own = list(settings_of(implementation))
    for setting, known in settings_asked(implementation, other=highest):
        yield setting, known, highest and setting in own


def batches(
    method: Method, known: Truth | None, options: Options, *, whole: bool = True
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Shapes with steps: every step at once; where all shapes are asked, one sample, B = D, and an image too."""
    if known is None or not method.steps:
        last = 1 if known is None else known.T
        sizes: tuple[tuple[int, ...], ...] = ((1, 1), *_SHAPES, (1031, 2))
        if method.vector:
            sizes = ((1,), (2,), (5,), (1031,))
        sizes = sizes if whole or known is None else sizes[-2:-1]
        yield from ((size, torch.full((size[0],), last)) for size in sizes)
        return
    steps = [row.step for row in known.rows[method.first :] if method.defined(row, options)]
    if not steps:
        return
    yield ((len(steps),) if method.vector else (len(steps), 2)), torch.tensor(steps)
    if not whole:
        return
    probes = sorted({*steps} & {*probe_steps(known.T)}) or steps[:1]
    for shape in ((1,), (3,)) if method.vector else ((1, 3), *_SHAPES):
        yield shape, torch.tensor((probes[::-1] * shape[0])[: shape[0]])


def gradient_batches(
    method: Method, known: Truth | None, options: Options
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """B = D and an image, which between them have the steps where things go wrong."""
    chosen = ((5,),) if method.vector else ((5, 5), (3, 2, 7, 5))
    yield from ((shape, t) for shape, t in batches(method, known, options) if shape in chosen)


def operand(kind: str, shape: tuple[int, ...], salt: int) -> Tensor:
    """Values of a range, the same at each call; all of them in one batch, so that none is hidden by a larger one."""
    z = draw(shape, salt)
    order = torch.arange(z.numel()).reshape(shape)
    if kind == "wide":
        size = torch.tensor([1.0, 1.0, 1e-3, 1.0, 300.0, 0.0, 1.0]).double()
        return z * size[(order + 3 * salt) % 7]
    if kind == "output":  # of a network: any real number, and the two ends of a range
        ends = torch.tensor([-1.0, 0.0, 1.0, -1.0, -1.0]).double()[order % 5]
        return torch.where(ends < 0, z, ends)
    if kind == "positive":
        return z.abs() + 0.1
    if kind == "logarithm":
        far = torch.tensor([0.0, 0.0, 0.0, 30.0, -30.0]).double()[(order + salt) % 5]
        return torch.where(far == 0, 3 * z - 2, far)
    return z


def _operands(method: Method, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    salts = {"x0": 1, "noise": 2, "eps": 2, "x_t": 4, "prediction": 5, "said": 5}
    return {
        name: operand(kind, shape, salts.get(name, 20 + k)).to(dtype)
        for k, (name, kind) in enumerate(method.operands.items())
    }


def arranged(
    name: str, setting: Setting | None, t: Tensor, operands: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """Arguments in the order of the method's signature."""
    known = {"setting": setting, "t": t, **operands, **options}
    order = list(inspect.signature(getattr(Implementation, name)).parameters)[1:]
    return {name: known[name] for name in order}


def value_case(
    implementation: Implementation,
    method: Method,
    setting: Setting | None,
    known: Truth | None,
    options: Options,
    shape: tuple[int, ...],
    t: Tensor,
    dtype: torch.dtype,
    part: str,
) -> Case:
    """One call and its answer."""
    dtype = dtype if dtype in implementation.dtypes else widest(implementation)
    operands = _operands(method, shape, dtype)
    found = _answer(method, known, options, shape, t, operands, part)
    whole = (
        method.name
        if part == ""
        else f"{method.name}(…){f'[{part}]' if part in '01' else f'.{part}'}"
    )
    return _case(
        implementation,
        method,
        arranged(method.name, setting, t, operands, options),
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
    return None if value is None else value.expand_as(result.mean)


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
    rounding = ROUNDINGS * (unit * arithmetic + table * tables)
    # One rounding of the result, down to the smallest number that the dtype has.
    rounding = rounding + limits.eps * (found.value.abs() + limits.smallest_normal)
    leeway = rounding + ROUNDINGS * 2 * T**0.5 * table * tables
    beyond = (found.value.abs() > limits.max / 4) | (arithmetic > limits.max) | arithmetic.isnan()
    return (
        torch.where(beyond, torch.inf, rounding),
        torch.where(beyond, torch.inf, leeway),
    )


def _arithmetic(implementation: Implementation, dtype: torch.dtype) -> torch.dtype:
    """What the code computes in where samples have this dtype."""
    least = implementation.compute_dtype
    return dtype if least is None or torch.finfo(dtype).eps <= torch.finfo(least).eps else least


def gradient_case(
    implementation: Implementation,
    method: Method,
    setting: Setting | None,
    known: Truth | None,
    options: Options,
    shape: tuple[int, ...],
    t: Tensor,
    dtype: torch.dtype,
    operand: str,
) -> Case:
    """The gradient of Σ cotangent · result by one operand."""
    dtype = dtype if dtype in implementation.dtypes else widest(implementation)
    operands = _operands(method, shape, dtype)
    scattered = draw(shape[:1] if method.reduce else shape, 9).to(dtype)
    cotangent = scattered.reshape(-1, *[1] * (len(shape) - 1)) if method.reduce else scattered
    numbers = {name: given(x) for name, x in {**operands, "cotangent": cotangent}.items()}
    found = method.gradient(_row(known, t, len(shape)), numbers, options, operand)
    found = Bounded(found.value.expand(shape), found.bound.expand(2, *shape))
    dims = torch.Size(shape[1:]).numel() if method.reduce == "mean" else 1
    must = operand in implementation.differentiable.get(method.name, method.flows)
    arguments = arranged(method.name, setting, t, operands, options)
    return _case(
        implementation,
        method,
        arguments,
        found / dims,
        dtype,
        known,
        run=partial(_backward, method.name, arguments, operand, scattered, must),
        label=f"gradient of {method.name} in {operand}",
    )


def _backward(
    name: str,
    arguments: Mapping[str, Any],
    operand: str,
    cotangent: Tensor,
    must: bool,
    candidate: Any,
) -> Tensor:
    """The gradient, 0 where the result was cut off from an operand that it has to flow through."""
    leaf = candidate.own(arguments[operand]).requires_grad_()
    own = {name: leaf if name == operand else candidate.own(v) for name, v in arguments.items()}
    with torch.enable_grad():
        result = _selector(METHODS[name].derived)(candidate.ask(name, *own.values()))
    found = None
    if result is not None and result.requires_grad:
        total = (result * cotangent.to(result.dtype)).sum()
        (found,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if found is None and not must:
        raise NotOffered(f"{candidate.name} offers no gradient of {name} in {operand}")
    return torch.zeros_like(leaf) if found is None else found
