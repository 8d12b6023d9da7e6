"""`ddpm-bench gpu-visit`: all that a machine with a GPU can tell, as records."""

import argparse
import sys

from bench.terminal.usage import at_least, writable_directory

HELP = """Build the CUDA provider, prove its bits against the CPU, measure it against the speed of memory,
torch.compile and installed peers, and run a short study. Ten minutes at most; needs no network.

  ddpm-bench gpu-visit --out records

Without a CUDA device: says so, writes nothing, exit status 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", default="ddpm-bench-report/records", help="folder for the records")
    parser.add_argument("--rounds", type=at_least(2), default=41, help="turns in the contest")
    parser.add_argument(
        "--study-steps",
        type=at_least(0),
        default=600,
        help="steps of each run of the study; 0: no study",
    )


def run(arguments: argparse.Namespace) -> int:
    """Visit; 1 where nothing could be measured or something failed."""
    from bench.job.gpu_visit import KIND, NotMeasuredError, VisitPlan, visit
    from bench.measure.throughput.contest import sentences
    from bench.record import save
    from bench.record.kinds import violations

    out = writable_directory(arguments.out)
    plan = VisitPlan(rounds=arguments.rounds, study_steps=arguments.study_steps)
    status = 0
    try:
        for record in visit(plan):
            print(f"{record.kind}: {save(record, out)}")
            if record.kind == KIND:
                for case in record.results["contests"]:
                    print("\n".join(sentences(case)))
            for reason in violations(record):
                print(f"failed: {reason}")
                status = 1
    except NotMeasuredError as reason:
        print(f"not measured here: {reason}", file=sys.stderr)
        return 1
    return status
