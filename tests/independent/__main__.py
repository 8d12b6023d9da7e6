"""`python -m tests.independent`: the laws on the right implementation and on the defects seeded into it.

    python -m tests.independent --only 'manners/*' --jobs 2
    python -m tests.independent --share 1/4 --notes notes.jsonl    a quarter; what it finds is kept as it comes, and not done again
    python -m tests.independent --against-last --json last.json    the set kept back

Exit status 0 where every defect is killed and the right implementation has no failure, else 1.
"""

import argparse
import json
import multiprocessing
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import torch

from tests.independent.defects import FROZEN, LAST, Defect
from tests.independent.measure import Baseline, Found, baseline, lines, measure, summary
from tests.independent.notes import Notes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.independent",
        description="Count the seeded defects that the laws reject.",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--against-frozen", action="store_true", help="the first set (default)")
    chosen.add_argument("--against-last", action="store_true", help="the set kept back")
    parser.add_argument("--only", action="append", metavar="GLOB", help="ids, as in 'chance/*'")
    parser.add_argument("--law", action="append", metavar="ID", help="only these laws")
    parser.add_argument(
        "--share", default="1/1", metavar="I/N", help="every N-th defect, from the I-th"
    )
    parser.add_argument("--every", action="store_true", help="all laws, though one names the cause")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--notes", type=Path, metavar="FILE", help="keep each result there, and skip what is there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> dict[str, Defect]:
    known = LAST if options.against_last else FROZEN
    patterns = options.only or ["*"]
    part, parts = map(int, options.share.split("/"))
    named = [name for name in known if any(fnmatch(name, pattern) for pattern in patterns)]
    return {name: known[name] for name in named[part - 1 :: parts]}


def _work(task: tuple[str, Defect, Baseline, bool]) -> tuple[str, Found, float]:
    """One defect in a process of its own: what it does to torch's state stays there."""
    torch.set_num_threads(1)
    name, defect, known, every = task
    begun = time.process_time()
    return name, measure(defect, known, every=every), time.process_time() - begun


def _said(row: Found) -> str:
    return "ALIVE" if not row.killed else "killed, named" if row.named else "killed, OTHER CAUSE"


def main() -> int:
    """Run, print, write."""
    options = _options()
    chosen = _chosen(options)
    notes = Notes(options.notes)
    known = notes.baseline or notes.keep_baseline(baseline(options.law))
    found = {name: row for name, row in notes.found.items() if name in chosen}
    tasks = [
        (name, defect, known, options.every) for name, defect in chosen.items() if name not in found
    ]
    context = multiprocessing.get_context("fork")
    with context.Pool(options.jobs, maxtasksperchild=1) as pool:
        for name, row, seconds in pool.imap_unordered(_work, tasks, chunksize=1):
            found[name] = notes.keep(name, row)
            count = f"{len(found)}/{len(chosen)}"
            print(f"{count} {name}: {_said(row)} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    result = summary([found[name] for name in chosen])
    print("\n".join(lines(result)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return int(bool(result["survivors"] or result["false_bugs"]))


if __name__ == "__main__":
    sys.exit(main())
