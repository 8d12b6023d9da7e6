"""How many seeded defects the laws reject, and whether the report names what is wrong.

A defect is *killed* where a law fails that the right implementation passes; it is *named* where the witness of one such failure is a call
of a method that the defect's causes list. Laws whose cases never reach an overridden method cannot fail because of it and are left out;
those about its causes come first, and the first failure that names one of them settles it, unless everything is asked for.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ddpm_ref.conformance import Implementation, Setting
from ddpm_ref.conformance.judge import Outcome
from ddpm_ref.conformance.lawbook import LAWS, Case
from ddpm_ref.conformance.runner import examine
from tests.independent.defects import Defect
from tests.independent.right import Right

Failures = Mapping[str, str]
"""`law dtype` → the method that its witness calls."""


@dataclass(frozen=True)
class Found:
    """What the laws said about one defect.

    Attributes:
        id, kind, cause, description: the defect's.
        killed: a law failed.
        named: a failure's witness calls a method among the causes.
        only: every witness does, among the laws that were run.
        classes: classifications of the failures.
        failures: law and dtype → method of the witness.
        false: law and dtype that fail on the right implementation too, with what was said; they count for nothing.
    """

    id: str
    kind: str
    cause: tuple[str, ...]
    description: str
    killed: bool
    named: bool
    only: bool
    classes: tuple[str, ...]
    failures: Failures
    false: Failures


METHODS = frozenset(
    name for name, value in vars(Implementation).items() if callable(value) and name[0] != "_"
)


Failure = tuple[Outcome, str]
"""What a law says, and the methods that its witness speaks of, separated by blanks."""


def _failed(
    law: str, implementation: Right, methods: dict[str, str] | None = None
) -> list[Failure]:
    """Failures under one law; fills in `methods`, the method by a case's label."""
    methods = {} if methods is None else methods

    def noted(candidate: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        for case in LAWS[law].check(candidate, dtype):
            methods[case.label or case.method] = case.method
            yield case

    outcomes = examine(replace(LAWS[law], check=noted), implementation)
    return [(outcome, _blamed(outcome, methods)) for outcome in outcomes if outcome.failed]


def _blamed(outcome: Outcome, methods: Mapping[str, str]) -> str:
    label = "" if outcome.witness is None else str(outcome.witness["method"])
    spoken = METHODS & {*re.findall(r"\w+", label), methods.get(label, "")}
    return " ".join(sorted(spoken))


@dataclass(frozen=True)
class Baseline:
    """What each law asks, seen on the right implementation with short schedules.

    Attributes:
        reached: law → names of the functions of `Right` that its cases reach.
        about: law → methods that its cases name.
        seconds: law → how long it took.
    """

    reached: dict[str, frozenset[str]]
    about: dict[str, frozenset[str]]
    seconds: dict[str, float]

    def laws(self, defect: Defect) -> tuple[list[str], list[str]]:
        """The laws that can tell: those about its causes, and the others; quick ones first."""
        changed = {name for name in vars(defect.build) if not name.startswith("__")}
        able = [law for law, names in self.reached.items() if names & changed]
        able.sort(key=self.seconds.__getitem__)
        direct = [law for law in able if self.about[law] & set(defect.cause)]
        return direct, [law for law in able if law not in direct]


class _Short(Right):
    """Two short schedules, which reach what long ones reach."""

    other_lengths = False
    own_schedules = False

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("cosine", 13), Setting("linear", 7, timesteps=(1, 3, 4, 7)))


def _spy() -> tuple[Right, set[str]]:
    """The right implementation, and the names of its functions that were called."""
    reached: set[str] = set()

    def noted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def call(self: Right, *arguments: Any, **named: Any) -> Any:
            reached.add(name)
            return plain(self, *arguments, **named)

        return call

    functions = {
        name: noted(name, getattr(Right, name))
        for name in dir(Right)
        if not name.startswith("__") and callable(getattr(Right, name)) and name != "_moments"
    }
    return type("Spy", (_Short,), functions)(), reached


def baseline(laws: Sequence[str] | None = None) -> Baseline:
    """What the laws ask."""
    found = Baseline({}, {}, {})
    for law in LAWS if laws is None else laws:
        spy, reached = _spy()
        methods: dict[str, str] = {}
        begun = time.process_time()
        _failed(law, spy, methods)
        found.seconds[law] = time.process_time() - begun
        found.reached[law] = frozenset(reached)
        found.about[law] = frozenset(methods.values())
    return found


@functools.cache
def _accused(law: str) -> dict[str, str]:
    """`law dtype` → what is said of the right implementation."""
    return {f"{law} {outcome.dtype}": outcome.message for outcome, _ in _failed(law, Right())}


def _asked(defect: Defect, known: Baseline, every: bool) -> Iterator[Failure]:
    """Failures; unless `every`, no further than the first that names a cause, and no other law than those about it once one fails."""
    killed = False
    for group in known.laws(defect):
        for law in group:
            for outcome, blamed in _failed(law, defect.build()):
                yield outcome, blamed
                if f"{law} {outcome.dtype}" in _accused(law):
                    continue
                killed = True
                if not every and set(blamed.split()) & set(defect.cause):
                    return
        if killed and not every:
            return


def measure(defect: Defect, known: Baseline, *, every: bool = False) -> Found:
    """The laws on one defect."""
    found = [(f"{o.law} {o.dtype}", o, blamed) for o, blamed in _asked(defect, known, every)]
    new = [(o, blamed) for key, o, blamed in found if key not in _accused(o.law)]
    false = {key: o.message for key, o, _ in found if key in _accused(o.law)}
    failures = {f"{outcome.law} {outcome.dtype}": blamed for outcome, blamed in new}
    blamed = {method for names in failures.values() for method in names.split()}
    return Found(
        defect.id,
        defect.kind,
        defect.cause,
        defect.description,
        killed=bool(new),
        named=bool(blamed & set(defect.cause)),
        only=bool(new) and blamed <= set(defect.cause),
        classes=tuple(sorted({str(outcome.classification) for outcome, _ in new})),
        failures=failures,
        false=false,
    )


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """Counts and rows, strict JSON."""
    killed = [row for row in found if row.killed]
    named = [row for row in killed if row.named]
    return {
        "schema": "ddpm-bench.defects/1",
        "defects": len(found),
        "killed": len(killed),
        "named": len(named),
        "kill_rate": len(killed) / len(found) if found else None,
        "right_cause_rate": len(named) / len(killed) if killed else None,
        "survivors": [row.id for row in found if not row.killed],
        "wrong_cause": [row.id for row in killed if not row.named],
        "false_bugs": {law: said for row in found for law, said in row.false.items()},
        "rows": [asdict(row) for row in found],
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The summary in words."""
    rows = {row["id"]: row for row in result["rows"]}
    head = f"{result['killed']} of {result['defects']} defects killed, {result['named']} of these with the right cause"
    false = [f"false: {law}: {said}" for law, said in result["false_bugs"].items()]
    alive = [
        f"alive: {name} [{', '.join(rows[name]['cause'])}]: {rows[name]['description']}"
        for name in result["survivors"]
    ]
    other = [
        f"other cause: {name} [{', '.join(rows[name]['cause'])}]: blamed {', '.join(sorted(set(rows[name]['failures'].values())))}"
        for name in result["wrong_cause"]
    ]
    return [head, *false, *alive, *other]
