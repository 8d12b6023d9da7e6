"""`python -m tests.fuzz`: call every public function with arguments as nobody means them, and check what comes back.

    python -m tests.fuzz --examples 100000            all groups together
    python -m tests.fuzz --only densities --seed 7     one group, other arguments

Prints one line a group, and the smallest call that breaks a property; exit status 1 where one does.
"""

import argparse
import collections
import sys
import time
import warnings
from collections.abc import Sequence
from typing import cast

from bench.__main__ import Command, guarded, parse
from bench.terminal.usage import at_least, one_of
from tests.fuzz.functions import CALLS, CHECKS
from tests.fuzz.property import BrokenProperty, Call, outcome

HELP = "call every public function with arguments as nobody means them"
CHECKED = 7
"""One value in so many is compared with mpmath."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    tool = cast(Command, sys.modules[__name__])
    return guarded(lambda: run(parse("python -m tests.fuzz", tool, words)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the tool."""
    parser.add_argument(
        "--examples", type=at_least(1), default=12_000, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--only", type=one_of("group", CALLS), nargs="+", default=list(CALLS), metavar="GROUP"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 where every property held."""
    each = -(-arguments.examples // len(arguments.only))
    broken = [name for name in arguments.only if not _told(name, each, arguments.seed)]
    print(
        f"{each * len(arguments.only):,} examples, {len(broken)} groups broken: {', '.join(broken) or '-'}"
    )
    return 1 if broken else 0


def _told(name: str, examples: int, seed: int) -> bool:
    began = time.monotonic()
    try:
        counts = fuzz(name, examples, seed)
    except BrokenProperty as error:
        print(f"{name}: BROKEN: {error}", flush=True)
        return False
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    print(f"{name}: {shown} in {time.monotonic() - began:.0f} s", flush=True)
    return True


def fuzz(name: str, examples: int, seed: int) -> "collections.Counter[str]":
    """How the calls of a group ended: `value` or the name of the error.

    Raises:
        BrokenProperty: one did something that it must not do; made as small as hypothesis can.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    counts: collections.Counter[str] = collections.Counter()

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(call=CALLS[name])
    def holds(call: Call) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = outcome(call)
        counts[type(result).__name__ if isinstance(result, Exception) else "values"] += 1
        if counts["values"] % CHECKED == 0:
            for check in CHECKS.get(name, ()):
                check(call, result)

    holds()
    return counts


if __name__ == "__main__":
    sys.exit(main())
