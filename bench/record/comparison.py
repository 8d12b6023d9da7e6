"""What changed between two records, and whether it is more than noise.

Every series that both records hold is tested (`bench.record.series`):

- with pair labels in common (seeds): the paired t-test on the differences;
- without: the Mann–Whitney test, and the bootstrap interval of the ratio of medians;
- several records on each side (`compare` takes lists): the medians of the processes, in logarithms, by Student's t;
  in pairs where both sides have as many, because rotating rounds share the state of the machine.

A change is called better or worse only if its p-value, adjusted for the number of series tested (Holm 1979), is below
5 %, **and** its interval lies on one side of "no change". Interval and p are adjusted alike: the k-th smallest of m
p-values belongs to an interval of level 1 − 0.05/(m − k + 1).

**Times** scatter more between two runs of a program than between the rounds of one run. So

- the series of a contest take turns, so what all of them share is the machine: it is taken out, round by round within
  a record and as one factor between records, and said (`Comparison.conditions`);
- between single records the interval must lie outside the range of the machine's own unsteadiness: what a fixed piece
  of work, timed before and after (`results["calibration"]`), changed by; times the largest ratio between the medians of
  `_BLOCKS` blocks of rounds; times `_PROCESS`, by which runs of one program differ (addresses, pages, frequency);
- `Change.smallest` says the smallest change that could have been seen.

What does not scatter (laws, parts, exact numbers) is compared without a test: `bench.record.outcomes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from bench.record.comparability import (
    NotComparableError,
    check_comparable,
    conditions,
    is_time,
    testable,
    times_refused,
)
from bench.record.outcomes import Fact, facts, names
from bench.record.record import Record
from bench.record.statistics import (
    LEVEL,
    Interval,
    difference_interval,
    holm,
    mann_whitney,
    mean_interval,
    paired_interval,
    paired_t_test,
    ratio_interval,
)

Verdict = Literal["better", "worse", "changed", "within noise", "not tested"]
_Relation = Literal["difference", "ratio"]
Series = Mapping[str, Any]

_BLOCKS = 5
"""Blocks of rounds whose medians tell how steady a run was."""
_PROCESS = 1.05
"""Factor by which medians of two processes of one program may differ; single records cannot tell it from a change."""
COPIES = ("copy", "clone")
"""Contenders that noise nothing."""
_ALPHA = 1 - LEVEL
_TURNS = "turn_seconds"


@dataclass(frozen=True)
class Change:
    """One series in two records.

    Attributes:
        name: of the series.
        unit: of its values.
        old: median before (mean over the pairs where there are pairs).
        new: median after, likewise.
        effect: new − old or new / old, with its interval, adjusted as p is.
        relation: which of the two: the ratio, except for pairs and for values that may be ≤ 0.
        p: p-value, adjusted for the number of series; None where there are too few values.
        verdict: better, worse, changed (no direction is better), within noise, or not tested.
        remark: what limits the verdict, or "".
        smallest: the smallest change that could have been seen: a factor above 1, or a difference; None without a test.
    """

    name: str
    unit: str
    old: float
    new: float
    effect: Interval
    relation: _Relation
    p: float | None
    verdict: Verdict
    remark: str = ""
    smallest: float | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Everything that differs.

    Attributes:
        kind: of the records.
        changes: one per series that both hold.
        facts: what changed without scatter: laws, parts, exact numbers.
        conditions: what differs in the environment: commit, versions, threads.
        missing: series and laws that only one of the two holds, and what was refused.
        bits_equal: how many series are equal to the last bit, of how many.
    """

    kind: str
    changes: tuple[Change, ...]
    facts: tuple[Fact, ...]
    conditions: tuple[str, ...]
    missing: tuple[str, ...]
    bits_equal: tuple[int, int] = (0, 0)

    @property
    def worse(self) -> bool:
        """Whether anything is worse beyond noise."""
        return "worse" in self.verdicts

    @property
    def verdicts(self) -> list[str]:
        """Of every change and fact."""
        return [
            *(change.verdict for change in self.changes),
            *(fact.verdict for fact in self.facts),
        ]


def compare(old: Record | Sequence[Record], new: Record | Sequence[Record]) -> Comparison:
    """Compare two records, or two lists of records of the same measurement, in what they have in common.

    Args:
        old: one record, or several of one kind, protocol and data, oldest first.
        new: likewise.

    Raises:
        NotComparableError: they are not comparable, with what differs, have nothing in common, or results have not the shape of
            their kind.
    """
    try:
        return _compared(_listed(old), _listed(new))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise NotComparableError(
            f"the results of one side are not those of its kind ({type(error).__name__}: {error}); measure again"
        ) from error


def _compared(before: Sequence[Record], after: Sequence[Record]) -> Comparison:
    first, last = before[-1], after[-1]
    for other in (*before[:-1], *after):
        check_comparable(first, other)
    refused = times_refused(first, last)
    held = [_series(record, refused) for record in (*before, *after)]
    shared = _level(held) if _TURNS in first.protocol else {}
    ours, theirs = held[: len(before)], held[len(before) :]
    common = [n for n in ours[-1] if all(n in one for one in held) and not _is_copy(n, first)]
    found = facts(first, last)
    if not common and not set(names(first)) & set(names(last)) and not found:
        raise NotComparableError(_nothing(first, last, refused))
    tests = [_Test(name, [s[name] for s in ours], [s[name] for s in theirs]) for name in common]
    unsteady = None if len(before) > 1 and len(after) > 1 else _machine_change(first, last)
    return Comparison(
        first.kind,
        tuple(_judged(tests, unsteady)),
        tuple(found),
        (*conditions(first, last), *_shared_words(shared, len(before))),
        _missing(first, last, refused),
        (sum(ours[-1][n]["raw"] == theirs[-1][n]["raw"] for n in common), len(common)),
    )


def _listed(given: Record | Sequence[Record]) -> list[Record]:
    return [given] if isinstance(given, Record) else list(given)


def _is_copy(name: str, record: Record) -> bool:
    """Whether a series of a contest times a bare copy: it tells about the machine and about no program."""
    return _TURNS in record.protocol and name.rpartition(", ")[2] in COPIES


def _nothing(old: Record, new: Record, refused: str) -> str:
    if refused and testable(old):
        return f"not comparable: {refused}"
    if old.results and old.results == new.results:
        return "nothing to test: the records hold no series, and their results are equal"
    return "the records have no series in common: there is nothing to test"


def _series(record: Record, refused: str) -> dict[str, dict[str, Any]]:
    """The testable series, shared drift taken out; without times where those are refused."""
    held = {name: {**s, "raw": s["values"]} for name, s in testable(record).items()}
    if refused:
        return {name: s for name, s in held.items() if not is_time(s["unit"])}
    return _steadied(held) if _TURNS in record.protocol else held


def _steadied(held: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Divide round r of all series that took turns by what they share: exp median_s ln(v_sr / median_r v_sr).

    The medians of the factors are 1, so a change that all series share between two records stays.
    """
    steady = dict(held)
    for group in _turns(held):
        values = np.array([held[name]["values"] for name in group])
        logs = np.log(values)
        shared = np.median(logs - np.median(logs, axis=1, keepdims=True), axis=0)
        for name, row in zip(group, np.exp(logs - (shared - np.median(shared))), strict=True):
            steady[name] = {**held[name], "values": row.tolist()}
    return steady


def _turns(held: Mapping[str, Series]) -> list[list[str]]:
    """The names of series that took turns: one case, as many rounds, positive; three at least, or nothing is shared."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, s in held.items():
        if min(s["values"]) > 0:
            groups.setdefault((name.rpartition(", ")[0], len(s["values"])), []).append(name)
    return [names for names in groups.values() if len(names) >= 3]


def _level(held: list[dict[str, dict[str, Any]]]) -> dict[str, list[float]]:
    """Divide every record's series of a case by the factor that they share in it; returns case → logarithm per record.

    The factor of record r is exp median_s (m_rs − mean_r m_rs), with m_rs the logarithm of the median of series s: one
    series that changed does not move it.
    """
    found: dict[str, list[float]] = {}
    cases = {name.rpartition(", ")[0] for name in held[0]}
    for case in sorted(cases):
        names = [n for n in held[0] if n.rpartition(", ")[0] == case and all(n in h for h in held)]
        if len(names) < 3 or any(min(h[n]["values"]) <= 0 for h in held for n in names):
            continue
        levels = np.array([[np.log(np.median(h[n]["values"])) for n in names] for h in held])
        shared = np.median(levels - levels.mean(axis=0), axis=1)
        found[case] = shared.tolist()
        for record, factor in zip(held, np.exp(shared), strict=True):
            for name in names:
                values = np.array(record[name]["values"]) / factor
                record[name] = {**record[name], "values": values.tolist()}
    return found


def _shared_words(shared: Mapping[str, Sequence[float]], old: int) -> list[str]:
    """What the machine did to each case between the two sides."""
    factors = {
        case: float(np.exp(np.mean(logs[old:]) - np.mean(logs[:old])))
        for case, logs in shared.items()
    }
    return [
        f"all ways of {case} together, copies included: ×{factor:.3g} (the machine; taken out)"
        for case, factor in factors.items()
    ]


@dataclass(frozen=True)
class _Test:
    """One series on both sides, one per record."""

    name: str
    old: Sequence[Series]
    new: Sequence[Series]

    @property
    def unit(self) -> str:
        return str(self.new[-1]["unit"])

    @property
    def labels(self) -> list[Any]:
        """Pair labels that both hold; none for times: round 3 of two runs shares nothing but its number."""
        if is_time(self.unit):
            return []
        pairs = self.new[-1].get("pairs", ())
        return [label for label in self.old[-1].get("pairs", ()) if label in pairs]

    def change(self, level: float) -> Change:
        """The test and the effect at a level; the verdict is still open."""
        if len(self.old) > 1 and len(self.new) > 1:
            return self._of_processes(level)
        if len(self.labels) >= 2:
            return self._of_pairs(level)
        return self._of_values(level)

    def _of_processes(self, level: float) -> Change:
        old, new = (
            np.array([float(np.median(s["values"])) for s in side]) for side in (self.old, self.new)
        )
        positive = min(*old, *new) > 0
        before, after = (np.log(old), np.log(new)) if positive else (old, new)
        if len(before) == len(after):
            shift, p = mean_interval(after - before, level=level), paired_t_test(after, before)
        else:
            shift, p = _welch(after, before, level)
        effect = _exponential(shift) if positive else shift
        middle = float(np.median(old)), float(np.median(new))
        relation: _Relation = "ratio" if positive else "difference"
        return Change(self.name, self.unit, *middle, effect, relation, p, "not tested")

    def _of_pairs(self, level: float) -> Change:
        old, new = _labelled(self.old[-1], self.labels), _labelled(self.new[-1], self.labels)
        effect, p = paired_interval(new, old, level=level), paired_t_test(new, old)
        means = float(np.mean(old)), float(np.mean(new))
        return Change(self.name, self.unit, *means, effect, "difference", p, "not tested")

    def _of_values(self, level: float) -> Change:
        old, new = self.old[-1]["values"], self.new[-1]["values"]
        positive = min(*old, *new) > 0
        interval = ratio_interval if positive else difference_interval
        effect = interval(new, old, level=level)
        p = None if effect.low is None else mann_whitney(new, old)
        middle = float(np.median(old)), float(np.median(new))
        relation: _Relation = "ratio" if positive else "difference"
        return Change(self.name, self.unit, *middle, effect, relation, p, "not tested")


def _welch(a: Any, b: Any, level: float) -> tuple[Interval, float]:
    """Difference of means of independent samples whose variances may differ."""
    result = stats.ttest_ind(a, b, equal_var=False)
    bounds = result.confidence_interval(level)
    low, high, n = float(bounds.low), float(bounds.high), min(len(a), len(b))
    shift = float(np.mean(a) - np.mean(b))
    return Interval(shift, low, high, level, n, f"Welch's t, n = {n}"), float(result.pvalue)


def _exponential(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return replace(
        interval,
        estimate=float(np.exp(interval.estimate)),
        low=None if low is None else float(np.exp(low)),
        high=None if high is None else float(np.exp(high)),
        method=f"{interval.method}, of logarithms of medians of processes",
    )


def _labelled(series: Series, labels: Sequence[Any]) -> list[float]:
    by_label = dict(zip(series["pairs"], series["values"], strict=True))
    return [by_label[label] for label in labels]


def _judged(tests: Sequence[_Test], machine: tuple[float, float] | None) -> list[Change]:
    """Every test at its level of Holm's sequence, with its verdict."""
    plain = [test.change(LEVEL) for test in tests]
    tested = [index for index, change in enumerate(plain) if change.p is not None]
    raw = [float(plain[index].p or 0.0) for index in tested]
    changes = list(plain)
    ranks = np.argsort(np.argsort(raw, kind="stable"), kind="stable")
    for index, p, rank in zip(tested, holm(raw), ranks, strict=True):
        level = 1 - _ALPHA / (len(raw) - int(rank))
        at_level = plain[index] if level == LEVEL else tests[index].change(level)
        changes[index] = replace(at_level, p=p)
    return [
        _judge(change, str(test.new[-1]["better"]), _range(change, test, machine))
        for change, test in zip(changes, tests, strict=True)
    ]


def _range(
    change: Change, test: _Test, machine: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Factors that the machine explains by itself; None for what is no time, or was measured in several processes."""
    if machine is None or change.relation != "ratio" or not is_time(change.unit):
        return None
    drift = max(drift_within(s["values"]) for s in (test.old[-1], test.new[-1])) * _PROCESS
    low, high = machine[0] / drift, machine[1] * drift
    return (1 / high, 1 / low) if change.unit.endswith("/s") else (low, high)


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


def drift_within(values: Sequence[float]) -> float:
    """Largest ratio between medians of `_BLOCKS` consecutive blocks; 1 for fewer than two a block."""
    if len(values) < 2 * _BLOCKS or min(values) <= 0:
        return 1.0
    medians = [float(np.median(block)) for block in np.array_split(np.asarray(values), _BLOCKS)]
    return max(medians) / min(medians)


def _judge(change: Change, better: str, machine: tuple[float, float] | None) -> Change:
    p = change.p
    if p is None:
        return replace(change, remark="too few values for a test")
    change = replace(change, smallest=_smallest(change, machine))
    neutral = 1.0 if change.relation == "ratio" else 0.0
    if p >= _ALPHA or not change.effect.excludes(neutral):
        return replace(change, verdict="within noise")
    if machine is not None and _explained(change, machine):
        remark = (
            f"runs on this machine differ by ×{machine[0]:.3g} … ×{machine[1]:.3g} by themselves"
        )
        return replace(change, verdict="within noise", remark=remark)
    rose = change.effect.estimate > neutral
    if better == "neither":
        return replace(change, verdict="changed")
    return replace(change, verdict="better" if rose == (better == "higher") else "worse")


def _smallest(change: Change, machine: tuple[float, float] | None) -> float | None:
    """Half the interval's width, in logarithms for a ratio, beyond what the machine explains."""
    low, high = change.effect.low, change.effect.high
    if low is None or high is None:
        return None
    if change.relation == "difference":
        return (high - low) / 2
    if low <= 0:
        return None
    return float(np.sqrt(high / low)) * (max(machine[1], 1 / machine[0]) if machine else 1.0)


def _explained(change: Change, machine: tuple[float, float]) -> bool:
    """Whether the interval reaches into the range of the machine's own unsteadiness."""
    low, high = change.effect.low, change.effect.high
    if low is None or high is None:
        return True
    return low <= machine[1] and machine[0] <= high


def _missing(old: Record, new: Record, refused: str) -> tuple[str, ...]:
    before = [*testable(old), *names(old)]
    after = [*testable(new), *names(new)]
    gone = [f"{name}: only in the old record" for name in before if name not in set(after)]
    come = [f"{name}: only in the new record" for name in after if name not in set(before)]
    timed = any(is_time(s["unit"]) for s in testable(old).values())
    return (*([refused] if refused and timed else []), *gone, *come)
