"""`ddpm-bench weights`: every weighting in every space, with its formula and its value.

"Which min-SNR formula belongs to v-prediction?" has an answer that is computed here, not remembered.
"""

import argparse
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from bench.measure.laws.weight_table import FIRST_STEP, SYMBOLS, WeightRow, weight_rows
from bench.terminal.usage import UsageError

if TYPE_CHECKING:
    from ddpm_ref.schedule import Schedule

_USUAL = (1, 10, 500, 999)

HELP = """print every loss weighting in every space, with formula, value and source

  ddpm-bench weights
  ddpm-bench weights --weighting min_snr --t 1,500,1000
  ddpm-bench weights --schedule cosine --weighting flow_velocity"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--t",
        metavar="STEPS",
        help="steps, separated by commas, counted from 1 as in Ho et al. 2020 (default: 1,10,500,999 as far as T)",
    )
    parser.add_argument(
        "--schedule", default="linear", metavar="NAME", help="schedule (default: linear)"
    )
    parser.add_argument("--T", type=int, default=1000, help="number of steps (default: 1000)")
    parser.add_argument(
        "--weighting", metavar="NAME", help="print this weighting only (default: all of them)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 0 always, errors of use raise `UsageError` (exit status 2)."""
    schedule = _schedule(arguments.schedule, arguments.T)
    steps = _usual(schedule.T) if arguments.t is None else _steps(arguments.t, schedule.T)
    rows = _chosen(weight_rows(schedule, steps), arguments.weighting)
    print(
        f"schedule {arguments.schedule}, T = {schedule.T}; factor on the squared error in each space"
    )
    for _, group in groupby(rows, key=lambda row: row.weighting):
        print()
        print("\n".join(_block(list(group), steps)))
    print()
    print("\n".join(_legend()))
    return 0


def _schedule(name: str, T: int) -> "Schedule":
    from ddpm_ref.schedule import SCHEDULES
    from ddpm_ref.validation import unknown_name

    if name not in SCHEDULES:
        raise UsageError(str(unknown_name("schedule", name, SCHEDULES)))
    try:
        return SCHEDULES[name](T)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--T {T}: {error}") from error


def _usual(T: int) -> list[int]:
    return [step for step in _USUAL if step <= T]


def _steps(text: str, T: int) -> list[int]:
    """`"1,10,500"` → [1, 10, 500], each within 1 … T."""
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--t {text!r}: give whole numbers separated by commas, as in --t 1,10,500"
        ) from error
    outside = [step for step in steps if not 1 <= step <= T]
    if outside:
        raise UsageError(
            f"--t {outside[0]}: steps run from 1 to {T}; for more steps pass a larger --T"
        )
    return steps


def _chosen(rows: list[WeightRow], name: str | None) -> list[WeightRow]:
    from ddpm_ref.validation import unknown_name

    if name is None:
        return rows
    known = {row.weighting for row in rows}
    if name not in known:
        raise UsageError(str(unknown_name("weighting", name, known)))
    return [row for row in rows if row.weighting == name]


def _block(rows: list[WeightRow], steps: Sequence[int]) -> list[str]:
    """One weighting: a header, one line per space, and the lines that explain what is missing."""
    width = max(len(row.formula) for row in rows)
    header = f"  {'space':<6s}  {'formula':<{width}s}" + "".join(
        f"  {f't = {step}':>12s}" for step in steps
    )
    lines = [rows[0].weighting, header]
    lines += [f"  {row.space:<6s}  {row.formula:<{width}s}" + _cells(row) for row in rows]
    lines += [f"  t = 1, {space}: {text}" for space, text in _first_step(rows[0].weighting, steps)]
    reasons = {reason for row in rows for reason in row.reasons if reason}
    source = [f"  source: {rows[0].source}"] if rows[0].source else []
    return [*lines, *source, *(f"  undefined: {reason}" for reason in sorted(reasons))]


def _cells(row: WeightRow) -> str:
    return "".join(
        f"  {'undefined' if value is None else format(value, '.6g'):>12s}" for value in row.values
    )


def _first_step(weighting: str, steps: Sequence[int]) -> list[tuple[str, str]]:
    return list(FIRST_STEP.get(weighting, {}).items()) if 1 in steps else []


def _legend() -> list[str]:
    lines = [f"  {name} = {meaning}" for name, meaning in SYMBOLS.items()]
    return ["where", *lines, "  gamma = 5 in min_snr; k = 1, gamma = 1 in p2"]
