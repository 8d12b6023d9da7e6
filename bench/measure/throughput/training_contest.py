r"""The contest of training loops: images a second, ours against two libraries' own, and where one of our steps spends its time.

All loops train copies of one network on the same images in batches of one size, are first shown to agree on the loss and the gradient of a
given batch (`training_loops.prove`), and then take turns in one process per thread count (`bench.measure.throughput.interleaved`):

    speed-up = median of the faster library's step / median of ours.                                             (1)

The time that compiling took is stated apart.

    python -m bench.measure.throughput.training_contest --threads 1 --rounds 21 --cases 0 --out FILE
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.record import Record, new_record, series
from bench.terminal.progress import progress

KIND = "training-contest"
_MODULE = "bench.measure.throughput.training_contest"
_PARTS_ROUNDS = 60
TURN_SECONDS, PAUSE_SECONDS = 0.01, 0.05
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class TrainingPlan:
    """What is contested.

    Attributes:
        threads: thread counts, each in a process of its own.
        rounds: turns of every loop.
        cases: numbers of the cases in `training_loops.CASES`.
        seed: of the order of turns.
    """

    threads: tuple[int, ...] = (1, 2)
    rounds: int = 21
    cases: tuple[int, ...] = (0, 1)
    seed: int = 0


def training_record(plan: TrainingPlan) -> Record:
    """Run the contest, one process per thread count, and make a record of it."""
    label = "contest of training loops"
    parts = [_in_process(plan, threads) for threads in progress(plan.threads, label=label)]
    contests = [case for part in parts for case in part]
    samples = {
        f"{case['case']}, threads {case['threads']}, {name}": series(
            [float(f"{value:.6g}") for value in seconds],
            unit="s",
            better="lower",
            pairs=list(range(len(seconds))),
        )
        for case in contests
        for name, seconds in case.pop("seconds").items()
    }
    return new_record(
        KIND,
        protocol=asdict(plan)
        | {
            "turn_seconds": TURN_SECONDS,
            "pause_seconds": PAUSE_SECONDS,
        },
        seeds=(plan.seed,),
        samples=samples,
        results={"contests": contests},
    )


def _in_process(plan: TrainingPlan, threads: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "contest.json")
        command = [sys.executable, "-m", _MODULE, "--out", str(out), "--threads", str(threads)]
        command += ["--rounds", str(plan.rounds), "--seed", str(plan.seed)]
        command += ["--cases", *map(str, plan.cases)]
        # a cold compiler cache, so that compile times are what a first user waits for
        places = {"TORCHINDUCTOR_CACHE_DIR": folder, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command, cwd=_ROOT, env=os.environ | places, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the contest on {threads} threads stopped: {done.returncode}")
        cases: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
        return cases


def contest(number: int, *, threads: int, rounds: int, seed: int) -> dict[str, Any]:
    """One case in this process: JSON values, with the raw seconds a step of every round."""
    import torch

    from bench.measure.throughput.interleaved import Call, interleave, speed_ratio
    from bench.measure.throughput.training_loops import CASES, LOOPS, prove

    torch.set_num_threads(threads)
    case = CASES[number]
    missing = [
        {"contender": loop.name, "reason": reason, "outcome": "skipped"}
        for loop in LOOPS.values()
        if (reason := loop.unavailable()) is not None
    ]
    present = {name: loop for name, loop in LOOPS.items() if loop.unavailable() is None}
    verified = prove(case, present)
    calls: dict[str, Call] = {}
    compiling: dict[str, float] = {}
    for name, loop in present.items():
        calls[name], compiling[name] = loop.build(case)
    timings = interleave(
        calls, rounds=rounds, seed=seed, turn_seconds=TURN_SECONDS, pause=PAUSE_SECONDS
    )
    peers = [name for name, loop in present.items() if loop.origin == "peer"]
    own = [name for name, loop in present.items() if loop.origin == "own"]
    rows = [
        {
            "contender": name,
            "origin": present[name].origin,
            "step_seconds": timings.median(name) / case.steps_per_call,
            "images_per_second": case.batch * case.steps_per_call / timings.median(name),
            "compile_seconds": compiling[name],
            "verified": verified,
        }
        for name in calls
    ]
    return {
        "case": case.name,
        "batch": case.batch,
        "steps_per_call": case.steps_per_call,
        "shape": list(case.shape),
        "threads": threads,
        "rows": rows,
        "not_measured": missing,
        "parts": _parts(number),
        "fastest_peer": timings.fastest(peers) if peers else None,
        "speed_up": {name: speed_ratio(timings, name, peers).as_json() for name in own if peers},
        "seconds": {
            name: [value / case.steps_per_call for value in values]
            for name, values in timings.seconds.items()
        },
    }


def _parts(number: int) -> list[dict[str, Any]]:
    import statistics
    import time

    from bench.measure.throughput.training_loops import CASES, step_parts

    medians = {
        part: statistics.median(values)
        for part, values in step_parts(CASES[number], time.perf_counter, _PARTS_ROUNDS).items()
    }
    total = sum(medians.values())
    return [
        {"part": part, "seconds": value, "share": value / total} for part, value in medians.items()
    ]


def sentences(case: Mapping[str, Any]) -> list[str]:
    """What one case found, in words."""
    place = f"{case['case']}, batch {case['batch']}, {case['threads']} thread{'s' * (case['threads'] != 1)}"
    lines = [
        f"{place}: `{name}` trains {ratio['estimate']:.2f} × as fast as the faster library ({case['fastest_peer']}), "
        f"95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}"
        for name, ratio in case["speed_up"].items()
    ]
    parts = sorted(case["parts"], key=lambda row: -row["share"])
    shares = ", ".join(f"{row['part']} {row['share']:.0%}" for row in parts)
    return [*lines, f"{place}: a step's time goes into {shares}"]


def main(argv: Sequence[str] | None = None) -> int:
    """The process of one thread count: cases to a JSON file."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", allow_abbrev=False)
    parser.add_argument("--cases", type=int, nargs="+", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args(argv)
    found = [contest(k, threads=a.threads, rounds=a.rounds, seed=a.seed) for k in a.cases]
    a.out.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
