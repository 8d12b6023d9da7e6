"""`ddpm-bench releases ENVIRONMENT…`: the same measurements under several torch releases, and one page."""

import argparse

from bench.terminal.usage import at_least

HELP = """Measure laws, speed and a tiny study under several torch releases in rotation, and compare them on one page.

  ddpm-bench releases .tox
  ddpm-bench releases old/bin/python new/bin/python --rounds 4 --out compared

ENVIRONMENT is the python of each release, or a tox folder with environments bench-torch…; `tox -m bench` makes them and
calls this command. Exit status 1 where a later release is worse beyond noise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which environments, how long, and where to."""
    parser.add_argument("environments", metavar="ENVIRONMENT", nargs="+")
    parser.add_argument(
        "--rounds", type=at_least(2), default=6, help="processes per release (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=at_least(5), default=15, help="turns of each contest (default: %(default)s)"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="ddpm-bench-report/releases", help="(default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Rotate, compare, write `report.html` and `report.md`."""
    from bench.commands.compare import run as compare
    from bench.job.releases import Rotation, found, rotate
    from bench.terminal.usage import writable_directory

    out = writable_directory(arguments.out)
    pythons = found(arguments.environments)
    for line in rotate(Rotation(pythons, out / "records", arguments.rounds, arguments.turns)):
        print(line, flush=True)
    pages = {
        "html": out / "report.html",
        "markdown": out / "report.md",
        "json": out / "report.json",
    }
    status = compare(
        argparse.Namespace(
            records=[str(out / "records")], by="torch", **{k: str(v) for k, v in pages.items()}
        )
    )
    print(f"page: {pages['html']}")
    return status
