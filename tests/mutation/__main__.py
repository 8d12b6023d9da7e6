"""`python -m tests.mutation`: plant random defects in the source, count those that the tests find."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.__main__ import Command, guarded, parse
from bench.terminal.usage import UsageError, at_least, unknown, writable_directory

if TYPE_CHECKING:
    from tests.mutation.campaign import Result
    from tests.mutation.operators import Mutation
    from tests.mutation.seeded import Seeded

HELP = "plant random defects in the source and count those that the tests find"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    tool = cast(Command, sys.modules[__name__])
    return guarded(lambda: run(parse("python -m tests.mutation", tool, words)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--sample",
        type=at_least(0),
        default=300,
        metavar="N",
        help="how many mutations to draw; 0 for the seeded defects alone (default: 300)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument(
        "--modules", metavar="NAMES", help="restrict to these modules, separated by commas"
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=2, metavar="N", help="mutants at a time (default: 2)"
    )
    parser.add_argument(
        "--no-seeded", action="store_true", help="leave out the seeded defects of the laws"
    )
    parser.add_argument("--json", metavar="FILE", help="also write every verdict to this file")
    parser.add_argument("--out", metavar="DIR", help="also write a record to this folder")


def run(arguments: argparse.Namespace) -> int:
    """Print score and survivors; 0 where at least 95 % are found and no seeded defect is missed, else 1."""
    from bench.record import save
    from bench.record.kinds import violations
    from tests.mutation import campaign
    from tests.mutation.results import record

    folder = writable_directory(arguments.out) if arguments.out else None
    parts = _parts(arguments.modules, list(campaign.TESTS))
    everything = campaign.population(parts)
    sample = campaign.draw(everything, arguments.sample, arguments.seed)
    results = _campaign(sample, arguments.jobs)
    seeded = [] if arguments.no_seeded else _seeded()
    print("\n".join([*_summary(results, len(everything)), *_seeded_summary(seeded)]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(_verdicts(results), indent=1) + "\n")
    made = record(results, seeded, seed=arguments.seed, population=len(everything), parts=parts)
    if folder is not None:
        print(f"record: {save(made, folder).name}")
    return 1 if violations(made) else 0


def _parts(chosen: str | None, known: "Sequence[str]") -> list[str]:
    names = list(known) if chosen is None else chosen.split(",")
    for name in names:
        if name not in known:
            raise unknown("module", name, known)
    return names


def _campaign(sample: "Sequence[Mutation]", jobs: int) -> "list[Result]":
    from bench.terminal.progress import meter
    from tests.mutation import campaign
    from tests.mutation.worker import preload

    if not sample:
        return []
    missing = [
        test
        for part in campaign.TESTS.values()
        for test in part
        if not (campaign.ROOT / test).exists()
    ]
    if missing:
        raise UsageError(f"{missing[0]} is not there: mutations need a checkout with its tests")
    preload()
    paths = list(dict.fromkeys(mutation.path for mutation in sample))
    with meter(total=len(sample) + 1, label="mutants") as shown:
        try:
            seconds = campaign.control(paths)
        except campaign.ControlFailed as reason:
            raise UsageError(f"{reason}; make them pass first") from reason
        shown.advance(note="control passes")
        survived = 0

        def tell(result: "Result") -> None:
            nonlocal survived
            survived += not result.killed
            shown.advance(note=f"{survived} survive")

        return campaign.run(sample, jobs=jobs, timeout=3 * seconds + 30, on_result=tell)


def _seeded() -> "list[Seeded]":
    from bench.terminal.progress import meter
    from tests.mutation.seeded import run_seeded

    with meter(total=None, label="seeded defects") as shown:
        return run_seeded(lambda name: shown.advance(note=name))


def _summary(results: "Sequence[Result]", population: int) -> list[str]:
    from bench.record.statistics import proportion_interval
    from tests.mutation.campaign import score

    if not results:
        return []
    killed, counted = score(results)
    interval = proportion_interval(killed, counted) if counted else None
    within = f" [{interval.low:.1%}, {interval.high:.1%}]" if interval else ""
    lines = [
        f"{len(results)} of {population} mutations; {len(results) - counted} equivalent, "
        f"{killed} of {counted} found: {killed / max(counted, 1):.1%}{within}"
    ]
    for result in results:
        if not result.killed and not result.reason:
            lines += [
                "",
                f"survives  {result.mutation.path}:{result.mutation.line} ({result.mutation.kind})",
                f"  - {result.mutation.before}",
                f"  + {result.mutation.after}",
            ]
    return lines


def _seeded_summary(seeded: "Sequence[Seeded]") -> list[str]:
    if not seeded:
        return []
    rejected = sum(not row.missed for row in seeded)
    lines = [f"{rejected} of {len(seeded)} seeded defects rejected by every law that names them"]
    lines += [f"missed  {row.name}: {', '.join(row.missed)}" for row in seeded if row.missed]
    return lines


def _verdicts(results: "Sequence[Result]") -> list[dict[str, object]]:
    return [
        {
            "file": result.mutation.path,
            "line": result.mutation.line,
            "kind": result.mutation.kind,
            "before": result.mutation.before,
            "after": result.mutation.after,
            "status": result.verdict.status,
            "killer": result.verdict.killer,
            "seconds": round(result.verdict.seconds, 2),
            "reason": result.reason,
        }
        for result in results
    ]


if __name__ == "__main__":
    sys.exit(main())
