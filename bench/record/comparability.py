"""What of two records may be compared, and under which different conditions they were made.

Kind, data and the settings that give the numbers their meaning must agree. **How much** was measured may differ: more
rounds, other shapes, another library beside the same ones (`_SCOPE`); then what both hold is compared, and the rest is named.
Times must come from one machine as well: equal processor, cores and accelerator
(`bench.record.environment.same_machine`). What may differ, and is what a comparison is about, are the commit, the
versions and the threads.
"""

import json
from collections.abc import Mapping
from typing import Any

from bench.record.environment import machine_label, same_machine
from bench.record.record import Record, is_series
from bench.terminal.usage import UsageError

_SCOPE: Mapping[str, frozenset[str]] = {
    "verify": frozenset({"laws", "against", "settings", "dtypes", "examples"}),
    "throughput": frozenset({"select", "scaling", "seconds", "rounds", "threads"}),
    "throughput-contest": frozenset(
        {"shapes", "threads", "rounds", "turn_seconds", "pause_seconds", "seed"}
    ),
    "training-contest": frozenset(
        {"threads", "rounds", "cases", "turn_seconds", "pause_seconds", "seed"}
    ),
    "gpu-visit": frozenset({"shapes", "rounds"}),
    "study": frozenset({"arms", "seeds", "claims", "designs"}),
    "bound": frozenset({"T"}),
    "mutation": frozenset({"modules", "population"}),
    "run": frozenset({"preset", "parts", "only"}),
    "noise": frozenset({"count"}),
}
"""Kind → settings that say how much was measured and not what a number means: names of series and laws carry the rest."""

_ALWAYS = frozenset({"command"})


class NotComparableError(UsageError):
    """The records measure different things: no number of one may stand beside one of the other."""


def check_comparable(old: Record, new: Record) -> None:
    """Refuse records that differ in kind, in what their numbers mean, or in data.

    Raises:
        NotComparableError: they do, with what differs.
    """
    if old.kind != new.kind:
        raise NotComparableError(
            f"not comparable: one record is of kind {old.kind!r}, the other {new.kind!r}; "
            "give two records of one kind"
        )
    different = differences(meaning(old), meaning(new))
    if different:
        raise NotComparableError(
            f"not comparable: the protocols differ in {'; '.join(different)}; "
            "measure both with the same settings"
        )
    if _data_hash(old) != _data_hash(new):
        raise NotComparableError(
            "not comparable: the data differ; measure both on the same data set"
        )


def times_refused(old: Record, new: Record) -> str:
    """Why the times of two records must not be compared, "" where they may."""
    if same_machine(old.environment, new.environment):
        return ""
    machines = machine_label(old.environment), machine_label(new.environment)
    if machines[0] == machines[1]:
        machines = tuple(json.dumps(r.environment.get("machine")) for r in (old, new))  # type: ignore[assignment]
    return f"times from different machines ({machines[0]} and {machines[1]}); measure both on one"


def group(record: Record) -> str:
    """Records of one group may be compared: kind, meaning and data as text."""
    return json.dumps([record.kind, meaning(record), _data_hash(record)], sort_keys=True)


def testable(record: Record) -> dict[str, dict[str, Any]]:
    """The samples that can be tested; a record may hold others, such as loss curves."""
    return {name: s for name, s in record.samples.items() if is_series(s)}


def meaning(record: Record) -> dict[str, Any]:
    """The settings that give a record's numbers their meaning."""
    left_out = _SCOPE.get(record.kind, frozenset()) | _ALWAYS
    return {key: value for key, value in record.protocol.items() if key not in left_out}


def scope(record: Record) -> dict[str, Any]:
    """The settings that say how much was measured."""
    keys = _SCOPE.get(record.kind, frozenset())
    return {key: value for key, value in record.protocol.items() if key in keys}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`rounds (21 → 61)` for each key whose values differ."""
    keys = dict.fromkeys([*old, *new])
    return [
        f"{key} ({_short(old.get(key))} → {_short(new.get(key))})"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _data_hash(record: Record) -> object:
    return None if record.data is None else record.data.get("sha256", record.data)


def is_time(unit: str) -> bool:
    """Whether a unit depends on how fast a machine is: s, ms, ns/element, items/s, …."""
    return bool({"s", "ms", "us", "μs", "µs", "ns"} & set(unit.replace("/", " ").split()))


def conditions(old: Record, new: Record) -> tuple[str, ...]:
    """What differs in environment and scope: commit, versions, threads, how much was measured."""
    flat = [_flat(record.environment) for record in (old, new)]
    return (*differences(*flat), *differences(scope(old), scope(new)))


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    nested = ("packages", "threads")
    plain = {key: value for key, value in environment.items() if key not in nested}
    return plain | {k: v for name in nested for k, v in (environment.get(name) or {}).items()}
