"""`ddpm-bench optimal-loss`: the least loss that a data set allows, by level of noise."""

import argparse

from bench.commands.output import add_outputs, check_outputs, deliver
from bench.commands.subject import add_download, data_from
from bench.terminal.usage import at_least

HELP = """how small the loss can be at each log-SNR: by memorizing, on held-out data, and linearly

  ddpm-bench optimal-loss --data digits
  ddpm-bench optimal-loss --data fashion-mnist:16 --subset 4096 --space eps --picture least.png

compare the loss of a network by log-SNR with this before calling it stuck"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("--data", metavar="NAME", required=True, help="data set")
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    add_download(parser)
    parser.add_argument(
        "--space",
        choices=("x0", "eps", "v"),
        default="x0",
        help="of the printed errors (default: x0)",
    )
    parser.add_argument(
        "--examples",
        type=at_least(2),
        default=500,
        metavar="N",
        help="asked about in each part (default: 500)",
    )
    parser.add_argument(
        "--subset",
        type=at_least(4),
        metavar="N",
        help="training examples in each answer (default: all, or 4096 of large sets)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    add_outputs(parser, picture=True)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; always 0."""
    from bench.data import without_path
    from bench.measure.loss.optimal import optimal_loss_record
    from bench.report.losses import draw, optimal_text

    check_outputs(arguments)
    words = [f"ddpm-bench optimal-loss --data {without_path(arguments.data)}"]
    words += [f"--examples {arguments.examples}", f"--seed {arguments.seed}"]
    words += [] if arguments.subset is None else [f"--subset {arguments.subset}"]
    record = optimal_loss_record(
        data_from(arguments, arguments.data),
        examples=arguments.examples,
        subset=arguments.subset,
        seed=arguments.seed,
        command=" ".join(words),
    )
    deliver(
        arguments,
        record,
        optimal_text(record.results, arguments.space),
        lambda canvas: draw(canvas, record.results, arguments.space),
    )
    return 0
