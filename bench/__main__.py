"""`ddpm-bench COMMAND …`, also `python -m bench COMMAND …` from a bare checkout.

Exit status: 0 done · 1 something failed or is worse · 2 error of use (one line, no traceback) ·
130 stopped by Ctrl-C, 143 by SIGTERM (with a line that says what is finished) · 141 the reader closed the pipe.

The table `COMMANDS` is all that `--help` reads, so that help does not wait for torch.
"""

import argparse
import errno
import importlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, Protocol, cast

from bench.terminal.files import FileNotWrittenError
from bench.terminal.streams import forgiving
from bench.terminal.usage import Terminated, UsageError, missing_package, unknown

COMMANDS = {
    "run": "verify, measure, train, compare and write the report: the main job",
    "verify": "run the laws on this implementation, a library or your own adapter",
    "weights": "print every loss weight in every space, with its formula",
    "schedule": "is a schedule right: terminal SNR, L_T, precision, spacing, monotone weights",
    "train": "train one model; with torchrun on several processes",
    "elbo": "bits/dim of a checkpoint or of your model, term by term, with standard errors",
    "estimator": "measure coverage and cost of the budgeted bits/dim estimate",
    "bound": "measure the exact bound: gaps, limits, the price of each reverse variance",
    "loss": "a validation loss with its interval, of one model or paired between two",
    "optimal-loss": "how small the loss of a data set can be at each level of noise",
    "capacity": "what a bottleneck of rank h costs each output, exactly",
    "throughput": "time q_sample, loss, training and sampling, proven equal first",
    "noise-test": "test the quality of the noise on up to a billion normals",
    "claims": "the literature's claims, and where each stands in your records",
    "gpu-visit": "all that a machine with a GPU can tell, in ten minutes",
    "report": "records → report.html, report.md, report.json",
    "compare": "what changed between two records, tested before it is called faster",
    "releases": "the same measurements under several torch releases, and one page",
}
"""Command → one line of help. The module is `bench.commands.<name with _ for ->`."""

GROUPS = {
    "judge code and models": (
        "verify",
        "weights",
        "schedule",
        "elbo",
        "capacity",
        "optimal-loss",
        "loss",
    ),
    "measure": ("throughput", "bound", "estimator", "noise-test", "gpu-visit", "releases"),
    "train": ("run", "train"),
    "report": ("report", "compare", "claims"),
}
"""Heading in `--help` → commands below it; one that is in none stands under `more`."""

PROGRAM = "ddpm-bench"
_OWN_PACKAGES = ("bench", "ddpm_ref")
_INTERRUPTED, _BROKEN_PIPE, _TERMINATED = 130, 141, 143


class Command(Protocol):
    """What each module in `bench.commands` offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work and return the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    Args:
        argv: the words after the program's name; `sys.argv[1:]` unless given.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(words))


_OTHERS_WAIT = 60.0  # seconds
_OUT_OF_MEMORY = re.compile("allocate memory|out of memory")  # torch's words for it


def guarded(work: Callable[[], int]) -> int:
    """The exit status of `work`; a mistake in its use or a file that cannot be written is one line and 2, Ctrl-C is 130.

    Output that cannot be shown never stops the work: 141 where the reader has gone, at least 1 and a line where the disk is full.
    """
    with forgiving() as shown, _terminable():
        status = _told(work)
        sys.stdout.flush()
        if shown is None or shown.error is None:
            return status
        if isinstance(shown.error, BrokenPipeError):
            return _BROKEN_PIPE
        reason = f"standard output cannot be written ({shown.error.strerror}); files that were asked for are complete"
        return _complain(f"{PROGRAM}: {reason}", max(status, 1))


def _told(work: Callable[[], int]) -> int:
    try:
        return work()
    except UsageError as error:
        _let_the_first_process_speak()
        return _complain(f"{PROGRAM}: {_one_line(error)}", 2)
    except FileNotWrittenError as error:
        return _complain(f"{PROGRAM}: {_one_line(error)}", 2)
    except (MemoryError, RuntimeError) as error:
        cause = _one_line(error).partition(" Exception raised")[0][:200]
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(cause):
            raise
        return _complain(
            f"{PROGRAM}: the memory is used up, take fewer or smaller examples: {cause}".rstrip(
                ": "
            ),
            2,
        )
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return _complain(f"{PROGRAM}: too many open files: raise the limit (ulimit -n)", 2)
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated) or isinstance(stop.__cause__, Terminated)
        status = _TERMINATED if terminated else _INTERRUPTED
        return _complain(f"\n{PROGRAM}: stopped. {stop}".rstrip(), status)


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside the block SIGTERM ends the work as Ctrl-C does: with a line that says what is kept."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise Terminated

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and os.environ.get("RANK", "0") == "0"  # the others are ended by torchrun, quietly
    )
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"{PROGRAM} {_version()}")
        return 0
    name = words[0]
    if name.startswith("-"):
        raise unknown("option", name, ("--help", "--version"))
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    try:
        command = _load(name)
        return command.run(parse(f"{PROGRAM} {name}", command, words[1:]))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_PACKAGES:
            raise
        raise missing_package(error.name) from error


def _load(name: str) -> Command:
    module = importlib.import_module(f"bench.commands.{name.replace('-', '_')}")
    return cast(Command, module)


def parse(program: str, command: Command, words: Sequence[str]) -> argparse.Namespace:
    """The options of a command; a word that is not one of them is told with the nearest that is."""
    parser = _Parser(
        prog=program,
        description=command.HELP,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    arguments, rest = parser.parse_known_args(words)
    if rest:
        known = re.findall(r"(?<!\S)--?[a-z][\w-]*", parser.format_help())
        kind = "option" if rest[0].startswith("-") else "argument"
        raise unknown(f"{kind} for {program.rpartition(' ')[2]}", rest[0].partition("=")[0], known)
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse, but an error of use is one line: the usage text would bury it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.partition(' ')[2]}: {message}; see {self.prog} --help")


def _overview() -> str:
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND …",
            "",
            "Compare what a diffusion model predicts (noise, data, velocity) on equal terms:",
            "verified mathematics, measured throughput, exact bounds, one report.",
            *(line for group in _groups().items() for line in _group(*group)),
            "",
            f"`{PROGRAM} COMMAND --help` explains one command; start with `{PROGRAM} run`.",
        ]
    )


def _groups() -> dict[str, list[str]]:
    grouped = {name for names in GROUPS.values() for name in names}
    more = [name for name in COMMANDS if name not in grouped]
    there = {title: [n for n in names if n in COMMANDS] for title, names in GROUPS.items()}
    return there | ({"more": more} if more else {})


def _group(title: str, names: Sequence[str]) -> list[str]:
    width = max(map(len, COMMANDS)) + 2
    return ["", f"{title}:", *(f"  {name:<{width}}{COMMANDS[name]}" for name in names)]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("diffusion-objective-bench")
    except PackageNotFoundError:
        return "(bare checkout)"


def _one_line(error: Exception) -> str:
    """On one line; bytes of a name that are not UTF-8 as their escapes."""
    return " ".join(str(error).split()).encode(errors="backslashreplace").decode()


def _let_the_first_process_speak() -> None:
    """Under torchrun all processes meet the same mistake, and torchrun ends the others once the first has said it.

    A process that is still there after that time is alone with its mistake, and says it.
    """
    if os.environ.get("RANK", "0") != "0" and "WORLD_SIZE" in os.environ:
        time.sleep(_OTHERS_WAIT)


def _complain(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
