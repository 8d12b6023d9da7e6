"""Streams that are closed, full, narrow or gone, and signals: no traceback, results kept, the status as it is documented."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[2]


def bench(
    words: list[str], shell: str = "", **options: str
) -> "subprocess.CompletedProcess[bytes]":
    command = " ".join([sys.executable, "-m", "bench", *words, shell])
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options
    return subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, env=environment, capture_output=True, timeout=300)  # fmt: skip


def quiet(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert b"Traceback" not in done.stderr + done.stdout, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr, done.stderr.decode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal_will_do(encoding: str) -> None:
    done = bench(["--help"], PYTHONIOENCODING=encoding)
    quiet(done)
    assert done.returncode == 0
    done = bench(["weights"], PYTHONIOENCODING=encoding)
    quiet(done)
    assert done.returncode == 0
    assert len(done.stdout) > 200


@pytest.mark.parametrize(
    ("shell", "status"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), (">/dev/full", 1), ("2>/dev/full", 0), (">/dev/full 2>/dev/full", 1)],
)  # fmt: skip
def test_what_cannot_be_shown_does_not_stop_the_work(
    tmp_path: Path, shell: str, status: int
) -> None:
    place = tmp_path / "found.json"
    done = bench(["schedule", "linear", "--json", str(place)], shell)
    quiet(done)
    assert done.returncode == status
    assert json.loads(place.read_text())["schema"]
    if "2>" not in shell and status:
        assert b"standard output cannot be written (No space left on device)" in done.stderr


def test_a_reader_that_leaves_gets_the_work_done_all_the_same(tmp_path: Path) -> None:
    place = tmp_path / "found.json"
    done = bench(["schedule", "linear", "--json", str(place)], "| true")
    quiet(done)
    assert done.returncode == 141
    assert json.loads(place.read_text())["schema"]


# ---------------------------------------------------------------- signals


def start(words: list[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, "-m", "bench", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def wait_for(what, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def test_sigterm_says_what_is_kept_as_ctrl_c_does(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        "train",
        "--data",
        "digits",
        "--steps",
        "100000",
        "--out",
        str(out),
        "--checkpoint-every",
        "2",
    ]
    process = start([*words, "--set", "batch_size=8", "--set", "network_options.base=8"])
    wait_for((out / "checkpoint.pt").exists)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 143
    assert "steps are saved in" in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert [path.name for path in out.iterdir() if "partial" in path.name] == []


def children(parent: int) -> set[int]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(folder.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


POOL = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bench.measure.study.worker import begin
if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=begin) as pool:
        tasks = [pool.submit(time.sleep, 600) for _ in range(2)]
        print("started", flush=True)
        for task in tasks:
            task.result()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_run_leaves_no_workers(tmp_path: Path) -> None:
    """kill -9 of the parent: nobody can tell the workers, so that they watch it themselves."""
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        wait_for(lambda: len(children(process.pid)) >= 2)
        time.sleep(10)  # until torch is imported and the workers watch
        workers = children(process.pid)
        process.kill()
    wait_for(lambda: not any(map(alive, workers)), 30)
