"""Whether two records may be compared at all, and under which different conditions they were made.

Kind, protocol and data must agree. Times must come from one machine as well: equal processor, cores
and accelerator (`bench.record.environment.same_machine`). What may differ, and is what a comparison is
about, are the commit, the versions and the threads.
"""

from collections.abc import Mapping
from typing import Any

from bench.record import Record, is_series
from bench.record.environment import same_machine
from bench.terminal.usage import UsageError

_NOT_PROTOCOL = ("command", "laws")
"""How to repeat it, and the list of laws: a law more or less leaves the others comparable."""


class NotComparableError(UsageError):
    """The records measure different things: no number of one may stand beside one of the other."""


def check_comparable(old: Record, new: Record) -> None:
    """Refuse records that differ in kind, protocol or data, and times from different machines.

    Raises:
        NotComparableError: they do, with what differs.
    """
    if old.kind != new.kind:
        raise NotComparableError(
            f"not comparable: one record is of kind {old.kind!r}, the other {new.kind!r}; "
            "give two records of one kind"
        )
    different = _differences(_protocol(old), _protocol(new))
    if different:
        raise NotComparableError(
            f"not comparable: the protocols differ in {'; '.join(different)}; "
            "measure both with the same settings"
        )
    if _data_hash(old) != _data_hash(new):
        raise NotComparableError(
            "not comparable: the data differ; measure both on the same data set"
        )
    if _has_times(old, new) and not same_machine(old.environment, new.environment):
        raise NotComparableError(
            "not comparable: times from different machines "
            f"({_machine(old)} and {_machine(new)}); measure both on one"
        )


def testable(record: Record) -> dict[str, dict[str, Any]]:
    """The samples that can be tested; a record may hold others, such as loss curves."""
    return {name: s for name, s in record.samples.items() if is_series(s)}


def _protocol(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.protocol.items() if key not in _NOT_PROTOCOL}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
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


def _has_times(old: Record, new: Record) -> bool:
    return any(is_time(s["unit"]) for record in (old, new) for s in testable(record).values())


def is_time(unit: str) -> bool:
    """Whether a unit depends on how fast a machine is: s, ms, ns/element, items/s, …."""
    return bool({"s", "ms", "us", "μs", "µs", "ns"} & set(unit.replace("/", " ").split()))


def _machine(record: Record) -> str:
    machine = record.environment.get("machine") or {}
    accelerator = record.environment.get("accelerator") or {}
    return str(accelerator.get("name") or f"{machine.get('cpu')}, {machine.get('cores')} cores")


def conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between two environments: commit, versions, threads."""
    flat = [{**e, **e.get("packages", {}), **e.get("threads", {})} for e in (old, new)]
    for environment in flat:
        for nested in ("packages", "threads"):
            environment.pop(nested, None)
    return tuple(_differences(*flat))
