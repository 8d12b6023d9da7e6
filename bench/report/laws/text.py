"""What `ddpm-bench verify -v` prints, from the results of a record: a table per implementation, every failure in words, an overview.

Each function takes `results` of a record of kind `verify`, or those of one implementation alone. Without `-v`: `screen`.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report.laws.outcomes import (
    DTYPES,
    FAILURES,
    Row,
    by_law,
    counts,
    failed,
    kind,
    leading,
    root,
    worst,
)

_WIDTH = 110
_MANNERS = ("I17-", "I18-")

Results = Mapping[str, Any]


def table(results: Results) -> str:
    """One block per implementation: a line per law that it offers something for, and below what it does not offer."""
    laws = {law["law"]: law for law in results["statements"]}
    return "\n".join(_block(one, results["laws"], laws) for one in results["implementations"])


def _block(one: Row, rows: Iterable[Row], laws: Mapping[str, Row]) -> str:
    grouped = by_law(rows, one["name"])
    offered = [law for law in grouped if worst(grouped[law]) != "not-offered"]
    silent = [law for law in grouped if law not in offered]
    title = f"{one['name']} {one['version']}".rstrip()
    lines = ["", f"{title}: {verdict(grouped)}, {one['seconds']:.0f} s"]
    lines += [line for note in one["notes"] for line in _wrapped(f"note: {note}", "  ", "    ")]
    if offered:
        head = "".join(f"{name:<20s}" for name in DTYPES)
        lines.append(f"  {'law':<24s}{'':<32s}{head}".rstrip())
        lines += [_line(laws[law], grouped[law]) for law in offered]
    if silent:
        lacks = missing(one["name"], [row for law in silent for row in grouped[law]])
        lines += _wrapped(f"not offered ({len(silent)} laws): {lacks}", "  ", "    ")
    return "\n".join(lines)


def _line(law: Row, group: Sequence[Row]) -> str:
    cells = {row["dtype"]: cell(row) for row in group}
    shown = "".join(f"{cells.get(name, ''):<20s}" for name in DTYPES)
    return f"  {law['law']:<24s}{law['title']:<32.31s}{shown}".rstrip()


def cell(row: Row) -> str:
    """`ok 2e-16`, `BUG 0.5`, `precision 3e-05`, `convention`, `raised`, or a dash."""
    error = row["error"]
    if row["status"] == "not-offered":
        return "-"
    if not failed(row):
        return f"ok {error:.0e}" if error else "ok"
    name = {"bug": "BUG"}.get(kind(row), kind(row))
    if row["status"] == "error":
        return f"{name} raised"
    return f"{name} nan/inf" if error is None else f"{name} {error:.0e}"


def missing(name: str, rows: Iterable[Row]) -> str:
    """What the implementation lacks, each once: `schedule tables, posterior, target`."""
    messages = dict.fromkeys(row["message"] for row in rows if row["message"])
    return ", ".join(message.removeprefix(f"{name} offers no ") for message in messages)


def verdict(grouped: Mapping[str, Sequence[Row]]) -> str:
    """`52 laws hold, 3 fail (2 bug, 1 precision), 14 not offered`."""
    found = counts(grouped)
    broken = [f"{found[name]} {name}" for name in FAILURES if found[name]]
    fail = sum(found[name] for name in FAILURES)
    text = f"{fail} fail ({', '.join(broken)})" if broken else "none fails"
    held = "1 law holds" if found["pass"] == 1 else f"{found['pass']} laws hold"
    return f"{held}, {text}, {found['not-offered']} not offered"


def overview(results: Results) -> str:
    """How many laws hold and fail, one line per implementation."""
    names = [one["name"] for one in results["implementations"]]
    width = max(map(len, names))
    return "\n".join(
        f"{name:<{width}s}  {verdict(by_law(results['laws'], name))}" for name in names
    )


def failures(results: Results) -> str:
    """Each failed law once per implementation, bugs first: what should hold, the smallest input, how to see it."""
    laws = {law["law"]: law for law in results["statements"]}
    blocks = [
        block
        for one in results["implementations"]
        for block in _failures(by_law(results["laws"], one["name"]), laws)
    ]
    return "\n" + "\n\n".join(blocks) + "\n\n" if blocks else "\n"


def _failures(grouped: Mapping[str, Sequence[Row]], laws: Mapping[str, Row]) -> list[str]:
    """One block per failed law; laws that fail by the same exception share one."""
    broken = {law: [row for row in rows if failed(row)] for law, rows in grouped.items()}
    ranked = sorted(
        (law for law in broken if broken[law]), key=lambda law: rank(laws[law], broken[law])
    )
    blocks: dict[str, str] = {}
    same: dict[str, list[str]] = {}
    for law in ranked:
        cause = root(broken[law][0]) or law
        if cause in blocks:
            same.setdefault(cause, []).append(law)
        else:
            blocks[cause] = _failure(laws[law], broken[law])
    return [
        text + (f"\n{_entry('same for', ', '.join(same[cause]))}" if cause in same else "")
        for cause, text in blocks.items()
    ]


def rank(law: Row, group: Sequence[Row]) -> tuple[int, bool]:
    """Bugs first; among them a law on manners that found something: a mixed-up batch shows in many other laws as a wrong number."""
    manners = str(law["law"]).startswith(_MANNERS) and not any(root(row) for row in group)
    return FAILURES.index(worst(group)), not manners


def _failure(law: Row, group: Sequence[Row]) -> str:
    """A law in words; what the other dtypes say is in the table."""
    row = leading(group)
    also = [other["dtype"] for other in group if other is not row]
    where = row["dtype"] + (f" (also {', '.join(also)})" if also else "")
    head = f"{row['implementation']}: {law['law']} {law['title']}: {kind(row).upper()} in {where}"
    if (
        kind(row) == "precision"
    ):  # the formula is right: where it loses digits is all there is to say
        return f"{head}\n{_entry('found', row['message'])}"
    parts = [
        head,
        _entry("holds", law["statement"]),
        _entry("found", row["message"]),
        _entry("convention", row["convention"] or ""),
        _entry("50 digits", exact(row)),
        _entry("why", f"{law['derivation']} {law['source']}"),
        *(f"    | {line}" for line in (row["snippet"] or "").splitlines()),
    ]
    return "\n".join(part for part in parts if part)


def exact(row: Row) -> str:
    """The second computation of a bug's witness in words, "" where there is none."""
    checked = row["double_check"]
    if checked is None:
        return ""
    return checked["by"] if checked["value"] is None else f"{checked['value']} ({checked['by']})"


def _entry(name: str, text: str) -> str:
    if not text:
        return ""
    head = f"    {name + ':':<12s}"
    return "\n".join(_wrapped(text, head, " " * 16))


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )
