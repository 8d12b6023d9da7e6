"""What `ddpm-bench verify` prints without `-v`: all that was found, on one screen.

Everything is written at several lengths. All begin at the shortest, and what stands first grows while there is room: the
verdict, then failures by cause, the worst first, then what holds and what is not offered.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report.laws.outcomes import (
    FAILURES,
    Row,
    by_law,
    cause,
    counts,
    failed,
    function,
    kind,
    leading,
    worst,
)
from bench.report.laws.text import Results, exact, missing, rank, verdict

_LONG_NUMBER = re.compile(r"-?\d+\.\d{7,}(?:e[-+]?\d+)?")
_COMMENT = re.compile(r"  # .*")
_LEAST = 20
"""Lines of the smallest screen that is written for."""
_FEW = 8
"""Implementations of which each has a line of its own; of more, each library has."""
_MORE = "-v: every law and dtype, failures in full; --json FILE: for programs"

Lines = list[str]
Lengths = Sequence[Lines]
"""The same said at several lengths, the shortest first."""


@dataclass(frozen=True)
class Screen:
    """How much room there is."""

    lines: int = 34
    columns: int = 110


@dataclass(frozen=True)
class Cause:
    """Failures of one implementation that have one root.

    Attributes:
        name: of the implementation.
        groups: law → its rows that fail; the first stands for all.
    """

    name: str
    groups: dict[str, list[Row]]

    @property
    def lead(self) -> Row:
        """The row that stands for the first law."""
        return leading(next(iter(self.groups.values())))

    @property
    def rank(self) -> int:
        """Its class, the worst first."""
        return FAILURES.index(kind(self.lead))


def screen(results: Results, size: Screen | None = None) -> str:
    """The results of a record of kind `verify` in at most `size.lines` lines."""
    size = Screen() if size is None else size
    several = len(results["implementations"]) > 1
    laws = {law["law"]: law for law in results["statements"]}
    causes = [c for one in results["implementations"] for c in causes_of(results, one["name"])]
    causes.sort(key=lambda found: found.rank)
    blocks = [
        _heads(results, size.columns),
        *(_told(found, laws, several, size.columns) for found in causes),
    ]
    if not several:
        blocks += _rest(results, size.columns)
    return "\n".join([*fitted(blocks, max(size.lines, _LEAST) - 1), _MORE])


def causes_of(results: Results, name: str) -> list[Cause]:
    """The failures of one implementation by cause, the worst first."""
    laws = {law["law"]: law for law in results["statements"]}
    grouped = by_law(results["laws"], name)
    broken = {law: [row for row in rows if failed(row)] for law, rows in grouped.items()}
    ranked = sorted(
        (law for law in broken if broken[law]), key=lambda law: rank(laws[law], broken[law])
    )
    found: dict[str, dict[str, list[Row]]] = {}
    for law in ranked:
        found.setdefault(cause(leading(broken[law])), {})[law] = broken[law]
    return [Cause(name, groups) for groups in found.values()]


def fitted(blocks: Sequence[Lengths], room: int) -> Lines:
    """Every block at its shortest; then each, from the first, as long as there is room. What has none at all is counted."""
    shortest = [len(block[0]) for block in blocks]
    while len(shortest) > 1 and sum(shortest) + (len(shortest) < len(blocks)) > room:
        shortest.pop()
    more = len(blocks) - len(shortest)
    left = room - sum(shortest) - (more > 0)
    lines: Lines = []
    for block, least in zip(blocks, shortest, strict=False):
        chosen = next(text for text in reversed(block) if len(text) - least <= max(left, 0))
        left -= len(chosen) - least
        lines += chosen
    return [*lines, f"… and {more} more"] if more else lines


# ---- the verdict -----------------------------------------------------------------------------


def _heads(results: Results, columns: int) -> Lengths:
    """A line for each implementation; the short form counts the options of a library with it."""
    described = results["implementations"]
    rows = results["laws"]
    each = [line for one in described for line in _head(one, rows, columns)]
    if len(described) <= _FEW:
        return [each]
    sources = dict.fromkeys(one["source"] for one in described)
    of = {source: [one for one in described if one["source"] == source] for source in sources}
    return [[_library(group, rows, columns) for group in of.values()], each]


def _head(one: Row, rows: Iterable[Row], columns: int) -> Lines:
    title = f"{one['name']} {one['version']}".rstrip()
    seconds = f", {one['seconds']:.0f} s" if "seconds" in one else ""
    line = f"{title}: {verdict(by_law(rows, one['name']))}{seconds}"
    notes = [_cut(f"  note: {note}", columns) for note in one.get("notes", ())]
    return [_cut(line, columns), *notes]


def _library(group: Sequence[Row], rows: Iterable[Row], columns: int) -> str:
    """A library with the findings on its options: `diffusers 0.42: …; 9 options: 4 bug`."""
    held = list(rows)
    main, *options = group
    line = f"{main['name']} {main['version']}".rstrip() + f": {verdict(by_law(held, main['name']))}"
    if options:
        found = [counts(by_law(held, one["name"])) for one in options]
        totals = {name: sum(each[name] for each in found) for name in FAILURES}
        told = ", ".join(f"{count} {name}" for name, count in totals.items() if count)
        line += f"; {len(options)} options: {told or 'none fails'}"
    return _cut(line, columns)


# ---- failures --------------------------------------------------------------------------------


def _told(found: Cause, laws: Results, several: bool, columns: int) -> Lengths:
    """A cause in one line; with what was found; with what should hold and 50 digits; with a snippet."""
    row = found.lead
    others = [law for law in found.groups if law != row["law"]]
    asked = function(row)
    head = f"{kind(row).upper()}{f' in {asked}' if asked else ''}: "
    head += f"{row['law']} {laws[row['law']]['title']} ({_dtypes(found.groups[row['law']])})"
    if several:
        head = f"{found.name}: {head}"
    brief = f"{head}; also {', '.join(others)}" if others else head
    same = _entry("also", _listed(others, laws), columns) if others else []
    said = _entry("found", _short(row["message"]), columns)
    full = [
        "",
        _cut(head, columns),
        *_entry("holds", laws[row["law"]]["statement"], columns),
        *said,
        *_entry("meant", row.get("convention") or "", columns),
        *_entry("50 digits", _exact(row), columns),
    ]
    snippet = [
        f"    | {_COMMENT.sub('', line)}" for line in (row.get("snippet") or "").splitlines()
    ]
    fits = snippet and max(map(len, snippet)) <= columns
    found_only = [[_cut(brief, columns)], ["", _cut(head, columns), *said, *same]]
    if kind(row) == "precision":  # the formula is right
        return found_only
    return [
        *found_only,
        [*full, *same],
        *([[*full, *same, *snippet]] if fits else []),
    ]


def _exact(row: Row) -> str:
    """The true value to 50 digits, or "" where nothing can be compared with it."""
    known = (row.get("double_check") or {}).get("value") is not None
    return exact(row) if known else ""


def _dtypes(rows: Sequence[Row]) -> str:
    return ", ".join(row["dtype"] for row in rows)


def _listed(ids: Sequence[str], laws: Results) -> str:
    return ", ".join(f"{law} {laws[law]['title']}" for law in ids)


def _short(message: str) -> str:
    """Six digits of each number: all of them are in the record."""
    return _LONG_NUMBER.sub(lambda found: f"{float(found.group()):.6g}", message)


def _entry(name: str, text: str, columns: int) -> Lines:
    if not text:
        return []
    head = f"    {f'{name}:':<11s}"
    return textwrap.wrap(
        text,
        columns,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


# ---- what holds, and what is not offered -----------------------------------------------------


def _rest(results: Results, columns: int) -> list[Lengths]:
    (one,) = results["implementations"]
    grouped = by_law(results["laws"], one["name"])
    held = [law for law, rows in grouped.items() if worst(rows) == "pass"]
    silent = [row for rows in grouped.values() if worst(rows) == "not-offered" for row in rows]
    blocks: list[Lengths] = []
    if held:
        blocks.append([[], ["", *_wrapped(f"hold: {', '.join(held)}", columns)]])
    if silent:
        told = f"not offered: {missing(one['name'], silent)}"
        blocks.append([[], ["", *_wrapped(told, columns)]])
    return blocks


def _wrapped(text: str, columns: int) -> Lines:
    return textwrap.wrap(text, columns, subsequent_indent="  ", break_on_hyphens=False)
