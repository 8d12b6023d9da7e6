"""`ddpm-bench compare OLD NEW`: what changed, with a test before it is called faster or better."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.terminal.files import write_text
from bench.terminal.usage import writable_file

if TYPE_CHECKING:
    from bench.record import Record
    from bench.record.comparison import Change, Comparison
    from bench.report import Report

HELP = """What changed between two records, or two folders of records; exit status 1 where something is worse beyond noise.

  ddpm-bench compare old.json new.json
  ddpm-bench compare records/before records/after --html changed.html
  ddpm-bench compare --by torch ddpm-bench-report/records

Records are paired by what they measure; several of one measurement on each side are several processes of it.
With --by torch any number of records and folders are sorted by torch release, and each is compared with the oldest."""

_SCHEMA = "ddpm-bench.comparison/2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """OLD, NEW and where to write the same as JSON, HTML or Markdown."""
    parser.add_argument(
        "records", metavar="RECORD", nargs="+", help="OLD and NEW: record files, or folders of them"
    )
    parser.add_argument("--by", choices=("torch",), help="compare releases instead of two sides")
    parser.add_argument("--json", metavar="FILE", help="also write the comparison as strict JSON")
    parser.add_argument("--html", metavar="FILE", help="also write it as one self-contained page")
    parser.add_argument("--markdown", metavar="FILE", help="also write it as Markdown")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison; 1 where something is worse beyond noise, else 0."""
    for option in ("json", "html", "markdown"):
        if getattr(arguments, option) is not None:
            writable_file(getattr(arguments, option), f"--{option}")
    if arguments.by:
        return _by_torch(arguments)
    from bench.report.comparison import page
    from bench.terminal.usage import UsageError

    if len(arguments.records) != 2:
        raise UsageError(
            f"{len(arguments.records)} records or folders: compare takes two, OLD and NEW; "
            "`--by torch` takes any number"
        )
    (old, bad_old), (new, bad_new) = (_read([given]) for given in arguments.records)
    sides, left_out = _sides(old, new)
    left_out = [*bad_old, *bad_new, *left_out]
    content = {
        "schema": _SCHEMA,
        "worse": any(c.worse for _, c in sides),
        "comparisons": [_as_json(name, comparison) for name, comparison in sides],
        "not_compared": [{"what": name, "why": reason} for name, reason in left_out],
    }
    _write(arguments, content, page(sides, [*old, *new], left_out))
    for name, comparison in sides:
        print("\n".join([f"{name}:", *_lines(comparison), ""]))
    for name, reason in left_out:
        print(f"not compared: {name}: {reason}")
    print(_conclusion([verdict for _, comparison in sides for verdict in comparison.verdicts]))
    return 1 if content["worse"] else 0


def _by_torch(arguments: argparse.Namespace) -> int:
    from bench.record.releases import by_torch
    from bench.report.comparison import releases_page

    records, bad = _read(arguments.records)
    found = by_torch(records)
    content = {
        "schema": _SCHEMA,
        "worse": found.worse,
        "releases": list(found.names),
        "comparisons": [
            _as_json(f"{m.kind}: {m.base} → {name}", comparison)
            for m in found.measurements
            for name, comparison in m.comparisons.items()
        ],
        "not_compared": [{"what": name, "why": reason} for name, reason in bad],
    }
    _write(arguments, content, releases_page(found, records))
    for m in found.measurements:
        for name, comparison in m.comparisons.items():
            print("\n".join([f"{m.kind}, {m.base} → {name}:", *_lines(comparison), ""]))
        for name, reason in m.refused.items():
            print(f"not compared: {m.kind}, {name}: {reason}")
    print(
        "\n".join(
            [*(f"not compared: {text}" for text in found.alone), *(f"{n}: {r}" for n, r in bad)]
        )
    )
    verdicts = [v for m in found.measurements for c in m.comparisons.values() for v in c.verdicts]
    print(_conclusion(verdicts))
    return 1 if found.worse else 0


def _read(given: Sequence[str]) -> "tuple[list[Record], list[tuple[str, str]]]":
    from bench.commands.report import read

    return read(given)


def _sides(
    old: "Sequence[Record]", new: "Sequence[Record]"
) -> "tuple[list[tuple[str, Comparison]], list[tuple[str, str]]]":
    """Comparisons of what both sides measured, and what only one did. Two single records must be comparable."""
    from bench.record.comparability import NotComparableError, group
    from bench.record.comparison import compare
    from bench.terminal.usage import UsageError

    if len(old) == len(new) == 1:
        return [(_name(new[0]), compare(old[0], new[0]))], []
    before, after = (_grouped(side, group) for side in (old, new))
    sides, left_out = [], []
    for key in dict.fromkeys([*before, *after]):
        if key not in before or key not in after:
            side = "old" if key in before else "new"
            left_out += [(r.name, f"only the {side} side has it") for r in (before | after)[key]]
            continue
        try:
            sides.append((_name(after[key][-1]), compare(*_processes(before[key], after[key]))))
        except NotComparableError as error:
            left_out.append((_name(after[key][-1]), str(error)))
    if not sides:
        raise UsageError(
            f"the two sides have no measurement in common ({'; '.join(reason for _, reason in left_out[:2])}); "
            "give records of one kind, measured with the same settings"
        )
    return sides, left_out


def _grouped(
    records: "Sequence[Record]", group: "Callable[[Record], str]"
) -> "dict[str, list[Record]]":
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.created, r.sha256)):
        found.setdefault(group(record), []).append(record)
    return found


def _processes(
    old: "Sequence[Record]", new: "Sequence[Record]"
) -> "tuple[list[Record], list[Record]]":
    """The records of the latest commit on each side: several processes where both have several, else the latest."""
    sides = [
        [r for r in side if r.environment.get("commit") == side[-1].environment.get("commit")]
        for side in (old, new)
    ]
    if min(map(len, sides)) < 2:
        return sides[0][-1:], sides[1][-1:]
    return sides[0], sides[1]


def _name(record: "Record") -> str:
    data = (record.data or {}).get("name")
    return f"{record.kind}, {data}" if data else record.kind


def _lines(comparison: "Comparison") -> list[str]:
    lines = [f"differs: {text}" for text in comparison.conditions] or ["conditions: the same"]
    if comparison.changes:
        lines += ["", *_table([_HEADER, *map(_row, comparison.changes)])]
    if comparison.facts:
        lines += ["", *(f"{fact.verdict}: {fact}" for fact in comparison.facts)]
    return lines + _some([f"not compared: {text}" for text in comparison.missing])


_MOST = 12


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST
    return lines if more <= 0 else [*lines[:_MOST], f"not compared: {more} more (--json has all)"]


def _conclusion(verdicts: Sequence[str]) -> str:
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{told or 'nothing changed'} (95 % level, adjusted for the number of tests)."


_HEADER = ("", "old", "new", "change [95 % interval]", "visible from", "p", "verdict")


def _row(change: "Change") -> tuple[str, ...]:
    from bench.report.comparison import effect, smallest
    from bench.report.page.digits import number

    p = "–" if change.p is None else f"{change.p:.2g}"
    remark = f" ({change.remark})" if change.remark else ""
    values = number(change.old), number(change.new), effect(change), smallest(change)
    return f"{change.name} ({change.unit})", *values, p, f"{change.verdict}{remark}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        [row[0].ljust(widths[0]), *map(str.rjust, row[1:6], widths[1:6]), row[6]] for row in rows
    )
    return ["  ".join(cells).rstrip() for cells in aligned]


def _as_json(name: str, comparison: "Comparison") -> dict[str, object]:
    return {
        "name": name,
        "kind": comparison.kind,
        "worse": comparison.worse,
        "changes": [change.as_json() for change in comparison.changes],
        "facts": [fact.as_json() for fact in comparison.facts],
        "bits_equal": list(comparison.bits_equal),
        "conditions": list(comparison.conditions),
        "missing": list(comparison.missing),
    }


def _write(arguments: argparse.Namespace, content: dict[str, object], report: "Report") -> None:
    """Each file that was asked for."""
    import json

    from bench.report.page import html, markdown

    made: list[tuple[str | None, Callable[[], str]]] = [
        (
            arguments.json,
            lambda: json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1),
        ),
        (arguments.html, lambda: html.render(report)),
        (arguments.markdown, lambda: markdown.render(report)),
    ]
    for path, text in made:
        if path is None:
            continue
        write_text(path, text() + "\n")
