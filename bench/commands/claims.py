"""`ddpm-bench claims [RECORD…]`: the claims, and where each stands in some records."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from bench.terminal.files import write_text
from bench.terminal.usage import writable_file

HELP = """The literature's claims: who says what, which study decides it, and where it stands in your records.

  ddpm-bench claims
  ddpm-bench claims ddpm-bench-report/records --json claims.json

Run what some of them need with `ddpm-bench run --claims ID…`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which records, and in which form."""
    parser.add_argument(
        "records", metavar="RECORD", nargs="*", help="record files, or folders that hold them"
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows to a file")
    parser.add_argument(
        "--table", action="store_true", help="print the Markdown table of docs/claims.md"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the claims; 0."""
    from bench.commands.report import read
    from bench.record.settling import settled

    if arguments.table:
        from bench.measure.study.listing import table

        print(table())
        return 0
    if arguments.json:
        writable_file(arguments.json, "--json")
    records, unread = read(arguments.records)
    for file, why in unread:
        print(f"left out: {file}: {why}", file=sys.stderr)
    rows = settled(records)
    for row in rows:
        print(_line(row))
    count = sum(row["verdict"].startswith(("holds", "fails")) for row in rows)
    print(f"{len(rows)} claims, {count} settled")
    if arguments.json:
        text = json.dumps({"claims": rows}, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(arguments.json, text + "\n")
    return 0


def _line(row: Mapping[str, Any]) -> str:
    measured = ""
    if row["measured"] is not None:
        ends = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
        measured = f" {row['measured']:.3g}{ends} {row['unit'] or ''}".rstrip()
    return f"{row['id']:<22}{row['verdict']}{measured}\n    {row['says']} ({row['source']})\n    {row['reason']}"
