"""The same short measurements under several torch releases, each in an environment of its own, in rotation.

Round r runs one process in every environment before round r + 1 begins, so that a machine that slows down does so for all
releases alike; what does not scatter (the laws, the bits of a tiny study) is measured in the first round only.

    python -m bench.job.releases --measure --out DIR [--first]      one environment's share of one round
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.record import Record, save
from bench.terminal.usage import UsageError, at_home

ENVIRONMENT = "bench-torch*"
"""How tox calls the environments of `tox -m bench`."""
SHAPE = "128x3x32x32"


@dataclass(frozen=True)
class Rotation:
    """What is measured where.

    Attributes:
        pythons: the interpreter of each environment.
        out: folder for the records.
        rounds: processes per environment.
        turns: turns of each contest.
    """

    pythons: tuple[Path, ...]
    out: Path
    rounds: int = 6
    turns: int = 15


def found(given: Sequence[str]) -> tuple[Path, ...]:
    """Interpreters, named one by one or by a tox folder that holds environments `bench-torch…`.

    Raises:
        UsageError: a path is neither, or fewer than two interpreters are left.
    """
    pythons = [python for name in given for python in _pythons(at_home(name))]
    if len(pythons) < 2:
        raise UsageError(
            f"{len(pythons)} environments: a comparison of releases needs two; "
            "`tox -m bench` makes them, or name the python of each"
        )
    return tuple(pythons)


def _pythons(path: Path) -> list[Path]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return sorted(path.glob(f"{ENVIRONMENT}/bin/python"))
    raise UsageError(f"{str(path)!r} is neither a python nor a folder of environments")


def rotate(rotation: Rotation) -> Iterator[str]:
    """Measure round by round; a line before each process.

    Raises:
        UsageError: a process failed; its own words stand above.
    """
    for number in range(rotation.rounds):
        for python in rotation.pythons:
            yield f"round {number + 1} of {rotation.rounds}: {python}"
            command = [
                str(python),
                "-m",
                "bench.job.releases",
                "--measure",
                "--out",
                str(rotation.out),
            ]
            command += ["--turns", str(rotation.turns), *(["--first"] if number == 0 else [])]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
            if done.returncode:
                raise UsageError(
                    f"{python} ended with {done.returncode}; what it measured before is kept in {rotation.out}"
                )


def measure(turns: int, *, first: bool) -> Iterator[Record]:
    """One environment's share of a round: a contest, and in the first round laws and a tiny study."""
    from bench.measure.throughput.contest import ContestPlan, contest_record

    if first:
        yield from _once()
    threads = tuple(sorted({1, os.cpu_count() or 1}))
    yield contest_record(ContestPlan((SHAPE,), threads, turns, "cpu"))


def _once() -> Iterator[Record]:
    from bench.measure.laws.examine import verification_record
    from bench.measure.study.design import FACTORIAL, Design
    from bench.measure.study.record import run_study
    from bench.measure.study.task import Setting

    yield verification_record()
    tiny = Design(
        arms=FACTORIAL,
        seeds=(1, 2),
        rates=(1e-2,),
        steps=60,
        tuning_steps=10,
        points=3,
        final_images=100,
        bound_images=50,
        bound_evaluations=500,
        samples=100,
        sampler_steps=10,
        grid=10,
        network_options={"base": 8, "multipliers": (1, 2), "attention": ()},
    )
    setting = Setting(tiny, "digits", None, "cpu", "auto")
    yield run_study(setting, command="ddpm-bench releases")


def main(words: Sequence[str]) -> int:
    """The process of one environment in one round."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m bench.job.releases")
    parser.add_argument("--measure", action="store_true", required=True)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--turns", type=int, default=Rotation.turns)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(words)
    for record in measure(arguments.turns, first=arguments.first):
        print(f"  {record.kind}: {save(record, arguments.out)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
