"""`ddpm-bench report RECORD… --out DIR`: records → report.html, report.md, report.json."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.record import Record

HELP = """Write report.html, report.md and report.json from records, and from nothing else.

  ddpm-bench report ddpm-bench-report/records --out my_report
  ddpm-bench report old.json new.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which records, and where to."""
    parser.add_argument(
        "records", metavar="RECORD", nargs="*", help="record files, or folders that hold them"
    )
    parser.add_argument(
        "--gallery",
        metavar="DIR",
        help="write index.html and README.md about the reports in the folders below DIR",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="ddpm-bench-report",
        help="folder to write to (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report and name its files; 1 where a part broke or a file in a folder is not a record, else 0."""
    from bench.report import build, write
    from bench.terminal.usage import UsageError, writable_directory

    if arguments.gallery:
        return _gallery(arguments.gallery)
    if not arguments.records:
        raise UsageError("no records: name record files, or folders that hold them")
    records, unread = read(arguments.records)
    directory = writable_directory(arguments.out)
    report = build(records, unread=unread)
    for path in write(report, directory)[:3]:
        print(path)
    for name, reason in report.left_out:
        print(f"not shown: {name}: {reason}")
    for reason in report.broken:
        print(f"broken part: {reason}")
    return 1 if report.broken or unread else 0


def _gallery(folder: str) -> int:
    from bench.report.gallery import write
    from bench.terminal.usage import writable_directory

    for path in write(writable_directory(folder, "--gallery")):
        print(path)
    return 0


def read(given: Sequence[str]) -> "tuple[list[Record], list[tuple[str, str]]]":
    """The records, and files of folders that are not records; a file named by itself must be a record."""
    from bench.record import RecordError, load
    from bench.terminal.usage import at_home

    records, unread = [], []
    for name in given:
        for file in _files(name):
            try:
                records.append(load(file))
            except RecordError as error:
                if not os.path.isdir(at_home(name)):
                    raise
                unread.append((file.name, str(error)))
    return records, unread


def _files(given: str) -> list[Path]:
    """The file itself, or every record in a folder."""
    from bench.terminal.usage import UsageError, at_home, readable_file

    folder = at_home(given)
    if not os.path.isdir(folder):
        return [readable_file(given)]
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UsageError(f"no records in {given!r}: it holds no .json file; give another folder")
    return files
