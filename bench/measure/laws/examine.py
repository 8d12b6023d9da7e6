"""The laws on one or several implementations, as a record of kind `verify`.

A row of `results["laws"]` is one law at one dtype on one implementation: status `pass`, `fail`, `error` (it raised) or `not-offered` (a record
keeps the last in short, `not_offered` of its implementation);
the largest error and the tolerance, both in the law's own scale; for failures the class (`bug`, `precision`, `convention`), the smallest
input that shows it, a snippet, and for each bug a second computation with 50 digits (`bench.measure.laws.second_opinion.check`).

`results["failed"]` names the laws that fail on *this* implementation: what others do is a finding and no failure of a run.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure.laws.weight_table import weight_rows
from bench.record import Json, Record, finite, new_record

if TYPE_CHECKING:
    from ddpm_ref.conformance import Implementation, Outcome
    from ddpm_ref.conformance.lawbook import Law

OURS = "ddpm_ref"
KIND = "verify"
_WEIGHT_STEPS = (1, 10, 500, 999)
_WORST, _LONGEST = 1, 16
"""Places and numbers of an argument that a record keeps."""
_GLANCE = 10.0  # seconds for what only describes an adapter
NO_FAILURE: Mapping[str, Json] = dict.fromkeys(
    (
        "version",
        "classification",
        "error_reason",
        "convention",
        "root",
        "places",
        "witness",
        "snippet",
        "double_check",
    )
)
"""The fields of a failure's row, empty."""


@dataclass(frozen=True)
class Subject:
    """An implementation under test, and where it comes from.

    Attributes:
        implementation: its adapter.
        source: `ddpm_ref`, the name of a library, or the reference of a user's file.
        licence: of the library, "" where that is not ours to say.
    """

    implementation: "Implementation"
    source: str
    licence: str = ""


@dataclass(frozen=True)
class Examined:
    """All outcomes of one implementation."""

    subject: Subject
    outcomes: "tuple[Outcome, ...]"
    seconds: float

    @property
    def failed(self) -> "tuple[Outcome, ...]":
        """The outcomes that violate a law."""
        return tuple(outcome for outcome in self.outcomes if outcome.failed)

    @cached_property
    def rows(self) -> list[dict[str, Json]]:
        """The outcomes in JSON types; computed once, since bugs are recomputed in 50 digits."""
        return [plain(row(self, outcome)) for outcome in self.outcomes]

    @cached_property
    def described(self) -> dict[str, Json]:
        """The implementation in JSON types; computed once, since code of the user's answers."""
        described: dict[str, Json] = plain(_described(self))
        return described


def subjects(name: str) -> tuple[Subject, ...]:
    """What a name stands for: this implementation, a library with its options, a repository's checkout, or a class in a file.

    Raises:
        ValueError: unknown name, a file without such a class, or a folder that is not that repository.
        ModuleNotFoundError: the library is not installed.
    """
    from ddpm_ref.conformance.adapters import PEERS, from_file, implementations, repositories

    if name == OURS:
        from bench.measure.laws.ours import BenchReference

        return (Subject(BenchReference(), OURS),)
    if from_file.is_file_reference(name):
        file, _, kind = name.partition(":")
        shown = f"{Path(file).name}:{kind}".rstrip(":")  # a record keeps no paths
        return (Subject(from_file.load(name), shown),)
    if repositories.is_repository(name):
        kind, _, path = name.partition(":")
        found = repositories.implementations(kind, Path(path or kind))
        licence = repositories.REPOSITORIES[kind].licence
        return tuple(Subject(each, f"{kind}:PATH", licence) for each in found)
    built = implementations(name)
    return tuple(Subject(each, name, PEERS[name].licence) for each in built)


def known_laws(topics: Sequence[str] = ()) -> "tuple[Law, ...]":
    """The laws with these ids (`I8-tails`) or invariants (`I8`); all of them for none.

    Raises:
        ValueError: a topic that names no law.
    """
    from ddpm_ref.conformance import laws

    return tuple(test.law for test in laws(*topics))


def examine(
    subject: Subject,
    laws: "Sequence[Law]",
    on_law: "Callable[[Law], None] | None" = None,
    *,
    thorough: bool = False,
    limit: float | None = None,
) -> Examined:
    """Run the laws on one subject, each for `limit` seconds at most."""
    from ddpm_ref.conformance import verify

    began = time.perf_counter()
    outcomes = verify(subject.implementation, laws, on_law, limit=limit, thorough=thorough)
    return Examined(subject, outcomes, time.perf_counter() - began)


def results(examined: Iterable[Examined], laws: "Iterable[Law]") -> dict[str, Json]:
    """Everything that was found, in JSON types."""
    found = list(examined)
    ours = [outcome.law for one in found if one.subject.source == OURS for outcome in one.failed]
    return {
        "implementations": [one.described for one in found],
        "statements": [_stated(law) for law in laws],
        "laws": [row for one in found for row in one.rows],
        "failed": sorted(set(ours)),
        "weights": _weights(),
    }


def _weights() -> dict[str, Json]:
    """The executable weight table at a few steps of the linear schedule."""
    from ddpm_ref.schedule import linear_schedule

    rows = weight_rows(linear_schedule(1000), _WEIGHT_STEPS)
    return {
        "schedule": "linear",
        "T": 1000,
        "steps": list(_WEIGHT_STEPS),
        "rows": [asdict(r) for r in rows],
    }


def verification_record(
    names: Sequence[str] = (OURS, "article"),
    laws: "Sequence[Law] | None" = None,
    on_law: "Callable[[Law], None] | None" = None,
) -> Record:
    """A record of the laws on everything that `names` stands for; this implementation and the article's snippet by default."""
    chosen = known_laws() if laws is None else tuple(laws)
    found = [examine(each, chosen, on_law) for name in names for each in subjects(name)]
    return record(found, chosen)


def record(
    examined: Sequence[Examined], laws: "Sequence[Law]", *, thorough: bool = False
) -> Record:
    """The record of what was examined."""
    names = list(dict.fromkeys(one.subject.source for one in examined))
    against = " ".join(f"--against {name}" for name in names)
    protocol = {
        "command": f"ddpm-bench verify {against}{' --thorough' * thorough}",
        "against": names,
        "laws": [law.id for law in laws],
    }
    found = results(examined, laws)
    offered = [_kept(each) for each in found["laws"] if each["status"] != "not-offered"]
    described = [
        {**one, "not_offered": _not_offered(one["name"], found["laws"])}
        for one in found["implementations"]
    ]
    kept = {**found, "implementations": described, "laws": offered}
    return new_record(KIND, protocol=protocol, results=kept)


def _not_offered(name: str, rows: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    """What an implementation lacks, in words → the laws that speak of it, separated by blanks: most rows of a library say no more than that."""
    own = [row for row in rows if row["implementation"] == name]
    asked = {row["law"] for row in own if row["status"] != "not-offered"}
    those = [row for row in own if row["law"] not in asked]
    found: dict[str, dict[str, None]] = {}
    for row in those:
        found.setdefault(row["message"], {})[row["law"]] = None
    return {message: " ".join(laws) for message, laws in found.items()}


def _kept(row: Mapping[str, Json]) -> Mapping[str, Json]:
    """A row as a record keeps it: of the places where a law fails the worst few, and how many there are; of long arguments their size."""
    if "places" not in row:
        return row
    places = row["places"]
    worst = sorted(places, key=lambda place: -_size(place["error"]))[:_WORST]
    return {
        **row,
        "places": worst,
        "failing_places": len(places),
        "witness": _short(row["witness"]),
    }


def _size(error: Json) -> float:
    """An error to sort by: words stand for what is not finite."""
    return error if isinstance(error, float | int) else math.inf


def _short(witness: Json) -> Json:
    if witness is None:
        return None
    said = {name: content for name, content in witness.items() if name != "message"}
    return {
        **said,
        "arguments": {name: _shortened(value) for name, value in witness["arguments"].items()},
    }


def _shortened(value: Json) -> Json:
    """Nested lists of many numbers in words."""
    if isinstance(value, dict):
        return {name: _shortened(content) for name, content in value.items()}
    shape, numbers = [], 1
    inner = value
    while isinstance(inner, list) and inner:
        shape.append(len(inner))
        numbers *= len(inner)
        inner = inner[0]
    return value if numbers <= _LONGEST else f"{numbers:,} numbers {shape}"


def row(examined: Examined, outcome: "Outcome") -> dict[str, Json]:
    """One outcome in JSON types; a number that is not finite is None with its reason beside it.

    Most rows of a library say "not offered": what belongs to failures stands in their rows only.
    """
    plainly = {
        "implementation": outcome.implementation,
        "law": outcome.law,
        "dtype": outcome.dtype,
        "status": outcome.status,
        "error": finite(outcome.error),
        "tolerance": outcome.tolerance,
        "cases": outcome.cases,
        "message": outcome.message,
    }
    return plainly | (_failure(examined, outcome) if outcome.failed else {})


def _failure(examined: Examined, outcome: "Outcome") -> dict[str, Json]:
    """The class of a failure, and what shows it."""
    from bench.measure.laws.second_opinion.check import double_check

    infinite = finite(outcome.error) is None
    bug = outcome.classification == "bug"
    return {
        "version": examined.subject.implementation.version,
        "classification": outcome.classification,
        "error_reason": "an exception, NaN, an infinity, a wrong shape or no answer in time"
        if infinite
        else None,
        "convention": outcome.convention,
        "root": outcome.root or None,
        "places": [plain(place) for place in outcome.places],
        "witness": None if outcome.witness is None else plain(outcome.witness),
        "snippet": outcome.snippet or None,
        "double_check": double_check(outcome.law, outcome.witness) if bug else None,
    }


def plain(value: Any) -> Json:
    """What an adapter says in JSON types: numbers that are not finite become words, half surrogate pairs their escapes."""
    if isinstance(value, Mapping):
        return {str(key): plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [plain(content) for content in value]
    if isinstance(value, float):
        return value if finite(value) is not None else str(value)
    if isinstance(value, int | type(None)):
        return value
    return str(value).encode(errors="backslashreplace").decode()


def _described(one: Examined) -> dict[str, Json]:
    adapter = one.subject.implementation
    return {
        "name": adapter.name,
        "version": adapter.version,
        "source": one.subject.source,
        "licence": one.subject.licence,
        "first_index": adapter.first_index,
        "dtypes": [str(dtype).removeprefix("torch.") for dtype in adapter.dtypes],
        "settings": _settings(adapter),
        "conventions": [
            {"name": c.name, "statement": c.statement, "source": c.source}
            for c in adapter.conventions
        ],
        "notes": _notes(one.subject),
        "seconds": round(one.seconds, 2),
    }


def _notes(subject: Subject) -> list[str]:
    """What is probably a slip of a user's adapter; libraries' are ours and have none."""
    from ddpm_ref.conformance.adapters.from_file import is_file_reference
    from ddpm_ref.conformance.limit import LimitReachedError, within
    from ddpm_ref.conformance.remarks import remarks

    if not is_file_reference(subject.source):
        return []
    try:
        with within(_GLANCE):
            return list(remarks(subject.implementation))
    except LimitReachedError as reached:
        return [f"what settings() says is not known: {reached}"]


def _settings(adapter: "Implementation") -> list[str]:
    """Its schedules in words; a user's method may raise, which the laws report on their own."""
    from ddpm_ref.conformance.limit import within
    from ddpm_ref.conformance.witness import described

    try:
        with within(_GLANCE):
            return [str(setting) for setting in adapter.settings()]
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # the code under test: its message is the result
        return [f"settings() raised {described(failure)}"]


def _stated(law: "Law") -> dict[str, Json]:
    return {
        "law": law.id,
        "invariant": law.invariant,
        "title": law.title,
        "statement": law.statement,
        "derivation": law.derivation,
        "source": law.source,
        "reason": law.reason,
    }
