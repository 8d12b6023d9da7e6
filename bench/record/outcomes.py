"""What of a record does not scatter: laws, parts, tests, exact numbers. Compared by rule, without a test.

Two records of one kind are turned into outcomes by name, and each name that both hold is judged:

- a law: `bug` < `convention` < `precision` < `pass`; a lower class is worse, and so is a failing law whose error doubled.
  A check that vanished (of an implementation that both records hold) is worse: nobody looks any more. Where the law
  itself reads differently, or the library is another version, the change is said to be just that;
- whatever `bench.record.kinds.violations` says of a record of any kind;
- an exact number (the bound's table): it changed, if it did by more than rounding.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.record.kinds import JUDGES, violations
from bench.record.record import Record
from bench.terminal.usage import UsageError

_FactVerdict = Literal["better", "worse", "changed"]

_RANKS: Mapping[str, int] = {
    "error": 0,
    "fail": 0,
    "bug": 0,
    "convention": 1,
    "precision": 2,
    "pass": 3,
}
"""Class of a law's outcome → how good it is."""
_GROWN = 2.0
"""A failing law whose error grew by more than this factor got worse; one that holds is only said to have changed."""
_ROUNDING = 1e-9
_MANY = 20


@dataclass(frozen=True)
class Fact:
    """One outcome in two records.

    Attributes:
        name: of the law, the part, the number.
        old: what it was.
        new: what it is.
        verdict: better, worse, or changed where neither can be said.
        remark: why, or "".
    """

    name: str
    old: str
    new: str
    verdict: _FactVerdict
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.old} → {self.new}{f' ({self.remark})' * bool(self.remark)}"


def facts(old: Record, new: Record) -> list[Fact]:
    """What changed of all that does not scatter, laws first."""
    return [*_laws(old, new), *_violations(old, new), *_exact(old, new)]


def names(record: Record) -> list[str]:
    """The names of what `facts` compares: laws, exact numbers, and the verdict on a record that holds no series."""
    judged = ["what went wrong"] if record.kind in JUDGES and not record.samples else []
    return [*_law_rows(record), *_numbers(record), *judged]


def _law_rows(record: Record) -> dict[str, Mapping[str, Any]]:
    rows = record.results.get("laws", ()) if record.kind == "verify" else ()
    return {_law_name(row): row for row in rows if "law" in row and "status" in row}


def _law_name(row: Mapping[str, Any]) -> str:
    parts = (row.get("implementation"), row["law"], row.get("dtype"))
    return " · ".join(str(part) for part in parts if part)


def _laws(old: Record, new: Record) -> Iterable[Fact]:
    before, after = _law_rows(old), _law_rows(new)
    words, others = _statements(old), _statements(new)
    versions, releases = _versions(old), _versions(new)
    for name, row in before.items():
        law, library = str(row["law"]), row.get("implementation")
        if library is not None and library not in releases:
            continue  # a whole implementation that the new record does not hold is named, not judged
        fact = _law_change(name, row, after.get(name))
        if fact is None:
            continue
        if law in words and law in others and words[law] != others[law]:
            remark = "the law itself reads differently: this says nothing about the library"
            yield Fact(name, fact.old, fact.new, "changed", remark)
        elif fact.verdict == "worse" and versions.get(str(library)) != releases.get(str(library)):
            version = f"{versions[str(library)]} → {releases[str(library)]}"
            yield Fact(name, fact.old, fact.new, "worse", fact.remark or f"version {version}")
        else:
            yield fact


def _law_change(name: str, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Fact | None:
    before = _word(old)
    if before not in _RANKS:
        return None  # not offered before: whatever it is now is new
    after = "not checked any more" if new is None else _word(new)
    if new is None or after not in _RANKS:
        return Fact(name, before, after, "worse", "a check that vanished")
    if _RANKS[after] != _RANKS[before]:
        return Fact(name, before, after, "better" if _RANKS[after] > _RANKS[before] else "worse")
    factor = _growth(old, new)
    if after != before:
        return Fact(name, before, after, "changed")
    if factor is None or 1 / _GROWN <= factor <= _GROWN:
        return None
    error = f"{old['error']:.1e}", f"{new['error']:.1e}"
    if before == "pass":
        grown = factor > 10 and _share(new) > 0.1
        return Fact(name, *error, "changed", "still holds") if grown else None
    return Fact(name, *error, "worse" if factor > 1 else "better", f"{before} in both")


def _word(row: Mapping[str, Any]) -> str:
    """`pass`, `not-offered`, or the class of the failure."""
    status = str(row["status"])
    return str(row.get("classification") or status) if status in ("fail", "error") else status


def _growth(old: Mapping[str, Any], new: Mapping[str, Any]) -> float | None:
    errors = [row.get("error") for row in (old, new)]
    if not all(isinstance(e, float | int) and e > 0 and math.isfinite(e) for e in errors):
        return None
    return float(errors[1]) / float(errors[0])  # type: ignore[arg-type]


def _share(row: Mapping[str, Any]) -> float:
    """Error over tolerance."""
    tolerance = row.get("tolerance")
    return float(row["error"]) / float(tolerance) if tolerance else math.inf


def _statements(record: Record) -> dict[str, str]:
    told = record.results.get("statements", ()) if record.kind == "verify" else ()
    return {str(law["law"]): str(law.get("statement")) for law in told}


def _versions(record: Record) -> dict[str, str]:
    told = record.results.get("implementations", ()) if record.kind == "verify" else ()
    found = {str(one["name"]): str(one.get("version", "")) for one in told}
    named = {row.get("implementation") for row in _law_rows(record).values()}
    return {str(name): "" for name in named} | found


def _violations(old: Record, new: Record) -> Iterable[Fact]:
    """What went wrong in one of two records of any kind but `verify`, whose laws are compared one by one."""
    if old.kind == "verify":
        return
    before, after = (dict.fromkeys(_wrong(record)) for record in (old, new))
    yield from (
        Fact(reason, "–", "went wrong", "worse") for reason in after if reason not in before
    )
    yield from (
        Fact(reason, "went wrong", "–", "better") for reason in before if reason not in after
    )


def _wrong(record: Record) -> list[str]:
    try:
        return violations(record)
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{record.name} does not have the results of its kind ({type(error).__name__}: {error}); measure again"
        ) from error


def _exact(old: Record, new: Record) -> Iterable[Fact]:
    before, after = _numbers(old), _numbers(new)
    moved = [
        Fact(name, f"{value:.12g}", f"{after[name]:.12g}", "changed", "an exact number")
        for name, value in before.items()
        if name in after and not math.isclose(value, after[name], rel_tol=_ROUNDING, abs_tol=1e-12)
    ]
    yield from moved[:_MANY]
    if len(moved) > _MANY:
        yield Fact(f"{len(moved) - _MANY} more exact numbers", "–", "–", "changed")


def _numbers(record: Record) -> dict[str, float]:
    """The bound's gaps and prices by name; they have no noise."""
    if record.kind != "bound":
        return {}
    gaps = {
        f"gap, {row['data']}, {row['schedule']}, T = {row['T']}, {row['variance']}": row["gap"]
        for row in record.results["gaps"]
    }
    prices = {
        f"price of {key}, T = {row['T']}": value
        for row in record.results["prices"]
        for key, value in row.items()
        if key != "T" and isinstance(value, float | int)
    }
    return gaps | prices
