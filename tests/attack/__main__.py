"""`python -m tests.attack`: every fault of `tests.attack.faults`, each in a process and a folder of its own, and what must hold of all of them.

    python -m tests.attack                       all
    python -m tests.attack --only toml files     the faults of some groups
    python -m tests.attack --words nan           those whose name contains a word

1. It ends in time, with a status that the fault allows, and no traceback.
2. Status 2 is one line on standard error that begins with the program's name.
3. Files that were there are as they were, and no half-written ones lie about.

A process is forked for each, so that torch is imported once. Prints one line for each that breaks a rule; exit status 1 where one does.
"""

import argparse
import collections
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.attack.faults import Fault, faults, prepare

_SECONDS = 120.0


@dataclass(frozen=True)
class Ended:
    """How a fault ended."""

    status: int
    out: bytes
    err: bytes
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description="provoke faults")
    parser.add_argument("--only", nargs="+", metavar="GROUP")
    parser.add_argument("--words", metavar="WORD", default="")
    parser.add_argument("--show", action="store_true", help="print what each one said")
    arguments = parser.parse_args(argv)
    chosen = [
        fault
        for fault in faults()
        if (not arguments.only or fault.group in arguments.only) and arguments.words in fault.name
    ]
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        base = Path(folder) / "base"
        base.mkdir()
        prepare(base)
        broken = sum(_told(fault, base, arguments.show) for fault in chosen)
    counts = collections.Counter(fault.group for fault in chosen)
    print(f"{len(chosen)} faults ({', '.join(f'{n} {g}' for g, n in counts.items())}), {broken} not handled")  # fmt: skip
    return 1 if broken else 0


def _told(fault: Fault, base: Path, show: bool) -> bool:
    folder = base.with_name("trial")
    shutil.copytree(base, folder, symlinks=True)
    before = _contents(folder)
    ended = perform(fault, folder)
    wrong = _wrong(fault, ended, before, folder)
    if wrong or show:
        print(f"{fault.group}: {fault.name}: {'; '.join(wrong) or 'handled'} [{ended.status}, {ended.seconds:.1f} s]", flush=True)  # fmt: skip
        for line in (ended.err + (ended.out if wrong else b"")).decode(errors="replace").splitlines()[-4:]:  # fmt: skip
            print(f"    {line[:300]!a}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return bool(wrong)


def perform(fault: Fault, folder: Path) -> Ended:
    """The fault in a forked process whose working directory is `folder`."""
    out, err = folder.with_name("out"), folder.with_name("err")
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(fault, folder, out, err)
    status = _waited(child, began + _SECONDS)
    return Ended(status, out.read_bytes(), err.read_bytes(), time.monotonic() - began)


def _be_the_child(fault: Fault, folder: Path, out: Path, err: Path) -> None:
    status = 99
    try:
        os.setpgid(0, 0)
        for number, place in ((1, out), (2, err)):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace")  # type: ignore[misc] # fmt: skip  # noqa: SIM115
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        fault.setup()
        from bench.__main__ import main as command

        try:
            status = command(list(fault.words))
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
    finally:
        os._exit(status)


def _waited(child: int, end: float) -> int:
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -99


def _wrong(fault: Fault, ended: Ended, before: dict[str, bytes], folder: Path) -> list[str]:
    wrong = []
    said = ended.out + ended.err
    if ended.status not in fault.status:
        wrong.append(f"status {ended.status}, not {' or '.join(map(str, fault.status))}")
    if b"Traceback (most recent" in said or b"Exception ignored" in said:
        wrong.append("a traceback")
    lines = [line for line in ended.err.splitlines() if line.strip()]
    if ended.status == 2 and not (lines and lines[-1].startswith(b"ddpm-bench: ")):
        wrong.append("no line that begins with ddpm-bench:")
    if ended.status == 2 and sum(line.startswith(b"ddpm-bench: ") for line in lines) != 1:
        wrong.append("more than one line")
    after = _contents(folder)
    lost = [name for name, content in before.items() if after.get(name) != content]
    if lost and not fault.changes:
        wrong.append(f"changed {', '.join(map(repr, lost[:3]))}")
    rests = [name for name in after if ".partial" in name and name not in before]
    if rests:
        wrong.append(f"left {rests[0]!r}")
    return wrong


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        os.path.join(where, name): Path(where, name).read_bytes()
        for where, _, names in os.walk(folder)
        for name in names
        if Path(where, name).is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
