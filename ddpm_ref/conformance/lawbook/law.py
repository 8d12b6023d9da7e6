"""What a law is: a frozen row of words, tolerances, and a generator of cases.

A `Case` is one question with its answer: *call this method with these arguments, and the result is this tensor, up to
tolerance × scale*. It is data, so that whoever judges it can run it, hash its arguments, pick the smallest failing one
and print it as a snippet. A law yields as many cases as it likes; sizes are prime and pairwise distinct, with B = 1 and
B = D among them, where a wrong broadcast hides or shows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.bounded import Bounded
from ddpm_ref.conformance.guarded import InterfaceError
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.truth import DEFINITIONS, Number, Truth, truth
from ddpm_ref.conformance.setting import Setting

SHAPES = ((1, 1), (2, 3), (5, 5), (3, 1, 7, 2))
"""Batch shapes: one number, a pair, B = D, and an image."""


def as_tensor(result: Any) -> Tensor | None:
    """The result itself."""
    return result if isinstance(result, Tensor) else None


@dataclass(frozen=True)
class Case:
    """One question to an implementation, with the true answer.

    Attributes:
        method: name of the method of `Implementation`.
        arguments: its arguments in the order of its signature.
        expected: the truth, float64, in the shape of the selected result.
        scale: what the error is divided by before it is compared with the tolerance; broadcastable to `expected`.
        select: takes the tensor in question from the result; None where the result lacks it (not offered).
        exact: the truth of one element in 50 digits, for the record.
        label: which quantity this is, where the method's name does not say it.
        run: replaces the call where a law combines several; receives the implementation, `Guarded`.
        may_refuse: a ValueError is as good an answer.
        must_refuse: no finite answer exists: a ValueError is right, and so is an infinity; a finite number or NaN is not.
        separable: arguments, truth and scale have one row for each sample: a reader is shown the failing sample alone.
        table: how far the result moves, to first order, when every table entry that it uses moves by its own relative size, in
            the unit of the result; broadcastable to `expected`. Sixteen times eps of `table_dtype` of it is rounding.
        allowance: the largest error in the unit of the result, where the question knows it element by element; it takes the place of the law's
            figure.
        leeway: how large an error is still one of precision.
        elementwise: every element of the result belongs to one of each argument: a reader is shown that element alone.
    """

    method: str
    arguments: Mapping[str, Any]
    expected: Tensor
    scale: Tensor | float = 1.0
    select: Callable[[Any], Tensor | None] = as_tensor
    exact: Callable[[tuple[int, ...]], Number] | None = None
    label: str = ""
    run: Callable[[Any], Tensor] | None = None
    may_refuse: bool = False
    must_refuse: bool = False
    separable: bool = False
    table: Tensor | float = 0.0
    allowance: Tensor | None = None
    leeway: Tensor | None = None
    elementwise: bool = False

    @property
    def size(self) -> int:
        """How much input a reader has to look at."""
        tensors = [v.numel() for v in self.arguments.values() if isinstance(v, Tensor)]
        return sum(tensors) + (self.expected.numel() if not tensors else 0)


def sample(case: Case, index: tuple[int, ...]) -> Case:
    """The same question about the sample (where the case is elementwise: the element) at an index of the result."""
    rank = case.expected.ndim if case.elementwise else 1
    place = tuple(slice(k, k + 1) for k in index[:rank])

    def cut(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        return value[place[: value.ndim]] if case.elementwise else value[place[:1]]

    def part(values: Tensor | float) -> Tensor:
        return torch.as_tensor(values).expand(case.expected.shape)[place]

    exact = case.exact
    back = tuple(index[:rank])
    run = case.run
    arguments = {name: cut(value) for name, value in case.arguments.items()}
    if isinstance(run, partial):  # what it was built from is among its arguments
        run = partial(run.func, *[arguments if v is case.arguments else cut(v) for v in run.args])
    return replace(
        case,
        arguments=arguments,
        expected=case.expected[place],
        scale=part(case.scale),
        table=part(case.table),
        allowance=None if case.allowance is None else part(case.allowance),
        leeway=None if case.leeway is None else part(case.leeway),
        exact=None if exact is None else lambda found: exact((*back, *found[rank:])),
        run=run,
        separable=False,
    )


Check = Callable[[Implementation, torch.dtype], Iterator[Case]]


@dataclass(frozen=True)
class Sampled:
    """A check that asks a sample of its questions, with each kind among them; the rest of them is asked in the thorough profile."""

    usual: Check
    rest: Check

    def __call__(self, implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        """The sample."""
        return self.usual(implementation, dtype)


@dataclass(frozen=True)
class Law:
    """A statement that every implementation of a diffusion objective must satisfy.

    Attributes:
        id: `I8-tails`: the invariant that it belongs to, and a word.
        title: a few words for tables.
        statement: what holds, with the formula.
        derivation: why it holds, in a sentence or two.
        source: paper and equation, or the defect that made the law necessary.
        tolerances: largest error (in units of the case's scale) by dtype of the inputs.
        reason: why these tolerances.
        check: yields the cases for one implementation and dtype.
        mixed: its cases speak of several methods; else the first that is not offered settles the law.
        measures: what separates right from wrong: `rounding`; `chance`, errors then being standard errors; `discretization`, the
            next order of an expansion; `form`, the dtype of a result; or `count`, where nothing but 0 is right. Only rounding and form can be a
            matter of precision: of form where it is right in a wider dtype.
    """

    id: str
    title: str
    statement: str
    derivation: str
    source: str
    tolerances: Mapping[torch.dtype, float]
    reason: str
    check: Check = field(repr=False)
    mixed: bool = False
    measures: str = "rounding"

    def __post_init__(self) -> None:
        if not any(self.tolerances.values()) and self.measures == "rounding":
            object.__setattr__(self, "measures", "count")

    def cases(
        self, implementation: Implementation, dtype: torch.dtype, *, thorough: bool = False
    ) -> Iterator[Case]:
        """Of `check`, and in the thorough profile the rest of what it samples from."""
        yield from self.check(implementation, dtype)
        if thorough and isinstance(self.check, Sampled):
            yield from self.check.rest(implementation, dtype)

    @property
    def unit(self) -> str:
        """What errors and tolerances of this law count."""
        return {"chance": "standard errors", "count": "entries", "form": "entries"}.get(
            self.measures, "of the scale"
        )

    @property
    def invariant(self) -> str:
        """`I8` of `I8-tails`."""
        return self.id.partition("-")[0]


SIGMAS = 5.5
"""Standard errors that chance may take a statistic away from its expectation: once in 26 million."""


@contextmanager
def seeded(seed: int = 1) -> Iterator[None]:
    """For whoever draws from the program's generator: the same numbers each time, and the generator as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


AGREEMENT = {
    dtype: 8 * torch.finfo(dtype).eps
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
}
DENSITY = {dtype: AGREEMENT[dtype] for dtype in (torch.float64, torch.float32)}
AGREEMENT_REASON = (
    "Sixteen roundings of the sum of the absolute terms that form the result, element by element, in the arithmetic's dtype, and as many "
    "of each table entry in `table_dtype`; in bf16 and fp16 one rounding of the result beside that. Right code stays below a quarter of it."
)
FLOAT64_ONLY = {torch.float64: 1e-12}
COEFFICIENT_TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 4 * 2.0**-23,
    torch.bfloat16: 2.0**-7,
    torch.float16: 2.0**-10,
}
COEFFICIENT_REASON = (
    "Coefficients rounded once from float64 and a sum of two products: 4 units in the last place of the larger product "
    "in float32; in bf16 and fp16 the arithmetic is float32 and one rounding of the result remains: 1 unit. In float64 "
    "the tables are good to 1e-12."
)


def settings_of(implementation: Implementation) -> Iterator[Setting]:
    """The schedules that the implementation can be asked about.

    Raises:
        InterfaceError: `settings()` returns something else.
    """
    found = implementation.settings()
    listed = isinstance(found, tuple | list)
    strangers = (
        [f"a {type(v).__name__}" for v in found if not isinstance(v, Setting)] if listed else []
    )
    if strangers or not listed:
        returned = f"{strangers[0]} among them" if strangers else f"a {type(found).__name__}"
        raise InterfaceError(
            f"settings() returned {returned}; a tuple of Setting is expected, (Setting('linear', 1000),)",
            implementation.settings,
        )
    yield from found


def settings_with_truth(implementation: Implementation) -> Iterator[tuple[Setting, Truth]]:
    """The implementation's settings whose definition is known here."""
    for setting in settings_of(implementation):
        try:
            yield setting, truth(setting)
        except NotOffered:
            continue


_OTHER_T = (1, 3, 50, 257, 4000)


def settings_asked(
    implementation: Implementation, *, other: bool = True
) -> Iterator[tuple[Setting, Truth]]:
    """The implementation's settings, and what it declares to have beside them: named schedules at other T, any numbers of a schedule."""
    found = list(settings_with_truth(implementation))
    yield from found
    if other:
        yield from ((setting, truth(setting)) for setting in _other_settings(implementation))


def _other_settings(implementation: Implementation) -> tuple[Setting, ...]:
    """Lengths from 1 to 4,000, zero terminal SNR and spacings of its own names; short schedules by their numbers."""
    listed = list(settings_of(implementation))
    found: list[Setting] = []
    if implementation.other_lengths:
        plain = [
            s for s in listed if s.beta is None and s.log_snr is None and s.name in DEFINITIONS
        ]
        names = dict.fromkeys(s.name for s in plain)
        found += [Setting(name, T) for name in names for T in _OTHER_T]
        if any(s.zero_terminal_snr for s in plain):
            found += [Setting(name, 50, zero_terminal_snr=True) for name in names]
        if any(s.timesteps for s in plain):
            found += [
                Setting(name, 257, timesteps=spaced) for name in names for spaced in _SPACINGS
            ]
    if implementation.own_schedules:
        found += _BY_NUMBERS
    if implementation.other_parameters:
        found += [s for s in _BY_CONSTANTS if any(s.name == known.name for known in listed)]
    return tuple(s for s in found if s not in listed)


_SPACINGS = (tuple(range(1, 258, 32)), (257,), (2, 256, 257))
_BY_CONSTANTS = (
    Setting("linear", 40, parameters=(("beta_start", 0.25), ("beta_end", 0.5))),
    Setting("cosine", 40, parameters=(("s", 0.25),)),
    Setting("sigmoid", 40, parameters=(("tau", 0.5),)),
    Setting("sigmoid", 40, parameters=(("start", 0.0), ("end", 2.0), ("tau", 2.0))),
)
_BY_NUMBERS = (
    Setting("steep", 5, beta=(0.3, 1e-5, 0.9, 0.02, 0.7)),
    Setting("log-SNR", 4, log_snr=(9.0, 0.5, 0.25, -12.0)),
)


def probe_steps(T: int) -> list[int]:
    """The steps where things go wrong: both ends, and a few between."""
    return sorted({t for t in (1, 2, 10, T // 2, T - 1, T) if 1 <= t <= T})


def batches(T: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Shapes with their steps t `[B]`, such that every step of `probe_steps` occurs alone and in company."""
    steps = probe_steps(T)
    for t in steps:
        yield (1, 1), torch.tensor([t])
    for shape in SHAPES[1:]:
        turn = steps * shape[0]
        yield (
            shape,
            torch.tensor(turn[len(steps) - 1 :: -1][: shape[0]] + turn[: shape[0]])[: shape[0]],
        )


def draw(shape: tuple[int, ...], salt: int) -> Tensor:
    """Normal numbers in float64, the same at each call; `salt` separates the operands."""
    generator = torch.Generator().manual_seed(7919 * salt + sum(shape) + 31 * len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


Coefficient = Callable[[Any], Number]
"""A number of a `Row`."""


def linear_case(
    method: str,
    arguments: Mapping[str, Any],
    known: Truth,
    t: Tensor,
    terms: Mapping[str, Coefficient],
    *,
    operands: Mapping[str, Tensor] | None = None,
    select: Callable[[Any], Tensor | None] = as_tensor,
    label: str = "",
    relative_to: str = "sum",
) -> Case:
    """A result that is a linear combination of operands with per-step coefficients, with its 50-digit element.

    `terms` maps the name of an operand (an argument, or one of `operands`) to its coefficient. The scale is the sum of the
    absolute products (`sum`) or the larger of them (`largest`), and at least the smallest normal number of the dtype.
    """
    given = {**arguments, **(operands or {})}
    values = {k: v.double() for k, v in given.items() if isinstance(v, Tensor)}
    name = next(iter(terms))
    first, smallest = values[name], torch.finfo(given[name].dtype).tiny
    products = [known.column(c, t, first.ndim) * values[name] for name, c in terms.items()]
    stacked = torch.stack(torch.broadcast_tensors(*products))
    columns = known.columns(t, first.ndim)
    moved = [_bound(c(columns)) * values[name].abs() for name, c in terms.items()]
    magnitude = stacked.abs()
    scale = magnitude.sum(0) if relative_to == "sum" else magnitude.amax(0)

    def exact(index: tuple[int, ...]) -> Number:
        row = known.rows[int(t[index[0]])]
        return sum(c(row) * float(values[name][index]) for name, c in terms.items())

    return Case(
        method=method,
        arguments=arguments,
        expected=stacked.sum(0),
        scale=scale.clamp(min=smallest),
        select=select,
        exact=exact,
        label=label,
        table=torch.stack(torch.broadcast_tensors(*moved)).sum(0).expand(stacked.shape[1:]),
    )


def _bound(coefficient: Any) -> Tensor:
    """How far its tables move a coefficient; a plain number is exact."""
    exact = torch.zeros(1, dtype=torch.float64)
    return coefficient.bound[1] if isinstance(coefficient, Bounded) else exact
