"""`ddpm-bench estimator`: does the budgeted bits/dim estimate keep its promises on this model?"""

import argparse
from typing import TYPE_CHECKING

from bench.commands import elbo as elbo_command
from bench.errors import at_least, writable_directory

if TYPE_CHECKING:
    from bench.record import Record

HELP = """coverage and cost of the budgeted bits/dim estimate, against other ways to spend evaluations

  ddpm-bench estimator runs/digits/checkpoint.pt --data digits --out reports/records"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="of `ddpm-bench train`")
    elbo_command.add_subject(parser)
    parser.add_argument(
        "--evaluations",
        type=at_least(32),
        nargs="+",
        default=[8000],
        metavar="N",
        help="budget of one estimate; a record for each (default: 8000)",
    )
    parser.add_argument("--repetitions", type=at_least(2), default=400, metavar="N")
    parser.add_argument(
        "--reference-draws",
        type=at_least(1),
        default=96,
        metavar="N",
        help="noise draws of the reference at the first steps; fewer at later ones (default: 96)",
    )
    parser.add_argument(
        "--out", default="reports/records", metavar="DIR", help="where the record goes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, save a record a budget, print; 1 where an interval covers too rarely or too often."""
    from bench.estimator_study import estimator_record, fill_pool
    from bench.record import save

    directory = writable_directory(arguments.out)
    question = elbo_command.question_from(arguments)
    pool = fill_pool(question, arguments.reference_draws)
    honest = True
    for evaluations in arguments.evaluations:
        record = estimator_record(
            question,
            pool,
            evaluations=evaluations,
            repetitions=arguments.repetitions,
            subject=_subject(arguments),
        )
        _print(record)
        print(f"record: {save(record, directory)}")
        honest &= 0.92 <= record.results["coverage"]["estimate"] <= 0.98
    return 0 if honest else 1


def _subject(arguments: argparse.Namespace) -> str:
    """What tells one model from another in a table: a figure depends on the network and its schedule."""
    if arguments.model:
        return "a model of your own"
    from ddpm_ref.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint, device="cpu")
    config = checkpoint.config
    size = sum(values.numel() for values in checkpoint.model.parameters())
    return f"{config.parameterization}/{config.weighting}, {config.schedule}, {config.network} of {size} parameters"


def _print(record: "Record") -> None:
    results = record.results
    coverage = results["coverage"]
    print(
        f"reference {results['reference']:.5f} ± {results['reference_stderr']:.1g} bits/dim; estimate with "
        f"{record.protocol['evaluations']} evaluations: root mean squared error {results['rmse']:.2g}"
    )
    print(
        f"95 % interval covers {100 * coverage['estimate']:.1f} % "
        f"({100 * coverage['low']:.1f} … {100 * coverage['high']:.1f} %) of {coverage['n']}"
    )
    for way, ratio in results["evaluation_ratios"].items():
        print(
            f"{way}: {ratio['estimate']:.4g} × ({ratio['low']:.4g} … {ratio['high']:.4g}) as many evaluations"
        )
