"""Records of several torch releases: each later release compared with the oldest, measurement by measurement.

The records of one measurement (`bench.record.comparability.group`) are sorted by release. Several records of one release
are several processes: short rounds that rotate over the environments, so that a machine that slows down does so for all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.record.comparability import NotComparableError, group
from bench.record.comparison import Comparison, compare
from bench.record.environment import torch_label
from bench.record.record import Record
from bench.terminal.usage import UsageError


@dataclass(frozen=True)
class Measurement:
    """One measurement under every release that has it.

    Attributes:
        kind: of its records.
        records: release → its records, oldest first.
        comparisons: later release → what changed against the first release of this measurement.
        refused: later release → why it could not be compared.
    """

    kind: str
    records: dict[str, tuple[Record, ...]]
    comparisons: dict[str, Comparison]
    refused: dict[str, str]

    @property
    def base(self) -> str:
        """The oldest release that has it."""
        return next(iter(self.records))


@dataclass(frozen=True)
class Releases:
    """What several releases have in common, and each measurement of it.

    Attributes:
        names: `torch 2.9.1`, …, oldest first.
        measurements: those that two releases or more hold.
        alone: a line for each record that no other release has a partner for.
    """

    names: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    alone: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether any release is worse than the oldest beyond noise."""
        return any(c.worse for m in self.measurements for c in m.comparisons.values())


def by_torch(records: Sequence[Record]) -> Releases:
    """Compare releases of torch over all measurements that at least two of them hold.

    Raises:
        UsageError: the records are of one release only.
    """
    names = sorted({torch_label(r.environment) for r in records}, key=_version)
    if len(names) < 2:
        raise UsageError(
            f"nothing to compare by torch: every record is of {names[0] if names else 'no release'}; "
            "give records of two releases or more"
        )
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.created, r.sha256)):
        groups.setdefault(group(record), []).append(record)
    measured = [_measurement(held, names) for held in groups.values()]
    alone = [
        f"{record.name}: no other release has this measurement"
        for m in measured
        if len(m.records) < 2
        for record in m.records[m.base]
    ]
    return Releases(tuple(names), tuple(m for m in measured if len(m.records) > 1), tuple(alone))


def _measurement(held: Sequence[Record], names: Sequence[str]) -> Measurement:
    by_name = {name: tuple(r for r in held if torch_label(r.environment) == name) for name in names}
    present = {name: records for name, records in by_name.items() if records}
    (_, first), *later = present.items()
    comparisons, refused = {}, {}
    for name, records in later:
        try:
            comparisons[name] = compare(first, records)
        except NotComparableError as error:
            refused[name] = str(error)
    return Measurement(held[0].kind, present, comparisons, refused)


def _version(label: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", label)))
