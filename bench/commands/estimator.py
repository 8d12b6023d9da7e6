"""`ddpm-bench estimator`: does the budgeted bits/dim estimate keep its promises on this model?"""

import argparse
import dataclasses
import shlex
from typing import TYPE_CHECKING

from bench.commands.subject import add_checkpoint, add_subject, question_from, subject_of
from bench.terminal.usage import at_least, writable_directory

if TYPE_CHECKING:
    from bench.record import Record
    from ddpm_ref.config import TrainConfig

HELP = """coverage and cost of the budgeted bits/dim estimate, against other ways to spend evaluations

  ddpm-bench estimator runs/digits/checkpoint.pt --data digits"""

_MATTERS = (
    "data", "images", "part", "examples", "schedule", "T", "parameterization", "first_step", "variance",
    "decoder_variance", "decoder", "clip", "seed",
    "evaluations", "repetitions", "reference_draws",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    add_checkpoint(parser)
    add_subject(parser)
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
        "--out", default="ddpm-bench-report/records", metavar="DIR", help="where the record goes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, save a record a budget, print; 1 where an interval covers too rarely or too often."""
    from bench.measure.estimator.coverage import estimator_record, fill_pool
    from bench.record import save
    from bench.record.kinds import violations

    directory = writable_directory(arguments.out)
    question = question_from(arguments)
    pool = fill_pool(question, arguments.reference_draws)
    subject, command = subject_of(arguments), _command_of(arguments)
    honest = True
    for evaluations in arguments.evaluations:
        record = estimator_record(
            question,
            pool,
            evaluations=evaluations,
            repetitions=arguments.repetitions,
            subject=subject,
            command=command,
        )
        _print(record)
        print(f"record: {save(record, directory)}")
        for reason in violations(record):
            print(f"exit status 1: {reason}")
            honest = False
    return 0 if honest else 1


def _command_of(arguments: argparse.Namespace) -> str:
    """How to measure again, a user's own paths left out."""
    if arguments.model:
        return _command(arguments, "--model FILE.py:FACTORY")
    from ddpm_ref.checkpoint import load_checkpoint

    config = load_checkpoint(arguments.checkpoint, device="cpu").config
    training = f"ddpm-bench train {_choices(config)}--out RUN"
    return f"{training} && {_command(arguments, 'RUN/checkpoint.pt')}"


def _choices(config: "TrainConfig") -> str:
    """Every key that is not at its default, as options of the trainer."""
    from bench.data import without_path
    from ddpm_ref.config import TrainConfig

    config = dataclasses.replace(config, data=without_path(config.data))
    usual, table, words = TrainConfig().to_toml().splitlines(), "", ""
    for line in config.to_toml().splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line and (table or line not in usual):
            words += f"--set {shlex.quote(table + line)} "
    return words


def _command(arguments: argparse.Namespace, subject: str) -> str:
    """`ddpm-bench estimator` with the options that bear on the figures."""
    from bench.data import without_path

    words = [f"ddpm-bench estimator {subject}"]
    for name in _MATTERS:
        value = getattr(arguments, name)
        if value is not None:
            shown = "PATH" if name == "images" else without_path(str(value))
            values = value if isinstance(value, list) else [shown]
            words.append(f"--{name.replace('_', '-')} {shlex.join(map(str, values))}")
    return " ".join(words)


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
