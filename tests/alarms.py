"""How often `compare` cries wolf: short records of one commit, measured anew one after the other and compared in pairs.

    python -m tests.alarms --pairs 50 --out DIR

Measures the suite's short cases once more than there are pairs, each record in a process of its own, and compares every record with
the next. Nothing changed between two of them, so whatever is called better or worse is a false alarm. Then one series of every
second record is made a fifth slower, to see it found. Prints counts; exit status 1 where there
are more than 4 alarms, or where the slower kernel is missed in more than a tenth of the comparisons. Records that lie in DIR already are
not measured again.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from bench.measure.throughput.suite import SuitePlan, suite_record
from bench.record import Record, load, save
from bench.record.comparison import Comparison, compare

SELECT = "(128x3x32x32 and native and not short) or test_forward"
SLOWER = 1.2
QUIET = ("within noise", "not tested")
MOST = 4
"""Alarms over the whole family."""


def measured(out: Path, count: int) -> list[Record]:
    """`count` records in DIR, oldest first; what is missing is measured."""
    found = [load(path) for path in sorted(out.glob("*-throughput-*.json"))]
    for number in range(len(found), count):
        record = suite_record(SuitePlan(seconds=0.03, select=SELECT))
        print(f"{number + 1} of {count}: {save(record, out).name}", flush=True)
        found.append(record)
    return sorted(found, key=lambda record: (record.created, record.sha256))[:count]


def loud(comparison: Comparison) -> list[str]:
    """Series that are said to have changed."""
    return [change.name for change in comparison.changes if change.verdict not in QUIET]


def slowed(record: Record, name: str) -> Record:
    """The record with one series a fifth slower."""
    samples = copy.deepcopy(record.samples)
    samples[name]["values"] = [SLOWER * value for value in samples[name]["values"]]
    return replace(record, samples=samples)


def processes(records: Sequence[Record], size: int) -> list[Comparison]:
    """Comparisons of `size` processes a side, in rotation: old and new take turns."""
    return [
        compare(list(records[k : k + 2 * size : 2]), list(records[k + 1 : k + 2 * size : 2]))
        for k in range(0, len(records) - 2 * size + 1, 2 * size)
    ]


def main(words: Sequence[str]) -> int:
    """Measure, compare, count."""
    parser = argparse.ArgumentParser(prog="python -m tests.alarms")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(words)
    records = measured(arguments.out, arguments.pairs + 1)
    pairs = list(pairwise(records))
    found = [compare(old, new) for old, new in pairs]
    alarms = [name for one in found for name in loud(one)]
    tests = sum(len(one.changes) for one in found)
    print(f"{len(pairs)} pairs, {tests} series compared: {len(alarms)} alarms {sorted(alarms)}")
    sides = processes(records, 5)
    several = [name for one in sides for name in loud(one)]
    print(f"{len(sides)} comparisons of 5 processes a side: {len(several)} alarms")
    seen = _planted(records)
    print(f"a fifth slower in one kernel, 5 processes a side: found in {seen[0]} of {seen[1]}")
    visible = [c.smallest for one in found for c in one.changes if c.smallest is not None]
    median = sorted(visible)[len(visible) // 2]
    print(f"smallest visible change of single records, median: x{median:.2f}")
    return 1 if len(alarms) > MOST or seen[0] < 0.9 * seen[1] else 0


def _planted(records: Sequence[Record]) -> tuple[int, int]:
    """Of the comparisons in which one series of the new side is slower, how many say so, of it alone."""
    name = next(name for name in records[0].samples if "native" in name)
    changed = [
        slowed(record, name) if place % 2 else record for place, record in enumerate(records)
    ]
    found = [{c.name for c in one.changes if c.verdict == "worse"} for one in processes(changed, 5)]
    return sum(name in one for one in found), len(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
