"""How often `compare` cries wolf: short records of one commit, measured anew one after the other and compared in pairs.

    python -m tests.alarms --pairs 50 --out DIR

Each record is a contest of the ways that need no compiler, in a process of its own, and every record is compared with the next. Nothing
changed between two of them, so whatever is called better or worse is a false alarm. Then one series of every second record is
made a fifth slower, to see it found. Prints counts; exit status 1 where there are more than 4 alarms, or where the slower kernel
is missed in more than a tenth of the comparisons. Records that lie in DIR already are not measured again.
"""

import argparse
import copy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from bench.measure.throughput import contenders, contest
from bench.record import Record, load, save
from bench.record.comparison import Comparison, compare

SHAPE, ROUNDS, THREADS = "32x3x32x32", 15, 1
VICTIM = f"{SHAPE}, threads {THREADS}, native"
SLOWER = 1.2
QUIET = ("within noise", "not tested")
MOST = 4
"""Alarms over the whole family."""


def measure(out: Path) -> None:
    """One record, in this process."""
    plain = {name: one for name, one in contenders.NOISING.items() if not one.compiled}
    contenders.NOISING = plain

    def here(plan: contest.ContestPlan, threads: int) -> list[dict]:
        (shape,) = plan.shapes
        return [contest.contest(shape, threads=threads, rounds=plan.rounds, device="cpu", seed=0)]

    contest._in_process = here
    plan = contest.ContestPlan((SHAPE,), (THREADS,), ROUNDS)
    save(contest.contest_record(plan), out)


def measured(out: Path, count: int) -> list[Record]:
    """`count` records in DIR, oldest first; what is missing is measured."""
    while len(list(out.glob("*.json"))) < count:
        command = [sys.executable, "-m", "tests.alarms", "--one", "--out", str(out)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    found = [load(path) for path in out.glob("*.json")]
    return sorted(found, key=lambda record: (record.created, record.sha256))[:count]


def loud(comparison: Comparison) -> list[str]:
    """Series that are said to have changed."""
    return [change.name for change in comparison.changes if change.verdict not in QUIET]


def slowed(record: Record) -> Record:
    """The record with one series a fifth slower."""
    samples = copy.deepcopy(record.samples)
    samples[VICTIM]["values"] = [SLOWER * value for value in samples[VICTIM]["values"]]
    return replace(record, samples=samples)


def rotated(records: Sequence[Record], side: int) -> list[Comparison]:
    """Comparisons of `side` processes with as many, which took turns."""
    groups = (records[k : k + 2 * side] for k in range(0, len(records) - 2 * side + 1, side))
    return [compare(list(group[::2]), list(group[1::2])) for group in groups]


def main(words: Sequence[str]) -> int:
    """Measure, compare, count."""
    parser = argparse.ArgumentParser(prog="python -m tests.alarms")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument(
        "--side", type=int, default=5, help="processes a side; more where others run"
    )
    parser.add_argument("--one", action="store_true", help="measure one record and stop")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        measure(arguments.out)
        return 0
    records = measured(arguments.out, arguments.pairs + 1)
    found = [compare(old, new) for old, new in pairwise(records)]
    alarms = [name for one in found for name in loud(one)]
    tests = sum(len(one.changes) for one in found)
    print(f"{len(found)} pairs, {tests} series compared: {len(alarms)} alarms {sorted(alarms)}")
    sides = rotated(records, arguments.side)
    several = [name for one in sides for name in loud(one)]
    print(f"{len(sides)} comparisons of {arguments.side} processes a side: {len(several)} alarms")
    changed = [slowed(record) if k % 2 else record for k, record in enumerate(records)]
    worse = [
        {c.name for c in one.changes if c.verdict == "worse"}
        for one in rotated(changed, arguments.side)
    ]
    seen = sum(VICTIM in one for one in worse)
    blamed = sum(len(one - {VICTIM}) for one in worse)
    print(f"a fifth slower in one way: found in {seen} of {len(worse)}, {blamed} others blamed")
    visible = sorted(c.smallest for one in found for c in one.changes if c.smallest is not None)
    print(f"smallest visible change of single records, median: x{visible[len(visible) // 2]:.2f}")
    return 1 if len(alarms) > MOST or seen < 0.9 * len(worse) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
