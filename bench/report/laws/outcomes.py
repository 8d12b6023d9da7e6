"""What page and terminal read off the rows of a verification record: how a law ended, and what is worst."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DTYPES = ("float64", "float32", "bfloat16", "float16")
FAILURES = ("adapter", "bug", "severe", "convention", "precision")
_SEVERITY = (*FAILURES, "pass", "not-offered")
"""Outcomes, the worst first."""

Row = Mapping[str, Any]


def failed(row: Row) -> bool:
    """Whether the law was violated, or raised."""
    return row["status"] in ("fail", "error")


def kind(row: Row) -> str:
    """`pass`, `not-offered`, or the class of the failure."""
    return str(row["classification"] or "bug") if failed(row) else str(row["status"])


def worst(rows: Iterable[Row]) -> str:
    """The worst outcome of some rows, `not-offered` for none."""
    kinds = {kind(row) for row in rows}
    return next((name for name in _SEVERITY if name in kinds), "not-offered")


def leading(rows: Sequence[Row]) -> Row:
    """The first dtype of the worst class: it stands for the law."""
    return next(row for row in rows if kind(row) == worst(rows))


def by_law(rows: Iterable[Row], implementation: str) -> dict[str, list[Row]]:
    """The rows of one implementation by law."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        if row["implementation"] == implementation:
            grouped.setdefault(row["law"], []).append(row)
    return grouped


def counts(grouped: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """How many laws ended in each way, by the worst over dtypes."""
    kinds = [worst(rows) for rows in grouped.values()]
    return {name: kinds.count(name) for name in _SEVERITY}


def root(row: Row) -> str:
    """Type, text and line of what was raised, or that no answer came; "" else: failures that share it have one cause."""
    if row["status"] == "error" and row.get("root"):
        return str(row["root"])
    for mark in (" raised ", "no case can be made: "):
        if mark in row["message"]:
            return str(row["message"].partition(mark)[2])
    return ""


def function(row: Row) -> str:
    """The method of the adapter that a failure's witness calls; "" in records that do not say it."""
    return str((row.get("witness") or {}).get("function", ""))


def cause(row: Row) -> str:
    """What failures of one root share: the exception; else their class, the function asked and where alone it fails."""
    asked = function(row)
    where = str(row.get("root") or "")
    return root(row) or (f"{kind(row)} {asked} {where}" if asked else str(row["law"]))


def complete(one: Row, rows: Iterable[Row]) -> list[Row]:
    """An implementation's rows in a record, and one for each law of which it offers nothing: the record keeps these in short."""
    missing = [
        {"implementation": one["name"], "law": law, "dtype": "", "status": "not-offered"}
        | {"message": message}
        for message, laws in one.get("not_offered", {}).items()
        for law in (laws.split() if isinstance(laws, str) else laws)
    ]
    return [row for row in rows if row["implementation"] == one["name"]] + missing
