"""`ddpm-bench throughput`: the benchmark suite and the contest, each to a record."""

import argparse
import os
from typing import TYPE_CHECKING

from bench.terminal.usage import above_zero, at_least, writable_directory

if TYPE_CHECKING:
    from bench.record import Record

HELP = """Time q_sample, loss, training, sampling, bound and Fréchet distance, each proven right just before.

  ddpm-bench throughput
  ddpm-bench throughput --only contest --shapes 16x3x32x32 --rounds 5 --threads 1
  ddpm-bench throughput --only suite --select objective --seconds 0.1 --threads 1

Parts, each a record: the suite (pytest --benchmark, every case for itself) and the contest (our fused noise
+ q_sample against the fastest other way, taking turns in one process); with --only training the contest of
training loops (ours against two libraries' own) and where a step's time goes."""
_PARTS = ("suite", "contest", "training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--only", choices=_PARTS, help="run one part (default: suite and contest)")
    parser.add_argument(
        "--threads",
        type=at_least(1),
        nargs="+",
        help="thread counts, each measured in processes of its own (default: 1, and all cores)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--shapes", nargs="+", metavar="BxCxHxW", help="shapes of the contest (default: two)"
    )
    parser.add_argument("--rounds", type=at_least(2), default=61, help="turns in the contest")
    parser.add_argument(
        "--seconds", type=above_zero, default=1.0, help="time for each case of the suite"
    )
    parser.add_argument(
        "--scaling",
        type=above_zero,
        metavar="ELEMENTS",
        help="add the curve from 1e4 up to this many elements; 1e8 needs 3 GiB",
    )
    parser.add_argument("--select", default="", metavar="EXPRESSION", help="pytest -k of the suite")
    parser.add_argument("--out", default="ddpm-bench-report/records", help="folder for the records")


def run(arguments: argparse.Namespace) -> int:
    """Measure and write the records; 1 where a case was wrong or broke."""
    from bench.measure.throughput.contest import ContestPlan, contest_record, sentences
    from bench.measure.throughput.problem import parse_shape
    from bench.measure.throughput.suite import SuitePlan, suite_record
    from bench.record import save
    from bench.record.kinds import violations

    out = writable_directory(arguments.out)
    threads = tuple(arguments.threads or sorted({1, os.cpu_count() or 1}))
    shapes = tuple(arguments.shapes or ContestPlan().shapes)
    for shape in shapes:
        parse_shape(shape)
    made: list[Record] = []
    if arguments.only == "training":
        made.append(_training(threads, arguments.rounds))
        print(f"training loops: {save(made[-1], out)}")
    if arguments.only in (None, "suite"):
        for count in threads:
            plan = SuitePlan(
                arguments.device, count, arguments.seconds, arguments.scaling, arguments.select
            )
            made.append(suite_record(plan))
            print(f"suite, {count} threads: {save(made[-1], out)}")
    if arguments.only in (None, "contest"):
        contest = ContestPlan(shapes, threads, arguments.rounds, arguments.device)
        made.append(contest_record(contest))
        print(f"contest: {save(made[-1], out)}")
        for case in made[-1].results["contests"]:
            print("\n".join(sentences(case)))
    wrong = [reason for record in made for reason in violations(record)]
    for reason in wrong:
        print(f"failed: {reason}")
    return 1 if wrong else 0


def _training(threads: tuple[int, ...], rounds: int) -> "Record":
    from bench.measure.throughput import training_contest

    record = training_contest.training_record(
        training_contest.TrainingPlan(threads=threads, rounds=rounds)
    )
    for case in record.results["contests"]:
        print("\n".join(training_contest.sentences(case)))
    return record
