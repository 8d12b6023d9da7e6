r"""The contest: noise + q_sample, `native` against the fastest other way, in one process per thread count.

All contenders are built, compiled and verified at the contested shape and then take turns (`bench.measure.throughput.interleaved`). Two copies
of x_0 take part, because they say what memory allows: into memory that is there already (`copy`), and into
new memory (`clone`), which is what a function that returns tensors has to use.

    speed-up       = median of the fastest opponent / median of ours                                     (1)
    copy multiple  = median of ours / median of the copy                                                 (2)

Opponents are plain torch, torch.compile with the noise outside, and the peers. Each thread count has a process of its own, in which
`OMP_NUM_THREADS` is set before torch starts, because threads that a library started once do not go away.

    python -m bench.measure.throughput.contest --shapes 128x3x32x32 --threads 1 --rounds 31 --device cpu --out FILE
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record import Record, new_record, series
from bench.record.statistics import spread
from bench.terminal.files import write_text
from bench.terminal.progress import progress

if TYPE_CHECKING:
    from bench.measure.throughput.interleaved import Timings

KIND = "throughput-contest"
SHAPES = ("256x3x64x64", "128x3x32x32")
COPIES = ("copy", "clone")
_CANDIDATES = {"cpu": "native", "cuda": "cuda"}
TURN_SECONDS, PAUSE_SECONDS = 0.01, 0.02
_COMPILED = "torch compile all"
_NOT_CONTESTED = {"cpu": ("eager definition", _COMPILED), "cuda": ("eager definition",)}
"""Slower by an order of magnitude there: timed in the suite, left out where every round costs a turn of each."""
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class ContestPlan:
    """What is contested.

    Attributes:
        shapes: such as `256x3x64x64`.
        threads: thread counts, each in a process of its own.
        rounds: turns of every contender.
        device: `cpu` or `cuda`.
        seed: of the order of turns.
    """

    shapes: tuple[str, ...] = SHAPES
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 61
    device: str = "cpu"
    seed: int = 0


def contest_record(plan: ContestPlan) -> Record:
    """Run the contest, one process per thread count, and make a record of it."""
    parts = [
        _in_process(plan, threads)
        for threads in progress(plan.threads, label="contest: native against the fastest")
    ]
    samples = {
        f"{case['shape']}, threads {case['threads']}, {name}": series(
            _short(seconds), unit="s", better="lower", pairs=list(range(len(seconds)))
        )
        for part in parts
        for case in part
        for name, seconds in case.pop("seconds").items()
    }
    return new_record(
        KIND,
        protocol=asdict(plan) | {"turn_seconds": TURN_SECONDS, "pause_seconds": PAUSE_SECONDS},
        seeds=(plan.seed,),
        samples=samples,
        results={"contests": [case for part in parts for case in part]},
    )


def _short(seconds: Sequence[float]) -> list[float]:
    """Six digits: more than any clock resolves, a third of the file."""
    return [float(f"{value:.6g}") for value in seconds]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _in_process(plan: ContestPlan, threads: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "contest.json")
        command = [sys.executable, "-m", "bench.measure.throughput.contest", "--out", str(out)]
        command += ["--shapes", *plan.shapes, "--threads", str(threads), "--device", plan.device]
        command += ["--rounds", str(plan.rounds), "--seed", str(plan.seed)]
        # a cold compiler cache, so that compile times are what a first user waits for
        places = {"TORCHINDUCTOR_CACHE_DIR": folder, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command, cwd=_ROOT, env=os.environ | places, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the contest on {threads} threads stopped: {done.returncode}")
        cases: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
        return cases


def contest(shape: str, *, threads: int, rounds: int, device: str, seed: int) -> dict[str, Any]:
    """One contest in this process: JSON values, with the raw seconds of every round."""
    import torch

    from bench.measure.throughput.bandwidth import COPY_ACCESSES, copy_fraction
    from bench.measure.throughput.clock import synchronizing_clock
    from bench.measure.throughput.contenders import NECESSARY_ACCESSES
    from bench.measure.throughput.interleaved import interleave, speed_ratio
    from bench.measure.throughput.problem import problem

    torch.set_num_threads(threads)
    batch = problem(shape, device=device)
    ours = _CANDIDATES[device]
    entrants, facts, missing = _entrants(batch)
    calls = entrants | _copies(batch.x0)
    timings = interleave(
        calls,
        rounds=rounds,
        seed=seed,
        turn_seconds=TURN_SECONDS,
        pause=PAUSE_SECONDS,
        clock=synchronizing_clock,
    )
    copy_seconds = timings.median("copy")
    rows = [
        {
            "contender": name,
            "seconds": timings.median(name),
            "low_quartile": spread(values).low_quartile,
            "high_quartile": spread(values).high_quartile,
            "ns_per_element": timings.median(name) / batch.elements * 1e9,
            "calls": timings.calls[name],
            **facts.get(name, {}),
        }
        for name, values in timings.seconds.items()
    ]
    result: dict[str, Any] = {
        "shape": shape,
        "dtype": "float32",
        "device": device,
        "threads": threads,
        "elements": batch.elements,
        "candidate": ours,
        "rows": rows,
        "not_measured": missing,
        "openmp": _openmp(),
        "seconds": {name: list(values) for name, values in timings.seconds.items()},
    }
    if ours not in calls:
        return result
    every = [name for name, fact in facts.items() if fact["origin"] != "own"]
    opponents = [name for name in every if not facts[name]["in_place"]]
    return (
        result
        | _with_outputs_given(timings, every, facts, copy_seconds)
        | {
            "fastest_opponent": timings.fastest(opponents),
            "speed_up": speed_ratio(timings, ours, opponents).as_json(),
            "speed_up_each": {
                name: speed_ratio(timings, ours, [name]).as_json() for name in opponents
            },
            **{f"{copy}_multiple": speed_ratio(timings, copy, [ours]).as_json() for copy in COPIES},
            "copy_fraction": copy_fraction(timings.median(ours), NECESSARY_ACCESSES, copy_seconds),
            "copy_bytes_per_second": COPY_ACCESSES * batch.x0.nbytes / copy_seconds,
        }
    )


def _with_outputs_given(
    timings: "Timings", opponents: Sequence[str], facts: Mapping[str, Any], copy_seconds: float
) -> dict[str, Any]:
    """Ours into memory that is there already, against everybody, who may have theirs too."""
    from bench.measure.throughput.bandwidth import copy_fraction
    from bench.measure.throughput.contenders import NATIVE_OUT, NECESSARY_ACCESSES
    from bench.measure.throughput.interleaved import speed_ratio

    if NATIVE_OUT not in facts:
        return {}
    seconds = timings.median(NATIVE_OUT)
    return {
        "fastest_opponent_out": timings.fastest(opponents),
        "speed_up_out": speed_ratio(timings, NATIVE_OUT, opponents).as_json(),
        "copy_fraction_out": copy_fraction(seconds, NECESSARY_ACCESSES, copy_seconds),
    }


def _entrants(
    batch: Any,
) -> tuple[dict[str, Callable[[], object]], dict[str, dict[str, Any]], list[dict[str, str]]]:
    """Calls that were checked, facts about them, and who is missing for which reason."""
    from bench.measure.throughput.case import timed_call
    from bench.measure.throughput.contenders import NOISING
    from bench.measure.throughput.proof import verify

    calls: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, Any]] = {}
    missing = []
    for name, contender in NOISING.items():
        if name in _NOT_CONTESTED[batch.device.type]:
            continue
        reason, outcome = contender.unavailable(batch.device), "skipped"
        if reason is None:
            try:
                call = contender.build(batch)
                call(0)
                verified = verify(contender, call, batch)
                calls[name] = timed_call(call)
                facts[name] = {
                    "origin": contender.origin,
                    "in_place": contender.in_place,
                    "verified": verified,
                }
            except Exception as error:  # somebody's way that breaks or is wrong is a row, too
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                outcome = "failed" if contender.origin == "own" else "skipped"
        if reason is not None:
            missing.append({"contender": name, "outcome": outcome, "reason": reason})
    return calls, facts, missing


def _openmp() -> dict[str, Any]:
    """OpenMP runtimes in this process, and what was said about their waiting: None is their default.

    Two runtimes have two teams of threads, and the idle one of them spins on cores that the other needs.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").split()
    except OSError:
        maps = []
    runtimes = {Path(word).name for word in maps if re.search(r"lib(g|i)?omp\d?[.-]", word)}
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    return {"runtimes": sorted(runtimes), **{name: os.environ.get(name) for name in names}}


def _copies(x0: Any) -> dict[str, Callable[[], object]]:
    destination = x0.clone()
    return {"copy": lambda: destination.copy_(x0), "clone": x0.clone}


def main(argv: Sequence[str] | None = None) -> int:
    """The process of one thread count: contests to a JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.measure.throughput.contest", allow_abbrev=False
    )
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args(argv)
    cases = [
        contest(shape, threads=a.threads, rounds=a.rounds, device=a.device, seed=a.seed)
        for shape in a.shapes
    ]
    write_text(a.out, json.dumps(cases, allow_nan=False))
    return 0


def sentences(case: Mapping[str, Any]) -> list[str]:
    """What one contest found, in words."""
    place = f"{case['shape']} float32, {_threads(case['threads'])}"
    if "speed_up" not in case:
        reasons = [m["reason"] for m in case["not_measured"] if m["contender"] == case["candidate"]]
        return [f"{place}: `{case['candidate']}` did not run: {'; '.join(reasons)}"]
    ratio, clone, copy = case["speed_up"], case["clone_multiple"], case["copy_multiple"]
    given = case.get("speed_up_out")
    extra = (
        [
            f"{place}: with its outputs given it is {given['estimate']:.1f} × as fast as the fastest of all others "
            f"({case['fastest_opponent_out']}), 95 % interval {given['low']:.1f} to {given['high']:.1f}, at "
            f"{case['copy_fraction_out']:.0%} of the speed of a copy"
        ]
        if given
        else []
    )
    return [
        f"{place}: `{case['candidate']}` is {ratio['estimate']:.1f} × as fast as the fastest other way "
        f"({case['fastest_opponent']}), 95 % interval {ratio['low']:.1f} to {ratio['high']:.1f}; "
        f"it takes {clone['estimate']:.1f} × as long as cloning x₀ and {copy['estimate']:.1f} × as long "
        "as copying x₀ into memory in place",
        *extra,
    ]


if __name__ == "__main__":
    sys.exit(main())
