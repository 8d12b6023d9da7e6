"""Where a command's figures go: strict JSON, a picture, a record."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.terminal.files import write_picture, write_text
from bench.terminal.usage import UsageError, at_home, writable_directory, writable_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from bench.record import Record


def add_outputs(parser: argparse.ArgumentParser, *, picture: bool) -> None:
    """`--out`, `--json`, and `--picture` where there is one to draw."""
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the record (default: none is kept)"
    )
    parser.add_argument("--json", metavar="FILE", help="all figures; - for standard output")
    if picture:
        parser.add_argument("--picture", metavar="FILE.png", help="the same as a picture")


def check_outputs(arguments: argparse.Namespace) -> None:
    """Every place can be written, proven before the work.

    Raises:
        UsageError: one of them cannot.
    """
    if arguments.out is not None:
        writable_directory(arguments.out)
    picture = getattr(arguments, "picture", None)
    for option, path in (("--picture", picture), ("--json", arguments.json)):
        if path not in (None, "-"):
            writable_directory(at_home(path).parent, option)
            writable_file(path, option)
    if picture is not None:
        check_picture(picture, "--picture")


def check_picture(path: str, option: str) -> None:
    """The ending names a kind of picture; none means PNG.

    Raises:
        UsageError: it does not.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".").lower()
    if ending and ending not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(
            f"{option} {path}: {ending!r} is not a kind of picture; end it in .png or .svg"
        )


def write_json(schema: str, values: Mapping[str, Any], path: str) -> None:
    """`values` under their schema, strict, to a file or (-) to standard output."""
    text = json.dumps({"schema": schema, **values}, indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def deliver(
    arguments: argparse.Namespace,
    record: "Record",
    text: str,
    draw: "Callable[[Canvas], None] | None" = None,
) -> None:
    """Print `text` unless JSON takes its place, and write what the options ask for."""
    from bench.record import save

    if arguments.json:
        head = {"data": record.data, "protocol": record.protocol}
        write_json(f"ddpm-bench.{record.kind}/1", head | record.results, arguments.json)
    if arguments.json != "-":
        print(text)
    if draw is not None and arguments.picture is not None:
        _draw(draw, arguments.picture)
    if arguments.out is not None:
        print(f"record: {save(record, arguments.out)}", file=sys.stderr)


def _draw(draw: "Callable[[Canvas], None]", path: str) -> None:
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(7, 3.6), layout="constrained")
    draw(canvas)
    write_picture(canvas, path)
