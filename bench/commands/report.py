"""`ddpm-bench report RECORD… --out DIR`: records → report.html, report.md, report.json."""

import argparse
from pathlib import Path

HELP = "Write report.html, report.md and report.json from records, and from nothing else."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which records, and where to."""
    parser.add_argument(
        "records", metavar="RECORD", nargs="+", help="record files, or folders that hold them"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="report", help="folder to write to (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report and name its files; 1 where a part broke, else 0."""
    from bench.record import load
    from bench.report import build, write
    from bench.terminal.usage import writable_directory

    files = [file for given in arguments.records for file in _files(given)]
    directory = writable_directory(arguments.out)
    report = build([load(file) for file in files])
    for path in write(report, directory)[:3]:
        print(path)
    for reason in report.broken:
        print(f"broken part: {reason}")
    return 1 if report.broken else 0


def _files(given: str) -> list[Path]:
    """The file itself, or every record in a folder."""
    from bench.terminal.usage import UsageError, readable_file

    folder = Path(given).expanduser()
    if not folder.is_dir():
        return [readable_file(given)]
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UsageError(f"no records in {given!r}: it holds no .json file; give another folder")
    return files
