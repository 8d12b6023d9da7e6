"""Laws on manners: a function of its arguments leaves them, its earlier results and torch's global state as they are."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.examples import SHARED, calls
from ddpm_ref.conformance.guarded import fresh, usual_state
from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.bound import ConstantModel
from ddpm_ref.conformance.lawbook.hygiene import own_settings, tensors
from ddpm_ref.conformance.lawbook.law import Case, Law, draw
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting

Count = Callable[[Any, str, dict[str, Any]], int | list[int]]
"""(implementation, method, arguments of its own) → what must be 0."""


def _unbatched(setting: Setting, known: Truth) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls without a batch axis, or whose rows draw their own noise: for the law on inputs only."""
    column = draw((5,), 1)
    yield "ema", {"values": column, "decay": 0.5}
    if known.T <= 50:
        yield "bound", {
            "setting": setting, "model": ConstantModel(known, "x0", 0.25), "x0": draw((2, 3), 1),
            "parameterization": "x0", "variance": "posterior", "decoder": "gaussian", "levels": None,
        }  # fmt: skip


def _every_call(
    implementation: Implementation,
    count: Count,
    label: Callable[[str, list[str]], str],
    width: int = 1,
) -> Iterator[Case]:
    """Counts that must be 0, for one call of every method; `width` of them, or one for each tensor among the arguments."""
    for setting, known, every in own_settings(implementation):
        for method, arguments in (
            *calls(implementation, setting, known, 3, (2,), every=every),
            *_unbatched(setting, known),
        ):
            names = [name for name, value in arguments.items() if isinstance(value, Tensor)]

            def counted(candidate: Any, method: str = method, given: Any = arguments) -> Tensor:
                own = {name: candidate.own(value) for name, value in given.items()}
                return torch.tensor(count(candidate, method, own)).reshape(-1)

            yield Case(
                method,
                arguments,
                torch.zeros(width or len(names), dtype=torch.float64),
                run=counted,
                label=f"number of {label(method, names)}",
            )


def _unchanged(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    def changed(candidate: Any, method: str, given: dict[str, Any]) -> list[int]:
        before = {name: fresh(v) for name, v in given.items() if isinstance(v, Tensor)}
        with usual_state():
            getattr(candidate.bare, method)(*given.values())
        return [_unequal([given[name]], [value]) for name, value in before.items()]

    def label(method: str, names: list[str]) -> str:
        return f"entries that {method} changes in its arguments ({', '.join(names)})"

    yield from _every_call(implementation, changed, label, width=0)


def _repeatable(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    def differ(candidate: Any, method: str, given: dict[str, Any]) -> int:
        if method == "bound":
            raise NotOffered("a bound draws its own noise")
        answers = []
        with torch.random.fork_rng(devices=[]):
            for seed in (1, 2):
                torch.manual_seed(seed)
                answers.append(
                    [fresh(v) for v in tensors(getattr(candidate, method)(*given.values()))]
                )
        return _unequal(*answers)

    yield from _every_call(
        implementation,
        differ,
        lambda method, _: f"entries of {method} that differ between two equal calls",
    )


def _own_memory(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    def overwritten(candidate: Any, method: str, given: dict[str, Any]) -> int:
        call = getattr(candidate, method)
        first = tensors(call(*given.values()))
        kept = [fresh(value) for value in first]
        call(*(_halved(name, value) for name, value in given.items()))
        return _unequal(first, kept)

    yield from _every_call(
        implementation,
        overwritten,
        lambda method, _: f"entries of a result of {method} that the next call overwrites",
    )


def _halved(name: str, value: Any) -> Any:
    """Other numbers for a second call; distributions stay, whose weights sum to 1."""
    number = isinstance(value, Tensor) and value.is_floating_point() and name not in SHARED
    return value / 2 if number else value


def _state_kept(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """A draw moves the global generator on, from wherever it stood; a new seed sets it to the same place each time."""

    def settings_changed(candidate: Any, method: str, given: dict[str, Any]) -> int:
        ends = []
        with usual_state(), torch.random.fork_rng(devices=[]):
            before = torch.get_default_dtype(), torch.is_grad_enabled()
            for seed in (1, 2):
                torch.manual_seed(seed)
                getattr(candidate.bare, method)(*map(fresh, given.values()))
                ends.append(torch.random.get_rng_state())
            after = torch.get_default_dtype(), torch.is_grad_enabled()
        changed = sum(a != b for a, b in zip(before, after, strict=True))
        return changed + int(torch.equal(*ends))

    yield from _every_call(
        implementation,
        settings_changed,
        lambda method, _: (
            f"global settings of torch (default dtype, gradient mode, seed) that {method} changes"
        ),
    )


def _history(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """A new instance that is asked nothing else, and one that was asked before: in half precision, of the same size with other content."""

    def differ(candidate: Any, method: str, given: dict[str, Any]) -> int:
        if method == "bound":
            raise NotOffered("a bound draws its own noise")
        fresh_one, used = _rebuilt(candidate), _rebuilt(candidate)
        lower = candidate.bare.dtypes[-1]
        before = (
            {n: _lowered(n, v, lower) for n, v in given.items()},
            {n: _halved(n, v) for n, v in given.items()},
        )
        with usual_state():
            for arguments in before:
                try:
                    getattr(used, method)(*map(fresh, arguments.values()))
                except (
                    Exception
                ):  # its own matter: of what it does to the next call this law speaks
                    continue
            answers = [
                [fresh(v) for v in tensors(getattr(one, method)(*map(fresh, given.values())))]
                for one in (used, fresh_one)
            ]
        return _unequal(*answers)

    yield from _every_call(
        implementation,
        differ,
        lambda method, _: f"entries of {method} that depend on what was asked before",
    )


def _rebuilt(candidate: Any) -> Implementation:
    try:
        built: Implementation = type(candidate.bare)()
    except TypeError:
        raise NotOffered(f"{candidate.name} is not built without arguments") from None
    return built


def _lowered(name: str, value: Any, dtype: torch.dtype) -> Any:
    number = isinstance(value, Tensor) and value.is_floating_point() and name not in SHARED
    return value.to(dtype) if number else value


def _generator(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """What takes a seed leaves the program's generator where it is, and depends on the seed alone."""

    def asks(setting: Setting) -> Iterator[tuple[str, tuple[Any, ...]]]:
        x0, t = draw((3, 5), 1), torch.tensor([1, setting.steps, setting.steps])
        yield "noised", (setting, x0, t, 3)
        yield "noise", ((3, 5), 3, 2, 1)
        yield "time_steps", (7, 10, 3)

    for setting, _, first in own_settings(implementation):
        for method, given in asks(setting) if first else ():

            def moved(candidate: Any, method: str = method, given: Any = given) -> Tensor:
                answers, states = [], []
                with usual_state(), torch.random.fork_rng(devices=[]):
                    for seed in (1, 2):
                        torch.manual_seed(seed)
                        before = torch.random.get_rng_state()
                        result = getattr(candidate, method)(*given)
                        states.append(torch.equal(before, torch.random.get_rng_state()))
                        answers.append([fresh(v) for v in tensors(result)])
                return torch.tensor([_unequal(*answers), states.count(False)])

            yield Case(
                method,
                {"setting": setting, "seed": 3},
                torch.zeros(2, dtype=torch.float64),
                run=moved,
                label=f"entries of {method} that differ for one seed, and calls that move the program's generator",
            )


def _unequal(these: "list[Tensor]", those: "list[Tensor]") -> int:
    """Entries that differ; NaN equals NaN."""
    pairs = zip(these, those, strict=True)
    return sum(
        int((~((a == b) | (a.isnan() & b.isnan()))).sum()) if a.shape == b.shape else a.numel()
        for a, b in pairs
    )


LAWS = (
    Law(
        "I18-unchanged",
        "inputs unchanged",
        "No call changes its arguments.",
        "The training loop uses x0 and ε again for the target.",
        "Seen: in-place noise +=.",
        {torch.float64: 0.0},
        "A count.",
        _unchanged,
        mixed=True,
    ),
    Law(
        "I18-repeatable",
        "same question, same answer",
        "Two calls with equal arguments give equal results, wherever the global random generator stands.",
        "Each of these is a function of its arguments; noise and steps are among them.",
        "Seen: noise of its own in place of the argument; a cache keyed by too little.",
        {torch.float64: 0.0},
        "A count.",
        _repeatable,
        mixed=True,
    ),
    Law(
        "I18-own",
        "results are the caller's",
        "A result stays as it is when the method is called again.",
        "A training loop holds several at once.",
        "Output buffers that are used again.",
        {torch.float64: 0.0},
        "A count.",
        _own_memory,
        mixed=True,
    ),
    Law(
        "I18-state",
        "global state kept",
        "No call sets torch's default dtype, its gradient mode or its seed.",
        "They belong to the program: a seed set inside a call makes every later draw of the program the same.",
        "torch.manual_seed for reproducible noise; set_grad_enabled(False) that is never undone.",
        {torch.float64: 0.0},
        "A count.",
        _state_kept,
        mixed=True,
    ),
    Law(
        "I18-history",
        "no memory of other calls",
        "A result is that of a new instance, whatever was asked before: in another dtype, or of the same size with other content.",
        "A function of its arguments has no history.",
        "Tables kept in the dtype of the first call; a cache keyed by shape or by T.",
        {torch.float64: 0.0},
        "A count.",
        _history,
        mixed=True,
    ),
    Law(
        "I18-generator",
        "a seed is enough",
        "What takes a seed gives the same for the same seed wherever the program's generator stands, and does not move it.",
        "The seed is the argument that the numbers are a function of.",
        "torch.manual_seed for reproducible noise; a draw from the global generator beside one from a local one.",
        {torch.float64: 0.0},
        "A count.",
        _generator,
        mixed=True,
    ),
)
