"""The benchmark suite as a record: `pytest --benchmark` in a process of its own, its JSON read back.

A process of its own, because what is timed should share its memory, threads and caches with nothing else. Its JSON is
condensed to one row per case; the rounds go into the record's samples, so that `ddpm-bench compare` can test them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure.throughput.calibration import Calibration, drift, drift_warning
from bench.record import Record, new_record, series
from bench.terminal.progress import meter
from bench.terminal.usage import UsageError

KIND = "throughput"
_ROOT = Path(__file__).resolve().parents[3]
_OUTCOMES = (" PASSED", " SKIPPED", " FAILED", " ERROR")
_MEASURED = (0, 1)  # pytest's statuses: all passed, some failed
_MISUSED = (4, 5)  # a selection that cannot be read, or that selects nothing
_COLUMNS = (
    "contender", "origin", "shape", "dtype", "device", "threads", "item", "items",
    "items_per_second", "bytes_per_element", "copy_seconds", "copy_fraction",
    "compile_seconds", "peak_memory_bytes", "verified",
)  # fmt: skip


@dataclass(frozen=True)
class SuitePlan:
    """What the suite measures.

    Attributes:
        device: `cpu` or `cuda`.
        threads: torch threads, fixed for the whole run.
        seconds: longest time that one case is repeated for (five rounds at least).
        scaling: largest number of elements of the scaling curve; None leaves it out.
        select: pytest's `-k` expression; "" is everything.
    """

    device: str = "cpu"
    threads: int = 1
    seconds: float = 1.0
    scaling: float | None = None
    select: str = ""


class SuiteError(RuntimeError):
    """The suite ended without a result; the message holds its last lines."""


def suite_record(plan: SuitePlan) -> Record:
    """Run the suite and make a record of it.

    Raises:
        UsageError: the selection selects nothing.
        SuiteError: pytest stopped for another reason than failing cases.
    """
    document = _run(plan)
    cases = document["benchmarks"]
    calibration = document["calibration"]
    changes = drift(Calibration(**calibration["before"]), Calibration(**calibration["after"]))
    return new_record(
        KIND,
        protocol=asdict(plan) | {"statistic": "median over rounds", "rounds": "5 to 200"},
        samples={_label(case): _samples(case) for case in cases},
        results={
            "rows": [_row(case) for case in cases],
            "not_measured": document["not_measured"],
            "compiler_start_seconds": document["compiler_start_seconds"],
            "calibration": {**calibration, "drift": changes, "warning": drift_warning(changes)},
        },
    )


def _run(plan: SuitePlan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "benchmark.json")
        status, last_lines = _pytest(_command(plan, out), plan)
        if status in _MISUSED:
            reason = last_lines.splitlines()[-1].strip("= ")
            raise UsageError(f"--select {plan.select!r} selects nothing to measure: {reason}")
        if status not in _MEASURED or not out.is_file():
            raise SuiteError(f"pytest stopped with status {status}:\n{last_lines}")
        document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return document


def _command(plan: SuitePlan, out: Path) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-p", "bench.measure.throughput.plugin"]
    command += ["--benchmark", "-v", "-p", "no:cacheprovider", f"--benchmark-json={out}"]
    command += [f"--rootdir={_ROOT}"]
    command += [f"--benchmark-max-time={plan.seconds}"]
    command += [f"--throughput-threads={plan.threads}", f"--throughput-device={plan.device}"]
    if plan.scaling:
        command.append(f"--throughput-scaling={plan.scaling:g}")
    return [*command, "-k", plan.select] if plan.select else command


def _pytest(command: Sequence[str], plan: SuitePlan) -> tuple[int, str]:
    """Status and last lines, with a bar that moves from case to case."""
    lines: list[str] = []
    environment = os.environ | {"OMP_NUM_THREADS": str(plan.threads)}
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with meter(total=None, label="throughput suite") as shown:
        for line in process.stdout:
            lines.append(line.rstrip())
            if any(outcome in line for outcome in _OUTCOMES):
                shown.advance(note=line.partition("::")[2].partition(" ")[0])
    return process.wait(), "\n".join(lines[-15:])


def _label(case: Mapping[str, Any]) -> str:
    return f"{case['name']}, threads {case['extra_info']['threads']}"


def _samples(case: Mapping[str, Any]) -> dict[str, Any]:
    values = [float(f"{value:.6g}") for value in case["stats"]["data"]]
    return series(values, unit="s", better="lower")


def _row(case: Mapping[str, Any]) -> dict[str, Any]:
    """One case: what, how fast, where the limit is."""
    info, stats = case["extra_info"], case["stats"]
    return {
        "name": case["name"],
        "module": case["fullname"].partition("bench_")[2].partition(".py")[0],
        "group": case["group"],
        "seconds": stats["median"],
        "low_quartile": stats["q1"],
        "high_quartile": stats["q3"],
        "rounds": stats["rounds"],
        "ns_per_item": stats["median"] / info["items"] * 1e9,
        **{column: info.get(column) for column in _COLUMNS},
    }
