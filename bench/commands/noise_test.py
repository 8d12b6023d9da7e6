"""`ddpm-bench noise-test`: is the noise normal and independent? Up to a billion numbers, a table of p-values."""

import argparse
from typing import TYPE_CHECKING

from bench.terminal.usage import UsageError, at_least, writable_directory

if TYPE_CHECKING:
    from bench.measure.noise.normality import Finding

HELP = """test the quality of the noise on up to a billion normals

  ddpm-bench noise-test                 1e9 numbers, minutes
  ddpm-bench noise-test --count 1e6     seconds"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--count",
        type=float,
        default=1e9,
        metavar="N",
        help="how many numbers to draw (default: 1e9; a few minutes)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=20261123, help="seed of the stream (default: 20261123)"
    )
    parser.add_argument("--out", metavar="DIR", help="also write a record to this folder")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count the machine instructions per number instead (needs valgrind and g++)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 where every test passes, 1 where one fails."""
    if arguments.instructions:
        return _instructions()
    if not 1e6 <= arguments.count <= 1e12:
        raise UsageError(
            f"--count {arguments.count:g}: between 1e6 and 1e12 numbers, as in --count 1e9"
        )
    folder = writable_directory(arguments.out) if arguments.out else None
    from bench.measure.noise.normality import LEVEL, PIECE, examine, passed
    from bench.terminal.progress import progress

    pieces = -(-int(arguments.count) // PIECE)
    findings = examine(
        int(arguments.count), arguments.seed, lambda numbers: progress(numbers, label="noise")
    )
    good = passed(findings)
    print("\n".join(_table(findings)))
    least = LEVEL / len(findings)
    print(
        f"{pieces * PIECE} numbers of seed {arguments.seed}, {len(findings)} tests: "
        f"{'all pass' if good else 'FAILED'} (each p-value must be at least {least:.1e})"
    )
    if folder is not None:
        print(f"record: {_record(arguments, findings, pieces * PIECE, str(folder))}")
    return 0 if good else 1


def _table(findings: "list[Finding]") -> list[str]:
    width = max(len(finding.name) for finding in findings)
    return [
        f"{'test':<{width}}  {'found':>12}  {'expected':>12}  {'p-value':>8}",
        *(
            f"{finding.name:<{width}}  {finding.statistic:>12.6g}  {finding.expected:>12}  {finding.p_value:>8.2g}"
            for finding in findings
        ),
    ]


def _record(
    arguments: argparse.Namespace, findings: "list[Finding]", count: int, folder: str
) -> str:
    from dataclasses import asdict

    from bench.measure.noise.normality import LEVEL, passed
    from bench.record import new_record, save
    from ddpm_ref.kernels import q_sample_providers

    record = new_record(
        "noise",
        protocol={
            "command": f"ddpm-bench noise-test --count {arguments.count:g} --seed {arguments.seed}",
            "count": count,
            "level": LEVEL,
        },
        seeds=[arguments.seed],
        results={
            "passed": passed(findings),
            "findings": [asdict(finding) for finding in findings],
            "providers": dict(q_sample_providers()),
        },
    )
    return save(record, folder).name


def _instructions() -> int:
    from bench.measure.noise.instructions import count_instructions

    print("instructions per number (noise and x_t, float32), whole program, by callgrind")
    for name, value in count_instructions().items():
        print(f"  {name:<10} {value:6.2f}")
    return 0
