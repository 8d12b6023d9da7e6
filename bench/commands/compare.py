"""`ddpm-bench compare OLD NEW`: what changed, with a test before it is called faster or better."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.record.comparison import Change, Comparison

HELP = "What changed between two records; exit status 1 where something is worse beyond noise."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """OLD, NEW and where to write the same as JSON."""
    parser.add_argument("old", metavar="OLD", help="the earlier record (a .json file)")
    parser.add_argument("new", metavar="NEW", help="the later record, of the same kind")
    parser.add_argument("--json", metavar="FILE", help="also write the comparison as strict JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison; 1 where something is worse beyond noise, else 0."""
    from bench.record import load
    from bench.record.comparison import compare
    from bench.terminal.usage import readable_file

    old, new = (load(readable_file(path)) for path in (arguments.old, arguments.new))
    comparison = compare(old, new)
    if arguments.json:
        _write(comparison, arguments.json)
    print("\n".join(_lines(comparison)))
    return 1 if comparison.worse else 0


def _lines(comparison: "Comparison") -> list[str]:
    lines = [f"differs: {text}" for text in comparison.conditions] or ["conditions: the same"]
    if comparison.changes:
        lines += ["", *_table([_HEADER, *map(_row, comparison.changes)])]
    if comparison.laws:
        lines += ["", *(f"{verdict}: {text}" for text, verdict in comparison.laws)]
    lines += [f"not compared: {text}" for text in comparison.missing]
    return [*lines, "", _conclusion(comparison)]


def _conclusion(comparison: "Comparison") -> str:
    verdicts = [change.verdict for change in comparison.changes]
    verdicts += [verdict for _, verdict in comparison.laws]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{told or 'nothing changed'} (95 % level, adjusted for the number of tests)."


_HEADER = ("", "old", "new", "change [95 % interval]", "p", "verdict")


def _row(change: "Change") -> tuple[str, ...]:
    name = f"{change.name} ({change.unit})"
    p = "–" if change.p is None else f"{change.p:.2g}"
    remark = f" ({change.remark})" if change.remark else ""
    verdict = f"{change.verdict}{remark}"
    return name, f"{change.old:.5g}", f"{change.new:.5g}", _effect(change), p, verdict


def _effect(change: "Change") -> str:
    effect = change.effect
    form = "×{:.4g}" if change.relation == "ratio" else "{:+.4g}"
    ends = "" if effect.low is None else f" [{form.format(effect.low)}, {form.format(effect.high)}]"
    return form.format(effect.estimate) + ends


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        [row[0].ljust(widths[0]), *map(str.rjust, row[1:5], widths[1:5]), row[5]] for row in rows
    )
    return ["  ".join(cells).rstrip() for cells in aligned]


def _write(comparison: "Comparison", path: str) -> None:
    import json
    from pathlib import Path

    from bench.terminal.usage import UsageError

    content = {
        "schema": "ddpm-bench.record.comparison/1",
        "worse": comparison.worse,
        "changes": [change.as_json() for change in comparison.changes],
        "laws": [{"change": text, "verdict": verdict} for text, verdict in comparison.laws],
        "conditions": list(comparison.conditions),
        "missing": list(comparison.missing),
    }
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path!r}: {error.strerror}; choose another file") from error
