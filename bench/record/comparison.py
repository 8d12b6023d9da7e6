"""What changed between two records, and whether it is more than noise.

Every series that both records hold is tested (`bench.record.series`):

- with pair labels in common (seeds): the paired t-test on the differences;
- without: the Mann–Whitney test, and the bootstrap interval of the ratio of medians.

A change is called better or worse only if its p-value, adjusted for the number of series tested
(Holm 1979), is below 5 %, **and** its 95 % interval lies on one side of "no change". For times a
third condition is added, because repeated runs of a program differ by more than the rounds within
one run scatter. The interval must lie outside the range that the machine's own unsteadiness spans:

- what a fixed piece of work, timed before and after (`bench.measure.throughput.calibration`, kept in
  `results["calibration"]`), changed by between the two records;
- times the drift within a run: the largest ratio between the medians of `BLOCKS` consecutive blocks
  of rounds, in either record.

A law that held and fails now is worse, without any test: laws do not scatter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from bench.record import Record
from bench.record.comparability import (
    NotComparableError,
    check_comparable,
    conditions,
    is_time,
    testable,
)
from bench.record.statistics import (
    LEVEL,
    Interval,
    difference_interval,
    holm,
    mann_whitney,
    paired_interval,
    paired_t_test,
    ratio_interval,
)

Verdict = Literal["better", "worse", "changed", "within noise", "not tested"]
Relation = Literal["difference", "ratio"]

BLOCKS = 5
"""Blocks of rounds whose medians tell how steady a run was."""
_ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Change:
    """One series in two records.

    Attributes:
        name: of the series.
        unit: of its values.
        old: median before (mean over the pairs where there are pairs).
        new: median after, likewise.
        effect: new − old or new / old, with its interval.
        relation: which of the two: the ratio, except for pairs and for values that may be ≤ 0.
        p: p-value, adjusted for the number of series; None where there are too few values.
        verdict: better, worse, changed (no direction is better), within noise, or not tested.
        remark: what limits the verdict, or "".
    """

    name: str
    unit: str
    old: float
    new: float
    effect: Interval
    relation: Relation
    p: float | None
    verdict: Verdict
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Everything that differs.

    Attributes:
        changes: one per series that both records hold.
        laws: one line per law whose status changed, and whether that is worse.
        conditions: what differs in the environment: commit, versions, threads.
        missing: series and laws that only one of the records holds.
    """

    changes: tuple[Change, ...]
    laws: tuple[tuple[str, Verdict], ...]
    conditions: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether anything is worse beyond noise."""
        verdicts = [change.verdict for change in self.changes] + [v for _, v in self.laws]
        return "worse" in verdicts


def compare(old: Record, new: Record) -> Comparison:
    """Compare two records of the same kind, protocol and data, and for times the same machine.

    Raises:
        NotComparableError: they are not, with what differs.
    """
    check_comparable(old, new)
    before, after = testable(old), testable(new)
    names = [name for name in before if name in after]
    if not names and not _laws(old) and not _laws(new):
        raise NotComparableError("the records have no series in common: there is nothing to test")
    raw = [_test(name, before[name], after[name]) for name in names]
    machine = _machine_change(old, new)
    unsteady = {name: _widened(machine, before[name], after[name]) for name in names}
    return Comparison(
        changes=tuple(
            _judge(change, after[change.name]["better"], unsteady[change.name])
            for change in _adjust(raw)
        ),
        laws=_law_changes(_laws(old), _laws(new)),
        conditions=conditions(old.environment, new.environment),
        missing=_missing(old, new),
    )


def _test(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """The test and the effect; the verdict is still open."""
    common = [label for label in old.get("pairs", ()) if label in new.get("pairs", ())]
    if len(common) >= 2:
        return _paired_test(name, new["unit"], _labelled(old, common), _labelled(new, common))
    return _independent_test(name, new["unit"], old["values"], new["values"])


def _paired_test(name: str, unit: str, old: list[float], new: list[float]) -> Change:
    effect, p = paired_interval(new, old), paired_t_test(new, old)
    means = float(np.mean(old)), float(np.mean(new))
    return Change(name, unit, *means, effect, "difference", p, "not tested")


def _independent_test(name: str, unit: str, old: list[float], new: list[float]) -> Change:
    positive = min(*old, *new) > 0
    effect = ratio_interval(new, old) if positive else difference_interval(new, old)
    p = None if effect.low is None else mann_whitney(new, old)
    medians = float(np.median(old)), float(np.median(new))
    relation: Relation = "ratio" if positive else "difference"
    return Change(name, unit, *medians, effect, relation, p, "not tested")


def _labelled(series: Mapping[str, Any], labels: Sequence[object]) -> list[float]:
    by_label = dict(zip(series["pairs"], series["values"], strict=True))
    return [by_label[label] for label in labels]


def _adjust(changes: Sequence[Change]) -> list[Change]:
    adjusted = iter(holm([change.p for change in changes if change.p is not None]))
    return [change if change.p is None else replace(change, p=next(adjusted)) for change in changes]


def _machine_change(old: Record, new: Record) -> tuple[float, float]:
    """Least and greatest factor by which the machine's own parts slowed down, 1 included."""
    before, after = _fixed_work(old), _fixed_work(new)
    factors = [after[part] / before[part] for part in before if part in after]
    return min([1.0, *factors]), max([1.0, *factors])


def _fixed_work(record: Record) -> dict[str, float]:
    """Part of the calibration → seconds, the mean of before and after the measurement."""
    calibration = record.results.get("calibration") or {}
    runs = [calibration[when] for when in ("before", "after") if when in calibration]
    parts = {part for run in runs for part in run}
    return {part: float(np.mean([run[part] for run in runs if part in run])) for part in parts}


def _widened(
    change: tuple[float, float], old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[float, float]:
    """The machine's change, widened by the drift within the less steady of the two runs."""
    drift = max(drift_within(old["values"]), drift_within(new["values"]))
    return change[0] / drift, change[1] * drift


def drift_within(values: Sequence[float]) -> float:
    """Largest ratio between medians of `BLOCKS` consecutive blocks; 1 for fewer than two a block."""
    if len(values) < 2 * BLOCKS or min(values) <= 0:
        return 1.0
    medians = [float(np.median(block)) for block in np.array_split(np.asarray(values), BLOCKS)]
    return max(medians) / min(medians)


def _judge(change: Change, better: str, unsteady: tuple[float, float]) -> Change:
    if change.p is None:
        return replace(change, remark="too few values for a test")
    neutral = 1.0 if change.relation == "ratio" else 0.0
    if change.p >= _ALPHA or not change.effect.excludes(neutral):
        return replace(change, verdict="within noise")
    if change.relation == "ratio" and is_time(change.unit) and _explained(change, unsteady):
        remark = f"the machine itself varied by ×{unsteady[0]:.3g} … ×{unsteady[1]:.3g}"
        return replace(change, verdict="within noise", remark=remark)
    rose = change.effect.estimate > neutral
    if better == "neither":
        return replace(change, verdict="changed")
    return replace(change, verdict="better" if rose == (better == "higher") else "worse")


def _explained(change: Change, unsteady: tuple[float, float]) -> bool:
    """Whether the interval reaches into the range of the machine's own unsteadiness."""
    low, high = unsteady
    if change.unit.endswith("/s"):  # a rate falls where a time rises
        low, high = 1 / high, 1 / low
    ends = change.effect.low, change.effect.high
    return ends[0] is None or ends[1] is None or (ends[0] <= high and low <= ends[1])


def _laws(record: Record) -> dict[str, str]:
    """Law (with its implementation and dtype) → status, from a record of kind verify."""
    rows = record.results.get("laws", ())
    return {_law_name(row): row["status"] for row in rows if "law" in row and "status" in row}


def _law_name(row: Mapping[str, Any]) -> str:
    parts = (row.get("implementation"), row["law"], row.get("dtype"))
    return " · ".join(str(part) for part in parts if part)


def _law_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[tuple[str, Verdict], ...]:
    changed = [name for name in old if name in new and old[name] != new[name]]
    return tuple(
        (f"{name}: {old[name]} → {new[name]}", _law_verdict(old[name], new[name]))
        for name in changed
    )


def _law_verdict(old: str, new: str) -> Verdict:
    if new == "pass":
        return "better"
    return "worse" if old == "pass" and new in ("fail", "error") else "changed"


def _missing(old: Record, new: Record) -> tuple[str, ...]:
    before = {**testable(old), **_laws(old)}
    after = {**testable(new), **_laws(new)}
    gone = [f"{name}: only in the old record" for name in before if name not in after]
    come = [f"{name}: only in the new record" for name in after if name not in before]
    return (*gone, *come)
