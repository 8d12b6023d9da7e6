"""`ddpm-bench capacity`: what a bottleneck of rank h costs each output on a data set."""

import argparse

from bench.commands.output import add_outputs, check_outputs, deliver
from bench.commands.subject import add_download, data_from
from bench.terminal.usage import at_least

HELP = """the price of a bottleneck: what rank h costs x0, v, eps and a learned skip, exactly

  ddpm-bench capacity --data photos:16 --rank 128
  ddpm-bench capacity --data subspace:64 --rank 8 --picture price.png --json price.json

for linear networks, one per level of noise, on Gaussian data with the data set's covariance; silent where the rank is not below D"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("--data", metavar="NAME", required=True, help="data set")
    parser.add_argument(
        "--rank", type=at_least(0), metavar="H", required=True, help="of the network"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    add_download(parser)
    add_outputs(parser, picture=True)


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, write; always 0."""
    from bench.data import without_path
    from bench.measure.capacity import capacity_record
    from bench.report.capacity import as_text, draw

    check_outputs(arguments)
    name = without_path(arguments.data)
    command = f"ddpm-bench capacity --data {name} --rank {arguments.rank}"
    record = capacity_record(data_from(arguments, arguments.data), arguments.rank, command)
    deliver(arguments, record, as_text(record.results), lambda canvas: draw(canvas, record.results))
    return 0
