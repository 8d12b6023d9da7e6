"""Kill `ddpm-bench train` again and again, resume it, and compare the bits with a run that nobody touched.

    python -m tests.kills --count 20          20 runs, each killed at a random moment and resumed until it is complete
    python -m tests.kills --list              their objectives

Each run is a process of its own, ended by SIGKILL somewhere in its steps, while it saves, or before its first checkpoint. Exit status 0 if
all of them end with the losses, the weights and the averages of an uninterrupted run, bit for bit.
"""

import argparse
import contextlib
import csv
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.__main__ import main as ddpm_bench
from ddpm_ref.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
STEPS = 60
_BASE = ("batch_size=12", "T=9", "network_options.hidden=4", "warmup_steps=3")
_EVEN = ('schedule="log_snr"', "schedule_options.first=4.0", "schedule_options.last=-4.0")
_SHARE = "timesteps_options.uniform_share=0.1"
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "eps, simple": (),
    "v, min-SNR": ('parameterization="v"', 'weighting="min_snr"'),
    "x0, p2, normalized": ('parameterization="x0"', 'weighting="p2"', "normalize_weights=true"),
    "learned variance": ('variance="learned"',),
    "learned variance, loss-aware t": ('variance="learned"', 'timesteps="loss_aware"', "T=2"),
    "loss-aware t": ('timesteps="loss_aware"', "T=3"),
    "low-discrepancy t": ('timesteps="low-discrepancy"',),
    "log-normal t": ('timesteps="log_normal"', _SHARE, *_EVEN),
    "logit-normal t, no weight": ('timesteps="logit_normal"', 'importance="none"', *_EVEN),
    "Laplace as a weight": ('timesteps="laplace"', 'importance="density"', *_EVEN),
    "Laplace, stratified": ('timesteps="laplace"', _SHARE, "timesteps_options.stratified=true", *_EVEN),
    "continuous t": ("continuous=true", *_EVEN),
    "continuous Laplace t": ("continuous=true", 'timesteps="laplace"', _SHARE, *_EVEN),
    "accumulation": ("accumulation=3",),
    "cosine decay": ("decay_steps=50",),
    "several averages": ("ema_half_lives=[3.0, 30.0]",),
    "EDM": ('skip="edm"', 'parameterization="x0"', 'weighting="edm"', 'timesteps="log_normal"', _SHARE, *_EVEN),
    "learned skip": ('skip="learned"',),
    "flow matching": ('schedule="flow"', 'parameterization="flow"', 'weighting="simple_flow"'),
    "zero terminal SNR": ("zero_terminal_snr=true", 'parameterization="v"', 'precision="float64"'),
}  # fmt: skip


def command(out: Path, settings: Sequence[str], *, resume: bool) -> list[str]:
    """The words of a run behind `ddpm-bench`."""
    words = ["train", "--network", "article", "--data", "digits"]
    words += ["--steps", str(STEPS), "--checkpoint-every", "7", "--sampler-steps", "1"]
    for setting in (*_BASE, *settings):
        words += ["--set", setting]
    return [*words, "--out", str(out), *(["--resume"] if resume else [])]


def uninterrupted(out: Path, settings: Sequence[str]) -> None:
    """One run from beginning to end, in this process."""
    _complete(command(out, settings, resume=False))


def _complete(words: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = ddpm_bench(words)
    if status:
        raise RuntimeError(f"{' '.join(words)}: exit status {status}")


def killed(out: Path, settings: Sequence[str], chance: random.Random, kills: int) -> int:
    """The same run, ended `kills` times by SIGKILL while it logs its steps, and resumed; how often it really was killed."""
    done = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *_next(out, settings)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for_steps(process, out)
        time.sleep(chance.uniform(0, 0.3))
        done += process.poll() is None
        process.kill()
        process.wait()
    _complete(_next(out, settings))
    return done


def _next(out: Path, settings: Sequence[str]) -> list[str]:
    """The words that go on with what is there: a run that died before its first checkpoint begins anew."""
    return command(out, settings, resume=(out / "checkpoint.pt").exists())


def _wait_for_steps(process: "subprocess.Popen[bytes]", out: Path) -> None:
    """Until the process has begun its log anew (it truncates the file when it starts), or has ended."""
    log = out / "log.csv"
    before = log.stat().st_mtime_ns if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_mtime_ns == before):
        time.sleep(0.01)


def difference(first: Path, second: Path) -> str:
    """What differs between two finished runs; empty where nothing does."""
    logs = []
    for out in (first, second):
        with open(out / "log.csv", newline="", encoding="utf-8") as file:
            logs.append(list(csv.reader(file)))
    if logs[0] != logs[1]:
        return f"logs differ: {len(logs[0])} and {len(logs[1])} lines"
    states = [load_checkpoint(out / "checkpoint.pt").state for out in (first, second)]
    if states[0].step != STEPS or states[1].step != STEPS:
        return f"steps {states[0].step} and {states[1].step}, not {STEPS}"
    for what in ("network", "ema", *states[0].averages):
        parts = [s.averages[what] if isinstance(what, float) else getattr(s, what) for s in states]
        pairs = zip(parts[0].state_dict().items(), parts[1].state_dict().values(), strict=True)
        for (name, one), other in pairs:
            if not torch.equal(one, other):
                return f"{what}: {name} differs"
    return ""


def trial(name: str, folder: Path, chance: random.Random, kills: int) -> str:
    """One objective, whole and killed; what differs."""
    settings = OBJECTIVES[name]
    uninterrupted(folder / "whole", settings)
    struck = killed(folder / "killed", settings, chance, kills)
    found = difference(folder / "whole", folder / "killed")
    return found or ("" if struck else "no kill came in time: the run was complete before")


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every run resumes to the bit."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=len(OBJECTIVES))
    parser.add_argument("--kills", type=int, default=2, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.list:
        print("\n".join(OBJECTIVES))
        return 0
    names = [list(OBJECTIVES)[k % len(OBJECTIVES)] for k in range(arguments.count)]
    chance, right = random.Random(arguments.seed), 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = trial(name, Path(folder), chance, arguments.kills)
        right += not found
        print(f"{name}: {found or 'the same bits'}", flush=True)
    print(f"{right} of {len(names)} resume to the bit")
    return 0 if right == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
